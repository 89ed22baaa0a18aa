//! A test's time limit, on the tests' clock.

use std::time::{Duration, Instant};

use super::{clock, doubt};

/// The longest single wait before the clock is read again.
const LOOK: Duration = Duration::from_millis(500);

/// A failure blames the machine's load if the test took at least this many times the idle time.
const LOADED: f64 = 1.25;

/// The time by which a test must end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    start: Instant,
    patience: Duration,
    at: Duration,
}

impl Deadline {
    /// A deadline this long from now on an idle machine.
    pub(crate) fn after(patience: Duration) -> Self {
        let patience = patience.mul_f64(super::patience());
        Self { start: Instant::now(), patience, at: clock::now() + patience }
    }

    /// How long to wait before polling again; an error once the time is up.
    pub(crate) fn wait(&self) -> Result<Duration, String> {
        let left = self.at.saturating_sub(clock::now());
        if !left.is_zero() {
            return Ok(left.min(LOOK).max(Duration::from_millis(1)));
        }
        Err(self.missed(self.start.elapsed()))
    }

    /// The message for a missed deadline, `taken` after the start.
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
