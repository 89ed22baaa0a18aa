//! A bootable image: entry points, allocator, memory functions and panic handler around a `run` and a `panic`.
//!
//! A macro defines them in the program, because a library that had them could not be linked into host tests.

#[doc(hidden)]
pub use crate::boot::linux::MAGIC as LINUX_MAGIC;
#[doc(hidden)]
pub use crate::boot::multiboot2::{HEADER_MAGIC, MAGIC};
#[doc(hidden)]
pub use crate::boot::pvh::NOTE_TYPE_PHYS32_ENTRY;
#[doc(hidden)]
pub use crate::machine::cpu::stack::{MAIN, MAIN_TOP};
#[doc(hidden)]
pub use crate::machine::heap::KernelHeap;
#[doc(hidden)]
pub use crate::machine::power::DEBUG_EXIT;
#[doc(hidden)]
pub use crate::machine::start::Entry;
#[doc(hidden)]
pub use crate::machine::start::bzimage::LONGEST_LINE;
#[doc(hidden)]
pub use crate::machine::start::entry::{
    CR0, CR4, EFER, EFER_LONG_MODE, ENTRY_GDT, ENTRY_GDT_LIMIT, ENTRY_TABLES, HUGE, TABLE,
};
#[doc(hidden)]
pub use crate::machine::start::image::Image;
#[doc(hidden)]
pub use crate::machine::start::image::OFFSET;
#[doc(hidden)]
pub use crate::machine::start::linux_entry::WITHOUT_PCID;
#[doc(hidden)]
pub use crate::machine::start::memory_functions::{compare, copy, fill, shift};
#[doc(hidden)]
pub use crate::machine::start::refusal::{DEBUG_EXIT_FAILURE, GLYPHS};

/// Makes a program an image. `$program` is a module with `run`, a `fn(Entry) -> !`, and `panic`, a
/// `fn(&PanicInfo<'_>) -> !`.
#[macro_export]
macro_rules! image {
    ($program:path) => {
        use $program as program;

        $crate::entry_point!(program::run);

        #[global_allocator]
        static HEAP: $crate::image::KernelHeap = $crate::image::KernelHeap;

        #[panic_handler]
        fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
            program::panic(info)
        }

        // The functions that compiled code calls, all as in C.

        #[unsafe(no_mangle)]
        unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
            // SAFETY: the caller's promise.
            unsafe { $crate::image::copy(to, from, length) }
        }

        #[unsafe(no_mangle)]
        unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
            // SAFETY: the caller's promise.
            unsafe { $crate::image::shift(to, from, length) }
        }

        #[unsafe(no_mangle)]
        unsafe extern "C" fn memset(to: *mut u8, value: i32, length: usize) -> *mut u8 {
            // SAFETY: the caller's promise.
            unsafe { $crate::image::fill(to, value, length) }
        }

        // Comparisons have no copies in their callers: loops, executed once each.
        #[inline(never)]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
            // SAFETY: the caller's promise.
            unsafe { $crate::image::compare(left, right, length) }
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
            // SAFETY: the caller's promise.
            unsafe { $crate::image::compare(left, right, length) }
        }
    };
}
