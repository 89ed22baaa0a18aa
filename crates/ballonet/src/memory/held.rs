//! A bit for each frame, set while it is held, that is, allocated and not in a magazine. With it a CPU can free a
//! frame without the allocator's lock, and a double free is still detected.
//!
//! The allocator counts frames in magazines as used, so its own records cannot distinguish them from held frames.
//! These bits can: freeing a frame clears its bit, and only one caller can find it set. Any CPU reads and writes
//! these words at any time, so they are not part of the records.
//!
//! All accesses are relaxed, since these bits need not order other memory: a lock, of a magazine or of the allocator,
//! passes a frame from one holder to the next. All changes of one word are totally ordered in any case, so if two CPUs
//! free the same frame at once, one is refused.
//!
//! The first words of all regions come first, then the second ones. So a cache line covers frames 2 MiB apart, and
//! CPUs that each hold 64 frames of one region, as magazines are filled, do not keep writing the same lines.
#![forbid(unsafe_code)]

use core::array;
use core::sync::atomic::Ordering;

use super::Pfn;
use super::atomic::AtomicU64;
use super::frame_set::{FrameSet, REGION_FRAMES};
use super::span::{Span, find};

const WORD_BITS: u32 = u64::BITS;
/// Words for each region.
pub(super) const REGION_WORDS: usize = (REGION_FRAMES / WORD_BITS) as usize;

/// Which frames are held. A handle: its copies share the same bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldFrames<'a> {
    spans: &'a [Span],
    words: &'a [AtomicU64],
}

impl<'a> HeldFrames<'a> {
    /// Tracks frames in exactly [`REGION_WORDS`] words per region of the spans; their contents do not matter.
    pub(super) fn new(spans: &'a [Span], words: &'a [AtomicU64]) -> Self {
        Self { spans, words }
    }

    /// The held frames of a region.
    pub(super) fn frames(&self, index: usize) -> FrameSet {
        let words = self.region(index);
        FrameSet::from_words(array::from_fn(|at| words[at].load(Ordering::Relaxed)))
    }

    /// Sets the bits of exactly `frames` of a region, which nothing may free during the call.
    pub(super) fn reset(&self, index: usize, frames: FrameSet) {
        for (word, bits) in self.region(index).iter().zip(frames.words()) {
            word.store(bits, Ordering::Relaxed);
        }
    }

    /// Marks `frames` of a region as held.
    pub(super) fn hold(&self, index: usize, frames: FrameSet) {
        for (word, bits) in self.region(index).iter().zip(frames.words()) {
            match bits {
                0 => {}
                // No other frame shares the word.
                u64::MAX => word.store(bits, Ordering::Relaxed),
                _ => _ = word.fetch_or(bits, Ordering::Relaxed),
            }
        }
    }

    /// Marks `frames` of a region as not held. Returns those that were held.
    pub(super) fn clear_allocated(&self, index: usize, frames: FrameSet) -> FrameSet {
        let words = self.region(index);
        let mut bits = frames.words();
        for (word, bits) in words.iter().zip(&mut bits).filter(|(_, bits)| **bits != 0) {
            *bits &= match *bits {
                // A swap: `fetch_and` with a result would be a retry loop on this CPU.
                u64::MAX => word.swap(0, Ordering::Relaxed),
                bits => word.fetch_and(!bits, Ordering::Relaxed),
            };
        }
        FrameSet::from_words(bits)
    }

    /// Marks `frame`, which must be memory, as held.
    pub(super) fn hold_one(&self, frame: Pfn) {
        if let Some((word, bit)) = self.bit(frame) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Marks `frame` as not held. Returns whether it was held.
    pub(super) fn clear_allocated_one(&self, frame: Pfn) -> bool {
        self.bit(frame).is_some_and(|(word, bit)| word.fetch_and(!bit, Ordering::Relaxed) & bit != 0)
    }

    fn region(&self, index: usize) -> [&'a AtomicU64; REGION_WORDS] {
        array::from_fn(|at| self.word(index, at))
    }

    /// Word `at` of a region.
    fn word(&self, index: usize, at: usize) -> &'a AtomicU64 {
        &self.words[at * (self.words.len() / REGION_WORDS) + index]
    }

    fn bit(&self, frame: Pfn) -> Option<(&'a AtomicU64, u64)> {
        let index = find(self.spans, frame)?;
        let position = frame.0 % REGION_FRAMES;
        Some((self.word(index, (position / WORD_BITS) as usize), 1 << (position % WORD_BITS)))
    }
}
