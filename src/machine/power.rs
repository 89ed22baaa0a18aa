//! The end: out of QEMU with a status, power off, or start again.

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::interrupts;
use x86_64::instructions::port::{Port, PortWriteOnly};
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

use super::{cpu, log};
use crate::acpi::{Acpi, AddressSpace, Fadt, GenericAddress, SleepType};

/// How the kernel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// As it should.
    Success,
    /// By a fault, a panic or a failed check.
    Failure,
}

/// Port of QEMU's `isa-debug-exit`. QEMU ends with the value written, times 2, plus 1.
const DEBUG_EXIT: u16 = 0xF4;

impl ExitStatus {
    /// QEMU's exit status for it.
    pub const fn qemu_status(self) -> u8 {
        match self {
            Self::Success => 33,
            Self::Failure => 35,
        }
    }
}

/// How firmware says that the machine is switched off and reset.
struct Registers {
    fadt: Fadt,
    soft_off: Option<SleepType>,
}

static REGISTERS: Once<Registers> = Once::new();

/// Notes what ACPI says about power.
pub fn initialise(acpi: &Acpi) {
    if let Some(fadt) = acpi.fadt {
        REGISTERS.call_once(|| Registers { fadt, soft_off: acpi.soft_off });
    }
}

/// Ends the kernel: by `isa-debug-exit` where there is one, else by ACPI power-off, else by standing still.
pub fn exit(status: ExitStatus) -> ! {
    interrupts::disable();
    log::emit("exit", |line| {
        line.number("status", status.qemu_status().into());
    });
    let value = u32::from(status.qemu_status() >> 1);
    // SAFETY: QEMU's exit device, or a port that nothing answers at.
    unsafe { PortWriteOnly::<u32>::new(DEBUG_EXIT).write(value) };
    // QEMU 10 lets the CPU go on for a moment after the write.
    wait();
    soft_off();
    log::line(format_args!("It is now safe to turn the machine off."));
    cpu::halt_for_ever()
}

/// PM1 control: sleep enable, and where the sleep type goes (ACPI 6.5, 4.8.3.2.1).
const SLEEP_ENABLE: u16 = 1 << 13;
const SLEEP_TYPE_SHIFT: u16 = 10;
/// PM1 control: all bits of the sleep type.
const SLEEP_TYPE: u16 = 7 << SLEEP_TYPE_SHIFT;
/// PM1 control: ACPI mode is on.
const SCI_ENABLE: u16 = 1;
/// Sleep control register of hardware-reduced machines: sleep enable, and where the type goes (4.8.3.7).
const REDUCED_SLEEP_ENABLE: u8 = 1 << 5;
const REDUCED_SLEEP_TYPE_SHIFT: u8 = 2;

/// Switches the machine off by ACPI, where it says how.
fn soft_off() {
    let Some(Registers { fadt, soft_off: Some(sleep) }) = REGISTERS.get() else { return };
    if let Some(register) = fadt.sleep_control {
        write8(register, sleep.a << REDUCED_SLEEP_TYPE_SHIFT | REDUCED_SLEEP_ENABLE);
    }
    take_acpi_mode(fadt);
    for (register, kind) in [(fadt.pm1a_control, sleep.a), (fadt.pm1b_control, sleep.b)] {
        if let Some(mut port) = register.and_then(port16) {
            // SAFETY: the FADT says that this is a PM1 control register; what else it holds is kept.
            unsafe {
                let kept = port.read() & !(SLEEP_TYPE | SLEEP_ENABLE);
                port.write(kept | u16::from(kind) << SLEEP_TYPE_SHIFT | SLEEP_ENABLE);
            }
        }
    }
    wait();
}

/// Asks firmware to hand over the power registers, where it still has them (4.8.2.5).
fn take_acpi_mode(fadt: &Fadt) {
    let Some(mut control) = fadt.pm1a_control.and_then(port16) else { return };
    let Some(command) = fadt.smi_command.filter(|command| command.enable != 0) else { return };
    let Ok(port) = u16::try_from(command.port) else { return };
    // SAFETY: the FADT says so: reading control has no effect, and this byte asks for ACPI mode.
    unsafe {
        if control.read() & SCI_ENABLE == 0 {
            PortWriteOnly::<u8>::new(port).write(command.enable);
            wait();
        }
    }
}

/// Starts the machine again: by ACPI's reset register, the chipset's, the keyboard controller's, or a triple fault.
pub fn reboot() -> ! {
    interrupts::disable();
    if let Some(reset) = REGISTERS.get().and_then(|registers| registers.fadt.reset) {
        write8(reset.register, reset.value);
        wait();
    }
    // SAFETY: the reset control register of every PCI chipset (hard reset, then go); the keyboard controller's pulse on
    // the reset line. Where neither exists the writes go nowhere.
    unsafe {
        let mut control = PortWriteOnly::<u8>::new(0xCF9);
        control.write(0x02);
        control.write(0x06);
        wait();
        PortWriteOnly::<u8>::new(0x64).write(0xFE);
        wait();
        // With no gate at all the next exception cannot be delivered, nor the one after it.
        lidt(&DescriptorTablePointer { limit: 0, base: VirtAddr::zero() });
        core::arch::asm!("int3", options(noreturn));
    }
}

fn port16(register: GenericAddress) -> Option<Port<u16>> {
    let port = u16::try_from(register.address).ok().filter(|_| register.space == AddressSpace::Io)?;
    Some(Port::new(port))
}

/// Writes a byte where firmware said.
fn write8(register: GenericAddress, value: u8) {
    match register.space {
        AddressSpace::Io => {
            if let Ok(port) = u16::try_from(register.address) {
                // SAFETY: the FADT says that this port takes this value.
                unsafe { PortWriteOnly::<u8>::new(port).write(value) };
            }
        }
        AddressSpace::Memory => super::poke8(register.address, value),
        AddressSpace::PciConfig | AddressSpace::Other(_) => {}
    }
}

/// Gives the hardware some 10 ms to act, without relying on any clock.
fn wait() {
    for _ in 0..10_000 {
        // SAFETY: port 0x80 is free for diagnostics on every PC; a write takes about 1 µs.
        unsafe { PortWriteOnly::<u8>::new(0x80).write(0) };
    }
}
