//! The current CPU's local APIC, at the same address on each CPU: through MSRs in x2APIC mode if the CPU offers it,
//! else through memory.

pub(crate) mod setup;

use core::sync::atomic::{AtomicU64, Ordering};

use spin::Once;
use volatile::VolatilePtr;
use x86_64::instructions::interrupts::without_interrupts;
use x86_64::registers::model_specific::Msr;

use crate::machine::cpu::msr;
use crate::machine::time::tsc;

/// First MSR of the x2APIC: register offset / 16 is added (SDM vol. 3, 12.12.1.2).
const X2APIC_MSR: u32 = 0x800;

/// Registers by their offset in memory (SDM vol. 3, table 12-1).
#[derive(Clone, Copy)]
#[repr(u16)]
enum Register {
    Id = 0x20,
    Version = 0x30,
    TaskPriority = 0x80,
    EndOfInterrupt = 0xB0,
    SpuriousVector = 0xF0,
    InService = 0x100,
    ErrorStatus = 0x280,
    CommandLow = 0x300,
    CommandHigh = 0x310,
    LvtTimer = 0x320,
    LvtThermal = 0x330,
    LvtPerformance = 0x340,
    LvtLint0 = 0x350,
    LvtLint1 = 0x360,
    LvtError = 0x370,
    TimerInitial = 0x380,
    TimerCurrent = 0x390,
    TimerDivide = 0x3E0,
}

/// LVT: masked.
const MASKED: u32 = 1 << 16;
/// LVT and command register, delivery mode: NMI.
const DELIVER_NMI: u32 = 4 << 8;
/// Command register, delivery mode: INIT.
const DELIVER_INIT: u32 = 5 << 8;
/// Command register, delivery mode: startup.
const DELIVER_STARTUP: u32 = 6 << 8;
/// Command register: the level is asserted, as for everything except an INIT de-assert.
const ASSERT: u32 = 1 << 14;
/// Command register in xAPIC mode: the last command has not been accepted yet.
const SEND_PENDING: u32 = 1 << 12;
/// How long that may last, in TSC ticks: some ms.
const SEND_PATIENCE: u64 = 10_000_000;

/// The APIC ID that means every CPU, in x2APIC mode.
pub(crate) const EVERYBODY: u32 = u32::MAX;
/// The same in xAPIC mode, and in messages of devices.
pub(crate) const EVERYBODY_XAPIC: u32 = 0xFF;

/// Command register: to the CPU that writes it.
#[cfg(feature = "test-image")]
const TO_SELF: u32 = 1 << 18;
/// LVT timer mode: the TSC's value in `IA32_TSC_DEADLINE`.
const TSC_DEADLINE: u32 = 2 << 17;
/// Task priority that blocks only the vectors of exceptions. The APIC delivers vectors from 16 on, which the CPU cannot
/// tell from exceptions, and a device may put any vector into its message.
const NO_EXCEPTIONS: u32 = 0x10;
/// Divide configuration: by 16.
const DIVIDE_BY_16: u32 = 0b0011;

/// How the registers are reached.
#[derive(Clone, Copy)]
enum Registers {
    Msr,
    /// The address of the register page's mapping.
    Memory(u64),
}

impl Registers {
    fn read(self, register: Register) -> u32 {
        self.read_word(register, 0)
    }

    /// Reads a word of a register that has several, 16 bytes apart.
    fn read_word(self, register: Register, word: u32) -> u32 {
        let offset = register as u32 + 16 * word;
        match self {
            // SAFETY: the CPU is in x2APIC mode, and these registers can be read there.
            Self::Msr => unsafe { Msr::new(X2APIC_MSR + offset / 16).read() as u32 },
            Self::Memory(base) => {
                let pointer = core::ptr::NonNull::new((base + u64::from(offset)) as *mut u32);
                // SAFETY: the register page is mapped, uncached permanently.
                pointer.map_or(0, |pointer| unsafe { VolatilePtr::new(pointer).read() })
            }
        }
    }

