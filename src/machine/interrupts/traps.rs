//! The interrupt descriptor table: a gate for each of the 256 vectors, and the path from there into Rust.
//!
//! Every gate switches to an interrupt stack, because the prebuilt core uses the red zone below the interrupted stack
//! pointer, and keeps interrupts off. The stub saves the general registers and, since compiled Rust uses it anywhere,
//! the SSE state.

use core::arch::naked_asm;
use core::mem::size_of;
use core::sync::atomic::{AtomicUsize, Ordering};

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::tables::lidt;
use x86_64::registers::segmentation::{CS, Segment};
use x86_64::structures::DescriptorTablePointer;

use crate::machine::cpu::msr;
use crate::machine::cpu::segments::InterruptStack;
use crate::machine::failure::fault;
use crate::machine::interrupts::frame::TrapFrame;
use crate::machine::interrupts::{nmi, vectors};
use crate::machine::paging::tlb;
use crate::machine::smp::cpu::Cpu;

/// Size of a vector's stub in bytes.
const STUB: usize = 16;

/// The stubs, one of [`STUB`] bytes for each vector: push an error code where the CPU pushed none, push the vector.
#[unsafe(naked)]
extern "C" fn stubs() {
    naked_asm!(
        ".set vector, 0",
        ".rept 256",
        ".balign {stub}",
        // The vectors whose error code the CPU pushes: 8, 10 to 14, 17, 21, 29, 30.
        ".if vector > 30 || ((0x60227D00 >> vector) & 1) == 0",
        "push 0",
        ".endif",
        "push vector",
        "jmp {common}",
        ".set vector, vector + 1",
        ".endr",
        stub = const STUB,
        common = sym common,
    )
}

/// Saves everything, calls [`dispatch`], restores everything.
#[unsafe(naked)]
extern "C" fn common() {
    naked_asm!(
        "push rax",
        "push rbx",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push rbp",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "cld",
        "mov rbx, rsp",
        // FXSAVE requires 512 bytes aligned to 16.
        "sub rsp, 512",
        "and rsp, -16",
        "fxsave64 [rsp]",
        "mov rdi, rbx",
        "call {dispatch}",
        "fxrstor64 [rsp]",
        "mov rsp, rbx",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rbp",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rbx",
        "pop rax",
        "add rsp, 16", // vector and error code
        "iretq",
        dispatch = sym dispatch,
    )
}

/// The first Rust code of every interrupt.
extern "C" fn dispatch(frame: &mut TrapFrame) {
    let vector = frame.vector as u8;
    let cpu = Cpu::this();
    tlb::wake_up(cpu, vector);
    cpu.count(vector);
    if vector == nmi::VECTOR {
        step_over_halt(frame);
        if nmi::is_of_the_kernel() {
            return;
        }
    }
    if msr::survive(frame) || offer_to_hook(frame) {
        return;
    }
    if vector >= vectors::FIRST_EXTERNAL {
        vectors::deliver(vector);
    } else if vector != nmi::VECTOR || !nmi::note(frame) {
        fault::report(frame);
    }
}

/// Enables interrupts and waits for one (it may already be pending) or for an NMI.
#[unsafe(naked)]
pub(crate) extern "C" fn enable_and_halt() {
    naked_asm!("sti", "hlt", "ret")
}

/// Where the `hlt` of [`enable_and_halt`] is.
pub(crate) fn hlt() -> u64 {
    // After `sti`, which is one byte.
    enable_and_halt as *const () as u64 + 1
}

/// If an NMI interrupted a CPU right before `hlt`, skips the `hlt`: the interrupt that it should wait for may arrive
/// right after the NMI, before `hlt`.
pub(crate) fn step_over_halt(frame: &mut TrapFrame) {
    if frame.rip == hlt() {
        frame.rip += 1;
    }
}

/// Sees an interrupt before it is delivered, or an exception before it is reported; `true` means that it has handled it
/// and the frame may be resumed.
pub(crate) type TrapHook = fn(&mut TrapFrame) -> bool;

static HOOK: AtomicUsize = AtomicUsize::new(0);

/// Installs a hook for all vectors, for tests that provoke them. `None` removes it.
#[cfg(feature = "test-image")]
pub(crate) fn set_hook(hook: Option<TrapHook>) {
    HOOK.store(hook.map_or(0, |hook| hook as usize), Ordering::SeqCst);
}

fn offer_to_hook(frame: &mut TrapFrame) -> bool {
    let hook = HOOK.load(Ordering::Relaxed);
    if hook == 0 {
        return false;
    }
    // SAFETY: the only non-zero values stored are `TrapHook`s.
    let hook: TrapHook = unsafe { core::mem::transmute(hook) };
    hook(frame)
}

/// A gate of the IDT (SDM vol. 3, figure 7-8).
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    offset_low: u16,
    selector: u16,
    stack: u8,
    kind: u8,
    offset_middle: u16,
    offset_high: u32,
    reserved: u32,
}

/// Present, ring 0, 64-bit interrupt gate: interrupts stay off.
const INTERRUPT_GATE: u8 = 0x8E;

impl Gate {
    fn new(handler: u64, selector: u16, stack: InterruptStack) -> Self {
        Self {
            offset_low: handler as u16,
            selector,
            stack: stack as u8 + 1, // 0 would mean "stay on the current stack"
            kind: INTERRUPT_GATE,
            offset_middle: (handler >> 16) as u16,
            offset_high: (handler >> 32) as u32,
            reserved: 0,
        }
    }
}

/// The stack on which a vector is handled.
pub(crate) const fn stack_of(vector: u8) -> InterruptStack {
    match vector {
        2 => InterruptStack::NonMaskable,
        8 => InterruptStack::DoubleFault,
        18 => InterruptStack::MachineCheck,
        0..vectors::FIRST_EXTERNAL => InterruptStack::Fault,
        _ => InterruptStack::Interrupt,
    }
}

static IDT: Once<[Gate; 256]> = Once::new();

/// Loads the IDT on this CPU. The GDT and TSS are the kernel's already.
pub(crate) fn load() {
    let idt = IDT.call_once(|| {
        let selector = CS::get_reg().0;
        let first = stubs as *const () as u64;
        core::array::from_fn(|vector| Gate::new(first + (vector * STUB) as u64, selector, stack_of(vector as u8)))
    });
    let pointer =
        DescriptorTablePointer { limit: (size_of::<[Gate; 256]>() - 1) as u16, base: VirtAddr::from_ptr(idt.as_ptr()) };
    // SAFETY: the table lives permanently and each gate leads to a stub that saves and restores all it uses.
    unsafe { lidt(&pointer) };
}
