//! Memory reclaimed for a failing allocation, from a lent source.
//!
//! The allocator is global, while the sources of memory (mainly balloons) have an owner. The owner lends a source while
//! it runs code that may need much memory: [`lend`]. The borrow checker ensures that a lent source has no other use
//! meanwhile. A source is not called again while it reclaims.
//!
//! # On entry of [`Source::reclaim`]
//! - Interrupts are on, hence no [`Lock`] is held, since those turn them off: neither the heap's nor that of frames or
//!   page tables. Allocations in there come from the kernel's reserve, without reclaiming.
//! - It is not in an interrupt handler, for the same reason.
//!
//! An allocation with interrupts off, on another CPU than the boot CPU, or while no source is lent, is unaffected.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::instructions::interrupts;

use crate::machine::lock::Lock;
use crate::machine::smp::cpu::Cpu;

/// The result of a reclaim. Counts are in frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reclaimed {
    /// Frames that became free.
    pub frames: u64,
    /// Frames that were requested.
    pub asked: u64,
}

/// A source of free memory. It is called for a waiting allocation, and must return.
pub(crate) trait Source {
    /// Makes `frames` frames free, or as many as possible.
    fn reclaim(&mut self, frames: u64) -> Reclaimed;
}

/// The waits of allocations so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ReclaimCounts {
    /// Allocations that waited.
    pub stalls: u64,
    /// Frames that were requested.
    pub asked: u64,
    /// Frames that became free.
    pub frames: u64,
    /// Programs that were ended because there was no memory for them.
    pub ended: u64,
}

/// The lent source. The lifetime is that of the call of [`lend`] that put it there.
struct Lent(NonNull<dyn Source>);

// SAFETY: only one CPU uses it, the one that took it out of its lock.
unsafe impl Send for Lent {}

static LENT: Lock<Option<Lent>> = Lock::new(None);
static STALLS: AtomicU64 = AtomicU64::new(0);
static ASKED: AtomicU64 = AtomicU64::new(0);
static FRAMES: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);

/// Runs `action`, in which allocations that would fail call `source` first. It must return or run forever; a test that
/// may be ended by a fault ([`recovery`](crate::machine::failure::recovery)) must not call this.
pub(crate) fn lend<R>(source: &mut dyn Source, action: impl FnOnce() -> R) -> R {
    // SAFETY: only the lifetime changes. The source is used only while it is in `LENT`, and it is taken out below,
    // before the borrow ends; the kernel does not unwind.
    let lent: NonNull<dyn Source> = unsafe { core::mem::transmute(NonNull::from(source)) };
    let before = LENT.with(|slot| slot.replace(Lent(lent)));
    let value = action();
    LENT.with(|slot| *slot = before);
    value
}

/// Requests that `frames` more frames become free. Returns how many did.
pub(crate) fn ask(frames: u64) -> u64 {
    // The source is lent to the boot CPU alone: another CPU could still use it when the loan ends.
    if !interrupts::are_enabled() || !Cpu::this().is_boot() {
        return 0;
    }
    let Some(mut lent) = LENT.with(Option::take) else { return 0 };
    // SAFETY: `lend` borrows the source exclusively as long as it is in `LENT`, and it is in no other hands now.
    let reclaimed = unsafe { lent.0.as_mut() }.reclaim(frames);
    LENT.with(|slot| *slot = Some(lent));
    STALLS.fetch_add(1, Ordering::Relaxed);
    ASKED.fetch_add(reclaimed.asked, Ordering::Relaxed);
    FRAMES.fetch_add(reclaimed.frames, Ordering::Relaxed);
    reclaimed.frames
}

/// A program was ended because there was no memory for it.
pub(crate) fn note_ended() {
    ENDED.fetch_add(1, Ordering::Relaxed);
}

/// The waits of allocations so far.
pub(crate) fn counts() -> ReclaimCounts {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    ReclaimCounts { stalls: load(&STALLS), asked: load(&ASKED), frames: load(&FRAMES), ended: load(&ENDED) }
}
