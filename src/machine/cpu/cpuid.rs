//! The CPU's features, read once, and the control bits that depend on them.

use core::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};

use x86_64::registers::control::{Cr4, Cr4Flags, Efer, EferFlags};

/// CPU features and widths that the kernel depends on (SDM vol. 2, CPUID).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Features {
    /// Pages can be made not executable.
    pub nx: bool,
    /// 1 GiB pages exist.
    pub gigabyte_pages: bool,
    /// The local APIC can be driven through MSRs, with 32-bit ids.
    pub x2apic: bool,
    /// The local APIC timer takes an absolute TSC value.
    pub tsc_deadline: bool,
    /// Machine checks are reported through vector 18.
    pub machine_check: bool,
    /// Their details are in banks of MSRs.
    pub machine_check_banks: bool,
    /// Page attribute table.
    pub pat: bool,
    /// Memory type range registers.
    pub mtrr: bool,
    /// We run under a hypervisor.
    pub hypervisor: bool,
    /// Width of a physical address in bits.
    pub physical_bits: u8,
}

impl Features {
    /// Reads CPUID.
    pub(crate) fn detect() -> Self {
        let basic = __cpuid(1);
        let most_extended = __cpuid(0x8000_0000).eax;
        let extended = |leaf: u32| if leaf <= most_extended { Some(__cpuid(leaf)) } else { None };
        let flags = extended(0x8000_0001).map_or(0, |leaf| leaf.edx);
        Self {
            nx: flags & 1 << 20 != 0,
            gigabyte_pages: flags & 1 << 26 != 0,
            x2apic: basic.ecx & 1 << 21 != 0,
            tsc_deadline: basic.ecx & 1 << 24 != 0,
            machine_check: basic.edx & 1 << 7 != 0,
            machine_check_banks: basic.edx & 1 << 14 != 0,
            pat: basic.edx & 1 << 16 != 0,
            mtrr: basic.edx & 1 << 12 != 0,
            hypervisor: has_hypervisor(),
            physical_bits: extended(0x8000_0008).map_or(36, |leaf| (leaf.eax & 0xFF) as u8).clamp(32, 52),
        }
    }
}

/// `MXCSR` as after a reset: all exceptions masked, rounded to nearest.
const MXCSR: u32 = 0x1F80;

/// Turns on NX and machine checks, which the entry code cannot assume, and sets floating point to the state that
/// compiled code relies on, whatever firmware left.
pub(crate) fn enable(features: &Features) {
    if features.nx {
        // SAFETY: the CPU has NX, and no page table in use has the bit set whose meaning changes.
        unsafe { Efer::update(|efer| efer.insert(EferFlags::NO_EXECUTE_ENABLE)) };
    }
    if features.machine_check {
        // SAFETY: the CPU has machine checks, and vector 18 has a gate with a stack of its own.
        unsafe { Cr4::update(|cr4| cr4.insert(Cr4Flags::MACHINE_CHECK_EXCEPTION)) };
    }
    // SAFETY: both exist on every x86-64 CPU, and the entry code has enabled SSE. Nothing is in their registers yet.
    unsafe { core::arch::asm!("fninit", "ldmxcsr [{}]", in(reg) &MXCSR, options(nostack, preserves_flags)) };
}

/// The CPU's name, as it gives it (CPUID 0x80000002 to 0x80000004), padded with zeros.
pub(crate) fn brand() -> [u8; 48] {
    let mut name = [0; 48];
    if __cpuid(0x8000_0000).eax < 0x8000_0004 {
        return name;
    }
    for (leaf, part) in (0x8000_0002..).zip(name.chunks_exact_mut(16)) {
        let words = __cpuid(leaf);
        for (word, bytes) in [words.eax, words.ebx, words.ecx, words.edx].iter().zip(part.chunks_exact_mut(4)) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }
    name
}

/// A leaf's first subleaf: EAX, EBX, ECX, EDX.
pub(crate) fn leaf(number: u32) -> [u32; 4] {
    let CpuidResult { eax, ebx, ecx, edx } = __cpuid_count(number, 0);
    [eax, ebx, ecx, edx]
}

/// Whether there is an enabled local APIC.
pub(crate) fn has_local_apic() -> bool {
    __cpuid(1).edx & 1 << 9 != 0
}

/// Whether CPUID says that this is a virtual machine.
pub(crate) fn has_hypervisor() -> bool {
    __cpuid(1).ecx & 1 << 31 != 0
}

/// Stops this CPU permanently.
pub(crate) fn halt() -> ! {
    x86_64::instructions::interrupts::disable();
    loop {
        x86_64::instructions::hlt();
    }
}
