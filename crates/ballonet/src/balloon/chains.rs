//! Whether a device reads a request of several descriptors in full: found out, since nothing in the device says so.
//!
//! A host that backs the guest by huge pages gives one back only when all its frame numbers come in one request. That takes
//! two descriptors, because some devices drop longer ones; and some take the first descriptor for all. What a device did
//! shows in the memory itself, which does not keep what was in it when the host takes it away. So the first time that the
//! host wants a region of 2 MiB, one is marked frame by frame, given by one request of two descriptors, asked back by
//! requests of one, and looked at. Only if no mark is left in either half do requests have two descriptors from then on.
//!
//! A device that never gives the request back is reset, and gets no such request again.

use crate::memory::FrameRun;

/// Frames in the region that is given for a trial, which are also those of the longest request.
pub(super) const REGION: u32 = 512;

/// How long a device may take for the request: 2 s, in nanoseconds. The busiest host needs less for 512 frames, and whoever
/// waits for the balloon would not wait much longer.
pub(super) const PATIENCE: u64 = 2_000_000_000;

/// What is known of how a device reads requests of several descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chains {
    /// Nothing yet.
    Untried,
    /// It reads all of them.
    Read,
    /// It reads the first descriptor and no other.
    HeadOnly,
    /// It cannot be told: the platform cannot mark frames, or the host took nothing away.
    Unclear,
    /// It never gave such a request back.
    Unanswered,
}

impl Chains {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Untried => "untried",
            Self::Read => "read",
            Self::HeadOnly => "head-only",
            Self::Unclear => "unclear",
            Self::Unanswered => "unanswered",
        }
    }
}

/// How far the trial has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is not going on.
    Idle,
    /// The region is on its way to the host, until the deadline at most.
    Given { region: FrameRun, deadline: u64 },
    /// The host has it. `left` is still to be asked back, `out` frames are on their way, and so many marks were left in the
    /// first and the second half of what is back.
    Taken { region: FrameRun, left: Option<FrameRun>, out: u32, marks: [u32; 2] },
}

/// The trial.
#[derive(Debug)]
pub(super) struct ChainTrial {
    known: Chains,
    stage: Stage,
}

impl ChainTrial {
    /// Nothing is known.
    pub(super) const fn new() -> Self {
        Self { known: Chains::Untried, stage: Stage::Idle }
    }

    /// What is known.
    pub(super) const fn known(&self) -> Chains {
        self.known
    }

    /// Whether to begin, when so many frames are to be given.
    pub(super) const fn is_due(&self, frames: u64) -> bool {
        matches!((self.known, self.stage), (Chains::Untried, Stage::Idle)) && frames >= REGION as u64
    }

    /// Whether it is going on.
    pub(super) const fn is_on(&self) -> bool {
        !matches!(self.stage, Stage::Idle)
    }

    /// The platform cannot mark frames.
    pub(super) const fn give_up(&mut self) {
        self.known = Chains::Unclear;
    }

    /// The region, marked, was sent at `now`, in nanoseconds.
    pub(super) const fn given(&mut self, region: FrameRun, now: u64) {
        self.stage = Stage::Given { region, deadline: now.saturating_add(PATIENCE) };
    }

    /// Whether the region is on its way to the host. It is the only request that is.
    pub(super) const fn is_given(&self) -> bool {
        matches!(self.stage, Stage::Given { .. })
    }

    /// The host has the region.
    pub(super) const fn taken(&mut self) {
        if let Stage::Given { region, .. } = self.stage {
            self.stage = Stage::Taken { region, left: Some(region), out: 0, marks: [0; 2] };
        }
    }

    /// What is to be asked back.
    pub(super) const fn left(&self) -> Option<FrameRun> {
        match self.stage {
            Stage::Taken { left, .. } => left,
            Stage::Idle | Stage::Given { .. } => None,
        }
    }

    /// So many frames were asked back, from the first of those left.
    pub(super) fn asked_back(&mut self, frames: u32) {
        if let Stage::Taken { left, out, .. } = &mut self.stage {
            *left = left.filter(|_| frames > 0).map_or(*left, |run| run.split(frames).1);
            *out += frames;
        }
    }

    /// `run` is back, with so many marks left in it. When all is back, more is known.
    pub(super) fn returned(&mut self, run: FrameRun, marks: u32) {
        let Stage::Taken { region, left, out, marks: kept } = &mut self.stage else { return };
        let half = usize::from(run.start().as_u32() - region.start().as_u32() >= REGION / 2);
        kept[half] += marks;
        *out = out.saturating_sub(run.count());
        if left.is_none() && *out == 0 {
            self.known = match *kept {
                [0, 0] => Chains::Read,
                [0, _] => Chains::HeadOnly,
                _ => Chains::Unclear,
            };
            self.stage = Stage::Idle;
        }
    }

    /// When the device has had its time; `None` while nothing is waited for.
    pub(super) const fn deadline(&self) -> Option<u64> {
        match self.stage {
            Stage::Given { deadline, .. } => Some(deadline),
            Stage::Idle | Stage::Taken { .. } => None,
        }
    }

    /// The device has had its time, and is to be reset.
    pub(super) const fn unanswered(&mut self) {
        self.known = Chains::Unanswered;
    }

    /// The device was reset. Returns what the host has and was not asked back for.
    pub(super) const fn stopped(&mut self) -> Option<FrameRun> {
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
        FrameRun::new(Pfn::new(1024), REGION).unwrap()
    }

    /// A trial whose region comes back in pieces, each with so many marks left in it.
    fn outcome(pieces: &[(u32, u32)]) -> Chains {
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
    fn marks_that_are_left_tell_what_the_device_has_read() {
        assert_eq!(outcome(&[(256, 0), (256, 0)]), Chains::Read);
        assert_eq!(outcome(&[(256, 0), (256, 256)]), Chains::HeadOnly);
        assert_eq!(outcome(&[(256, 0), (256, 1)]), Chains::HeadOnly);
        assert_eq!(outcome(&[(256, 256), (256, 256)]), Chains::Unclear, "the host takes nothing away");
        assert_eq!(outcome(&[(256, 1), (256, 0)]), Chains::Unclear);
        assert_eq!(outcome(&[(100, 0), (156, 0), (200, 0), (56, 56)]), Chains::HeadOnly, "in any pieces");
    }

    #[test]
    fn a_device_has_until_the_deadline() {
        let mut trial = ChainTrial::new();
        assert_eq!(trial.deadline(), None);
        trial.given(region(), 100);
        assert_eq!(trial.deadline(), Some(100 + PATIENCE));
        trial.unanswered();
        assert_eq!(trial.stopped(), None, "it is in flight");
        assert_eq!((trial.known(), trial.is_due(512), trial.deadline()), (Chains::Unanswered, false, None));
    }

    #[test]
    fn a_reset_by_somebody_else_leaves_it_to_be_tried_again() {
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
