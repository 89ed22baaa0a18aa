//! A bit for each frame, set while somebody holds it: what lets a CPU free a frame without the allocator's lock, and
//! still tells a frame that is freed twice.
//!
//! The allocator counts frames that lie in magazines as used, so its own records cannot tell them from those that
//! somebody has. These bits can: whoever frees a frame clears its bit, and only one can find it set. They are
//! words that any CPU reads and writes at any time, so they are not among the records.
//!
//! The order in which other memory changes is not theirs to keep, so every access is relaxed: a frame passes from one
//! holder to the next by a lock, of a magazine or of the allocator; and all changes of one word are in one order, whatever
//! else is. So of two that free a frame at the same moment one is refused.
//!
//! The first words of all regions come first, then the second ones. So a cache line is of frames that lie 2 MiB apart, and CPUs
//! that have 64 frames each of one region, as magazines are filled, do not write the same lines all the time.
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

/// Which frames somebody holds. A handle: its copies are of the same bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldFrames<'a> {
    spans: &'a [Span],
    words: &'a [AtomicU64],
}

impl<'a> HeldFrames<'a> {
    /// Over exactly [`REGION_WORDS`] words for each region of the spans, that contain anything.
    pub(super) fn new(spans: &'a [Span], words: &'a [AtomicU64]) -> Self {
        Self { spans, words }
    }

    /// The frames of a region that are held.
    pub(super) fn frames(&self, index: usize) -> FrameSet {
        let words = self.region(index);
        FrameSet::from_words(array::from_fn(|at| words[at].load(Ordering::Relaxed)))
    }

    /// Sets the bits of `frames` of a region, whom nobody else may free, and none but these.
    pub(super) fn reset(&self, index: usize, frames: FrameSet) {
        for (word, bits) in self.region(index).iter().zip(frames.words()) {
            word.store(bits, Ordering::Relaxed);
        }
    }

    /// Somebody holds `frames` of a region from now on.
    pub(super) fn hold(&self, index: usize, frames: FrameSet) {
        for (word, bits) in self.region(index).iter().zip(frames.words()) {
            match bits {
                0 => {}
                // Nobody else has a frame of the word.
                u64::MAX => word.store(bits, Ordering::Relaxed),
                _ => _ = word.fetch_or(bits, Ordering::Relaxed),
            }
        }
    }

    /// Nobody holds `frames` of a region from now on. Returns those that were held.
    pub(super) fn clear_allocated(&self, index: usize, frames: FrameSet) -> FrameSet {
        let words = self.region(index);
        let mut bits = frames.words();
        for (word, bits) in words.iter().zip(&mut bits).filter(|(_, bits)| **bits != 0) {
            *bits &= match *bits {
                // An exchange, where the CPU would try again and again to do the other.
                u64::MAX => word.swap(0, Ordering::Relaxed),
                bits => word.fetch_and(!bits, Ordering::Relaxed),
            };
        }
        FrameSet::from_words(bits)
    }

    /// Somebody holds `frame`, which is memory, from now on.
    pub(super) fn hold_one(&self, frame: Pfn) {
        if let Some((word, bit)) = self.bit(frame) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Nobody holds `frame` from now on. Whether somebody did.
    pub(super) fn clear_allocated_one(&self, frame: Pfn) -> bool {
        self.bit(frame).is_some_and(|(word, bit)| word.fetch_and(!bit, Ordering::Relaxed) & bit != 0)
    }

    fn region(&self, index: usize) -> [&'a AtomicU64; REGION_WORDS] {
        array::from_fn(|at| self.word(index, at))
    }

    /// The word at a place in a region.
    fn word(&self, index: usize, at: usize) -> &'a AtomicU64 {
        &self.words[at * (self.words.len() / REGION_WORDS) + index]
    }

    fn bit(&self, frame: Pfn) -> Option<(&'a AtomicU64, u64)> {
        let index = find(self.spans, frame)?;
        let position = frame.0 % REGION_FRAMES;
        Some((self.word(index, (position / WORD_BITS) as usize), 1 << (position % WORD_BITS)))
    }
}
