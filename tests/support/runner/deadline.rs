//! The end of a test's patience, in the time of the tests' clock.

use std::time::{Duration, Instant};

use super::{clock, doubt};

/// No single wait is longer than this before the clock is looked at again.
const LOOK: Duration = Duration::from_millis(500);

/// A loaded machine's share in a failure is at least this many times the time that an idle one would have had.
const LOADED: f64 = 1.25;

/// A time by which a test must end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    start: Instant,
    patience: Duration,
    at: Duration,
}

impl Deadline {
    /// This long from now, if the machine is idle.
    pub(crate) fn after(patience: Duration) -> Self {
        let patience = patience.mul_f64(super::patience());
        Self { start: Instant::now(), patience, at: clock::now() + patience }
    }

    /// How long to wait at most before asking again; an error when the time is up.
    pub(crate) fn wait(&self) -> Result<Duration, String> {
        let left = self.at.saturating_sub(clock::now());
        if !left.is_zero() {
            return Ok(left.min(LOOK).max(Duration::from_millis(1)));
        }
        Err(self.missed(self.start.elapsed()))
    }

    /// What to say when it has passed, `taken` after the start.
    fn missed(&self, taken: Duration) -> String {
        let (taken, patience) = (taken.as_secs_f64(), self.patience.as_secs_f64());
        if taken < patience * LOADED {
            return format!("the time is up after {taken:.0} s");
        }
        let why = format!("the time is up after {taken:.0} s, on a machine that made that of {patience:.0} s");
        doubt(&why);
        why
    }
}
