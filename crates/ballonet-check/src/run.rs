//! A run: the selected checks in order, each on a device that was just reset, and their outcomes.

use alloc::string::String;
use core::cell::RefCell;

use crate::check::{Check, Run};
use crate::device::{Access, TestDevice};
use crate::host::{AskHost, Host, HostAction};
use crate::patience::Patience;
use crate::platform::AnyPlatform;
use crate::select::Selection;
use crate::subject::{Found, Subject, find};
use crate::verdict::{Ending, Outcome, Severity, Stop, Tier};
use ballonet::balloon::BalloonPlatform;
use ballonet::pci::Command;

/// The outcome of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Checks that the device passed; hostile ones that it survived.
    pub ok: u32,
    /// Of those, the ones in which it refused a write or returned a buffer unused.
    pub refused: u32,
    /// Of those, the ones after which it asked for a reset.
    pub needed_reset: u32,
    /// Checks of a MUST that it failed.
    pub failed: u32,
    /// Of those, the hostile ones: the device did not recover, or wrote where it must not.
    pub harmed: u32,
    /// Other checks that it failed.
    pub warned: u32,
    /// Checks that did not apply or could not run.
    pub skipped: u32,
    /// Checks in which the tester itself failed. They say nothing about the device.
    pub troubled: u32,
    /// Why the run ended early.
    pub ended: Option<String>,
}

impl Summary {
    /// Whether the device meets every MUST.
    pub const fn is_success(&self) -> bool {
        self.failed == 0 && self.ended.is_none()
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        self.ok += other.ok;
        self.refused += other.refused;
        self.needed_reset += other.needed_reset;
        self.failed += other.failed;
        self.harmed += other.harmed;
        self.warned += other.warned;
        self.skipped += other.skipped;
        self.troubled += other.troubled;
        if self.ended.is_none() {
            self.ended.clone_from(&other.ended);
        }
    }

    fn report(&mut self, check: &Check, outcome: &Outcome, observer: &mut dyn Observer) {
        self.count(check, outcome);
        observer.ended(check, outcome);
    }

    fn count(&mut self, check: &Check, outcome: &Outcome) {
        let counter = match outcome {
            Outcome::Ok | Outcome::Refused | Outcome::NeedsReset => &mut self.ok,
            Outcome::Skipped(_) => &mut self.skipped,
            Outcome::Trouble(_) => &mut self.troubled,
            _ if outcome.severity(check.severity) == Severity::Must => &mut self.failed,
            _ => &mut self.warned,
        };
        *counter += 1;
        self.refused += u32::from(*outcome == Outcome::Refused);
        self.needed_reset += u32::from(*outcome == Outcome::NeedsReset);
        self.harmed += u32::from(outcome.tier() != Tier::None);
    }
}

/// Observes a run. A closure receives outcomes only.
pub trait Observer {
    /// The check begins now. If no outcome follows, this check stopped the machine.
    fn started(&mut self, _check: &Check) {}

    /// The check has ended.
    fn ended(&mut self, check: &Check, outcome: &Outcome);

    /// Asks the host to do something, and then to set the balloon's target to so many bytes, by which the check learns
    /// that it is done; hot-plug has no target. False if there is no host that does it: then the check is skipped.
    fn ask_host(&mut self, _action: HostAction, _target: Option<u64>) -> bool {
        false
    }
}

impl<O: Observer> AskHost for O {
    fn ask_host(&mut self, action: HostAction, target: Option<u64>) -> bool {
        Observer::ask_host(self, action, target)
    }
}

/// The observer, which the device under test has too, for requests to the host.
type Reporter<'o> = (&'o RefCell<dyn Observer + 'o>, Host<'o>);

impl<F: FnMut(&Check, &Outcome)> Observer for F {
    fn ended(&mut self, check: &Check, outcome: &Outcome) {
        self(check, outcome);
    }
}

