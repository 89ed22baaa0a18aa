//! A magazine: a few single frames at a CPU's disposal, so that it need not ask the allocator for each (Bonwick and
//! Adams, *Magazines and Vmem*, USENIX 2001).
//!
//! The frame freed last is allocated first: it is warm. An empty magazine is filled to one half, in the longest runs
//! available; a full one returns its older half. So a CPU asks the allocator at most once in 64 operations. Half a
//! magazine is one word of the bits for held frames ([`held`](super::held)): with less, CPUs with adjacent frames would
//! write the same words, and wait for each other.
//!
//! The allocator counts frames in a magazine as *used*; [`Frames::state`] calls them free.
#![forbid(unsafe_code)]

use super::frames::{Frames, numbers};
use super::list::End;
use super::region::FrameState;
use super::span::parts;
use super::{FrameRun, Pfn};

/// Single frames that are not held.
#[derive(Debug)]
pub struct Magazine {
    frames: [Pfn; Self::CAPACITY],
    count: usize,
}

impl Magazine {
    /// How many frames fit.
    pub(crate) const CAPACITY: usize = 128;
    /// How many are taken from the allocator, or returned to it, at once.
    pub(crate) const HALF: usize = Self::CAPACITY / 2;

    /// How many frames are in it.
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// Whether it is empty.
    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether it is full.
    pub(crate) const fn is_full(&self) -> bool {
        self.count == Self::CAPACITY
    }

    /// Removes the frame that was added last.
    pub(super) fn pop(&mut self) -> Option<Pfn> {
        self.count = self.count.checked_sub(1)?;
        Some(self.frames[self.count])
    }

    /// Adds a frame; there must be room.
    pub(super) fn push(&mut self, frame: Pfn) {
        self.frames[self.count] = frame;
        self.count += 1;
    }

    /// Removes the `count` oldest frames, as the longest runs that they form.
    fn drain(&mut self, count: usize, mut give: impl FnMut(FrameRun)) {
        let oldest = &mut self.frames[..count.min(self.count)];
        oldest.sort_unstable();
        let runs = oldest.chunk_by(|frame, next| u64::from(frame.0) + 1 == u64::from(next.0));
        runs.filter_map(|run| FrameRun::new(*run.first()?, run.len() as u32)).for_each(&mut give);
        let count = oldest.len();
        self.frames.copy_within(count..self.count, 0);
        self.count -= count;
    }
}

impl Default for Magazine {
    /// An empty one.
    fn default() -> Self {
        Self { frames: [Pfn(0); Self::CAPACITY], count: 0 }
    }
}

impl Frames<'_> {
    /// Fills half of a magazine, or as much as there is; free -> used, but not held. Uses the longest available runs,
    /// and breaks whole regions only if there is nothing else: at most 64 steps of constant time.
    ///
    /// Regions from which a magazine was filled count as used before.
    pub(crate) fn fill(&mut self, magazine: &mut Magazine) {
        let missing = |magazine: &Magazine| Magazine::HALF.checked_sub(magazine.len()).filter(|missing| *missing > 0);
        while let Some(run) = missing(magazine).and_then(|most| self.find_for_magazine(most.ilog2())) {
            self.move_run(run, FrameState::Free, FrameState::Used);
            // The lowest frame is allocated first.
            run.pfns().rev().for_each(|frame| magazine.push(frame));
        }
    }

    /// Removes `count` frames from a magazine, the oldest first, or all; used -> free.
    pub(crate) fn drain(&mut self, magazine: &mut Magazine, count: usize) {
        magazine.drain(count, |run| self.move_run(run, FrameState::Used, FrameState::Free));
    }

    /// Moves frames to or from a magazine: their state changes, but not whether they are held.
    fn move_run(&mut self, run: FrameRun, from: FrameState, to: FrameState) {
        let spans = self.spans;
        for part in parts(spans, numbers(run)) {
            if to == FrameState::Used {
                self.regions[part.index].set_touched();
            }
            self.shift_unheld(part.index, part.frames(), from, to, End::Front);
        }
    }
}
