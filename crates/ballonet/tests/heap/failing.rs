//! This program's allocator: one chosen allocation of a driver fails.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Allocations until the one that fails; `None` outside of a driver, and after the failure.
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    static FAILED: Cell<bool> = const { Cell::new(false) };
}

struct Failing;

#[global_allocator]
static ALLOCATOR: Failing = Failing;

// SAFETY: the system's allocator does the work. A null pointer, which is always allowed, means no memory.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match LEFT.get() {
            Some(0) => {
                LEFT.set(None);
                FAILED.set(true);
                return core::ptr::null_mut();
            }
            left => LEFT.set(left.map(|left| left - 1)),
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise; `alloc` got it from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs `action` as driver code in which allocation `number` fails, once.
pub fn inside<T>(number: usize, action: impl FnOnce() -> T) -> T {
    FAILED.set(false);
    LEFT.set(Some(number));
    let result = action();
    LEFT.set(None);
    result
}

/// Runs `action` as code outside of a driver: its allocations neither count nor fail.
pub fn outside<T>(action: impl FnOnce() -> T) -> T {
    let left = LEFT.replace(None);
    let result = action();
    LEFT.set(left);
    result
}

/// Whether the allocation that must fail was reached.
pub fn has_failed() -> bool {
    FAILED.get()
}
