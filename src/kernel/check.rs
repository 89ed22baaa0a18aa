//! `mode=check`: tests each balloon of the machine, or the devices of other types that `device=` names, and ends the
//! kernel with the verdict.
//!
//! For programs: a `check-started` and a `check` event each, and a `checks` event with the counts. For people and test
//! harnesses: TAP (`tap=`), where a failed check that is no MUST is marked TODO, so that it does not fail the run, and
//! each hostile check is announced in a comment. A run that cannot begin writes `Bail out!` and fails.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Arguments;

use crate::boot::{HostActions, TapVersion};
use crate::console::events;
use crate::kernel::mmio_devices::MmioFound;
use crate::machine::power::ExitStatus;
use crate::machine::{Machine, log as serial, sleep};
use ballonet::pci::Tree;
use ballonet::platform::{DeviceAddress, Platform};
use ballonet::virtio::{DeviceHandle, TransportKind};
use ballonet_check::{
    Check, HostAction, Identity, MemoryEnds, Observer, Outcome, Patience, Selection, Severity, Subject, Summary,
};
use log::{info, warn};

/// Tests the devices that `device=` names: every balloon unless it is given. Returns the kernel's exit status.
pub(super) fn run(machine: &mut Machine, tree: &Tree, mmio: &[MmioFound]) -> ExitStatus {
    let tap = machine.options().tap;
    let selection = match machine.options().checks.map_or_else(|| Ok(Selection::default()), choose) {
        Ok(selection) => selection,
        Err(reason) => return bail_out(tap, format_args!("{reason}")),
    };
    let devices = devices(machine, tree, mmio);
    if devices.is_empty() {
        return bail_out(tap, format_args!("{}", nothing(machine.options().device)));
    }
    if selection.is_empty() {
        return bail_out(tap, format_args!("no check is selected"));
    }
    if serial::is_text() {
        let count: usize = devices.iter().map(|(_, identity)| selection.checks_for(identity).count()).sum();
        serial::line(format_args!("TAP version {tap}"));
        serial::line(format_args!("1..{count}"));
    }
    let mut total = Summary::default();
    let mut number = 0;
    for (subject, identity) in devices {
        let device = subject.handle.address();
        let Identity { name, transport, warning, .. } = identity;
        info!("checking the {name} device at {device} by {transport}: {warning}");
        if let DeviceAddress::Pci(function) = device {
            tree.open_path(machine.config(), function);
        }
        let reporter = Reporter { device, host: machine.options().host, number: &mut number };
        let patience = Patience { sleep: Some(sleep), ..Patience::default() };
        let summary = ballonet_check::run(machine, subject, &selection, patience, reporter);
        total.add(&summary);
    }
    report_summary(&total);
    if total.is_success() { ExitStatus::Success } else { ExitStatus::Failure }
}

/// The devices to test, with what they are.
fn devices(machine: &mut Machine, tree: &Tree, mmio: &[MmioFound]) -> Vec<(Subject, Identity)> {
    let on_pci = tree.nodes().iter().filter(|node| node.function.vendor == VIRTIO).map(|node| node.function.bdf.into());
    let handles: Vec<DeviceHandle> = on_pci.chain(mmio.iter().map(MmioFound::handle)).collect();
    let options = machine.options();
    let (wanted, writes, legacy) = (options.device, options.writes, options.transport == Some(TransportKind::Legacy));
    let unplugs = options.host.has(HostAction::Unplug);
    let (low, high) = machine.memory_ends();
    let memory = Some(MemoryEnds { low, high });
    let mut devices = Vec::new();
    for handle in handles {
        let port = match handle.address() {
            DeviceAddress::Pci(function) if unplugs => tree.get(function).and_then(|node| node.upstream),
            _ => None,
        };
        let subject = Subject { handle, legacy, writes, memory, port };
        match ballonet_check::identify(machine, &subject) {
            Ok(identity) if is_meant(wanted, &subject, &identity) => devices.push((subject, identity)),
            Ok(_) => {}
            Err(reason) => warn!("{reason}"),
        }
    }
    devices
}

/// The vendor of virtio functions.
const VIRTIO: u16 = 0x1af4;

/// Whether `device=` means this device.
fn is_meant(wanted: &str, subject: &Subject, identity: &Identity) -> bool {
    let address = subject.handle.address().to_string();
    // PCI addresses may leave the segment out.
    wanted == "all" || wanted == identity.name || address == wanted || address.strip_prefix("0000:") == Some(wanted)
}

/// Why there is nothing to test.
fn nothing(wanted: &str) -> String {
    if wanted == "balloon" {
        return "no virtio balloon was found on PCI or MMIO; there is nothing to check".into();
    }
    format!("`device={wanted}`: no such virtio device was found on PCI or MMIO; there is nothing to check")
}

