//! Optional model-specific registers. A CPU or hypervisor may lack one even if CPUID announces it; an access then
//! raises a general protection fault (SDM vol. 2, RDMSR), which this module turns into an error.
//!
//! The two instructions are at known addresses, in functions of their own; on a fault there the trap handler resumes at
//! the function's failure path.

use core::arch::global_asm;

use crate::machine::interrupts::frame::TrapFrame;

/// General protection.
const VECTOR: u64 = 13;

unsafe extern "C" {
    /// Reads register `number` into `value`. Returns 1, or 0 if it cannot be read.
    fn ballonet_read_msr(number: u32, value: *mut u64) -> u32;
    /// Writes `value` to register `number`. Returns 1, or 0 if it cannot be written.
    fn ballonet_write_msr(number: u32, value: u64) -> u32;
    static ballonet_rdmsr: u8;
    static ballonet_wrmsr: u8;
    static ballonet_msr_failed: u8;
}

// Position-independent: nothing but the functions refers to these addresses.
global_asm!(
    ".pushsection .text.ballonet_msr, \"ax\", @progbits",
    ".p2align 4",
    ".globl ballonet_read_msr, ballonet_rdmsr, ballonet_write_msr, ballonet_wrmsr, ballonet_msr_failed",
    "ballonet_read_msr:",
    "mov ecx, edi",
    "ballonet_rdmsr:",
    "rdmsr",
    "shl rdx, 32",
    "or rax, rdx",
    "mov [rsi], rax",
    "mov eax, 1",
    "ret",
    "ballonet_write_msr:",
    "mov ecx, edi",
    "mov eax, esi",
    "mov rdx, rsi",
    "shr rdx, 32",
    "ballonet_wrmsr:",
    "wrmsr",
    "mov eax, 1",
    "ret",
    "ballonet_msr_failed:",
    "xor eax, eax",
    "ret",
    ".popsection",
);

/// Reads register `number`; `None` if there is none, or it cannot be read. The trap handler is in place.
pub(crate) fn read(number: u32) -> Option<u64> {
    let mut value = 0;
    // SAFETY: reading a register has no effect except the fault, after which `survive` resumes at the end of the
    // function with the stack unchanged; the value is a local variable.
    let done = unsafe { ballonet_read_msr(number, &raw mut value) };
    (done == 1).then_some(value)
}

/// Writes register `number`. Returns whether it accepted the value: `false` if it does not exist or rejects the value.
///
/// # Safety
/// The value must not break what Rust assumes about the machine.
pub(crate) unsafe fn write(number: u32, value: u64) -> bool {
    // SAFETY: the caller's promise; the fault is as for `read`.
    unsafe { ballonet_write_msr(number, value) == 1 }
}

/// If the fault is from one of the two instructions, makes its function return failure. Returns whether it was.
pub(crate) fn survive(frame: &mut TrapFrame) -> bool {
    let instructions = [&raw const ballonet_rdmsr, &raw const ballonet_wrmsr];
    let is_ours = frame.vector == VECTOR && instructions.iter().any(|&place| place as u64 == frame.rip);
    if is_ours {
        frame.rip = &raw const ballonet_msr_failed as u64;
    }
    is_ours
}
