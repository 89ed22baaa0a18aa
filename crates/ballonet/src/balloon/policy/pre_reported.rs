//! Frames that are reported before they are inflated: being reported, or ready to be inflated.

use alloc::collections::VecDeque;

use crate::bus::heap;
use crate::memory::FrameRun;
use crate::platform::OutOfMemory;

/// The time the device has for a report before frames are inflated unreported, in nanoseconds: 1 s.
const PATIENCE: u64 = 1_000_000_000;

/// Frames reported before they are inflated.
#[derive(Debug)]
pub(crate) struct PreReported {
    ready: VecDeque<FrameRun>,
    /// Frames in `ready`.
    frames: u64,
    in_flight: u64,
    /// The platform has nothing more to report first.
    exhausted: bool,
    /// The device did not return a report in time.
    stuck: bool,
    /// When a report was last sent or returned, in nanoseconds.
    moved: u64,
}

impl PreReported {
    /// No frames, with room for `runs` runs.
    ///
    /// # Errors
    /// When the heap has no room for them.
    pub(crate) fn new(runs: usize) -> Result<Self, OutOfMemory> {
        let ready = heap::vector(runs)?.into();
        Ok(Self { ready, frames: 0, in_flight: 0, exhausted: false, stuck: false, moved: 0 })
    }

    /// Reported frames, ready to be inflated.
    pub(crate) const fn ready(&self) -> u64 {
        self.frames
    }

    /// Frames being reported.
    pub(crate) const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Whether frames need not wait to be reported first: nothing is left to report, or the device is stuck.
    pub(crate) const fn needs_no_wait(&self) -> bool {
        self.exhausted || self.stuck
    }

    /// When the device runs out of time for the reports in flight; `None` while none are awaited.
    pub(crate) fn deadline(&self) -> Option<u64> {
        (self.in_flight > 0 && !self.needs_no_wait()).then_some(self.moved.saturating_add(PATIENCE + 1))
    }

    /// Starts a round at `now`, in nanoseconds: the platform may have more to report again.
    pub(crate) const fn begin(&mut self, now: u64) {
        self.exhausted = false;
        self.stuck = self.in_flight > 0 && now.saturating_sub(self.moved) > PATIENCE;
    }

    /// The platform has nothing more to report.
    pub(crate) const fn exhausted(&mut self) {
        self.exhausted = true;
    }

    /// A report of `frames` was sent.
    pub(crate) const fn sent(&mut self, frames: u32, now: u64) {
        self.in_flight += frames as u64;
        self.moved = now;
    }

    /// A report returned.
    pub(crate) fn returned(&mut self, runs: &[FrameRun], now: u64) {
        let frames = runs.iter().map(|run| u64::from(run.count())).sum::<u64>();
        self.in_flight -= frames;
        self.frames += frames;
        self.ready.extend(runs);
        self.moved = now;
    }

    /// Takes a run of at most `most` frames, at least one, to inflate.
    pub(crate) fn take(&mut self, most: u32) -> Option<FrameRun> {
        let (run, rest) = self.ready.pop_front()?.split(most);
        self.frames -= u64::from(run.count());
        if let Some(rest) = rest {
            self.ready.push_front(rest);
        }
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Pfn;

    fn run(start: u32, count: u32) -> FrameRun {
        FrameRun::new(Pfn(start), count).unwrap()
    }

    #[test]
    fn returned_frames_are_taken_in_order_and_in_any_pieces() {
        let mut frames = PreReported::new(4).unwrap();
        frames.sent(1536, 0);
        frames.returned(&[run(0, 1024)], 5);
        assert_eq!((frames.in_flight(), frames.ready()), (512, 1024));
        frames.returned(&[run(4096, 512)], 5);
        let taken: Vec<_> = core::iter::from_fn(|| frames.take(700)).collect();
        assert_eq!(taken, [run(0, 700), run(700, 324), run(4096, 512)]);
        assert_eq!((frames.in_flight(), frames.ready()), (0, 0));
    }

    #[test]
    fn inflating_does_not_wait_for_reports_that_cannot_be_made_or_do_not_return() {
        let mut frames = PreReported::new(4).unwrap();
        frames.begin(u64::MAX);
        assert!(!frames.needs_no_wait() && frames.deadline().is_none());
        frames.sent(512, 100);
        frames.begin(100 + PATIENCE);
        assert!(!frames.needs_no_wait());
        frames.begin(frames.deadline().unwrap());
        assert!(frames.needs_no_wait() && frames.deadline().is_none(), "no second deadline for it");
        frames.returned(&[run(0, 512)], 200);
        frames.begin(u64::MAX);
        assert!(!frames.needs_no_wait());
        frames.exhausted();
        assert!(frames.needs_no_wait());
        frames.begin(0);
        assert!(!frames.needs_no_wait());
    }
}
