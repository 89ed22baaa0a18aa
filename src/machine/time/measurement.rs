//! Measures the rates of the TSC and of the local APIC's timer against a timer of known rate; without I/O.
//!
//! Reading such a timer exits a virtual machine, so it is read only a few times, at moments given by the TSC. Firmware
//! (SMIs) or a host may take the CPU away at any moment, while the counters continue. Between two reads of a pair this
//! adds an error, so the pair with the smallest gap is used, and the gap counts as uncertainty. A narrow reference may
//! also wrap unseen, which makes the TSC look faster, never slower. So a measurement is valid once a second one agrees
//! with it; of two that disagree, the slower counts.

use super::choice::is_plausible;

/// Counters that run at the same time.
pub(crate) trait Counters {
    /// Ticks of the reference per second.
    fn reference_hz(&self) -> u64;
    /// The bits of the reference that are implemented.
    fn mask(&self) -> u32;
    /// The reference now, counting up.
    fn reference(&mut self) -> u32;
    /// The TSC now.
    fn tsc(&mut self) -> u64;
    /// Ticks of the local APIC's timer, counting up; constant if its rate is not needed.
    fn apic(&mut self) -> u32;
}

/// Ticks per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rates {
    /// Of the TSC.
    pub(crate) tsc_hz: u64,
    /// Of the local APIC's timer.
    pub(crate) apic_hz: u64,
}

/// The result of a measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    /// The rates.
    pub(crate) rates: Rates,
    /// The error bound of the TSC's, in parts per million.
    pub(crate) ppm: u32,
    /// The counters at its beginning, from which it can be refined later.
    pub(crate) start: Sample,
}

/// TSC ticks of a piece of the measurement: 0.5 ms at 2 GHz.
const PIECE: u64 = 1_000_000;
/// The most pieces, while no two agree or the uncertainty is large.
const MOST: usize = 12;
/// The uncertainty that is good enough to begin with, in parts per million.
const GOAL: u32 = 2000;
/// The uncertainty of a rate with which no second measurement agrees: 10 %.
const ALONE: u32 = 100_000;
/// How often a pair of counters is read, to use the best.
const READS: u32 = 3;
/// The number of pieces without a tick after which a reference is given up as too slow.
const DEAD: u32 = 2;
const MILLION: u128 = 1_000_000;

/// The counters at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    reference: u32,
    tsc: u64,
    /// The error bound of the TSC's value.
    slack: u64,
    apic: u32,
}

impl Sample {
    /// Reads the counters as close together as a few tries allow.
    pub(crate) fn take(counters: &mut impl Counters) -> Self {
        let mut best = Self { reference: 0, tsc: 0, slack: u64::MAX, apic: 0 };
        for _ in 0..READS {
            let before = counters.tsc();
            let (reference, apic) = (counters.reference(), counters.apic());
            // The host may set the TSC back at any time.
            let taken = counters.tsc().saturating_sub(before);
            if taken.div_ceil(2) < best.slack {
                best = Self { reference, tsc: before + taken / 2, slack: taken.div_ceil(2), apic };
            }
        }
        best
    }
}

/// The counts between two samples.
#[derive(Debug, Clone, Copy)]
struct Piece {
    hz: u64,
    tsc: u64,
    reference: u64,
    apic: u64,
    /// The error bounds of the TSC's value at the beginning and at the end.
    slack: (u64, u64),
}

impl Piece {
    /// `None` if the reference or the TSC stood still.
    fn between(from: &Sample, to: &Sample, counters: &impl Counters) -> Option<Self> {
        let reference = u64::from(to.reference.wrapping_sub(from.reference) & counters.mask());
        let tsc = to.tsc.saturating_sub(from.tsc);
        let apic = u64::from(to.apic.wrapping_sub(from.apic));
        let hz = counters.reference_hz();
        (reference > 0 && tsc > 0).then_some(Self { hz, tsc, reference, apic, slack: (from.slack, to.slack) })
    }

    /// Both together; `next` follows directly.
    const fn followed_by(self, other: Self) -> Self {
        Self {
            tsc: self.tsc.saturating_add(other.tsc),
            reference: self.reference + other.reference,
            apic: self.apic + other.apic,
            slack: (self.slack.0, other.slack.1),
            hz: self.hz,
        }
    }

