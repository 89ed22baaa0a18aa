//! Which of two paths to the host is faster: measured on the device at hand, without I/O.
//!
//! A host discards inflated memory frame by frame, and reported memory range by range. So it can be faster to report a
//! range first and inflate its frames afterwards, although every frame is named twice: discarding empty memory again
//! costs little. Which path is faster depends on the host. Each is tried in turn with a small part of the memory, and
//! the rest takes the faster one; after 4 GiB both are tried again.

/// Frames of a trial: 16 MiB, which takes a few milliseconds.
const TRIAL: u64 = 4096;
/// Trials of each path; the shortest counts, since disturbances only lengthen a trial.
const ROUNDS: u8 = 2;
/// Frames to inflate that make trials worthwhile: 128 MiB, of which the trials take half.
const WORTH: u64 = 8 * TRIAL;
/// Frames after which both paths are tried again: 4 GiB.
const AGAIN: u64 = 1 << 20;

/// A path of free memory to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Reported as free memory first, then inflated.
    ReportFirst = 0,
    /// Inflated at once.
    Direct = 1,
}

impl From<Path> for &'static str {
    /// Its name in logs: `report-first` or `direct`.
    fn from(value: Path) -> Self {
        match value {
            Path::ReportFirst => "report-first",
            Path::Direct => "direct",
        }
    }
}

/// The last measured rate of each path, in MiB/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathRates {
    /// Reported first.
    pub report_first: u64,
    /// Inflated at once.
    pub direct: u64,
}

/// Frames that may be sent now, and their path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) path: Path,
    pub(crate) frames: u64,
}

/// The demand, and the memory that could serve it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Supply {
    /// Frames that the host wants.
    pub(crate) wanted: u64,
    /// Frames that could be reported.
    pub(crate) unreported: u64,
    /// Neither queue has requests in flight, so that a trial measures nothing else.
    pub(crate) idle: bool,
}

#[derive(Debug, Clone, Copy)]
struct Trial {
    path: Path,
    /// In nanoseconds.
    started: u64,
    /// Frames still to send.
    left: u64,
    /// Frames not confirmed yet.
    open: u64,
}

/// The measurement.
#[derive(Debug)]
pub(crate) struct PathTrial {
    path: Path,
    trial: Option<Trial>,
    /// Trials since the last comparison.
    tried: u8,
    /// The shortest trial of each path, in nanoseconds.
    best: [u64; 2],
    /// `best` at the last comparison.
    compared: Option<[u64; 2]>,
    /// Frames until the next trials.
    rest: u64,
}

impl PathTrial {
    /// Nothing has been measured. Reporting first is right more often: memory falls sooner.
    pub(crate) const fn new() -> Self {
        Self { path: Path::ReportFirst, trial: None, tried: 0, best: [u64::MAX; 2], compared: None, rest: 0 }
    }

    /// The faster path, as far as is known.
    pub(crate) const fn path(&self) -> Path {
        self.path
    }

    /// The rate of each path, once measured.
    pub(crate) fn rates(&self) -> Option<PathRates> {
        // Frames in nanoseconds, as MiB/s.
        let rate = |time: u64| TRIAL / 256 * 1_000_000_000 / time.max(1);
        self.compared.map(|[report_first, direct]| PathRates { report_first: rate(report_first), direct: rate(direct) })
    }

    /// How many frames of `supply` may be sent now, and by which path. During a trial, no more than its own.
    pub(crate) fn next(&mut self, supply: Supply, now: u64) -> Allowance {
        let worth = if self.tried == 0 { WORTH } else { TRIAL };
        if self.trial.is_none() && supply.idle && self.rest == 0 && supply.wanted.min(supply.unreported) >= worth {
            let path = if self.tried % 2 == 0 { Path::ReportFirst } else { Path::Direct };
            self.trial = Some(Trial { path, started: now, left: TRIAL, open: TRIAL });
        }
        match self.trial {
            Some(trial) => Allowance { path: trial.path, frames: trial.left.min(supply.wanted) },
            None => Allowance { path: self.path, frames: supply.wanted },
        }
    }

    /// This many frames were sent in inflate requests.
    pub(crate) fn sent(&mut self, frames: u64) {
        if let Some(trial) = &mut self.trial {
            trial.left = trial.left.saturating_sub(frames);
        }
    }

    /// The host has confirmed this many frames by `now`.
    pub(crate) fn confirmed(&mut self, frames: u64, now: u64) {
        self.rest = self.rest.saturating_sub(frames);
        let Some(trial) = &mut self.trial else { return };
        trial.open = trial.open.saturating_sub(frames);
        if trial.open > 0 {
            return;
        }
        let best = &mut self.best[trial.path as usize];
        *best = (*best).min(now.saturating_sub(trial.started));
        self.trial = None;
        self.tried += 1;
        if self.tried == 2 * ROUNDS {
            self.compare();
        }
    }