/// The longest wait for an announcement or a request to leave the serial port, in nanoseconds: a hundred times what 16 bytes take.
const ANNOUNCED: u64 = 150_000_000;

/// Writes down what happens to one device.
struct Reporter<'n> {
    device: DeviceAddress,
    /// What the host does.
    host: HostActions,
    /// The checks of all devices that have ended.
    number: &'n mut usize,
}

impl Observer for Reporter<'_> {
    fn started(&mut self, check: &Check) {
        serial::emit(&events::CheckStarted { name: check.name, device: &self.device });
        // The name must be out before the attack: the VMM may not live to send what is still in the port.
        if check.is_hostile() {
            if serial::is_text() {
                serial::line(format_args!("# {} begins", check.name));
            }
            serial::drain(ANNOUNCED);
        }
    }

    fn ended(&mut self, check: &Check, outcome: &Outcome) {
        *self.number += 1;
        report(*self.number, self.device, check, outcome);
    }

    fn ask_host(&mut self, action: HostAction, target: Option<u64>) -> bool {
        // No program reads events out of a log for people.
        let asked = self.host.has(action) && !serial::is_text();
        if asked {
            let target = target.map(events::Bytes);
            serial::emit(&events::Host { action: action.word(), device: &self.device, target });
            serial::drain(ANNOUNCED);
        }
        asked
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

fn report(number: usize, device: DeviceAddress, check: &Check, outcome: &Outcome) {
    let Check { name, section, .. } = check;
    emit(device, check, outcome);
    if !serial::is_text() {
        return;
    }
    match outcome {
        Outcome::Ok => serial::line(format_args!("ok {number} - {name}")),
        Outcome::Refused | Outcome::NeedsReset => {
            serial::line(format_args!("ok {number} - {name} # {}", outcome.word()));
        }
        Outcome::Skipped(reason) => serial::line(format_args!("ok {number} - {name} # SKIP {reason}")),
        // It says nothing about the device, so it is no failure of it.
        Outcome::Trouble(reason) => {
            serial::line(format_args!("ok {number} - {name} # SKIP the tester failed: {reason}"));
        }
        Outcome::Failed(detail) | Outcome::Stalled(detail) | Outcome::Wedged(detail) | Outcome::Corrupted(detail) => {
            let severity = outcome.severity(check.severity);
            let todo = if severity == Severity::Must { "" } else { " # TODO " };
            let word = if severity == Severity::Must { "" } else { severity.word() };
            serial::line(format_args!("not ok {number} - {name}{todo}{word}"));
            serial::line(format_args!("  ---"));
            serial::line(format_args!("  asks: {:?}", check.asks));
            if let Some(breaks) = check.breaks {
                serial::line(format_args!("  breaks: {breaks:?}"));
                serial::line(format_args!("  verdict: {}", outcome.word()));
                serial::line(format_args!("  tier: {}", outcome.tier().word()));
            }
            serial::line(format_args!("  severity: {severity}"));
            serial::line(format_args!("  section: \"{section}\""));
            serial::line(format_args!("  device: \"{device}\""));
            serial::line(format_args!("  detail: {detail:?}"));
            serial::line(format_args!("  ..."));
        }
    }
}

fn emit(device: DeviceAddress, check: &Check, outcome: &Outcome) {
    let failure = outcome.failure();
    serial::emit(&events::Check {
        name: check.name,
        severity: check.severity.word(),
        section: check.section,
        device: &device,
        ok: failure.is_none(),
        verdict: outcome.word(),
        tier: check.is_hostile().then(|| outcome.tier().word()),
        detail: failure,
        asks: failure.map(|_| check.asks),
        breaks: check.breaks.filter(|_| failure.is_some()),
        skipped: if let Outcome::Skipped(reason) = outcome { Some(reason) } else { None },
        trouble: if let Outcome::Trouble(reason) = outcome { Some(reason) } else { None },
    });
}

fn report_summary(total: &Summary) {
    let Summary { ok, refused, needed_reset, failed, harmed, warned, skipped, troubled, ended } = total;
    serial::emit(&events::Checks {
        ok: total.is_success(),
        passed: *ok,
        refused: *refused,
        needed_reset: *needed_reset,
        failed: *failed,
        harmed: *harmed,
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
        if refused + needed_reset + harmed != 0 {
            serial::line(format_args!(
                "# hostile: {refused} refused, {needed_reset} needed a reset, {harmed} did harm"
            ));
        }
        if *troubled != 0 {
            serial::line(format_args!("# {troubled} could not run: the tester failed"));
        }
    }
}
