//! Which way frames reach the host faster, where there are two: measured, on the device at hand, without I/O.
//!
//! A host takes memory away frame by frame when frames are inflated, and range by range when they are reported. So it can be
//! faster to report a range first and inflate its frames when it is back, although that says everything twice: what is empty
//! already is taken away sooner. Which of the two it is depends on the host. Each way is tried in turn with a small part of
//! the memory, and the rest goes the faster way; after a while both are tried again.

/// Frames of a trial: 16 MiB, which takes a few milliseconds.
const TRIAL: u64 = 4096;
/// How often each way is tried; the best time counts, since what disturbs a trial makes it longer.
const ROUNDS: u8 = 2;
/// Frames that must be about to be given before it is worth trying: 128 MiB, of which the trials take half.
const WORTH: u64 = 8 * TRIAL;
/// Frames after which it is tried again: 4 GiB.
const AGAIN: u64 = 1 << 20;

/// A way to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Reported as free memory first, then inflated.
    ReportFirst = 0,
    /// Inflated.
    Plain = 1,
}

impl Way {
    /// The word for it: `report-first` or `plain`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ReportFirst => "report-first",
            Self::Plain => "plain",
        }
    }
}

/// How fast frames went each way when that was measured last, in MiB/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Reported first.
    pub report_first: u64,
    /// Inflated only.
    pub plain: u64,
}

/// Frames that may go some way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    pub(super) way: Way,
    pub(super) frames: u64,
}

/// What there is to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Supply {
    /// Frames that the host wants.
    pub(super) wanted: u64,
    /// Frames that could be reported.
    pub(super) unreported: u64,
    /// Nothing is on its way by either queue, so that a trial would measure itself alone.
    pub(super) idle: bool,
}

#[derive(Debug, Clone, Copy)]
struct Trial {
    way: Way,
    /// In nanoseconds.
    started: u64,
    /// Frames to be sent.
    left: u64,
    /// Frames that have not been confirmed.
    open: u64,
}

/// The measurement.
#[derive(Debug)]
pub(super) struct Pace {
    way: Way,
    trial: Option<Trial>,
    /// Trials made since the ways were last compared.
    tried: u8,
    /// The shortest trial of each way, in nanoseconds.
    best: [u64; 2],
    /// What that was when the ways were last compared.
    compared: Option<[u64; 2]>,
    /// Frames until it is tried again.
    rest: u64,
}

impl Pace {
    /// Nothing has been measured. Reporting first is right more often: memory falls sooner.
    pub(super) const fn new() -> Self {
        Self { way: Way::ReportFirst, trial: None, tried: 0, best: [u64::MAX; 2], compared: None, rest: 0 }
    }

    /// The faster way, as far as is known.
    pub(super) const fn way(&self) -> Way {
        self.way
    }

    /// How fast each way was, once that has been measured.
    pub(super) fn rates(&self) -> Option<Rates> {
        // Frames in nanoseconds, as MiB/s.
        let rate = |time: u64| TRIAL / 256 * 1_000_000_000 / time.max(1);
        self.compared.map(|[report_first, plain]| Rates { report_first: rate(report_first), plain: rate(plain) })
    }

    /// How many of the frames of `supply` may go now, and which way. During a trial, no more than its own.
    pub(super) fn next(&mut self, supply: Supply, now: u64) -> Allowance {
        let worth = if self.tried == 0 { WORTH } else { TRIAL };
        if self.trial.is_none() && supply.idle && self.rest == 0 && supply.wanted.min(supply.unreported) >= worth {
            let way = if self.tried.is_multiple_of(2) { Way::ReportFirst } else { Way::Plain };
            self.trial = Some(Trial { way, started: now, left: TRIAL, open: TRIAL });
        }
        match self.trial {
            Some(trial) => Allowance { way: trial.way, frames: trial.left.min(supply.wanted) },
            None => Allowance { way: self.way, frames: supply.wanted },
        }
    }

    /// This many frames were sent in inflate requests.
    pub(super) fn sent(&mut self, frames: u64) {
        if let Some(trial) = &mut self.trial {
            trial.left = trial.left.saturating_sub(frames);
        }
    }

    /// The host has confirmed this many frames by `now`.
    pub(super) fn confirmed(&mut self, frames: u64, now: u64) {
        self.rest = self.rest.saturating_sub(frames);
        let Some(trial) = &mut self.trial else { return };
        trial.open = trial.open.saturating_sub(frames);
        if trial.open > 0 {
            return;
        }
        let best = &mut self.best[trial.way as usize];
        *best = (*best).min(now.saturating_sub(trial.started));
        self.trial = None;
        self.tried += 1;
        if self.tried == 2 * ROUNDS {
            self.compare();
        }
    }

