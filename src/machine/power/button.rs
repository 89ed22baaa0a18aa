//! The power button: a fixed ACPI event, whose interrupt, the SCI, has a line of its own (ACPI 6.5, 4.8.3.1.1).
//!
//! The line may be shared with PCI, so it is attached like PCI lines: an input that no handler claims is masked before
//! it can storm, and then the button is polled. A button that is not fixed hardware is a device that only AML
//! describes.

use alloc::string::String;
use alloc::vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use derive_more::Display;

use crate::acpi::{Acpi, FadtFlags, Happened, InterruptRoute};
use crate::machine::interrupts::{lines, local_apic, vectors};
use crate::machine::power::acpi_registers::take_acpi_mode;
use crate::machine::power::{POWER, Power};
use ballonet::platform::Handled;

/// How a press is detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub(crate) enum Heard {
    /// It interrupts.
    #[display("by the ACPI interrupt, {_0}")]
    Interrupt(InterruptRoute),
    /// It has no interrupt: its register must be polled.
    #[display("by polling, since its interrupt does not arrive")]
    Look,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub(crate) enum NoButton {
    /// No FADT.
    #[display("there is no FADT")]
    NoFadt,
    /// Hardware-reduced ACPI.
    #[display("ACPI is hardware-reduced, and only AML describes its button")]
    HardwareReduced,
    /// The FADT's flag says so.
    #[display("it is a device that only AML describes")]
    Device,
    /// Firmware keeps the registers.
    #[display("firmware does not hand over its registers")]
    NotHandedOver,
    /// There are no registers, or they do not keep values.
    #[display("its registers do not exist")]
    NoRegisters,
}

static PRESSED: AtomicBool = AtomicBool::new(false);
static PRESSES: AtomicU64 = AtomicU64::new(0);
/// Interrupts by which ACPI reported something.
static INTERRUPTS: AtomicU64 = AtomicU64::new(0);

/// Records presses of the button from now on. Interrupts of the line go to this CPU.
///
/// # Errors
/// When there is no such button.
pub(crate) fn watch(acpi: Option<&Acpi>) -> Result<Heard, NoButton> {
    let acpi = acpi.ok_or(NoButton::NoFadt)?;
    let fadt = acpi.fadt.as_ref().ok_or(NoButton::NoFadt)?;
    if fadt.flags.contains(FadtFlags::HARDWARE_REDUCED) {
        return Err(NoButton::HardwareReduced);
    }
    if fadt.flags.contains(FadtFlags::NO_FIXED_POWER_BUTTON) {
        return Err(NoButton::Device);
    }
    POWER.with(|power| power.as_mut().ok_or(NoButton::NoFadt).and_then(Power::watch_button))?;
    let route = acpi.madt.as_ref().map(|madt| madt.sci(fadt.sci_interrupt));
    Ok(route.filter(|&route| attach(route)).map_or(Heard::Look, Heard::Interrupt))
}

fn attach(route: InterruptRoute) -> bool {
    let id = u8::try_from(local_apic::id()).unwrap_or(0);
    lines::attach_to(vec![route], id, String::from("acpi"), vectors::Handler::new(interrupt)).is_ok()
}

fn interrupt() -> Handled {
    if !look() {
        return Handled::No;
    }
    INTERRUPTS.fetch_add(1, Ordering::Relaxed);
    Handled::Yes
}

/// How many interrupts have reported something.
pub(crate) fn interrupts() -> u64 {
    INTERRUPTS.load(Ordering::Relaxed)
}

impl Power {
    fn watch_button(&mut self) -> Result<(), NoButton> {
        if !take_acpi_mode(&self.fadt, &self.registers) {
            return Err(NoButton::NotHandedOver);
        }
        let events = self.registers.events.as_mut().ok_or(NoButton::NoRegisters)?;
        if events.watch_power_button() { Ok(()) } else { Err(NoButton::NoRegisters) }
    }
}

/// Reads the event registers. Returns whether ACPI had requested an interrupt.
pub(crate) fn look() -> bool {
    let events = |power: &mut Option<Power>| Some(power.as_mut()?.registers.events.as_mut()?.take());
    // While the kernel ends, the registers are not read.
    let Happened { claimed, power_button } = POWER.try_with(events).flatten().unwrap_or_default();
    if power_button {
        PRESSES.fetch_add(1, Ordering::Relaxed);
        PRESSED.store(true, Ordering::Release);
    }
    claimed
}

/// Whether the button was pressed since the last call of [`take_pressed`].
pub(crate) fn is_pressed() -> bool {
    PRESSED.load(Ordering::Acquire)
}

/// Whether the button was pressed since the last call.
pub(crate) fn take_pressed() -> bool {
    PRESSED.swap(false, Ordering::Acquire)
}

/// How often it was pressed.
pub(crate) fn presses() -> u64 {
    PRESSES.load(Ordering::Relaxed)
}
