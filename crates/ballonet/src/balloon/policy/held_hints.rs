//! Hinted memory that the device has returned and the driver still holds.

use alloc::vec::Vec;

use crate::memory::{FrameRun, IdleRun, REGION_FRAMES};

/// A hinted run of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hint {
    pub(crate) idle: IdleRun,
    /// The round of its last hint.
    pub(crate) round: u32,
}

impl Hint {
    pub(crate) fn run(&self) -> FrameRun {
        self.idle.run
    }

    pub(crate) fn frames(&self) -> u64 {
        self.idle.run.count().into()
    }
}

/// The held runs. Adding one after [`HeldHints::reserve`] allocates nothing; taking one never does.
#[derive(Debug, Default)]
pub(crate) struct HeldHints {
    /// Runs of earlier rounds first.
    runs: Vec<Hint>,
    /// How many are of earlier rounds.
    stale: usize,
    frames: u64,
}

impl HeldHints {
    /// Frames held.
    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    /// Makes room for `runs` more. `false` if there is no memory for that.
    pub(crate) fn reserve(&mut self, runs: usize) -> bool {
        self.runs.try_reserve(runs).is_ok()
    }

    /// Adds a run, while `round` is the latest round.
    pub(crate) fn push(&mut self, hint: Hint, round: Option<u32>) {
        self.frames += hint.frames();
        self.runs.push(hint);
        if Some(hint.round) != round {
            let last = self.runs.len() - 1;
            self.runs.swap(self.stale, last);
            self.stale += 1;
        }
    }

    /// A new round begins: all held runs are of earlier rounds.
    pub(crate) fn begin_round(&mut self) {
        self.stale = self.runs.len();
    }

    /// Takes a run of an earlier round.
    pub(crate) fn take_stale(&mut self) -> Option<Hint> {
        self.stale = self.stale.checked_sub(1)?;
        let hint = self.runs.swap_remove(self.stale);
        self.frames -= hint.frames();
        Some(hint)
    }

    /// Takes any run.
    pub(crate) fn take(&mut self) -> Option<Hint> {
        let hint = self.runs.pop()?;
        self.stale = self.stale.min(self.runs.len());
        self.frames -= hint.frames();
        Some(hint)
    }

    /// Takes a run of at most `most` frames, rounded up to whole regions.
    pub(crate) fn take_part(&mut self, most: u64) -> Option<FrameRun> {
        let hint = self.take()?;
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let (run, rest) = hint.run().split(most.checked_next_multiple_of(REGION_FRAMES).unwrap_or(u32::MAX));
        if let Some(rest) = rest {
            // It takes the place that just became free.
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
        Hint { idle: IdleRun::unreported(FrameRun::new(Pfn(start), count).unwrap()), round }
    }

    fn held(hints: &[(u32, u32, u32)], round: u32) -> HeldHints {
        let mut held = HeldHints::default();
        assert!(held.reserve(hints.len()));
        hints.iter().for_each(|(start, count, of)| held.push(hint(*start, *count, *of), Some(round)));
        held
    }

    #[test]
    fn runs_of_earlier_rounds_come_first_whatever_their_order() {
        let mut held = held(&[(0, 512, 5), (512, 512, 6), (1024, 512, 5), (1536, 512, 6)], 6);
        assert_eq!(held.frames(), 2048);
        let mut stale: Vec<_> = core::iter::from_fn(|| held.take_stale()).map(|hint| hint.round).collect();
        assert_eq!((stale.len(), stale.pop(), stale.pop()), (2, Some(5), Some(5)));
        held.begin_round();
        assert_eq!(core::iter::from_fn(|| held.take_stale()).count(), 2);
        assert_eq!(held.frames(), 0);
    }

    #[test]
    fn every_run_is_taken_once() {
        let mut held = held(&[(0, 1, 5), (1, 2, 5), (3, 3, 6)], 6);
        let frames: u64 = core::iter::from_fn(|| held.take()).map(|hint| hint.frames()).sum();
        assert_eq!((frames, held.frames(), held.take_stale()), (6, 0, None));
    }

    #[test]
    fn a_part_is_whole_regions_and_leaves_the_rest() {
        let mut held = held(&[(0, 2048, 5)], 5);
        let parts = [1, 513, u64::MAX].map(|most| held.take_part(most).unwrap());
        assert_eq!(parts.map(|run| (run.start().0, run.count())), [(0, 512), (512, 1024), (1536, 512)]);
        assert_eq!((held.take_part(1), held.frames()), (None, 0));
    }
}