    /// The current trial is void: its frames have run out, or go elsewhere.
    pub(crate) fn abandon(&mut self) {
        self.trial = None;
    }

    fn compare(&mut self) {
        let [report_first, direct] = self.best;
        self.path = if direct < report_first { Path::Direct } else { Path::ReportFirst };
        self.compared = Some(self.best);
        (self.tried, self.best, self.rest) = (0, [u64::MAX; 2], AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host, its clock, and how long a frame takes on each path, in nanoseconds.
    struct Host {
        now: u64,
        trial: PathTrial,
        frame: [u64; 2],
    }

    impl Host {
        fn new(frame: [u64; 2]) -> Self {
            Self { now: 1000, trial: PathTrial::new(), frame }
        }

        /// Sends all of `wanted`, at most 2048 frames at a time. Returns how many took each path.
        fn give(&mut self, mut wanted: u64) -> [u64; 2] {
            let mut gone = [0; 2];
            while wanted > 0 {
                let supply = Supply { wanted, unreported: wanted, idle: true };
                let Allowance { path, frames } = self.trial.next(supply, self.now);
                let frames = frames.min(2048);
                assert!(frames > 0, "a finished trial does not block");
                self.trial.sent(frames);
                self.now += frames * self.frame[path as usize];
                self.trial.confirmed(frames, self.now);
                gone[path as usize] += frames;
                wanted -= frames;
            }
            gone
        }
    }

    #[test]
    fn each_path_is_tried_twice_and_the_rest_takes_the_faster_one() {
        let mut fast_reports = Host::new([300, 500]);
        assert_eq!(fast_reports.give(262_144), [262_144 - 2 * TRIAL, 2 * TRIAL]);
        assert_eq!(fast_reports.trial.path(), Path::ReportFirst);
        // 4096 bytes in 300 ns and in 500 ns.
        assert_eq!(fast_reports.trial.rates(), Some(PathRates { report_first: 13_020, direct: 7812 }));
        let mut slow_reports = Host::new([700, 500]);
        assert_eq!(slow_reports.give(262_144), [2 * TRIAL, 262_144 - 2 * TRIAL]);
        assert_eq!(slow_reports.trial.path(), Path::Direct);
    }

    #[test]
    fn equal_paths_report_first() {
        let mut host = Host::new([500, 500]);
        host.give(262_144);
        assert_eq!(host.trial.path(), Path::ReportFirst);
    }

    #[test]
    fn little_memory_causes_no_trial_and_a_result_holds_for_a_while() {
        let mut host = Host::new([700, 500]);
        assert_eq!((host.give(WORTH - 1), host.trial.rates()), ([WORTH - 1, 0], None));
        host.give(WORTH);
        assert_eq!(host.trial.path(), Path::Direct);
        assert_eq!(host.give(AGAIN / 2), [0, AGAIN / 2]);
        host.frame = [300, 500];
        host.give(AGAIN);
        host.give(WORTH);
        assert_eq!(host.trial.path(), Path::ReportFirst, "a changed host is noticed");
    }

    #[test]
    fn one_disturbed_trial_does_not_decide() {
        let mut host = Host::new([300, 500]);
        let supply = Supply { wanted: WORTH, unreported: WORTH, idle: true };
        assert_eq!(host.trial.next(supply, host.now), Allowance { path: Path::ReportFirst, frames: TRIAL });
        host.trial.sent(TRIAL);
        host.now += 1_000_000_000;
        host.trial.confirmed(TRIAL, host.now);
        host.give(WORTH);
        assert_eq!(host.trial.path(), Path::ReportFirst);
    }

    #[test]
    fn trials_wait_for_an_idle_device_and_send_no_more_than_their_own() {
        let mut trial = PathTrial::new();
        let supply = Supply { wanted: WORTH, unreported: WORTH, idle: false };
        assert_eq!(trial.next(supply, 0).frames, WORTH, "no trial");
        let idle = Supply { idle: true, ..supply };
        assert_eq!(trial.next(idle, 0).frames, TRIAL);
        trial.sent(TRIAL - 100);
        assert_eq!(trial.next(supply, 0).frames, 100);
        trial.sent(100);
        assert_eq!(trial.next(supply, 0).frames, 0, "the frames in flight complete first");
        trial.abandon();
        assert_eq!(trial.next(supply, 0), Allowance { path: Path::ReportFirst, frames: WORTH });
    }
}
