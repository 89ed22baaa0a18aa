//! `mode=check`: each balloon of the machine is tested, and the kernel ends with what came of it.
//!
//! For programs: a `check` event each, and a `checks` event with the counts. For people and test harnesses: TAP (`tap=`),
//! where checks of what a device need not do are marked TODO, so that they do not fail the whole. A run that cannot begin
//! says `Bail out!` and fails.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Arguments;

use crate::boot::TapVersion;
use crate::machine::power::ExitStatus;
use crate::machine::{Machine, log as serial};
use ballonet::balloon::Balloon;
use ballonet::pci::{Bdf, Tree};
use ballonet::platform::Platform;
use ballonet_check::{Check, Outcome, Patience, Selection, Severity, Summary};
use log::info;

/// Tests every balloon on PCI. The status with which the kernel is to end.
pub(super) fn run(machine: &mut Machine, tree: &Tree) -> ExitStatus {
    let tap = machine.options().tap;
    let selection = match machine.options().checks.map_or_else(|| Ok(Selection::default()), choose) {
        Ok(selection) => selection,
        Err(reason) => return bail_out(tap, format_args!("{reason}")),
    };
    let is_balloon =
        |node: &&ballonet::pci::Node| Balloon::<Machine>::matches(node.function().vendor(), node.function().device());
    let devices: Vec<Bdf> = tree.nodes().iter().filter(is_balloon).map(|node| node.function().bdf()).collect();
    if devices.is_empty() {
        return bail_out(tap, format_args!("no virtio balloon was found on PCI: there is nothing to check"));
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
        let summary = ballonet_check::run(machine, device, &selection, Patience::default(), |check, outcome| {
            number += 1;
            tell(number, device, check, outcome);
        });
        total.add(&summary);
    }
    tell_summary(&total);
    if total.is_success() { ExitStatus::Success } else { ExitStatus::Failure }
}

/// Ends a run before it began: `reason` says why. The status with which the kernel is to end.
pub(super) fn bail_out(tap: TapVersion, reason: Arguments<'_>) -> ExitStatus {
    if serial::is_text() {
        serial::line(format_args!("TAP version {tap}"));
    }
    tell_summary(&Summary { ended: Some(reason.to_string()), ..Summary::default() });
    ExitStatus::Failure
}

/// The checks of this list, or what is wrong with it: nobody would read a warning.
fn choose(list: &str) -> Result<Selection, String> {
    let mut unknown = None;
    let selection = Selection::parse(list, |item| unknown = unknown.or(Some(item)));
    let Some(item) = unknown else { return Ok(selection) };
    let alike = Selection::alike(item).join(", ");
    let meant = if alike.is_empty() { String::new() } else { format!("; did you mean {alike}?") };
    Err(format!("no check is named `{item}`{meant} (docs/checks.md lists all)"))
}

fn tell(number: usize, device: Bdf, check: &Check, outcome: &Outcome) {
    let Check { name, severity, section, .. } = check;
    serial::emit("check", |line| {
        line.text("name", name).text("severity", severity.word()).text("section", section).display("device", &device);
        line.boolean("ok", !matches!(outcome, Outcome::Failed(_)));
        match outcome {
            Outcome::Ok => {}
            Outcome::Failed(detail) => {
                line.text("detail", detail).text("asks", check.asks);
            }
            Outcome::Skipped(reason) => {
                line.text("skipped", reason);
            }
            Outcome::Trouble(reason) => {
                line.text("trouble", reason);
            }
        }
    });
    if !serial::is_text() {
        return;
    }
    match outcome {
        Outcome::Ok => serial::line(format_args!("ok {number} - {name}")),
        Outcome::Skipped(reason) => serial::line(format_args!("ok {number} - {name} # SKIP {reason}")),
        // Not a word about the device, so neither of its failures.
        Outcome::Trouble(reason) => {
            serial::line(format_args!("ok {number} - {name} # SKIP tester's own trouble: {reason}"));
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

fn tell_summary(total: &Summary) {
    let Summary { ok, failed, warned, skipped, troubled, ended } = total;
    serial::emit("checks", |line| {
        line.boolean("ok", total.is_success());
        for (name, count) in
            [("passed", ok), ("failed", failed), ("warned", warned), ("skipped", skipped), ("troubled", troubled)]
        {
            line.number(name, u64::from(*count));
        }
        if let Some(reason) = ended {
            line.text("ended", reason);
        }
    });
    if serial::is_text() {
        if let Some(reason) = ended {
            serial::line(format_args!("Bail out! {reason}"));
        }
        serial::line(format_args!("# {ok} ok, {failed} failed, {warned} warned, {skipped} skipped"));
        if *troubled != 0 {
            serial::line(format_args!("# {troubled} not made, by the tester's own trouble"));
        }
    }
}
