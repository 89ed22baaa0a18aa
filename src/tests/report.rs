//! Reports of tests on the serial line: text for people, or one event per test.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::Write as _;

use crate::console::events::{self, Microseconds, Milliseconds};
use crate::machine::log::{self as serial, Raw};
use crate::machine::recovery::{Fault, Panic};

use crate::tests::suite::Test;

/// How a test ended.
pub(super) enum Outcome {
    /// It returned.
    Passed,
    /// This machine cannot show what the test is about; with the reason.
    Skipped(&'static str),
    /// An assertion failed.
    Panicked(Panic),
    /// The CPU raised an exception.
    Faulted(Box<Fault>),
}

/// Number of tests per outcome.
#[derive(Debug, Default)]
pub(super) struct Tally {
    passed: u64,
    failed: u64,
    failed_on_purpose: u64,
    skipped: u64,
}

impl Tally {
    /// Counts one outcome.
    pub(super) fn add(&mut self, outcome: &Outcome, fails_on_purpose: bool) {
        let count = match (outcome, fails_on_purpose) {
            (Outcome::Skipped(_), _) => &mut self.skipped,
            (Outcome::Passed, false) => &mut self.passed,
            (Outcome::Panicked(_) | Outcome::Faulted(_), true) => &mut self.failed_on_purpose,
            _ => &mut self.failed,
        };
        *count += 1;
    }

    /// Whether any test ran, and each ended as it should.
    pub(super) fn is_success(&self) -> bool {
        self.failed == 0 && self.passed + self.failed_on_purpose + self.skipped > 0
    }
}

/// Lists a test.
pub(super) fn name(test: &Test) {
    serial::emit(&events::TestName { name: test.name, module: test.module });
    if serial::is_text() {
        serial::line(format_args!("{}", test.path()));
    }
}

/// Announces a test, so that one which never ends is known.
pub(super) fn begin(test: &Test) {
    if serial::is_text() {
        let _ = write!(Raw, "test {} ... ", test.path());
    }
}

/// Reports a test's outcome.
pub(super) fn outcome(test: &Test, outcome: &Outcome, nanoseconds: u64, fails_on_purpose: bool) {
    let (word, message) = match outcome {
        Outcome::Passed => ("ok", String::new()),
        Outcome::Skipped(reason) => ("skipped", String::from(*reason)),
        Outcome::Panicked(panic) => ("failed", panic.message.clone()),
        Outcome::Faulted(fault) => ("failed", fault.to_string()),
    };
    if serial::is_text() {
        text(outcome, word, &message, nanoseconds, fails_on_purpose);
        return;
    }
    if let Outcome::Faulted(fault) = outcome {
        fault.show();
    }
    let panic = if let Outcome::Panicked(panic) = outcome { Some(panic) } else { None };
    serial::emit(&events::Test {
        name: test.name,
        outcome: word,
        ms_taken: Milliseconds(nanoseconds / 1_000_000),
        us_taken: Microseconds(nanoseconds / 1000),
        message: Some(message.as_str()).filter(|message| !message.is_empty()),
        file: panic.map(|panic| panic.file.as_str()),
        line: panic.map(|panic| panic.line),
    });
}

fn text(outcome: &Outcome, word: &str, message: &str, nanoseconds: u64, fails_on_purpose: bool) {
    let (ms, tenths) = (nanoseconds / 1_000_000, nanoseconds / 100_000 % 10);
    let note = match (outcome, fails_on_purpose) {
        (Outcome::Passed, true) => ", and should not have been",
        (Outcome::Panicked(_) | Outcome::Faulted(_), true) => " on purpose",
        _ => "",
    };
    let place = match outcome {
        Outcome::Panicked(panic) => format!(", at {}:{}", panic.file, panic.line),
        _ => String::new(),
    };
    let colon = if message.is_empty() { "" } else { ": " };
    let _ = writeln!(Raw, "{word}{note} ({ms}.{tenths} ms){colon}{message}{place}");
    if let Outcome::Faulted(fault) = outcome
        && !fails_on_purpose
    {
        fault.show();
    }
}

/// Reports the tally.
pub(super) fn summary(tally: &Tally) {
    let Tally { passed, failed, failed_on_purpose, skipped } = tally;
    serial::emit(&events::Summary {
        passed: *passed,
        failed: *failed,
        failed_on_purpose: *failed_on_purpose,
        skipped: *skipped,
    });
    if serial::is_text() {
        let verdict = if tally.is_success() { "ok" } else { "FAILED" };
        let counts =
            format!("{passed} passed, {failed} failed, {failed_on_purpose} failed on purpose, {skipped} skipped");
        serial::line(format_args!("\ntest result: {verdict}. {counts}"));
    }
}
