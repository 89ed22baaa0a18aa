//! A PC under QEMU, as far as an example kernel needs it: what any kernel has before it gets a balloon.
//!
//! The first 4 GiB are mapped one to one; this machine has its memory and its devices there. There is one CPU.

#![no_std]

extern crate alloc;

mod entry;
pub mod interrupts;
mod memory;
pub mod port;
pub mod serial;

use core::ops::Range;
use core::ptr::NonNull;

pub use entry::{command_line, ram};
pub use memory::heap_used;

/// The virtual address of `length` bytes of physical memory or device registers.
pub fn mapped(address: u64, length: usize) -> Option<NonNull<u8>> {
    let end = address.checked_add(length as u64)?;
    (end <= 1 << 32).then_some(NonNull::new(address as *mut u8)?)
}

/// The physical memory at `range`, as a slice that the kernel keeps.
///
/// # Safety
/// Nothing else uses this memory.
pub unsafe fn keep(range: Range<u64>) -> &'static mut [u8] {
    // SAFETY: it is mapped one to one, and only the caller uses it.
    unsafe { core::slice::from_raw_parts_mut(range.start as *mut u8, (range.end - range.start) as usize) }
}

/// A clock: the CPU's time stamp counter, taken for nanoseconds. A real kernel measures its frequency.
pub fn nanoseconds() -> u64 {
    // SAFETY: every x86-64 has the instruction.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Prints a line.
#[macro_export]
macro_rules! println {
    ($($text:tt)*) => { $crate::serial::print(core::format_args!("{}\n", core::format_args!($($text)*))) };
}

#[panic_handler]
fn panic(panic: &core::panic::PanicInfo<'_>) -> ! {
    println!("{panic}");
    loop {
        // SAFETY: it stops the CPU for good.
        unsafe { core::arch::asm!("cli", "hlt") };
    }
}
