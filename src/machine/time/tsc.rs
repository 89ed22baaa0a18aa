//! The time-stamp counter.

use core::arch::x86_64::{_mm_lfence, _rdtsc};
use core::sync::atomic::{AtomicU64, Ordering};

/// The TSC at entry.
static ENTRY: AtomicU64 = AtomicU64::new(0);

/// Records the TSC at entry.
pub(super) fn note_entry(ticks: u64) {
    ENTRY.store(ticks, Ordering::Relaxed);
}

/// The TSC at entry.
pub(super) fn entry() -> u64 {
    ENTRY.load(Ordering::Relaxed)
}

/// The TSC now.
pub(crate) fn now() -> u64 {
    // SAFETY: every x86-64 CPU has a TSC, and ring 0 may read it.
    unsafe { _rdtsc() }
}

/// The TSC after all earlier instructions and before any later one (SDM vol. 2, RDTSC).
pub(crate) fn now_in_order() -> u64 {
    // SAFETY: every x86-64 CPU has SSE2, and with it LFENCE, which touches nothing.
    unsafe { _mm_lfence() };
    let ticks = now();
    // SAFETY: as above.
    unsafe { _mm_lfence() };
    ticks
}
