//! Interrupts on one CPU: 16 vectors of the local APIC, raised by message (MSI).

use alloc::boxed::Box;
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;

use crate::port;

/// Number of vectors.
pub const COUNT: usize = 16;
/// The first vector.
const FIRST: u8 = 0x40;
/// The local APIC: end of interrupt, and the spurious vector with the bit that turns it on.
const APIC: u64 = 0xFEE0_0000;
const END_OF_INTERRUPT: u64 = 0xB0;
const SPURIOUS: u64 = 0xF0;

/// What runs when a vector is raised.
pub type Handler = Box<dyn FnMut() + Send>;

struct Table<T>(UnsafeCell<T>);
// SAFETY: there is one CPU, and each use has interrupts off.
unsafe impl<T> Sync for Table<T> {}

static HANDLERS: Table<[Option<Handler>; COUNT]> = Table(UnsafeCell::new([const { None }; COUNT]));
/// Gates of 16 bytes, up to the last of the vectors, and the spurious one.
static IDT: Table<[[u64; 2]; 256]> = Table(UnsafeCell::new([[0; 2]; 256]));
/// Null, code, the two halves of the TSS's descriptor.
static GDT: Table<[u64; 4]> = Table(UnsafeCell::new([0, 0x00AF_9B00_0000_FFFF, 0, 0]));
/// The task state; at byte 36 is the interrupt stack's top. Code for Linux keeps data below the stack pointer, so
/// interrupts have a stack of their own.
static TSS: Table<[u32; 26]> = Table(UnsafeCell::new([0; 26]));
static STACK: Table<[u128; 2048]> = Table(UnsafeCell::new([0; 2048]));

global_asm!(
    ".pushsection .text",
    ".p2align 4",
    "interrupt_stubs:",
    ".set n, 0",
    ".rept {count}",
    ".p2align 4",
    "push n",
    "jmp interrupt_common",
    ".set n, n + 1",
    ".endr",
    "interrupt_common:",
    "push rax; push rcx; push rdx; push rsi; push rdi; push r8; push r9; push r10; push r11; push rbp",
    "mov rdi, [rsp + 80]",
    "mov rbp, rsp",
    "sub rsp, 512",
    "and rsp, -16",
    "fxsave64 [rsp]",
    "call {handle}",
    "fxrstor64 [rsp]",
    "mov rsp, rbp",
    "pop rbp; pop r11; pop r10; pop r9; pop r8; pop rdi; pop rsi; pop rdx; pop rcx; pop rax",
    "add rsp, 8",
    "spurious_interrupt:",
    "iretq",
    ".popsection",
    count = const COUNT,
    handle = sym handle,
);

unsafe extern "C" {
    static interrupt_stubs: u8;
    static spurious_interrupt: u8;
}

extern "C" fn handle(index: usize) {
    // SAFETY: interrupts are off, and `attach` and `detach` turn them off.
    let handlers = unsafe { &mut *HANDLERS.0.get() };
    if let Some(handler) = handlers.get_mut(index).and_then(Option::as_mut) {
        handler();
    }
    // SAFETY: the local APIC is there, mapped.
    unsafe { ((APIC + END_OF_INTERRUPT) as *mut u32).write_volatile(0) };
}

/// Sets up the vectors and enables interrupts.
pub fn enable() {
    let gate = |address: u64| {
        let low = address & 0xFFFF | 8 << 16 | 1 << 32 | 0x8E00 << 32 | (address & 0xFFFF_0000) << 32;
        [low, address >> 32]
    };
    let tss = TSS.0.get() as u64;
    let stack = STACK.0.get() as u64 + size_of::<[u128; 2048]>() as u64;
    // SAFETY: this runs once, with interrupts off, on the only CPU. The tables are static.
    unsafe {
        let idt = &mut *IDT.0.get();
        for index in 0..COUNT {
            idt[usize::from(FIRST) + index] = gate(&raw const interrupt_stubs as u64 + 16 * index as u64);
        }
        idt[255] = gate(&raw const spurious_interrupt as u64);
        let task = &mut *TSS.0.get();
        (task[9], task[10]) = (stack as u32, (stack >> 32) as u32);
        let gdt = &mut *GDT.0.get();
        gdt[2] = 103 | (tss & 0xFF_FFFF) << 16 | 0x89 << 40 | (tss >> 24 & 0xFF) << 56;
        gdt[3] = tss >> 32;
        let pointer = |limit: u16, base: u64| ([limit.to_le_bytes()[0], limit.to_le_bytes()[1]], base.to_le_bytes());
        let (gdt, idt) = (pointer(31, GDT.0.get() as u64), pointer(4095, IDT.0.get() as u64));
        asm!("lgdt [{gdt}]", "lidt [{idt}]", "ltr {task:x}", gdt = in(reg) &raw const gdt, idt = in(reg) &raw const idt,
            task = in(reg) 16);
        // The old interrupt controllers are masked.
        port::write(0x21, 0xFF);
        port::write(0xA1, 0xFF);
        ((APIC + SPURIOUS) as *mut u32).write_volatile(0x1FF);
        asm!("sti");
    }
}

/// Runs `action` on the handlers with interrupts off.
fn with<T>(action: impl FnOnce(&mut [Option<Handler>; COUNT]) -> T) -> T {
    // SAFETY: interrupts are off during `action` and on again afterwards; only code with interrupts on calls this.
    unsafe {
        asm!("cli");
        let result = action(&mut *HANDLERS.0.get());
        asm!("sti");
        result
    }
}

/// Registers `handler` for a free vector. Returns the vector; `None` if all are taken.
pub fn attach(handler: Handler) -> Option<u8> {
    with(|handlers| {
        let index = handlers.iter().position(Option::is_none)?;
        handlers[index] = Some(handler);
        Some(FIRST + index as u8)
    })
}

/// Undoes [`attach`].
pub fn detach(vector: u8) {
    let handler = with(|handlers| handlers[usize::from(vector - FIRST)].take());
    drop(handler);
}

/// The message (address and data) that raises a vector.
pub fn message(vector: u8) -> (u64, u32) {
    (APIC, vector.into())
}

/// Sleeps until the next interrupt, unless `has_work`. An interrupt between that check and the sleep wakes too.
pub fn sleep_unless(has_work: impl FnOnce() -> bool) {
    // SAFETY: interrupts are off only during the check; `sti` takes effect after the instruction that follows.
    unsafe {
        asm!("cli");
        if has_work() {
            asm!("sti");
        } else {
            asm!("sti", "hlt");
        }
    }
}
