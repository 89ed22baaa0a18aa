//! The page frames of a machine with several CPUs: each CPU has a [`Magazine`] in front of the one allocator, so that
//! allocating and freeing single frames takes no contended lock.
//!
//! Each magazine has its own lock, which other CPUs take only to drain it. The lock order is: a magazine's, then the
//! allocator's; never two magazines'. Frames in magazines are free for every CPU: they count as free, and if the
//! allocator has too few, all magazines are drained and it tries again.
#![forbid(unsafe_code)]

use core::sync::atomic::Ordering;

use super::atomic::AtomicU64;
use super::error::{AllocateError, FrameError, Operation};
use super::frames::{Counts, Frames};
use super::held::HeldFrames;
use super::magazine::Magazine;
use super::storage::StorageError;
use super::{FrameRun, Pfn};

/// A value that one CPU at a time can access, such as one behind a lock.
pub trait Exclusive<T> {
    /// Runs `action` with exclusive access to the value.
    fn with<R>(&self, action: impl FnOnce(&mut T) -> R) -> R;
}

/// Retries after draining all magazines, in case other CPUs refill them meanwhile.
const ROUNDS: usize = 8;

/// One CPU's state: a magazine behind its lock, and counts that others read. It has two cache lines of its own, since
/// CPUs fetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub struct CpuCache<M> {
    /// The magazine behind its lock.
    pub magazine: M,
    /// Frames in the magazine.
    frames: AtomicU64,
    allocations: AtomicU64,
    frees: AtomicU64,
}

impl<M> From<M> for CpuCache<M> {
    /// Over an empty magazine.
    fn from(magazine: M) -> Self {
        Self { magazine, frames: AtomicU64::new(0), allocations: AtomicU64::new(0), frees: AtomicU64::new(0) }
    }
}

impl<M> CpuCache<M> {
    /// Publishes the magazine's length. Called under the magazine's lock, and also under the allocator's when frames
    /// move between the two, so that the holder of the allocator's lock sees no frame missing.
    fn tell(&self, magazine: &Magazine) {
        self.frames.store(magazine.len() as u64, Ordering::Relaxed);
    }
}

/// Adds 1 to a counter that only the holder of a lock writes.
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// The magazines of all CPUs.
#[derive(Debug)]
pub struct CpuCaches<'a, M> {
    /// The cache of each CPU.
    pub cpus: &'a [CpuCache<M>],
    held: HeldFrames<'a>,
}

impl<'a, M: Exclusive<Magazine>> CpuCaches<'a, M> {
    /// An empty magazine per CPU in front of `frames`, which from now on records in `words` (at least
    /// [`Frames::held_words`]) which frames are held: one bit each, 1/32768 of memory. The words' initial contents do
    /// not matter. Allocating and freeing a run then costs one more atomic access per 64 frames. Visits every region.
    ///
    /// # Errors
    /// When there are too few words.
    pub fn new(cpus: &'a [CpuCache<M>], frames: &mut Frames<'a>, words: &'a [AtomicU64]) -> Result<Self, StorageError> {
        Ok(Self { cpus, held: frames.track(words)? })
    }

