//! Memory reclaimed for a failing allocation, from a lent source.
//!
//! The allocator is everywhere, and what could give memory back (balloons, above all) belongs to somebody. So it is lent,
//! for as long as something runs that may need a lot of memory: [`lend`]. A lent source is in no other use
//! meanwhile, which the borrow checker ensures, and is not asked again while it reclaims.
//!
//! # On entry of [`Source::relieve`]
//! - Interrupts are on, hence no [`Lock`] is held, since those turn them off: neither the heap's nor that of frames or
//!   page tables. What is allocated in there comes from what the kernel keeps for itself, without reclaiming.
//! - It is not in an interrupt handler, for the same reason.
//!
//! An allocation with interrupts off, on another CPU than the boot CPU, or while no source is lent, is unaffected.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::instructions::interrupts;

use crate::machine::lock::Lock;
use crate::machine::smp::cpu::Cpu;

/// What a source did for an allocation. Counts are in frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Relieved {
    /// Frames that became free.
    pub frames: u64,
    /// Frames that were asked for.
    pub asked: u64,
}

/// Somebody who can make memory free. It is called for an allocation that waits, and must come to an end.
pub(crate) trait Source {
    /// Makes `frames` frames free, or as many as can be.
    fn relieve(&mut self, frames: u64) -> Relieved;
}

/// What allocations had to wait for so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ReliefCounts {
    /// Allocations that waited.
    pub stalls: u64,
    /// Frames that were asked for.
    pub asked: u64,
    /// Frames that became free.
    pub frames: u64,
    /// Programs that were ended because there was no memory for them.
    pub ended: u64,
}

/// Who is lent. The lifetime is that of the call of [`lend`] that put it there.
struct Lent(NonNull<dyn Source>);

// SAFETY: only one CPU has it, the one that took it out of its lock.
unsafe impl Send for Lent {}

static LENT: Lock<Option<Lent>> = Lock::new(None);
static STALLS: AtomicU64 = AtomicU64::new(0);
static ASKED: AtomicU64 = AtomicU64::new(0);
static FRAMES: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);

/// Runs `action`, in which allocations that would fail ask `source` first. It returns or never ends; tests that are ended by a
/// fault ([`recovery`](crate::machine::failure::recovery)) are not to be in one.
pub(crate) fn lend<R>(source: &mut dyn Source, action: impl FnOnce() -> R) -> R {
    // SAFETY: only the lifetime changes. What is in `LENT` is used while it is there, and it is taken out below, before
    // the borrow ends; the kernel does not unwind.
    let lent: NonNull<dyn Source> = unsafe { core::mem::transmute(NonNull::from(source)) };
    let before = LENT.with(|slot| slot.replace(Lent(lent)));
    let value = action();
    LENT.with(|slot| *slot = before);
    value
}

/// Asks for `frames` more frames to be free. Returns how many became so.
pub(crate) fn ask(frames: u64) -> u64 {
    // The source is lent to the boot CPU alone: another CPU could still use it when the loan ends.
    if !interrupts::are_enabled() || !Cpu::this().is_boot() {
        return 0;
    }
    let Some(mut lent) = LENT.with(Option::take) else { return 0 };
    // SAFETY: `lend` borrows the source exclusively as long as it is in `LENT`, and nobody else has it now that it is not.
    let relieved = unsafe { lent.0.as_mut() }.relieve(frames);
    LENT.with(|slot| *slot = Some(lent));
    STALLS.fetch_add(1, Ordering::Relaxed);
    ASKED.fetch_add(relieved.asked, Ordering::Relaxed);
    FRAMES.fetch_add(relieved.frames, Ordering::Relaxed);
    relieved.frames
}

/// A program was ended because there was no memory for it.
pub(crate) fn note_ended() {
    ENDED.fetch_add(1, Ordering::Relaxed);
}

/// What allocations had to wait for so far.
pub(crate) fn counts() -> ReliefCounts {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    ReliefCounts { stalls: load(&STALLS), asked: load(&ASKED), frames: load(&FRAMES), ended: load(&ENDED) }
}
