//! Frames that are reported before they are inflated: on their way to be known as free, or back and ready to be given.

use alloc::collections::VecDeque;

use crate::memory::FrameRun;

/// How long the device may take for a report before frames are inflated without: 1 s, in nanoseconds.
const PATIENCE: u64 = 1_000_000_000;

/// The frames.
#[derive(Debug)]
pub(super) struct Ahead {
    ready: VecDeque<FrameRun>,
    /// Frames in `ready`.
    frames: u64,
    on_way: u64,
    /// There is nothing more to be reported first.
    dry: bool,
    /// The device has had its time for a report.
    stuck: bool,
    /// When a report was last sent or came back, in nanoseconds.
    moved: u64,
}

impl Ahead {
    /// None, with room for so many runs.
    pub(super) fn new(runs: usize) -> Self {
        Self { ready: VecDeque::with_capacity(runs), frames: 0, on_way: 0, dry: false, stuck: false, moved: 0 }
    }

    /// Frames that are back and ready to be given.
    pub(super) const fn ready(&self) -> u64 {
        self.frames
    }

    /// Frames that are being reported.
    pub(super) const fn on_way(&self) -> u64 {
        self.on_way
    }

    /// Whether what is to be given need not wait for reports: there is nothing to report, or nothing comes of it.
    pub(super) const fn is_dry(&self) -> bool {
        self.dry || self.stuck
    }

    /// When reports have had their time; `None` while none are waited for.
    pub(super) fn deadline(&self) -> Option<u64> {
        (self.on_way > 0 && !self.is_dry()).then_some(self.moved.saturating_add(PATIENCE + 1))
    }

    /// At `now`, in nanoseconds, whether there is something to be reported is to be found out anew.
    pub(super) const fn begin(&mut self, now: u64) {
        self.dry = false;
        self.stuck = self.on_way > 0 && now.saturating_sub(self.moved) > PATIENCE;
    }

    /// There is nothing more to be reported.
    pub(super) const fn run_dry(&mut self) {
        self.dry = true;
    }

    /// So many frames are being reported.
    pub(super) const fn sent(&mut self, frames: u32, now: u64) {
        self.on_way += frames as u64;
        self.moved = now;
    }

    /// A report is back.
    pub(super) fn returned(&mut self, runs: &[FrameRun], now: u64) {
        let frames = runs.iter().map(|run| u64::from(run.count())).sum::<u64>();
        self.on_way -= frames;
        self.frames += frames;
        self.ready.extend(runs);
        self.moved = now;
    }

    /// A run of at most `most` frames, at least one, to be given.
    pub(super) fn take(&mut self, most: u32) -> Option<FrameRun> {
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
        FrameRun::new(Pfn::new(start), count).unwrap()
    }

    #[test]
    fn what_comes_back_is_given_in_that_order_in_pieces_as_wanted() {
        let mut ahead = Ahead::new(4);
        ahead.sent(1536, 0);
        ahead.returned(&[run(0, 1024)], 5);
        assert_eq!((ahead.on_way(), ahead.ready()), (512, 1024));
        ahead.returned(&[run(4096, 512)], 5);
        let taken: Vec<_> = core::iter::from_fn(|| ahead.take(700)).collect();
        assert_eq!(taken, [run(0, 700), run(700, 324), run(4096, 512)]);
        assert_eq!((ahead.on_way(), ahead.ready()), (0, 0));
    }

    #[test]
    fn nobody_waits_for_reports_that_are_not_to_be_had_or_do_not_come_back() {
        let mut ahead = Ahead::new(4);
        ahead.begin(u64::MAX);
        assert!(!ahead.is_dry() && ahead.deadline().is_none());
        ahead.sent(512, 100);
        ahead.begin(100 + PATIENCE);
        assert!(!ahead.is_dry());
        ahead.begin(ahead.deadline().unwrap());
        assert!(ahead.is_dry() && ahead.deadline().is_none(), "nobody is woken up for it again");
        ahead.returned(&[run(0, 512)], 200);
        ahead.begin(u64::MAX);
        assert!(!ahead.is_dry());
        ahead.run_dry();
        assert!(ahead.is_dry());
        ahead.begin(0);
        assert!(!ahead.is_dry());
    }
}
