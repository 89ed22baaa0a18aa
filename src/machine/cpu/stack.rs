//! Stacks, each above a guard page that is not mapped.

use core::cell::UnsafeCell;
use core::ops::Range;

use crate::boot::MOST_CPUS;

/// Size of a guard page in bytes.
pub(crate) const GUARD: usize = 4096;

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
    pub(crate) fn guard(&self) -> u64 {
        self.guard.as_ptr() as u64
    }

    /// Address above the stack: where the stack pointer starts.
    pub(crate) fn top(&self) -> u64 {
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
pub(crate) static INTERRUPT: Stack<{ 32 * 1024 }> = Stack::new();
/// For the kernel's own faults, which may occur on any other stack.
pub(crate) static FAULT: Stack<{ 32 * 1024 }> = Stack::new();
/// For non-maskable interrupts, which may occur inside a fault.
pub(crate) static NMI: Stack<{ 16 * 1024 }> = Stack::new();
/// For double faults: the fault stack itself may be what failed.
pub(crate) static DOUBLE_FAULT: Stack<{ 16 * 1024 }> = Stack::new();
/// For machine checks, which may occur anywhere.
pub(crate) static MACHINE_CHECK: Stack<{ 16 * 1024 }> = Stack::new();

/// The guard pages' addresses, of the boot CPU's stacks.
pub(crate) fn guards() -> [u64; 6] {
    [MAIN.guard(), INTERRUPT.guard(), FAULT.guard(), NMI.guard(), DOUBLE_FAULT.guard(), MACHINE_CHECK.guard()]
}

/// The tops of one CPU's stacks: the addresses above them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tops {
    /// Outside interrupts.
    pub main: u64,
    /// For device interrupts and the timer.
    pub interrupt: u64,
    /// For faults.
    pub fault: u64,
    /// For non-maskable interrupts.
    pub nmi: u64,
    /// For double faults.
    pub double_fault: u64,
    /// For machine checks.
    pub machine_check: u64,
}

/// The virtual addresses of the other CPUs' stacks, a range for each CPU.
pub(crate) const OTHERS: Range<u64> = 0xFFFF_BF00_0000_0000..0xFFFF_BF00_0000_0000 + STRIDE * (MOST_CPUS as u64 + 1);
/// From one CPU's stacks to the next one's.
const STRIDE: u64 = 256 << 10;
/// Sizes in bytes of another CPU's stacks, in the order of [`Tops`].
const SIZES: [u64; 6] = [32 << 10, 16 << 10, 16 << 10, 16 << 10, 16 << 10, 16 << 10];

/// Frames in another CPU's stacks.
pub(crate) const FRAMES_A_CPU: u64 = {
    let (mut bytes, mut index) = (0, 0);
    while index < SIZES.len() {
        bytes += SIZES[index];
        index += 1;
    }
    assert!(bytes + (SIZES.len() * GUARD) as u64 <= STRIDE);
    bytes / 4096
};

/// The stacks of a CPU other than the boot CPU, each above a guard page.
pub(crate) fn ranges(number: u32) -> [Range<u64>; 6] {
    let mut next = OTHERS.start + u64::from(number) * STRIDE;
    SIZES.map(|size| {
        let start = next + GUARD as u64;
        next = start + size;
        start..next
    })
}

/// The tops of a CPU's stacks.
pub(crate) fn tops(number: u32) -> Tops {
    let [main, interrupt, fault, nmi, double_fault, machine_check] = match number {
        0 => [MAIN.top(), INTERRUPT.top(), FAULT.top(), NMI.top(), DOUBLE_FAULT.top(), MACHINE_CHECK.top()],
        _ => ranges(number).map(|range| range.end),
    };
    Tops { main, interrupt, fault, nmi, double_fault, machine_check }
}

/// Whether `length` bytes from `address` lie on a stack of the boot CPU, or of another one that `is_there`.
pub(crate) fn contains(address: u64, length: u64, is_there: impl FnOnce(u32) -> bool) -> bool {
    let Some(end) = address.checked_add(length) else { return false };
    let on = |guard: u64, top: u64| address >= guard + GUARD as u64 && end <= top;
    if OTHERS.contains(&address) {
        let number = ((address - OTHERS.start) / STRIDE) as u32;
        return is_there(number) && ranges(number).iter().any(|range| range.start <= address && end <= range.end);
    }
    on(MAIN.guard(), MAIN.top())
        || on(INTERRUPT.guard(), INTERRUPT.top())
        || on(FAULT.guard(), FAULT.top())
        || on(NMI.guard(), NMI.top())
        || on(DOUBLE_FAULT.guard(), DOUBLE_FAULT.top())
        || on(MACHINE_CHECK.guard(), MACHINE_CHECK.top())
}
