//! `mode=check`: tests each balloon of the machine, and ends the kernel with the verdict.
//!
//! For programs: a `check-started` and a `check` event each, and a `checks` event with the counts. For people and test harnesses: TAP (`tap=`),
//! where a failed check that is no MUST is marked TODO, so that it does not fail the run. A run that cannot begin writes
//! `Bail out!` and fails.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Arguments;

use crate::boot::TapVersion;
use crate::console::events;
use crate::kernel::mmio_devices::MmioFound;
use crate::machine::power::ExitStatus;
use crate::machine::{Machine, log as serial};
use ballonet::pci::{Bdf, Tree};
use ballonet::platform::Platform;
use ballonet::virtio::spec::DeviceType;
use ballonet_check::{Check, Observer, Outcome, Patience, Selection, Severity, Summary};
use log::{info, warn};

/// Tests every balloon on PCI. Those on MMIO cannot be tested yet, which ends a run that has no other. Returns the
/// kernel's exit status.
pub(super) fn run(machine: &mut Machine, tree: &Tree, mmio: &[MmioFound]) -> ExitStatus {
    let tap = machine.options().tap;
    let selection = match machine.options().checks.map_or_else(|| Ok(Selection::default()), choose) {
        Ok(selection) => selection,
        Err(reason) => return bail_out(tap, format_args!("{reason}")),
    };
    let is_balloon =
        |node: &&ballonet::pci::Node| DeviceType::BALLOON.is_function(node.function.vendor, node.function.device);
    let devices: Vec<Bdf> = tree.nodes().iter().filter(is_balloon).map(|node| node.function.bdf).collect();
    let untested = mmio.iter().filter(|found| found.is(DeviceType::BALLOON)).count();
    if devices.is_empty() && untested != 0 {
        return bail_out(tap, format_args!("mode=check tests balloons on PCI only, and this machine's are on MMIO"));
    }
    if untested != 0 {
        warn!("mode=check tests balloons on PCI only: {untested} on MMIO left out");
    }
    if devices.is_empty() {
        return bail_out(tap, format_args!("no virtio balloon was found on PCI or MMIO; there is nothing to check"));
    }
    if selection.is_empty() {
        return bail_out(tap, format_args!("no check is selected"));
    }
    if serial::is_text() {
        serial::line(format_args!("TAP version {tap}"));
        serial::line(format_args!("1..{}", devices.len() * selection.len()));
    }
    let mut total = Summary::default();
    let mut number = 0;
    for device in devices {
        info!("checking the balloon at {device}");
        tree.open_path(machine.config(), device);
        let reporter = Reporter { device, number: &mut number };
        let summary = ballonet_check::run(machine, device, &selection, Patience::default(), reporter);
        total.add(&summary);
    }
    report_summary(&total);
    if total.is_success() { ExitStatus::Success } else { ExitStatus::Failure }
}

/// Writes down what happens to one device.
struct Reporter<'n> {
    device: Bdf,
    /// The checks of all devices that have ended.
    number: &'n mut usize,
}

impl Observer for Reporter<'_> {
    fn started(&mut self, check: &Check) {
        serial::emit(&events::CheckStarted { name: check.name, device: &self.device });
    }

    fn ended(&mut self, check: &Check, outcome: &Outcome) {
        *self.number += 1;
        report(*self.number, self.device, check, outcome);
    }
}

/// Ends a run before it began, for `reason`. Returns the kernel's exit status.
pub(super) fn bail_out(tap: TapVersion, reason: Arguments<'_>) -> ExitStatus {
    if serial::is_text() {
        serial::line(format_args!("TAP version {tap}"));
    }
    report_summary(&Summary { ended: Some(reason.to_string()), ..Summary::default() });
    ExitStatus::Failure
}

/// The checks of this list, or its error: a warning would go unread.
fn choose(list: &str) -> Result<Selection, String> {
    let mut unknown = None;
    let selection = Selection::parse(list, |item| unknown = unknown.or(Some(item)));
    let Some(item) = unknown else { return Ok(selection) };
    let alike = Selection::alike(item).join(", ");
    let meant = if alike.is_empty() { String::new() } else { format!("; did you mean {alike}?") };
    Err(format!("there is no check `{item}`{meant} (docs/checks.md lists them)"))
}

fn report(number: usize, device: Bdf, check: &Check, outcome: &Outcome) {
    let Check { name, severity, section, .. } = check;
    emit(device, check, outcome);
    if !serial::is_text() {
        return;
    }
    match outcome {
        Outcome::Ok => serial::line(format_args!("ok {number} - {name}")),
        Outcome::Skipped(reason) => serial::line(format_args!("ok {number} - {name} # SKIP {reason}")),
        // It says nothing about the device, so it is no failure of it.
        Outcome::Trouble(reason) => {
            serial::line(format_args!("ok {number} - {name} # SKIP the tester failed: {reason}"));
        }
        Outcome::Failed(detail) => {
            let todo = if *severity == Severity::Must { "" } else { " # TODO " };
            let word = if *severity == Severity::Must { "" } else { severity.word() };
            serial::line(format_args!("not ok {number} - {name}{todo}{word}"));
            serial::line(format_args!("  ---"));
            serial::line(format_args!("  asks: {:?}", check.asks));
            serial::line(format_args!("  severity: {severity}"));
            serial::line(format_args!("  section: \"{section}\""));
            serial::line(format_args!("  device: \"{device}\""));
            serial::line(format_args!("  detail: {detail:?}"));
            serial::line(format_args!("  ..."));
        }
    }
}

fn emit(device: Bdf, check: &Check, outcome: &Outcome) {
    let mut event = events::Check {
        name: check.name,
        severity: check.severity.word(),
        section: check.section,
        device: &device,
        ok: true,
        detail: None,
        asks: None,
        skipped: None,
        trouble: None,
    };
    match outcome {
        Outcome::Ok => {}
        Outcome::Failed(detail) => {
            (event.ok, event.detail, event.asks) = (false, Some(detail.as_str()), Some(check.asks));
        }
        Outcome::Skipped(reason) => event.skipped = Some(reason),
        Outcome::Trouble(reason) => event.trouble = Some(reason),
    }
    serial::emit(&event);
}

fn report_summary(total: &Summary) {
    let Summary { ok, failed, warned, skipped, troubled, ended } = total;
    serial::emit(&events::Checks {
        ok: total.is_success(),
        passed: *ok,
        failed: *failed,
        warned: *warned,
        skipped: *skipped,
        troubled: *troubled,
        ended: ended.as_deref(),
    });
    if serial::is_text() {
        if let Some(reason) = ended {
            serial::line(format_args!("Bail out! {reason}"));
        }
        serial::line(format_args!("# {ok} ok, {failed} failed, {warned} warned, {skipped} skipped"));
        if *troubled != 0 {
            serial::line(format_args!("# {troubled} not made: the tester failed"));
        }
    }
}
