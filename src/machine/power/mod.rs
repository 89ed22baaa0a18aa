//! How the kernel ends: exit from QEMU with a status, power off, or reset.

mod acpi_registers;
pub(crate) mod button;
mod ways_out;

use x86_64::VirtAddr;
use x86_64::instructions::interrupts;
use x86_64::instructions::port::{Port, PortWriteOnly};
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

use crate::acpi::{Acpi, Fadt, SleepType};
use crate::console::events;
use crate::machine::cpu::cpuid;
use crate::machine::lock::Lock;
use crate::machine::power::acpi_registers::{PowerRegisters, ResetPlace, take_acpi_mode};
use crate::machine::power::ways_out::WayOut;
use crate::machine::terminal::{log, screen};
use crate::machine::time::clock::wait_some_ms;
use ballonet::platform::Registers;

/// How the kernel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// With success.
    Success,
    /// By a fault, a panic or a failed check.
    Failure,
}

/// Port of QEMU's `isa-debug-exit`. QEMU ends with the value written, times 2, plus 1.
#[doc(hidden)]
pub const DEBUG_EXIT: u16 = 0xF4;

impl ExitStatus {
    /// QEMU's exit status for it.
    pub(crate) const fn qemu_status(self) -> u8 {
        match self {
            Self::Success => 33,
            Self::Failure => 35,
        }
    }

    /// The value that QEMU's `isa-debug-exit` takes for it.
    #[doc(hidden)]
    pub(crate) const fn debug_exit_value(self) -> u32 {
        self.qemu_status() as u32 >> 1
    }
}

/// How to switch the machine off and reset it, by ACPI.
pub(crate) struct Power {
    pub(crate) fadt: Fadt,
    soft_off: Option<SleepType>,
    pub(crate) registers: PowerRegisters,
}

pub(crate) static POWER: Lock<Option<Power>> = Lock::new(None);

/// Stores what ACPI says about power.
pub(crate) fn initialise(acpi: &Acpi) {
    if let Some(fadt) = acpi.fadt {
        let power = Power { fadt, soft_off: acpi.soft_off, registers: PowerRegisters::open(acpi) };
        POWER.with(|slot| *slot = Some(power));
    }
}

/// Ends the kernel by the ways of [`WayOut::to_end`], else halts. The status is on the serial line before.
pub(crate) fn exit(status: ExitStatus) -> ! {
    interrupts::disable();
    log::emit(&events::Exit { status: status.qemu_status().into() });
    screen::flush();
    log::drain(PATIENCE);
    let ways = WayOut::to_end(status, cpuid::has_hypervisor()).iter().copied().filter(|way| is_there(*way));
    for way in ways {
        if way.is_reset() {
            announce_reset(way);
        }
        take(way, status);
    }
    log::line(format_args!("It is now safe to turn the machine off."));
    screen::flush();
    cpuid::halt()
}

/// Logs that the machine is ended by a reset.
fn announce_reset(way: WayOut) {
    ::log::info!("the virtual machine is still on: it is ended by {way}");
    screen::flush();
    log::drain(PATIENCE);
}

/// Whether a way out may work. For most, only trying shows that.
fn is_there(way: WayOut) -> bool {
    let knows = |find: fn(&Power) -> bool| POWER.try_with(|power| power.as_ref().is_some_and(find)).unwrap_or(false);
    match way {
        WayOut::SoftOff => knows(|power| power.soft_off.is_some()),
        WayOut::ResetRegister => knows(|power| power.registers.reset.is_some()),
        _ => true,
    }
}

/// Tries a way out. Returns if it does not work.
fn take(way: WayOut, status: ExitStatus) {
    // The holder of the lock was about to end the kernel too, or never runs again.
    let with_power = |take: fn(&mut Power)| POWER.try_with(|power| power.as_mut().map(take));
    match way {
        WayOut::DebugExit => debug_exit(status),
        WayOut::SoftOff => {
            with_power(Power::switch_off);
        }
        WayOut::KeyboardController => pulse_reset_line(),
        WayOut::ResetRegister => {
            with_power(Power::reset);
        }
        WayOut::Chipset => reset_by_chipset(),
        WayOut::TripleFault => triple_fault(),
    }
}

/// Hands the status to QEMU's exit device.
fn debug_exit(status: ExitStatus) {
    // SAFETY: QEMU's exit device, or an unused port of a virtual machine.
    unsafe { PortWriteOnly::<u32>::new(DEBUG_EXIT).write(status.debug_exit_value()) };
    // QEMU 10 lets the CPU run for a moment after the write.
    wait_some_ms(10);
    if status == ExitStatus::Failure {
        ::log::error!(
            "there is no isa-debug-exit at port {DEBUG_EXIT:#x} to take a status: the virtual machine is switched off as \
             after a success, and only this line says that it failed"
        );
    }
}