    /// The present trial is void: frames have run out, or go elsewhere.
    pub(super) fn abandon(&mut self) {
        self.trial = None;
    }

    fn compare(&mut self) {
        let [report_first, plain] = self.best;
        self.way = if plain < report_first { Way::Plain } else { Way::ReportFirst };
        self.compared = Some(self.best);
        (self.tried, self.best, self.rest) = (0, [u64::MAX; 2], AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host, its clock, and how long a frame takes each way, in nanoseconds.
    struct Host {
        now: u64,
        pace: Pace,
        frame: [u64; 2],
    }

    impl Host {
        fn new(frame: [u64; 2]) -> Self {
            Self { now: 1000, pace: Pace::new(), frame }
        }

        /// Gives all of `wanted`, at most 2048 frames at a time. Returns how many went each way.
        fn give(&mut self, mut wanted: u64) -> [u64; 2] {
            let mut gone = [0; 2];
            while wanted > 0 {
                let supply = Supply { wanted, unreported: wanted, idle: true };
                let Allowance { way, frames } = self.pace.next(supply, self.now);
                let frames = frames.min(2048);
                assert!(frames > 0, "a trial that is over does not hold anything up");
                self.pace.sent(frames);
                self.now += frames * self.frame[way as usize];
                self.pace.confirmed(frames, self.now);
                gone[way as usize] += frames;
                wanted -= frames;
            }
            gone
        }
    }

    #[test]
    fn each_way_is_tried_twice_and_the_rest_goes_the_faster_one() {
        let mut fast_reports = Host::new([300, 500]);
        assert_eq!(fast_reports.give(262_144), [262_144 - 2 * TRIAL, 2 * TRIAL]);
        assert_eq!(fast_reports.pace.way(), Way::ReportFirst);
        // 4096 bytes in 300 ns and in 500 ns.
        assert_eq!(fast_reports.pace.rates(), Some(Rates { report_first: 13_020, plain: 7812 }));
        let mut slow_reports = Host::new([700, 500]);
        assert_eq!(slow_reports.give(262_144), [2 * TRIAL, 262_144 - 2 * TRIAL]);
        assert_eq!(slow_reports.pace.way(), Way::Plain);
    }

    #[test]
    fn of_equals_reporting_first_is_taken() {
        let mut host = Host::new([500, 500]);
        host.give(262_144);
        assert_eq!(host.pace.way(), Way::ReportFirst);
    }

    #[test]
    fn a_little_is_not_worth_a_trial_and_what_was_learnt_holds_for_a_while() {
        let mut host = Host::new([700, 500]);
        assert_eq!((host.give(WORTH - 1), host.pace.rates()), ([WORTH - 1, 0], None));
        host.give(WORTH);
        assert_eq!(host.pace.way(), Way::Plain);
        assert_eq!(host.give(AGAIN / 2), [0, AGAIN / 2]);
        host.frame = [300, 500];
        host.give(AGAIN);
        host.give(WORTH);
        assert_eq!(host.pace.way(), Way::ReportFirst, "a host that has changed is noticed");
    }

    #[test]
    fn a_trial_that_was_disturbed_once_does_not_decide() {
        let mut host = Host::new([300, 500]);
        let supply = Supply { wanted: WORTH, unreported: WORTH, idle: true };
        assert_eq!(host.pace.next(supply, host.now), Allowance { way: Way::ReportFirst, frames: TRIAL });
        host.pace.sent(TRIAL);
        host.now += 1_000_000_000;
        host.pace.confirmed(TRIAL, host.now);
        host.give(WORTH);
        assert_eq!(host.pace.way(), Way::ReportFirst);
    }

    #[test]
    fn trials_wait_for_an_idle_device_and_send_no_more_than_their_own() {
        let mut pace = Pace::new();
        let supply = Supply { wanted: WORTH, unreported: WORTH, idle: false };
        assert_eq!(pace.next(supply, 0).frames, WORTH, "no trial");
        let idle = Supply { idle: true, ..supply };
        assert_eq!(pace.next(idle, 0).frames, TRIAL);
        pace.sent(TRIAL - 100);
        assert_eq!(pace.next(supply, 0).frames, 100);
        pace.sent(100);
        assert_eq!(pace.next(supply, 0).frames, 0, "what is on its way comes back first");
        pace.abandon();
        assert_eq!(pace.next(supply, 0), Allowance { way: Way::ReportFirst, frames: WORTH });
    }
}
