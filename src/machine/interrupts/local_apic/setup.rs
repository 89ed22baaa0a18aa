//! Turns the local APIC of a CPU on.

use derive_more::Display;
use spin::Once;

use super::{DELIVER_NMI, MASKED, NO_EXCEPTIONS, REGISTERS, Register, Registers, end_all_interrupts, registers};
use crate::acpi::{LocalNmi, Madt, NmiTarget};
use crate::machine::cpu::cpuid::{self, Features};
use crate::machine::cpu::msr;
use crate::machine::interrupts::numbers;
use crate::machine::memory::frames;
use crate::machine::paging::{self, Access, PagingError};

const APIC_BASE: u32 = 0x1B;
/// `IA32_APIC_BASE`: the APIC is on.
const ENABLE: u64 = 1 << 11;
/// `IA32_APIC_BASE`: x2APIC mode.
const EXTENDED: u64 = 1 << 10;
/// `IA32_APIC_BASE`: the physical address.
const BASE_ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// Spurious vector register: the APIC is enabled by software.
const SOFTWARE_ENABLE: u32 = 1 << 8;

/// Where the boot CPU's registers are in xAPIC mode: the other CPUs' registers are put there, too.
static PLACE: Once<u64> = Once::new();
/// The inputs that are wired to NMI on every CPU, LINT0 and LINT1.
static NMI_INPUTS: Once<[bool; 2]> = Once::new();

/// Why no local APIC can be used.
#[derive(Debug, Display)]
pub(crate) enum LocalApicError {
    /// The CPU has none, or firmware turned it off permanently.
    #[display("this CPU has none, or none that can be turned on; nothing could interrupt")]
    Absent,
    /// Its registers cannot be mapped.
    #[display("{_0}")]
    Mapping(PagingError),
}

/// Turns the local APIC of the boot CPU on: x2APIC mode where offered, all local interrupts masked but NMI.
///
/// # Errors
/// When there is none, or its registers cannot be mapped.
pub(crate) fn initialise(features: &Features, madt: Option<&Madt>) -> Result<(), LocalApicError> {
    let (address, is_extended) = turn_on(features, None).ok_or(LocalApicError::Absent)?;
    PLACE.call_once(|| address);
    let registers = if is_extended {
        Registers::Msr
    } else {
        // The CPU itself knows where its APIC is; the MADT only repeats it.
        let page = paging::with(|space| space.open_window(address, 4096, Access::Device, &mut frames::ForTables))
            .map_err(LocalApicError::Mapping)?;
        Registers::Memory(page.as_ptr() as u64)
    };
    REGISTERS.call_once(|| registers);
    let is_nmi = |lint| {
        let is_it = |nmi: &LocalNmi| nmi.lint == lint && nmi.target == NmiTarget::All;
        madt.is_some_and(|madt| madt.local_nmis.iter().any(is_it))
    };
    NMI_INPUTS.call_once(|| [is_nmi(0), is_nmi(1)]);
    prepare(registers);
    Ok(())
}

/// Turns the local APIC of another CPU on, in the same way.
pub(crate) fn enable(features: &Features) {
    turn_on(features, PLACE.get().copied());
    prepare(registers());
}

/// Turns the APIC on, in x2APIC mode if possible. Otherwise its registers are at `place`, or stay where they are.
/// Returns their address, and whether it is in x2APIC mode; `None` if there is no APIC.
fn turn_on(features: &Features, place: Option<u64>) -> Option<(u64, bool)> {
    let value = msr::read(APIC_BASE)?;
    let address = place.unwrap_or(value & BASE_ADDRESS);
    // A CPU that is in x2APIC mode already stays there: leaving it takes a reset.
    let mut is_extended = value & EXTENDED != 0;
    if features.x2apic && !is_extended {
        let (on, extended) = (value | ENABLE, value | ENABLE | EXTENDED);
        // SAFETY: the CPU offers x2APIC; from xAPIC mode (enabled) this step is the documented one.
        is_extended = unsafe { msr::write(APIC_BASE, on) && msr::write(APIC_BASE, extended) };
    }
    if !is_extended {
        // SAFETY: enables the APIC at its own address, which changes nothing if it is enabled, or at the boot CPU's,
        // which the kernel has mapped.
        unsafe { msr::write(APIC_BASE, value & !BASE_ADDRESS | address | ENABLE) };
    }
    // CPUID hides an APIC that is off.
    cpuid::has_local_apic().then_some((address, is_extended))
}

/// Masks all local interrupts except NMI, and enables delivery.
fn prepare(registers: Registers) {
    registers.write(Register::TaskPriority, NO_EXCEPTIONS);
    // While the APIC is disabled, as after an INIT, no entry below can be unmasked (SDM vol. 3, 12.4.7.2).
    registers.write(Register::SpuriousVector, SOFTWARE_ENABLE | u32::from(numbers::SPURIOUS));
    let entries = registers.read(Register::Version) >> 16 & 0xFF;
    for (index, register) in [
        (0, Register::LvtTimer),
        (1, Register::LvtLint0),
        (2, Register::LvtLint1),
        (4, Register::LvtPerformance),
        (5, Register::LvtThermal),
    ] {
        if index <= entries {
            registers.write(register, MASKED);
        }
    }
    let inputs = NMI_INPUTS.get().copied().unwrap_or_default();
    for (is_nmi, register) in inputs.into_iter().zip([Register::LvtLint0, Register::LvtLint1]) {
        if is_nmi {
            registers.write(register, DELIVER_NMI);
        }
    }
    registers.write(Register::LvtError, u32::from(numbers::APIC_ERROR));
    // An interrupt that firmware left in service would block all of its priority and below.
    end_all_interrupts();
}

/// Whether this is the bootstrap processor.
#[cfg(feature = "test-image")]
pub(crate) fn is_boot_cpu() -> bool {
    /// `IA32_APIC_BASE`: the bootstrap processor.
    const BOOTSTRAP: u64 = 1 << 8;
    msr::read(APIC_BASE).is_none_or(|base| base & BOOTSTRAP != 0)
}