    fn rates(&self) -> Rates {
        let rate = |ticks| scale(ticks, self.hz, self.reference);
        Rates { tsc_hz: rate(self.tsc), apic_hz: rate(self.apic) }
    }

    /// The error bound of the TSC's rate: from the bounds at both ends, and a tick of the reference.
    fn ppm(&self) -> u32 {
        let part = |part: u64, whole: u64| u128::from(part) * MILLION / u128::from(whole.max(1)) + 1;
        let slack = self.slack.0.saturating_add(self.slack.1);
        u32::try_from(part(slack, self.tsc) + part(1, self.reference)).unwrap_or(u32::MAX)
    }

    fn agrees(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.rates().tsc_hz, other.rates().tsc_hz);
        let margin = u128::from(ours.min(theirs)) * u128::from(self.ppm().saturating_add(other.ppm())) / MILLION;
        u128::from(ours.abs_diff(theirs)) <= margin
    }

    fn ends(self, ppm: u32, start: Sample) -> Option<Measured> {
        let rates = self.rates();
        is_plausible(rates.tsc_hz).then_some(Measured { rates, ppm, start })
    }
}

/// Consecutive pieces that agree.
#[derive(Debug, Clone, Copy)]
struct Run {
    start: Sample,
    pieces: u32,
    total: Piece,
}

/// Measures the rates; `None` if the reference does not count, or the result is impossible.
pub(crate) fn measure(counters: &mut impl Counters) -> Option<Measured> {
    let mut last = Sample::take(counters);
    let mut run: Option<Run> = None;
    let mut slowest: Option<Run> = None;
    let mut dead = 0;
    for _ in 0..MOST {
        wait(counters, PIECE);
        let next = Sample::take(counters);
        let Some(piece) = Piece::between(&last, &next, counters) else {
            dead += 1;
            if dead == DEAD {
                return None;
            }
            continue;
        };
        let alone = Run { start: last, pieces: 1, total: piece };
        last = next;
        let longer = match run {
            Some(run) if run.total.agrees(&piece) => {
                Run { pieces: run.pieces + 1, total: run.total.followed_by(piece), ..run }
            }
            _ => alone,
        };
        if longer.pieces > 1 && longer.total.ppm() <= GOAL {
            return longer.total.ends(longer.total.ppm(), longer.start);
        }
        run = Some(longer);
        // Of two that agree, the longer is better; of two that do not, the slower.
        slowest = Some(match slowest {
            Some(other) if other.total.agrees(&longer.total) => {
                if longer.pieces > other.pieces {
                    longer
                } else {
                    other
                }
            }
            Some(other) if other.total.rates().tsc_hz < longer.total.rates().tsc_hz => other,
            _ => longer,
        });
    }
    let Run { start, pieces, total } = slowest?;
    total.ends(if pieces > 1 { total.ppm() } else { ALONE }, start)
}

/// Waits for some ticks of the TSC; bounded if it stands still.
fn wait(counters: &mut impl Counters, ticks: u64) {
    let start = counters.tsc();
    for _ in 0..ticks {
        if counters.tsc().saturating_sub(start) >= ticks {
            break;
        }
    }
}

/// The TSC's rate and its uncertainty, refined by the counts since the measurement. `None` if they are useless, or the
/// measurement is too old: the reference has wrapped an unknown number of times.
pub(crate) fn refine(counters: &mut impl Counters, known: &Measured) -> Option<(u64, u32)> {
    let now = Sample::take(counters);
    let tsc = now.tsc.saturating_sub(known.start.tsc);
    let expected = scale(tsc, counters.reference_hz(), known.rates.tsc_hz);
    let round = u64::from(counters.mask()) + 1;
    let uncertain = u128::from(expected) * u128::from(known.ppm) / MILLION;
    if uncertain >= u128::from(round / 4) {
        return None;
    }
    let within = Piece::between(&known.start, &now, counters).map_or(0, |piece| piece.reference);
    let rounds = (expected.saturating_add(round / 2)).saturating_sub(within) / round;
    let slack = (known.start.slack, now.slack);
    let hz = counters.reference_hz();
    let piece = Piece { hz, tsc, reference: within + rounds * round, apic: 0, slack };
    let (tsc_hz, ppm) = (piece.rates().tsc_hz, piece.ppm());
    let margin = u128::from(known.rates.tsc_hz) * u128::from(known.ppm) / MILLION;
    // A change beyond the uncertainty means that something stood still, such as a stopped virtual machine.
    (ppm < known.ppm && u128::from(tsc_hz.abs_diff(known.rates.tsc_hz)) <= margin).then_some((tsc_hz, ppm))
}

