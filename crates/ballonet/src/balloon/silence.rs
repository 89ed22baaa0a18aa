//! How long a device has returned no requests. Its registers may still answer, for instance if an IOMMU blocks its access to
//! memory; then nothing else shows it.

/// How long a device may return nothing before that is reported: 5 s, in nanoseconds. The busiest host needs less.
pub(super) const LIMIT: u64 = 5_000_000_000;
/// The most that the time between two looks counts: the guest may have been stopped meanwhile.
const STEP: u64 = 1_500_000_000;

/// A change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The device has been silent for too long.
    Silent,
    /// It was silent, and returns requests again.
    Answers,
}

/// The silence of a device. The driver calls `look` every second or so while requests are in flight.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// When `look` was last called with requests in flight.
    looked: Option<u64>,
    answers: u64,
    waited: u64,
    told: bool,
}

impl Silence {
    /// Notes whether at `now` requests are in flight (`is_asked`), after `answers` returned requests in all.
    pub(super) fn look(&mut self, now: u64, is_asked: bool, answers: u64) -> Option<Turn> {
        let since = self.looked.take().filter(|_| is_asked).map_or(0, |looked| now.saturating_sub(looked));
        self.looked = is_asked.then_some(now);
        if core::mem::replace(&mut self.answers, answers) != answers {
            self.waited = 0;
            return core::mem::take(&mut self.told).then_some(Turn::Answers);
        }
        self.waited += since.min(STEP);
        let late = self.waited >= LIMIT && !self.told;
        self.told |= late;
        late.then_some(Turn::Silent)
    }

    /// Whether it has lasted for too long.
    pub(super) const fn is_told(&self) -> bool {
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn silence_is_told_once_and_so_is_its_end() {
        let mut silence = Silence::default();
        let turns: Vec<_> = (0..10).map(|second| silence.look(second * SECOND, true, 3)).collect();
        assert_eq!(turns.iter().flatten().collect::<Vec<_>>(), [&Turn::Silent]);
        assert_eq!(turns[5], Some(Turn::Silent), "{turns:?}");
        assert!(silence.is_told());
        assert_eq!(silence.look(11 * SECOND, true, 4), Some(Turn::Answers));
        assert_eq!(silence.look(12 * SECOND, true, 5), None);
        assert!(!silence.is_told());
    }

    #[test]
    fn a_device_that_is_asked_nothing_may_be_silent() {
        let mut silence = Silence::default();
        assert!((0..100).all(|second| silence.look(second * SECOND, false, 0).is_none()));
    }

    #[test]
    fn a_device_that_answers_now_and_then_is_not_silent() {
        let mut silence = Silence::default();
        assert!((0..100).all(|second| silence.look(second * SECOND, true, second / 4).is_none()));
    }

    #[test]
    fn a_guest_that_was_stopped_for_an_hour_has_not_waited_for_an_hour() {
        let mut silence = Silence::default();
        assert_eq!(silence.look(0, true, 0), None);
        assert_eq!(silence.look(3600 * SECOND, true, 0), None);
        assert_eq!(silence.look(3601 * SECOND, true, 1), None);
    }

    #[test]
    fn a_reset_is_no_answer() {
        let mut silence = Silence::default();
        let mut looks = (0..12).map(|second| silence.look(second * SECOND, second != 3, 0));
        assert_eq!(looks.position(|turn| turn == Some(Turn::Silent)), Some(7));
    }
}
