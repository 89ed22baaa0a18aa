//! How fast the TSC and the local APIC's timer run, measured against a timer of known rate; without I/O.
//!
//! Firmware may take the CPU away at any moment (SMIs), and so may a host. The counters run on meanwhile. Between two
//! that are read together this would tear a gap, so the pair that took least is used. And a reference of few bits may
//! go round unseen, which makes the TSC look faster, never slower: so the slowest of several measurements counts, once a
//! second one agrees with it.

/// Counters that run at the same time.
pub(crate) trait Counters {
    /// Ticks of the reference a second.
    fn reference_hz(&self) -> u64;
    /// The bits of the reference that count.
    fn mask(&self) -> u32;
    /// The reference now, counting up.
    fn reference(&mut self) -> u32;
    /// The TSC now.
    fn tsc(&mut self) -> u64;
    /// Ticks of the local APIC's timer, counting up.
    fn apic(&mut self) -> u32;
}

/// Ticks a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rates {
    /// Of the TSC.
    pub(crate) tsc_hz: u64,
    /// Of the local APIC's timer.
    pub(crate) apic_hz: u64,
}

/// How long each measurement takes, in fractions of a second: 3 ms.
const WINDOWS_A_SECOND: u64 = 333;
/// Measurements made at most, where no two agree on the slowest rate.
const MOST: usize = 8;
/// Two rates agree that differ by no more than this part of them: 0.2 %.
const AGREEMENT: u64 = 512;
/// TSC ticks without progress after which a reference counts as dead: tens of milliseconds on any CPU.
const DEAD: u64 = 200_000_000;
/// TSC ticks after which a measurement of 3 ms is given up, although the reference moves: it does not count.
const ENDLESS: u64 = 20 * DEAD;

/// The three counters at one moment.
struct Sample {
    reference: u32,
    tsc: u64,
    apic: u32,
}

impl Sample {
    /// Reads the counters as close together as they come in a few tries.
    fn take(counters: &mut impl Counters) -> Self {
        let mut best = (u64::MAX, Self { reference: 0, tsc: 0, apic: 0 });
        for _ in 0..4 {
            let before = counters.tsc();
            let reference = counters.reference();
            let apic = counters.apic();
            let after = counters.tsc();
            // The host may set the TSC back at any time.
            let taken = after.saturating_sub(before);
            if taken < best.0 {
                best = (taken, Self { reference, tsc: before + taken / 2, apic });
            }
        }
        best.1
    }
}

/// The rates; `None` if the reference does not count.
pub(crate) fn rates(counters: &mut impl Counters) -> Option<Rates> {
    let mut found = [Rates { tsc_hz: u64::MAX, apic_hz: 0 }; MOST];
    for count in 1..=MOST {
        found[count - 1] = measure(counters)?;
        found[..count].sort_unstable();
        let [slowest, next, ..] = found;
        if next.tsc_hz - slowest.tsc_hz <= slowest.tsc_hz / AGREEMENT {
            break;
        }
    }
    let [slowest, ..] = found;
    (slowest.tsc_hz > 0).then_some(slowest)
}

/// Measures once. `None` if the reference does not count.
fn measure(counters: &mut impl Counters) -> Option<Rates> {
    let (hz, mask) = (counters.reference_hz(), counters.mask());
    let window = (hz / WINDOWS_A_SECOND) as u32;
    let first = Sample::take(counters);
    let mut last_progress = (first.reference, first.tsc);
    loop {
        let now = counters.reference();
        if now.wrapping_sub(first.reference) & mask >= window {
            break;
        }
        let ticks = counters.tsc();
        if now != last_progress.0 {
            last_progress = (now, ticks);
        } else if ticks.saturating_sub(last_progress.1) > DEAD && counters.reference() == now {
            return None;
        }
        if ticks.saturating_sub(first.tsc) > ENDLESS {
            return None;
        }
    }
    let second = Sample::take(counters);
    let elapsed = u64::from(second.reference.wrapping_sub(first.reference) & mask);
    let rate = |ticks: u64| scale(ticks, hz, elapsed);
    let apic = u64::from(second.apic.wrapping_sub(first.apic));
    Some(Rates { tsc_hz: rate(second.tsc.saturating_sub(first.tsc)), apic_hz: rate(apic) })
}

/// How fast the local APIC's timer runs, measured against a TSC whose rate is known.
pub(crate) fn apic_hz(counters: &mut impl Counters, tsc_hz: u64) -> u64 {
    let start = (counters.tsc(), counters.apic());
    let mut now = start;
    while now.0.saturating_sub(start.0) < tsc_hz / WINDOWS_A_SECOND {
        now = (counters.tsc(), counters.apic());
    }
    scale(now.1.wrapping_sub(start.1).into(), tsc_hz, now.0.saturating_sub(start.0))
}

/// `ticks` a second, that came while a clock of `hz` made `elapsed` ticks.
fn scale(ticks: u64, hz: u64, elapsed: u64) -> u64 {
    (u128::from(ticks) * u128::from(hz) / u128::from(elapsed.max(1))) as u64
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
    }

    const PICOSECONDS: u128 = 1_000_000_000_000;
    const MICROSECOND: u128 = 1_000_000;

    impl Simulated {
        fn new(reference_hz: u64, mask: u32, tsc_hz: u64, taken: Vec<(u128, u128)>) -> Self {
            Self { now: 77 * MICROSECOND, reference_hz, mask, tsc_hz, apic_hz: 62_500_000, taken }
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

    const PM_TIMER: (u64, u32) = (3_579_545, 0xFF_FFFF);
    const PIT: (u64, u32) = (1_193_182, 0xFFFF);

    #[test]
    fn an_undisturbed_machine_is_measured_twice() {
        for (hz, mask) in [PM_TIMER, PIT] {
            let mut machine = Simulated::new(hz, mask, 2_400_000_000, Vec::new());
            let found = rates(&mut machine).unwrap();
            assert!(is_near(found.tsc_hz, 2_400_000_000) && is_near(found.apic_hz, 62_500_000), "{found:?}");
            assert!(machine.now < 7000 * MICROSECOND, "{} µs", machine.now / MICROSECOND);
        }
    }

    #[test]
    fn a_reference_that_goes_round_unseen_does_not_count() {
        // The PIT goes round in 54.9 ms, of which firmware takes 56 in the first measurement.
        let taken = vec![(1000 * MICROSECOND, 56_000 * MICROSECOND)];
        let mut machine = Simulated::new(PIT.0, PIT.1, 3_000_000_000, taken);
        assert!(measure(&mut machine).unwrap().tsc_hz > 6_000_000_000);
        let taken = vec![(1000 * MICROSECOND, 56_000 * MICROSECOND)];
        let found = rates(&mut Simulated::new(PIT.0, PIT.1, 3_000_000_000, taken)).unwrap();
        assert!(is_near(found.tsc_hz, 3_000_000_000), "{found:?}");
    }

    #[test]
    fn a_reference_that_stands_still_is_given_up() {
        let mut machine = Simulated::new(PIT.0, 0, 2_000_000_000, Vec::new());
        assert_eq!(rates(&mut machine), None);
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
            let found = rates(&mut Simulated::new(hz, mask, tsc_mhz * 1_000_000, taken)).unwrap();
            prop_assert!(is_near(found.tsc_hz, tsc_mhz * 1_000_000), "{found:?}");
            prop_assert!(is_near(found.apic_hz, 62_500_000), "{found:?}");
        }
    }
}