/// The longest wait for the last bytes on the serial line, which the end of the machine would cut off, in nanoseconds.
/// A full FIFO takes 1.4 ms at full speed.
const PATIENCE: u64 = 200_000_000;

/// How long a VMM may take to switch off, in ms: a reset must not come before that.
const SLOW_MS: u32 = 200;

/// PM1 control: sleep enable, and where the sleep type goes (ACPI 6.5, 4.8.3.2.1).
const SLEEP_ENABLE: u16 = 1 << 13;
const SLEEP_TYPE_SHIFT: u16 = 10;
/// PM1 control: all bits of the sleep type.
const SLEEP_TYPE: u16 = 7 << SLEEP_TYPE_SHIFT;
/// Sleep control register of hardware-reduced machines: sleep enable, and where the type goes (4.8.3.7).
const REDUCED_SLEEP_ENABLE: u8 = 1 << 5;
const REDUCED_SLEEP_TYPE_SHIFT: u8 = 2;

impl Power {
    /// Switches the machine off, if ACPI says how. Returns if the machine stays on.
    fn switch_off(&mut self) {
        let Some(sleep) = self.soft_off else { return };
        if let Some(register) = &mut self.registers.sleep_control {
            register.write8(0, sleep.a << REDUCED_SLEEP_TYPE_SHIFT | REDUCED_SLEEP_ENABLE);
            wait_some_ms(SLOW_MS);
        }
        if self.registers.control.iter().all(Option::is_none) {
            return;
        }
        take_acpi_mode(&self.fadt, &self.registers);
        // A pending event could wake the machine at once.
        if let Some(events) = &mut self.registers.events {
            events.silence();
        }
        // First the type, then the type with the sleep-enable bit: not all chipsets accept both at once.
        for enable in [0, SLEEP_ENABLE] {
            for (register, kind) in self.registers.control.iter_mut().zip([sleep.a, sleep.b]) {
                if let Some(control) = register {
                    let kept = control.read16(0) & !(SLEEP_TYPE | SLEEP_ENABLE);
                    control.write16(0, kept | u16::from(kind) << SLEEP_TYPE_SHIFT | enable);
                }
            }
        }
        wait_some_ms(SLOW_MS);
    }

    /// Resets the machine by ACPI's register, if there is one.
    fn reset(&mut self) {
        match &mut self.registers.reset {
            Some((ResetPlace::Window(register), value)) => register.write8(0, *value),
            Some((ResetPlace::Config(select, byte), value)) => {
                // SAFETY: the FADT says that this chipset register takes this value; code interrupted during an access
                // to configuration space never continues.
                unsafe {
                    PortWriteOnly::<u32>::new(0xCF8).write(*select);
                    PortWriteOnly::<u8>::new(0xCFC + *byte).write(*value);
                }
            }
            None => return,
        }
        wait_some_ms(10);
    }
}

/// Starts the machine again.
pub(crate) fn reboot() -> ! {
    interrupts::disable();
    for way in WayOut::TO_REBOOT {
        take(way, ExitStatus::Success);
    }
    cpuid::halt()
}

/// Resets by the chipset's reset control register, if there is one.
fn reset_by_chipset() {
    // SAFETY: the reset control register of every PCI chipset (hard reset, then go). Without one, the writes have no
    // effect.
    unsafe {
        let mut control = PortWriteOnly::<u8>::new(0xCF9);
        control.write(0x02);
        control.write(0x06);
    }
    wait_some_ms(10);
}

fn triple_fault() -> ! {
    // SAFETY: with no gate at all the next exception cannot be delivered, nor the one after it, which resets the CPU.
    unsafe {
        lidt(&DescriptorTablePointer { limit: 0, base: VirtAddr::zero() });
        core::arch::asm!("int3", options(noreturn));
    }
}

/// Makes the keyboard controller pulse the reset line, once it accepts commands.
fn pulse_reset_line() {
    /// The controller has not accepted the last command yet.
    const BUSY: u8 = 1 << 1;
    // SAFETY: the keyboard controller's command port; reading it has no effect. Without a controller, ones are read and
    // the write has no effect.
    unsafe {
        let mut port = Port::<u8>::new(0x64);
        for _ in 0..10 {
            if port.read() & BUSY == 0 {
                break;
            }
            wait_some_ms(1);
        }
        port.write(0xFE);
    }
    wait_some_ms(10);
}