    fn write(self, register: Register, value: u32) {
        match self {
            // SAFETY: the CPU is in x2APIC mode; the callers in this file write valid values only, and interrupts that
            // follow have gates.
            Self::Msr => unsafe { Msr::new(X2APIC_MSR + register as u32 / 16).write(u64::from(value)) },
            Self::Memory(base) => {
                if let Some(pointer) = core::ptr::NonNull::new((base + register as u64) as *mut u32) {
                    // SAFETY: the register page is mapped, uncached permanently; values as above.
                    unsafe { VolatilePtr::new(pointer).write(value) }
                }
            }
        }
    }
}

static REGISTERS: Once<Registers> = Once::new();
static ERRORS: AtomicU64 = AtomicU64::new(0);

fn registers() -> Registers {
    match REGISTERS.get() {
        Some(&registers) => registers,
        None => panic!("the local APIC is used before it is set up"),
    }
}

/// The highest-priority vector in service.
pub(crate) fn in_service() -> Option<u8> {
    let registers = registers();
    let word_of = |word: u32| (word, registers.read_word(Register::InService, word));
    let (word, bits) = (0..8).rev().map(word_of).find(|&(_, bits)| bits != 0)?;
    u8::try_from(32 * word + bits.ilog2()).ok()
}

/// Acknowledges every interrupt in service whose handler will never do so.
pub(crate) fn end_all_interrupts() {
    // There are 256 vectors, and each is in service once at most.
    for _ in 0..256 {
        if in_service().is_none() {
            break;
        }
        end_of_interrupt();
    }
}

/// Sends this CPU an interrupt.
#[cfg(feature = "test-image")]
pub(crate) fn send_to_self(vector: u8) {
    command(u32::from(vector) | TO_SELF, 0);
}

/// Sends this CPU an NMI. By its id, since the *self* shorthand is not valid for NMIs (SDM vol. 3, table 12-3).
pub(crate) fn send_nmi_to_self() {
    send_nmi(id());
}

/// Sends the CPU with this APIC id an interrupt.
pub(crate) fn send(target: u32, vector: u8) {
    command(u32::from(vector) | ASSERT, target);
}

/// Sends the CPU with this APIC id an NMI.
pub(crate) fn send_nmi(target: u32) {
    command(DELIVER_NMI | ASSERT, target);
}

/// Sends the CPU with this APIC id an INIT: it stops, and waits for a startup IPI.
pub(crate) fn send_init(target: u32) {
    command(DELIVER_INIT | ASSERT, target);
}

/// Sends the CPU with this APIC id a startup IPI: if it waits for one, it begins in real mode at page `page`.
pub(crate) fn send_startup(target: u32, page: u8) {
    command(DELIVER_STARTUP | ASSERT | u32::from(page), target);
}

/// The interrupt command register's value in x2APIC mode (SDM vol. 3, figure 12-28). `target` is an APIC id.
const fn command_x2apic(low: u32, target: u32) -> u64 {
    (target as u64) << 32 | low as u64
}

/// The upper half of the interrupt command register in xAPIC mode (SDM vol. 3, figure 12-12). `target` is an APIC id of
/// 8 bits.
const fn command_xapic_high(target: u32) -> u32 {
    target << 24
}

/// Writes the interrupt command register; `target` is an APIC id.
fn command(low: u32, target: u32) {
    match registers() {
        // SAFETY: the CPU is in x2APIC mode, where the register has 64 bits; all vectors have gates. The write is not
        // ordered after earlier stores (SDM vol. 3, 12.12.3), which the target must see: the fences order it.
        Registers::Msr => unsafe {
            core::arch::x86_64::_mm_mfence();
            core::arch::x86_64::_mm_lfence();
            Msr::new(X2APIC_MSR + Register::CommandLow as u32 / 16).write(command_x2apic(low, target));
        },
        // An interrupt handler may send, too, and must not come between the two halves.
        registers @ Registers::Memory(_) => without_interrupts(|| {
            wait_until_sent(registers);
            registers.write(Register::CommandHigh, command_xapic_high(target));
            registers.write(Register::CommandLow, low);
        }),
    }
}

/// Waits until the last command has been accepted, which takes some µs on a working machine.
fn wait_until_sent(registers: Registers) {
    let start = tsc::now();
    while registers.read(Register::CommandLow) & SEND_PENDING != 0 {
        if tsc::now().saturating_sub(start) > SEND_PATIENCE {
            return;
        }
        core::hint::spin_loop();
    }
}

