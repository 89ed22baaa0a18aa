//! Whether a device reads all descriptors of a request: measured, because no register says so.
//!
//! A host that backs the guest by huge pages frees one only when all its frame numbers come in one request. That takes
//! two descriptors, because some devices drop longer ones; but some devices read only the first. Memory shows what a
//! device did: frames that the host discarded have lost their contents. So when the host first asks for 2 MiB or more,
//! the driver marks a region frame by frame, inflates it by one request of two descriptors, deflates it by requests of
//! one, and counts the marks. Only if none is left in either half do later requests have two descriptors.
//!
//! A device that never completes the request is reset and gets no such request again.

use crate::memory::{FrameRun, REGION_FRAMES};

/// The time a device has for the request, in nanoseconds: 2 s. The busiest host needs less for 512 frames.
const PATIENCE: u64 = 2_000_000_000;

/// How a device reads requests of several descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainSupport {
    /// Not known yet.
    Untried,
    /// It reads all of them.
    Read,
    /// It reads the first descriptor only.
    HeadOnly,
    /// Not measurable: the platform cannot mark frames, or the host discarded nothing.
    Unclear,
    /// It never completed such a request.
    Unanswered,
}

impl From<ChainSupport> for &'static str {
    /// Its name in logs.
    fn from(value: ChainSupport) -> Self {
        match value {
            ChainSupport::Untried => "untried",
            ChainSupport::Read => "read",
            ChainSupport::HeadOnly => "head-only",
            ChainSupport::Unclear => "unclear",
            ChainSupport::Unanswered => "unanswered",
        }
    }
}

/// The state of the trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No trial is running.
    Idle,
    /// The region is being inflated, until the deadline at most.
    Given { region: FrameRun, deadline: u64 },
    /// The host has it. `left` remains to be deflated, `out` frames are being deflated, and `marks` survived in the
    /// returned frames of the first and the second half.
    Taken { region: FrameRun, left: Option<FrameRun>, out: u32, marks: [u32; 2] },
}

/// The trial.
#[derive(Debug)]
pub(crate) struct ChainTrial {
    known: ChainSupport,
    stage: Stage,
}

impl ChainTrial {
    /// Before the trial.
    pub(crate) const fn new() -> Self {
        Self { known: ChainSupport::Untried, stage: Stage::Idle }
    }

    /// The result so far.
    pub(crate) const fn known(&self) -> ChainSupport {
        self.known
    }

    /// Whether to begin, with `frames` to inflate.
    pub(crate) const fn is_due(&self, frames: u64) -> bool {
        matches!((self.known, self.stage), (ChainSupport::Untried, Stage::Idle)) && frames >= REGION_FRAMES as u64
    }

    /// Whether it is running.
    pub(crate) const fn is_on(&self) -> bool {
        !matches!(self.stage, Stage::Idle)
    }

    /// The platform cannot mark frames.
    pub(crate) const fn give_up(&mut self) {
        self.known = ChainSupport::Unclear;
    }

    /// The region, marked, was sent at `now`, in nanoseconds.
    pub(crate) const fn given(&mut self, region: FrameRun, now: u64) {
        self.stage = Stage::Given { region, deadline: now.saturating_add(PATIENCE) };
    }

    /// Whether the region is being inflated. It is then the only request in flight.
    pub(crate) const fn is_given(&self) -> bool {
        matches!(self.stage, Stage::Given { .. })
    }

    /// The host has the region.
    pub(crate) const fn taken(&mut self) {
        if let Stage::Given { region, .. } = self.stage {
            self.stage = Stage::Taken { region, left: Some(region), out: 0, marks: [0; 2] };
        }
    }

    /// The part of the region still to deflate.
    pub(crate) const fn left(&self) -> Option<FrameRun> {
        match self.stage {
            Stage::Taken { left, .. } => left,
            Stage::Idle | Stage::Given { .. } => None,
        }
    }

    /// The first `frames` of those left are being deflated.
    pub(crate) fn asked_back(&mut self, frames: u32) {
        if let Stage::Taken { left, out, .. } = &mut self.stage {
            *left = left.filter(|_| frames > 0).map_or(*left, |run| run.split(frames).1);
            *out += frames;
        }
    }

