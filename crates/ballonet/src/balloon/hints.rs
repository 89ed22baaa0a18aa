//! Hinted memory that the device has returned and that is not the kernel's again: a pile of runs of frames.

use alloc::vec::Vec;

use crate::memory::{FrameRun, IdleRun};

/// Frames come off the pile early in multiples of so many, so that regions stay whole.
const REGION: u32 = 512;

/// Hinted memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hint {
    pub(super) idle: IdleRun,
    /// The round in which it was hinted last.
    pub(super) round: u32,
}

impl Hint {
    pub(super) fn run(&self) -> FrameRun {
        self.idle.run
    }

    pub(super) fn frames(&self) -> u64 {
        self.idle.run.count().into()
    }
}

/// The pile. Adding to it needs no memory where [`Hints::reserve`] has been asked first; taking from it never does.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// Those of earlier rounds first.
    runs: Vec<Hint>,
    /// How many of them are of earlier rounds.
    stale: usize,
    frames: u64,
}

impl Hints {
    /// Frames in it.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    /// Makes room for so many runs more. `false` if there is no memory for that.
    pub(super) fn reserve(&mut self, runs: usize) -> bool {
        self.runs.try_reserve(runs).is_ok()
    }

    /// Adds a run, while `round` is the latest round.
    pub(super) fn push(&mut self, hint: Hint, round: Option<u32>) {
        self.frames += hint.frames();
        self.runs.push(hint);
        if Some(hint.round) != round {
            let last = self.runs.len() - 1;
            self.runs.swap(self.stale, last);
            self.stale += 1;
        }
    }

    /// All of it is of earlier rounds from now on.
    pub(super) fn grow_stale(&mut self) {
        self.stale = self.runs.len();
    }

    /// Takes a run of an earlier round.
    pub(super) fn take_stale(&mut self) -> Option<Hint> {
        self.stale = self.stale.checked_sub(1)?;
        let hint = self.runs.swap_remove(self.stale);
        self.frames -= hint.frames();
        Some(hint)
    }

    /// Takes any run.
    pub(super) fn take(&mut self) -> Option<Hint> {
        let hint = self.runs.pop()?;
        self.stale = self.stale.min(self.runs.len());
        self.frames -= hint.frames();
        Some(hint)
    }

    /// Takes a run of no more than `most` frames, but for what makes its regions whole.
    pub(super) fn take_part(&mut self, most: u64) -> Option<FrameRun> {
        let hint = self.take()?;
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let (run, rest) = hint.run().split(most.checked_next_multiple_of(REGION).unwrap_or(u32::MAX));
        if let Some(rest) = rest {
            // In the place of what was just taken.
            self.push(Hint { idle: IdleRun { run: rest, ..hint.idle }, ..hint }, Some(hint.round));
        }
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Pfn;

    fn hint(start: u32, count: u32, round: u32) -> Hint {
        Hint { idle: IdleRun::unreported(FrameRun::new(Pfn::new(start), count).unwrap()), round }
    }

    fn pile(hints: &[(u32, u32, u32)], round: u32) -> Hints {
        let mut pile = Hints::default();
        assert!(pile.reserve(hints.len()));
        hints.iter().for_each(|(start, count, of)| pile.push(hint(*start, *count, *of), Some(round)));
        pile
    }

    #[test]
    fn what_was_hinted_in_earlier_rounds_comes_first_whichever_order_it_came_back_in() {
        let mut pile = pile(&[(0, 512, 5), (512, 512, 6), (1024, 512, 5), (1536, 512, 6)], 6);
        assert_eq!(pile.frames(), 2048);
        let mut stale: Vec<_> = core::iter::from_fn(|| pile.take_stale()).map(|hint| hint.round).collect();
        assert_eq!((stale.len(), stale.pop(), stale.pop()), (2, Some(5), Some(5)));
        pile.grow_stale();
        assert_eq!(core::iter::from_fn(|| pile.take_stale()).count(), 2);
        assert_eq!(pile.frames(), 0);
    }

    #[test]
    fn any_run_can_be_taken_and_none_twice() {
        let mut pile = pile(&[(0, 1, 5), (1, 2, 5), (3, 3, 6)], 6);
        let frames: u64 = core::iter::from_fn(|| pile.take()).map(|hint| hint.frames()).sum();
        assert_eq!((frames, pile.frames(), pile.take_stale()), (6, 0, None));
    }

    #[test]
    fn a_part_is_of_whole_regions_and_leaves_the_rest() {
        let mut pile = pile(&[(0, 2048, 5)], 5);
        let parts = [1, 513, u64::MAX].map(|most| pile.take_part(most).unwrap());
        assert_eq!(parts.map(|run| (run.start().as_u32(), run.count())), [(0, 512), (512, 1024), (1536, 512)]);
        assert_eq!((pile.take_part(1), pile.frames()), (None, 0));
    }
}
