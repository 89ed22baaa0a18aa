//! Limits the log of an endless activity: its first round in full, then one line per minute.

/// Time between two log lines: 1 min.
const PERIOD: u64 = 60_000_000_000;

/// Decides which steps of an endless program are logged. Times are in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Quiet {
    rounds: u64,
    /// When the next line is due; `None` in the first round.
    next: Option<u64>,
}

impl Quiet {
    /// Notes the end of a round.
    pub(crate) const fn end_round(&mut self, now: u64) {
        self.rounds += 1;
        if self.next.is_none() {
            self.next = Some(now.saturating_add(PERIOD));
        }
    }

    /// Rounds that have ended.
    pub(crate) const fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Whether to log a step: all steps of the first round, then one per minute.
    pub(crate) const fn may_speak(&mut self, now: u64) -> bool {
        match self.next {
            None => true,
            Some(next) if now >= next => {
                self.next = Some(now.saturating_add(PERIOD));
                true
            }
            Some(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_round_is_logged_and_then_one_step_a_minute() {
        let mut quiet = Quiet::default();
        assert!((0..4).all(|step| quiet.may_speak(step)));
        let mut spoken = 0;
        for second in 0..600 {
            let now = second * 1_000_000_000;
            quiet.end_round(now);
            spoken += (0..4).filter(|step| quiet.may_speak(now + step)).count();
        }
        assert_eq!((spoken, quiet.rounds()), (9, 600));
    }
}
