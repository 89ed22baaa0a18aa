//! Stacks, each with a guard page below it that is left out of the page tables.

use core::cell::UnsafeCell;

/// Size of a guard page in bytes.
pub const GUARD: usize = 4096;

/// A stack of `SIZE` bytes above a guard page. `SIZE` is a multiple of 4096.
#[repr(C, align(4096))]
pub struct Stack<const SIZE: usize> {
    guard: [u8; GUARD],
    bytes: UnsafeCell<[u8; SIZE]>,
}

// SAFETY: Rust code never forms a reference to the bytes; one CPU at a time runs on them.
unsafe impl<const SIZE: usize> Sync for Stack<SIZE> {}

impl<const SIZE: usize> Stack<SIZE> {
    const fn new() -> Self {
        assert!(SIZE.is_multiple_of(4096));
        Self { guard: [0; GUARD], bytes: UnsafeCell::new([0; SIZE]) }
    }

    /// Address of the guard page.
    pub fn guard(&self) -> u64 {
        self.guard.as_ptr() as u64
    }

    /// Address above the stack: where the stack pointer starts.
    pub fn top(&self) -> u64 {
        self.bytes.get() as u64 + SIZE as u64
    }
}

const MAIN_SIZE: usize = 128 * 1024;

/// Distance from the start of [`MAIN`] to its top.
#[doc(hidden)]
pub const MAIN_TOP: usize = GUARD + MAIN_SIZE;

/// The stack of the boot CPU outside interrupts.
pub static MAIN: Stack<MAIN_SIZE> = Stack::new();
/// For device interrupts and the timer.
pub static INTERRUPT: Stack<{ 32 * 1024 }> = Stack::new();
/// For faults of our own doing, which may strike on any other stack.
pub static FAULT: Stack<{ 32 * 1024 }> = Stack::new();
/// For non-maskable interrupts, which may strike inside a fault.
pub static NMI: Stack<{ 16 * 1024 }> = Stack::new();
/// For double faults: the fault stack itself may be what failed.
pub static DOUBLE_FAULT: Stack<{ 16 * 1024 }> = Stack::new();
/// For machine checks, which may strike anywhere.
pub static MACHINE_CHECK: Stack<{ 16 * 1024 }> = Stack::new();

/// The guard pages' addresses.
pub fn guards() -> [u64; 6] {
    [MAIN.guard(), INTERRUPT.guard(), FAULT.guard(), NMI.guard(), DOUBLE_FAULT.guard(), MACHINE_CHECK.guard()]
}

/// Whether `length` bytes from `address` lie on one of the stacks.
pub fn contains(address: u64, length: u64) -> bool {
    let on = |guard: u64, top: u64| {
        address >= guard + GUARD as u64 && address.checked_add(length).is_some_and(|end| end <= top)
    };
    on(MAIN.guard(), MAIN.top())
        || on(INTERRUPT.guard(), INTERRUPT.top())
        || on(FAULT.guard(), FAULT.top())
        || on(NMI.guard(), NMI.top())
        || on(DOUBLE_FAULT.guard(), DOUBLE_FAULT.top())
        || on(MACHINE_CHECK.guard(), MACHINE_CHECK.top())
}