/// Whether the registers are reached through MSRs.
pub(crate) fn is_x2apic() -> bool {
    matches!(REGISTERS.get(), Some(Registers::Msr))
}

/// This CPU's APIC id: 32 bits in x2APIC mode, else 8.
pub(crate) fn id() -> u32 {
    let registers = registers();
    let id = registers.read(Register::Id);
    if matches!(registers, Registers::Msr) { id } else { id >> 24 }
}

/// Acknowledges the interrupt in service.
pub(crate) fn end_of_interrupt() {
    registers().write(Register::EndOfInterrupt, 0);
}

/// Keeps interrupts up to the priority of `vector` pending, and those with the same upper four bits.
pub(crate) fn hold_up_to(vector: u8) {
    registers().write(Register::TaskPriority, u32::from(vector | 0xF));
}

/// Lets interrupts of all priorities in again, except those that would look like exceptions.
pub(crate) fn hold_none() {
    registers().write(Register::TaskPriority, NO_EXCEPTIONS);
}

/// Counts an error interrupt.
pub(crate) fn note_error() {
    let registers = registers();
    registers.write(Register::ErrorStatus, 0);
    ERRORS.fetch_add(u64::from(registers.read(Register::ErrorStatus) != 0), Ordering::Relaxed);
}

/// How many errors the APIC has reported.
pub(crate) fn errors() -> u64 {
    ERRORS.load(Ordering::Relaxed)
}

/// Counts the timer down from `ticks` of its clock divided by 16; at 0 it raises `vector`. 0 stops it.
pub(crate) fn start_countdown(ticks: u32, vector: u8) {
    let registers = registers();
    registers.write(Register::TimerDivide, DIVIDE_BY_16);
    registers.write(Register::LvtTimer, u32::from(vector));
    registers.write(Register::TimerInitial, ticks);
}

/// Lets the timer run down from its maximum, masked, for calibration.
pub(crate) fn start_measuring() {
    let registers = registers();
    registers.write(Register::TimerDivide, DIVIDE_BY_16);
    registers.write(Register::LvtTimer, MASKED);
    registers.write(Register::TimerInitial, u32::MAX);
}

/// Ticks since [`start_measuring`].
pub(crate) fn measured() -> u32 {
    u32::MAX - registers().read(Register::TimerCurrent)
}

/// Prepares the timer to be armed by [`set_deadline`].
pub(crate) fn use_deadlines(vector: u8) {
    registers().write(Register::LvtTimer, TSC_DEADLINE | u32::from(vector));
    // The mode must have taken effect before a deadline is written (SDM vol. 3, 12.5.4.1).
    core::sync::atomic::fence(Ordering::SeqCst);
}

/// `IA32_TSC_DEADLINE` (SDM vol. 3, 12.5.4.1).
const TSC_DEADLINE_MSR: u32 = 0x6E0;

/// Whether the register of deadlines can be written, as CPUID announces: a hypervisor may lack it. Disarms the timer.
pub(crate) fn accepts_deadlines() -> bool {
    // SAFETY: a deadline of 0 disarms the timer.
    unsafe { msr::write(TSC_DEADLINE_MSR, 0) }
}

/// Raises `vector` when the TSC reaches `tsc`; 0 disarms.
pub(crate) fn set_deadline(tsc: u64) {
    // SAFETY: only called if `accepts_deadlines` holds, once `use_deadlines` has chosen the timer's mode.
    unsafe { Msr::new(TSC_DEADLINE_MSR).write(tsc) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_name_the_cpu_by_as_many_bits_as_the_mode_has() {
        assert_eq!(command_x2apic(DELIVER_STARTUP | ASSERT | 0x9F, 0x1_0203), 0x0001_0203_0000_469F);
        assert_eq!(command_x2apic(DELIVER_INIT | ASSERT, 0xFFFF_FFFE), 0xFFFF_FFFE_0000_4500);
        assert_eq!(command_x2apic(DELIVER_NMI | ASSERT, 256), 0x0000_0100_0000_4400);
        assert_eq!(command_xapic_high(0xFE), 0xFE00_0000);
    }
}