/// How fast the local APIC's timer runs, measured against a TSC whose rate is known.
pub(crate) fn apic_hz(counters: &mut impl Counters, tsc_hz: u64) -> u64 {
    /// The measurement takes this part of a second: 1 ms.
    const PART: u64 = 1000;
    let start = (counters.tsc(), counters.apic());
    wait(counters, tsc_hz / PART);
    let now = (counters.tsc(), counters.apic());
    scale(now.1.wrapping_sub(start.1).into(), tsc_hz, now.0.saturating_sub(start.0))
}

/// Ticks per second: `ticks` were counted while a clock of `hz` made `elapsed` ticks.
fn scale(ticks: u64, hz: u64, elapsed: u64) -> u64 {
    u64::try_from(u128::from(ticks) * u128::from(hz) / u128::from(elapsed.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A machine whose time goes on by what each access costs, and by what firmware takes.
    #[derive(Debug)]
    struct Simulated {
        /// Picoseconds since the start, so that no tick is lost to rounding.
        now: u128,
        reference_hz: u64,
        mask: u32,
        tsc_hz: u64,
        apic_hz: u64,
        /// Moments at which firmware takes the CPU, and for how long, both in picoseconds; sorted.
        taken: Vec<(u128, u128)>,
        /// Times that the reference was read.
        reads: u32,
    }

    const PICOSECONDS: u128 = 1_000_000_000_000;
    const MICROSECOND: u128 = 1_000_000;

    impl Simulated {
        fn new(reference_hz: u64, mask: u32, tsc_hz: u64, taken: Vec<(u128, u128)>) -> Self {
            Self { now: 77 * MICROSECOND, reference_hz, mask, tsc_hz, apic_hz: 62_500_000, taken, reads: 0 }
        }

        /// Lets time pass, and reads a counter at the end of it.
        fn after(&mut self, cost: u128, hz: u64) -> u64 {
            self.now += cost;
            while self.taken.first().is_some_and(|&(start, _)| start <= self.now) {
                self.now += self.taken.remove(0).1;
            }
            (self.now * u128::from(hz) / PICOSECONDS) as u64
        }
    }

    impl Counters for Simulated {
        fn reference_hz(&self) -> u64 {
            self.reference_hz
        }

        fn mask(&self) -> u32 {
            self.mask
        }

        fn reference(&mut self) -> u32 {
            self.reads += 1;
            self.after(MICROSECOND, self.reference_hz) as u32 & self.mask
        }

        fn tsc(&mut self) -> u64 {
            self.after(MICROSECOND / 50, self.tsc_hz)
        }

        fn apic(&mut self) -> u32 {
            self.after(MICROSECOND / 10, self.apic_hz) as u32
        }
    }

    fn is_near(rate: u64, truth: u64) -> bool {
        rate.abs_diff(truth) <= truth / 200
    }

    /// Whether a rate is off by no more than it says.
    fn is_within(found: &Measured, truth: u64) -> bool {
        found.rates.tsc_hz.abs_diff(truth) <= truth * u64::from(found.ppm) / 1_000_000 + 1
    }

    const PM_TIMER: (u64, u32) = (3_579_545, 0xFF_FFFF);
    const PIT: (u64, u32) = (1_193_182, 0xFFFF);

    #[test]
    fn an_undisturbed_machine_is_measured_by_a_handful_of_reads() {
        for (hz, mask) in [PM_TIMER, PIT] {
            let mut machine = Simulated::new(hz, mask, 2_400_000_000, Vec::new());
            let found = measure(&mut machine).unwrap();
            let rates = found.rates;
            assert!(is_near(rates.tsc_hz, 2_400_000_000) && is_near(rates.apic_hz, 62_500_000), "{found:?}");
            assert!(found.ppm <= 3000 && is_within(&found, 2_400_000_000), "{found:?}");
            assert!(machine.now < 3000 * MICROSECOND, "{} µs", machine.now / MICROSECOND);
            assert!(machine.reads <= 15, "{} reads", machine.reads);
        }
    }

    #[test]
    fn the_rate_is_refined_by_what_follows() {
        for (hz, mask, wait) in [(PM_TIMER.0, PM_TIMER.1, 60), (PIT.0, PIT.1, 5)] {
            let mut machine = Simulated::new(hz, mask, 2_400_000_000, Vec::new());
            let found = measure(&mut machine).unwrap();
            machine.now += wait * PICOSECONDS;
            let (tsc_hz, ppm) = refine(&mut machine, &found).unwrap();
            assert!(ppm < 5 && tsc_hz.abs_diff(2_400_000_000) <= 2400 * u64::from(ppm), "{tsc_hz} Hz, {ppm} ppm");
        }
    }

    #[test]
    fn a_reference_that_went_round_too_often_refines_nothing() {
        let mut machine = Simulated::new(PIT.0, PIT.1, 2_400_000_000, Vec::new());
        let found = measure(&mut machine).unwrap();
        machine.now += 3600 * PICOSECONDS;
        assert_eq!(refine(&mut machine, &found), None);
        // Nor does one that stood still, as where a virtual machine was stopped and its TSC was not.
        let mut machine = Simulated::new(PM_TIMER.0, PM_TIMER.1, 2_400_000_000, Vec::new());
        let found = measure(&mut machine).unwrap();
        machine.now += PICOSECONDS;
        machine.tsc_hz = 2_500_000_000;
        assert_eq!(refine(&mut machine, &found), None);
    }

    #[test]
    fn a_reference_that_goes_round_unseen_does_not_count() {
        // The PIT wraps in 54.9 ms, and firmware takes 56 ms in the first measurement.
        let taken = vec![(1000 * MICROSECOND, 56_000 * MICROSECOND)];
        let mut machine = Simulated::new(PIT.0, PIT.1, 3_000_000_000, taken);
        let first = Sample::take(&mut machine);
        wait(&mut machine, 3 * PIECE);
        let second = Sample::take(&mut machine);
        assert!(Piece::between(&first, &second, &machine).unwrap().rates().tsc_hz > 6_000_000_000);
        for at in [100, 200, 400, 600, 900] {
            let taken = vec![(at * MICROSECOND, 56_000 * MICROSECOND)];
            let found = measure(&mut Simulated::new(PIT.0, PIT.1, 3_000_000_000, taken)).unwrap();
            assert!(is_near(found.rates.tsc_hz, 3_000_000_000), "{found:?}");
        }
    }

    #[test]
    fn a_reference_that_stands_still_is_given_up() {
        let mut machine = Simulated::new(PIT.0, 0, 2_000_000_000, Vec::new());
        assert!(measure(&mut machine).is_none());
    }

    #[test]
    fn without_a_reference_the_tsc_tells_the_rate_of_the_apic_timer() {
        let mut machine = Simulated::new(1, 0, 2_000_000_000, Vec::new());
        assert!(is_near(apic_hz(&mut machine, 2_000_000_000), 62_500_000));
        // A guess that is wrong by half is wrong by half for both, so that a wait lasts as long by either.
        assert!(is_near(apic_hz(&mut machine, 1_000_000_000), 31_250_000));
    }

    proptest! {
        #[test]
        fn interrupts_of_firmware_leave_the_rates_right(
            which in any::<bool>(),
            tsc_mhz in 800u64..6000,
            smis in prop::collection::vec((0u128..20_000, 1u128..120_000), 0..4),
        ) {
            let mut taken: Vec<_> = smis.iter().map(|&(at, long)| (at * MICROSECOND, long * MICROSECOND)).collect();
            taken.sort_unstable();
            let (hz, mask) = if which { PM_TIMER } else { PIT };
            let found = measure(&mut Simulated::new(hz, mask, tsc_mhz * 1_000_000, taken)).unwrap();
            prop_assert!(is_within(&found, tsc_mhz * 1_000_000), "{found:?}");
            prop_assert!(found.ppm <= 10_000, "{found:?}");
            prop_assert!(found.rates.apic_hz.abs_diff(62_500_000) <= 62_500_000 / 50, "{found:?}");
        }
    }
}