/// Runs the selected checks that apply to a device, and reports each to `observer`, in the order of
/// [`CHAPTERS`](crate::CHAPTERS). No driver may use the device.
///
/// Afterwards the device is reset, and the tester has returned everything to the platform. Frames that a broken balloon
/// does not return stay with the host, and are recorded as ballooned.
pub fn run<P: BalloonPlatform<Memory: 'static>>(
    platform: &mut P,
    subject: impl Into<Subject>,
    selection: &Selection,
    patience: Patience,
    observer: impl Observer,
) -> Summary {
    let (subject, observer) = (subject.into(), RefCell::new(observer));
    match find(platform, &subject) {
        Ok(found) => run_on(platform, found, (&subject, patience), selection, (&observer, &observer)),
        Err(reason) => Summary { ended: Some(reason), ..Summary::default() },
    }
}

fn run_on(
    platform: &mut dyn AnyPlatform,
    found: Found,
    (subject, patience): (&Subject, Patience),
    selection: &Selection,
    (observer, host): Reporter<'_>,
) -> Summary {
    let mut summary = Summary::default();
    let Found { pci, kind, identity } = found;
    let command = pci.as_ref().map(|pci| (pci.function, pci.function.command(&platform.config())));
    for (check, misfit) in selection.checks_for(&identity) {
        let Run::Function(ask) = check.run else { continue };
        observer.borrow_mut().started(check);
        let verdict = match (misfit, &pci) {
            (Some(reason), _) => Err(Stop::skipped(format_args!("{reason}"))),
            (None, Some(pci)) => ask(pci),
            (None, None) => Err(Stop::skipped(format_args!("the device is not on PCI"))),
        };
        summary.report(check, &verdict.into(), &mut *observer.borrow_mut());
    }
    // If the device cannot be tested at all, the first check reports why.
    let Subject { handle, legacy, writes, memory, port } = *subject;
    let access = Access { handle, legacy, writes, memory, port, patience };
    let (mut opened, mut unopened) = (None, None);
    match TestDevice::open(platform, pci, kind, access, host) {
        Ok(device) => opened = Some(device),
        Err(stop) => {
            unopened = Some(Outcome::from(stop.clone()));
            summary.ended = Some(stop.reason());
        }
    }
    for (check, misfit) in selection.checks_for(&identity) {
        if matches!(check.run, Run::Function(_)) {
            continue;
        }
        observer.borrow_mut().started(check);
        let outcome = match (&mut opened, &summary.ended, misfit) {
            (_, _, Some(reason)) => Outcome::Skipped(reason),
            (Some(device), None, None) => {
                let outcome = match check.run {
                    Run::Hostile(attack) => device.survive(|device| attack.make(device)),
                    Run::Device(ask) => ask(device).into(),
                    Run::Function(_) => unreachable!("those have run"),
                };
                summary.ended = clean_up(device);
                outcome
            }
            (_, ended, None) => unopened.take().unwrap_or_else(|| Outcome::Skipped(ended.clone().unwrap_or_default())),
        };
        summary.report(check, &outcome, &mut *observer.borrow_mut());
    }
    if let Some(device) = opened {
        device.close();
    }
    // As it was found, except INTx: the line has no handler from here on.
    if let Some((function, command)) = command {
        let ours = Command::IO | Command::MEMORY | Command::BUS_MASTER;
        function.disable(&mut platform.config(), ours - command);
    }
    summary
}

/// Resets the device for the next check, in its slot if the check took it out; the reason if that fails.
fn clean_up(device: &mut TestDevice<'_>) -> Option<String> {
    if let Err(stop) = device.leave_slot() {
        return Some(stop.reason());
    }
    if let Err(stop) = device.stop() {
        return Some(stop.reason());
    }
    // Frames that a broken device does not return are recorded as ballooned at the end of the run.
    match device.reclaim_frames() {
        Err(stop) if stop.ending() == Ending::Gone => return Some(stop.reason()),
        _ => {}
    }
    device.stop().err().map(Stop::reason)
}
