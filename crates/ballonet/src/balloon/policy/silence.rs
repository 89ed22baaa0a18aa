//! How long a device has returned no requests. Its registers may still answer, for instance when an IOMMU blocks its
//! access to memory; then nothing else shows the fault.

/// How long a device may return nothing before that is reported, in nanoseconds: 5 s. The busiest host needs less.
const LIMIT: u64 = 5_000_000_000;
/// The most that the time between two observations counts: the VM may have been paused in between.
const STEP: u64 = 1_500_000_000;

/// A change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The device has been silent for too long.
    Silent,
    /// A silent device returns requests again.
    Answers,
}

/// The silence of a device. The driver calls [`Silence::observe`] about every second while requests are in flight.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    /// The last observation with requests in flight.
    observed: Option<u64>,
    answers: u64,
    waited: u64,
    reported: bool,
}

impl Silence {
    /// At `now`, requests are in flight or not (`is_asked`), after `answers` returned requests in total.
    pub(crate) fn observe(&mut self, now: u64, is_asked: bool, answers: u64) -> Option<Turn> {
        let since = self.observed.take().filter(|_| is_asked).map_or(0, |before| now.saturating_sub(before));
        self.observed = is_asked.then_some(now);
        if core::mem::replace(&mut self.answers, answers) != answers {
            self.waited = 0;
            return core::mem::take(&mut self.reported).then_some(Turn::Answers);
        }
        self.waited += since.min(STEP);
        let late = self.waited >= LIMIT && !self.reported;
        self.reported |= late;
        late.then_some(Turn::Silent)
    }

    /// Whether the device is silent.
    pub(crate) const fn is_reported(&self) -> bool {
        self.reported
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn silence_and_its_end_are_reported_once() {
        let mut silence = Silence::default();
        let turns: Vec<_> = (0..10).map(|second| silence.observe(second * SECOND, true, 3)).collect();
        assert_eq!(turns.iter().flatten().collect::<Vec<_>>(), [&Turn::Silent]);
        assert_eq!(turns[5], Some(Turn::Silent), "{turns:?}");
        assert!(silence.is_reported());
        assert_eq!(silence.observe(11 * SECOND, true, 4), Some(Turn::Answers));
        assert_eq!(silence.observe(12 * SECOND, true, 5), None);
        assert!(!silence.is_reported());
    }

    #[test]
    fn a_device_without_requests_may_be_silent() {
        let mut silence = Silence::default();
        assert!((0..100).all(|second| silence.observe(second * SECOND, false, 0).is_none()));
    }

    #[test]
    fn a_slow_device_is_not_silent() {
        let mut silence = Silence::default();
        assert!((0..100).all(|second| silence.observe(second * SECOND, true, second / 4).is_none()));
    }

    #[test]
    fn an_hour_while_the_vm_was_paused_does_not_count() {
        let mut silence = Silence::default();
        assert_eq!(silence.observe(0, true, 0), None);
        assert_eq!(silence.observe(3600 * SECOND, true, 0), None);
        assert_eq!(silence.observe(3601 * SECOND, true, 1), None);
    }

    #[test]
    fn a_reset_does_not_count_as_an_answer() {
        let mut silence = Silence::default();
        let mut turns = (0..12).map(|second| silence.observe(second * SECOND, second != 3, 0));
        assert_eq!(turns.position(|turn| turn == Some(Turn::Silent)), Some(7));
    }
}
