//! A run: the checks in the order of the table, each from a device that is reset, and what came of them.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};

use super::outcome::{Check, Outcome, Severity, Stop, Verdict};
use super::select::Selection;
use super::site::Site;
use super::subject::{Subject, Unopened};
use super::table::{CHECKS, Step, steps};
use ballonet::balloon::BalloonPlatform;
use ballonet::pci::{Bdf, Command, Function};
use ballonet::platform::Platform;

/// How long the tester waits, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For something that has to happen. A device that takes longer has stalled.
    pub stall: u64,
    /// For something that must not happen.
    pub quiet: u64,
}

impl Default for Patience {
    /// Two seconds, of which a busy host may take most; and 4 ms of quiet.
    fn default() -> Self {
        Self { stall: 2_000_000_000, quiet: 4_000_000 }
    }
}

/// What came of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Checks that the device passed.
    pub ok: u32,
    /// Checks of a MUST that it failed.
    pub failed: u32,
    /// Other checks that it failed.
    pub warned: u32,
    /// Checks that did not apply, or could not be made.
    pub skipped: u32,
    /// Checks that the tester itself failed to make. They say nothing of the device.
    pub troubled: u32,
    /// Why the run ended before its time.
    pub ended: Option<String>,
}

impl Summary {
    /// Whether the device does all that it must.
    pub const fn is_success(&self) -> bool {
        self.failed == 0 && self.ended.is_none()
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.warned += other.warned;
        self.skipped += other.skipped;
        self.troubled += other.troubled;
        if self.ended.is_none() {
            self.ended.clone_from(&other.ended);
        }
    }

    fn count(&mut self, check: &Check, outcome: &Outcome) {
        let counter = match outcome {
            Outcome::Ok => &mut self.ok,
            Outcome::Skipped(_) => &mut self.skipped,
            Outcome::Trouble(_) => &mut self.troubled,
            Outcome::Failed(_) if check.severity == Severity::Must => &mut self.failed,
            Outcome::Failed(_) => &mut self.warned,
        };
        *counter += 1;
    }
}

/// What there is to ask.
enum Stage<'p, P: Platform> {
    /// Configuration space only; why there is no more.
    Site(Box<Unopened<'p, P>>, String),
    Device(Box<Subject<'p, P>>),
}

/// Runs the selected checks on the balloon at `function`, and calls `report` with what came of each, in the order of
/// [`CHECKS`]. The function's BARs hold addresses; no driver uses it.
///
/// Afterwards the device is reset and the platform has back all that was taken of it. What a broken device does not
/// give back stays with the host, and is recorded so.
pub fn run<P: BalloonPlatform>(
    platform: &mut P,
    function: Bdf,
    selection: &Selection,
    patience: Patience,
    mut report: impl FnMut(&Check, &Outcome),
) -> Summary {
    let mut summary = Summary::default();
    let Some(function) = Function::probe(platform.config(), function) else {
        summary.ended = Some(format!("no function answers at {function}"));
        return summary;
    };
    let command = function.command(platform.config());
    let mut note = |summary: &mut Summary, check: &Check, outcome: Outcome| {
        summary.count(check, &outcome);
        report(check, &outcome);
    };

    let mut site = Site::look(platform, function);
    let all = || CHECKS.iter().zip(steps::<P>()).enumerate().filter(|(place, _)| selection.holds(*place));
    for (_, (check, step)) in all() {
        if let Step::Site(ask) = step {
            note(&mut summary, check, outcome(ask(&mut site)));
        }
    }
    // If the device cannot be tested at all, the first check reports why.
    let mut unopened = None;
    let mut stage = match Subject::open(site, patience) {
        Ok(subject) => Stage::Device(subject),
        Err(site) => {
            let reason = reason(site.stop.clone());
            unopened = Some(outcome(Err(site.stop.clone())));
            summary.ended = Some(reason.clone());
            Stage::Site(site, reason)
        }
    };
    for (_, (check, step)) in all() {
        let Step::Device(ask) = step else { continue };
        let outcome = match (&mut stage, &summary.ended) {
            (_, Some(reason)) => unopened.take().unwrap_or_else(|| Outcome::Skipped(reason.clone())),
            (Stage::Site(_, reason), None) => Outcome::Skipped(reason.clone()),
            (Stage::Device(subject), None) => {
                let outcome = outcome(ask(subject));
                summary.ended = clean_up(subject);
                outcome
            }
        };
        note(&mut summary, check, outcome);
    }
    let site = match stage {
        Stage::Site(unopened, _) => unopened.site,
        Stage::Device(subject) => subject.close(),
    };
    // As it was found, except INTx: the line has no handler from here on.
    let ours = Command::IO | Command::MEMORY | Command::BUS_MASTER;
    site.function.disable(site.platform.config(), ours - command);
    summary
}

/// Brings the device back to where the next check can begin; why it cannot be.
fn clean_up<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Option<String> {
    if let Err(stop) = subject.stop() {
        return Some(reason(stop));
    }
    // Frames that a broken device does not give back are written off when the run ends.
    if let Err(Stop::Gone) = subject.settle() {
        return Some(reason(Stop::Gone));
    }
    subject.stop().err().map(reason)
}

fn outcome(verdict: Verdict) -> Outcome {
    match verdict {
        Ok(()) => Outcome::Ok,
        Err(Stop::Skipped(reason)) => Outcome::Skipped(reason),
        Err(Stop::Trouble(reason)) => Outcome::Trouble(reason),
        Err(stop) => Outcome::Failed(reason(stop)),
    }
}

fn reason(stop: Stop) -> String {
    match stop {
        Stop::Failed(reason) | Stop::Skipped(reason) | Stop::Trouble(reason) => reason,
        Stop::Gone => "the device is gone: its registers read as all ones".to_string(),
    }
}