    /// Allocates a single frame on CPU number `cpu`. A CPU without a magazine asks the allocator.
    ///
    /// # Errors
    /// [`AllocateError::Exhausted`] when no frame is free, in a magazine or elsewhere.
    pub fn allocate<'f>(&self, cpu: usize, frames: &impl Exclusive<Frames<'f>>) -> Result<FrameRun, AllocateError> {
        let frame = self.cpus.get(cpu).and_then(|cpu| self.pop(cpu, frames));
        match frame.and_then(|frame| FrameRun::new(frame, 1)) {
            Some(run) => Ok(run),
            None => self.attempt(frames, |frames| frames.allocate(1, 1)),
        }
    }

    fn pop<'f>(&self, cpu: &CpuCache<M>, frames: &impl Exclusive<Frames<'f>>) -> Option<Pfn> {
        cpu.magazine.with(|magazine| {
            if magazine.is_empty() {
                frames.with(|frames| {
                    frames.fill(magazine);
                    cpu.tell(magazine);
                });
            }
            let frame = magazine.pop()?;
            self.held.hold_one(frame);
            cpu.tell(magazine);
            count(&cpu.allocations);
            Some(frame)
        })
    }

    /// Frees a run on CPU number `cpu`: a single frame goes to its magazine.
    ///
    /// # Errors
    /// As [`Frames::free`].
    pub fn free<'f>(&self, cpu: usize, run: FrameRun, frames: &impl Exclusive<Frames<'f>>) -> Result<(), FrameError> {
        let Some(cpu) = self.cpus.get(cpu).filter(|_| run.count() == 1) else {
            return frames.with(|frames| frames.free(run));
        };
        let frame = run.start();
        // The caller that clears the bit owns the frame: after that no other can free it or put it into a magazine.
        if !self.held.clear_allocated_one(frame) {
            return Err(frames.with(|frames| frames.refuse(Operation::Free, run, frame)));
        }
        cpu.magazine.with(|magazine| {
            if magazine.is_full() {
                frames.with(|frames| {
                    frames.drain(magazine, Magazine::HALF);
                    cpu.tell(magazine);
                });
            }
            magazine.push(frame);
            cpu.tell(magazine);
            count(&cpu.frees);
        });
        Ok(())
    }

    /// Number of frames in magazines. A frame that moves during the count may be counted twice or not at all.
    pub(crate) fn len(&self) -> u64 {
        self.cpus.iter().map(|cpu| cpu.frames.load(Ordering::Relaxed)).sum()
    }

    /// Whether all magazines are empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns all frames in magazines to the allocator. Returns their number. Empty magazines cost a read and no
    /// lock.
    pub fn drain<'f>(&self, frames: &impl Exclusive<Frames<'f>>) -> u64 {
        let full = self.cpus.iter().filter(|cpu| cpu.frames.load(Ordering::Relaxed) > 0);
        full.map(|cpu| {
            cpu.magazine.with(|magazine| {
                let count = magazine.len();
                frames.with(|frames| {
                    frames.drain(magazine, count);
                    cpu.tell(magazine);
                });
                count as u64
            })
        })
        .sum()
    }

    /// Runs `action`; if it fails, drains all magazines and tries again, since the frames there may suffice. At most
    /// 8 times, in case other CPUs refill theirs as fast.
    ///
    /// # Errors
    /// Those of the last attempt; earlier ones do not count as failures.
    pub fn attempt<'f, R, E>(
        &self,
        frames: &impl Exclusive<Frames<'f>>,
        mut action: impl FnMut(&mut Frames<'f>) -> Result<R, E>,
    ) -> Result<R, E> {
        for _ in 0..ROUNDS {
            let result = frames.with(|frames| {
                let failures = frames.history.failures;
                let result = action(frames);
                if result.is_err() && !self.is_empty() {
                    frames.history.failures = failures;
                    return None;
                }
                Some(result)
            });
            match result {
                Some(result) => return result,
                None => self.drain(frames),
            };
        }
        frames.with(action)
    }

    /// Number of frames by state; frames in magazines count as free. [`Counts::free_regions`] and the largest block
    /// are those available without draining.
    pub fn counts<'f>(&self, frames: &impl Exclusive<Frames<'f>>) -> Counts {
        frames.with(|frames| {
            let mut counts = frames.counts();
            let cached = self.len().min(counts.used);
            counts.free += cached;
            counts.used -= cached;
            for cpu in self.cpus {
                counts.history.allocations += cpu.allocations.load(Ordering::Relaxed);
                counts.history.frees += cpu.frees.load(Ordering::Relaxed);
            }
            counts
        })
    }
}
