//! The slot in which a CPU finds its job.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use spin::Mutex;
use x86_64::instructions::interrupts::without_interrupts;

/// A job for a CPU, run once, with interrupts on. It must return: nothing else runs there meanwhile.
///
/// It has a stack of 32 KiB. A long one must report progress
/// ([`vectors::note_progress`](crate::machine::interrupts::vectors::note_progress)): otherwise interrupts of that CPU
/// are blocked after the first thousand.
///
/// Balloons are not deflated for it, unlike for programs on the boot CPU: without free memory its allocations fail.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Space for a job, until it is done.
pub(super) struct Slot {
    /// Held with interrupts off, only for a move. Not a `Lock`, which needs the `Cpu` that this is part of.
    job: Mutex<Option<Job>>,
    is_occupied: AtomicBool,
    done: AtomicU64,
}

/// The previous job is not done.
pub(super) struct Occupied;

impl Slot {
    pub(super) const fn new() -> Self {
        Self { job: Mutex::new(None), is_occupied: AtomicBool::new(false), done: AtomicU64::new(0) }
    }

    /// Puts a job in.
    ///
    /// # Errors
    /// While the previous one is not done.
    pub(super) fn give(&self, job: Job) -> Result<(), Occupied> {
        if self.is_occupied.swap(true, Ordering::Acquire) {
            return Err(Occupied);
        }
        without_interrupts(|| *self.job.lock() = Some(job));
        Ok(())
    }

    /// Takes the job out. It still occupies the slot.
    pub(super) fn take(&self) -> Option<Job> {
        without_interrupts(|| self.job.lock().take())
    }

    /// Whether a job waits to be taken.
    pub(super) fn is_waiting(&self) -> bool {
        without_interrupts(|| self.job.lock().is_some())
    }

    /// Records that the job is done.
    pub(super) fn finish(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.is_occupied.store(false, Ordering::Release);
    }

    /// Whether a job waits or runs.
    pub(super) fn is_occupied(&self) -> bool {
        self.is_occupied.load(Ordering::Acquire)
    }

    /// How many jobs were done.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}