    /// `run` is back, with `marks` left in it. The last run decides.
    pub(crate) fn returned(&mut self, run: FrameRun, marks: u32) {
        let Stage::Taken { region, left, out, marks: kept } = &mut self.stage else { return };
        let half = usize::from(run.start().0 - region.start().0 >= REGION_FRAMES / 2);
        kept[half] += marks;
        *out = out.saturating_sub(run.count());
        if left.is_none() && *out == 0 {
            self.known = match *kept {
                [0, 0] => ChainSupport::Read,
                [0, _] => ChainSupport::HeadOnly,
                _ => ChainSupport::Unclear,
            };
            self.stage = Stage::Idle;
        }
    }

    /// When the device runs out of time; `None` while the trial does not wait for it.
    pub(crate) const fn deadline(&self) -> Option<u64> {
        match self.stage {
            Stage::Given { deadline, .. } => Some(deadline),
            Stage::Idle | Stage::Taken { .. } => None,
        }
    }

    /// The device ran out of time.
    pub(crate) const fn unanswered(&mut self) {
        self.known = ChainSupport::Unanswered;
    }

    /// The device was reset. Returns frames that the host has and that were not being deflated.
    pub(crate) const fn stopped(&mut self) -> Option<FrameRun> {
        let left = self.left();
        self.stage = Stage::Idle;
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Pfn;

    fn region() -> FrameRun {
        FrameRun::new(Pfn(1024), REGION_FRAMES).unwrap()
    }

    /// The outcome of a trial whose region returns in pieces of (frames, marks left).
    fn outcome(pieces: &[(u32, u32)]) -> ChainSupport {
        let mut trial = ChainTrial::new();
        assert!(trial.is_due(512) && !trial.is_due(511) && !trial.is_on());
        trial.given(region(), 5);
        assert!(trial.is_on() && !trial.is_due(512));
        trial.taken();
        let mut out = Vec::new();
        for (frames, marks) in pieces {
            let run = trial.left().unwrap().split(*frames).0;
            trial.asked_back(*frames);
            out.push((run, *marks));
        }
        assert_eq!(trial.left(), None);
        for (run, marks) in out {
            assert!(trial.is_on());
            trial.returned(run, marks);
        }
        assert!(!trial.is_on() && !trial.is_due(1 << 20), "once is enough");
        trial.known()
    }

    #[test]
    fn surviving_marks_show_which_descriptors_the_device_read() {
        assert_eq!(outcome(&[(256, 0), (256, 0)]), ChainSupport::Read);
        assert_eq!(outcome(&[(256, 0), (256, 256)]), ChainSupport::HeadOnly);
        assert_eq!(outcome(&[(256, 0), (256, 1)]), ChainSupport::HeadOnly);
        assert_eq!(outcome(&[(256, 256), (256, 256)]), ChainSupport::Unclear, "the host discards nothing");
        assert_eq!(outcome(&[(256, 1), (256, 0)]), ChainSupport::Unclear);
        assert_eq!(outcome(&[(100, 0), (156, 0), (200, 0), (56, 56)]), ChainSupport::HeadOnly, "in any pieces");
    }

    #[test]
    fn a_device_has_time_until_the_deadline() {
        let mut trial = ChainTrial::new();
        assert_eq!(trial.deadline(), None);
        trial.given(region(), 100);
        assert_eq!(trial.deadline(), Some(100 + PATIENCE));
        trial.unanswered();
        assert_eq!(trial.stopped(), None, "it is in flight");
        assert_eq!((trial.known(), trial.is_due(512), trial.deadline()), (ChainSupport::Unanswered, false, None));
    }

    #[test]
    fn a_reset_for_another_reason_leaves_the_trial_to_be_repeated() {
        let mut trial = ChainTrial::new();
        trial.given(region(), 0);
        assert_eq!(trial.stopped(), None);
        assert!(trial.is_due(512));
        trial.given(region(), 0);
        trial.taken();
        trial.asked_back(256);
        assert_eq!(trial.stopped(), region().split(256).1, "the host has it");
        assert!(trial.is_due(512));
    }
}
