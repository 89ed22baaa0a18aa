//! Model-specific registers: existing ones can be read, and access to missing ones fails without harm.

use crate::machine::memory_types::PAGE_ATTRIBUTES;
use crate::machine::smp::Cpu;
use crate::machine::{local_apic, msr};

use crate::tests::suite::{Skip, Test, kernel_test, tests};

pub(super) const TESTS: &[Test] =
    tests![one_that_is_there_is_read, a_read_that_faults_is_survived, a_write_that_faults_is_survived,];

/// A reserved register in the x2APIC range (SDM vol. 3, table 12-6).
const RESERVED_APIC: u32 = 0x801;
/// `IA32_PKRS`, whose upper half is reserved, on CPUs that have it (SDM vol. 4, table 2-2).
const PKRS: u32 = 0x6E1;
/// `IA32_PAT` (SDM vol. 4, table 2-2).
const PAT: u32 = 0x277;
/// `IA32_APIC_BASE`, likewise.
const APIC_BASE: u32 = 0x1B;

kernel_test! {
    fn one_that_is_there_is_read(context) {
        let base = msr::read(APIC_BASE).expect("every x86-64 CPU has it");
        assert_eq!(base & 1 << 8 != 0, local_apic::setup::is_boot_cpu());
        if context.machine.features.pat {
            assert_eq!(msr::read(PAT), Some(PAGE_ATTRIBUTES));
        }
    }
}

kernel_test! {
    fn a_read_that_faults_is_survived() {
        if !local_apic::is_x2apic() {
            return Err(Skip::because("without x2APIC mode no register is known that QEMU faults for"));
        }
        let before = faults();
        assert_eq!(msr::read(RESERVED_APIC), None);
        assert_eq!(faults(), before + 1, "the read should fault");
    }
}

kernel_test! {
    fn a_write_that_faults_is_survived() {
        let before = faults();
        // SAFETY: no CPU accepts the value: a CPU without the register faults, and one with it does too, since half
        // of these bits are reserved.
        let taken = unsafe { msr::write(PKRS, u64::MAX) };
        assert!(!taken, "reserved bits were accepted");
        assert_eq!(faults(), before + 1, "the write should fault");
    }
}

/// Number of general protection faults on this CPU.
fn faults() -> u64 {
    Cpu::this().counted(13)
}
