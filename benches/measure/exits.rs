//! The kernel's accesses outside memory, beside Linux's: under KVM each access exits the guest.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use super::chart;
use super::host::{Guest, Host, measured};
use super::publish::document;
use super::support::trace::Trace;
use super::support::{Outcome, Version, Vm};

/// Memory of the guests, which the host does not have, and how much moves, in GiB.
const MEMORY: u64 = 18 << 30;
const GIBS: u64 = 16;
/// `DRIVER_OK` and the bits before it.
const DRIVER_OK: u64 = 0xF;
/// Pause before and after a phase.
const SETTLE: Duration = Duration::from_secs(2);

/// One guest's accesses: from the start to `DRIVER_OK`, while inflating, and while deflating.
type Phases = [Trace; 3];

/// Counts and prints everything; with `write`, also updates the document.
pub(crate) fn run(write: bool) -> Outcome {
    let mut text = String::new();
    for version in [Version::V10_0, Version::V7_2] {
        let host = Host { version, huge_pages: true };
        let mut counted = Vec::new();
        for guest in [Guest::Ours, Guest::Linux] {
            let qemu = guest.on(host)?.memory(MEMORY).sparse().traced();
            let qemu = if guest == Guest::Ours { qemu.command_line("term=ansi") } else { qemu };
            counted.extend(measured(&qemu, |vm| phases(vm, guest))?.map(|phases| (guest, phases)));
        }
        let name = version.to_string();
        table(&mut text, name.trim_start_matches("qemu-"), &counted)?;
    }
    println!("{text}");
    if write {
        chart::document::write_between(&document("docs/exits.md"), "exits", &text)?;
    }
    Ok(())
}

fn phases(vm: &mut Vm, guest: Guest) -> Outcome<Phases> {
    vm.wait_for("the driver", |vm| {
        let status = vm.qmp.virtio_status()?["status"]["statuses"].to_string();
        Ok(status.contains("DRIVER_OK").then_some(()))
    })?;
    thread::sleep(SETTLE);
    let trace = vm.trace()?;
    let start = match guest {
        Guest::Ours => trace.of_log_until(" ready: ")?,
        Guest::Linux => trace.until_status(DRIVER_OK)?,
    };
    let inflated = moved(vm, MEMORY - (GIBS << 30))?;
    let deflated = moved(vm, MEMORY)?;
    Ok([start, inflated, deflated])
}

fn moved(vm: &mut Vm, target: u64) -> Outcome<Trace> {
    let before = vm.trace()?.len();
    vm.balloon_to(target)?;
    thread::sleep(SETTLE);
    Ok(vm.trace()?.after(before))
}

fn table(text: &mut String, version: &str, counted: &[(Guest, Phases)]) -> Outcome {
    let sources: BTreeSet<&str> =
        counted.iter().flat_map(|(_, phases)| phases.iter().flat_map(|trace| trace.sources().into_keys())).collect();
    write!(text, "QEMU {version}:\n\n| |")?;
    for (guest, _) in counted {
        let name = guest.name();
        write!(text, " {name}: start | a GiB inflated | a GiB deflated |")?;
    }
    writeln!(text, "\n|---|{}", "---|".repeat(3 * counted.len()))?;
    let cells = |count: &dyn Fn(&Trace) -> usize| {
        let figures = counted.iter().flat_map(|(_, [start, inflated, deflated])| {
            let a_gib = |trace| (count(trace) as f64 / GIBS as f64).round() as usize;
            [count(start), a_gib(inflated), a_gib(deflated)]
        });
        figures.map(|figure| format!(" {figure} |")).collect::<String>()
    };
    for source in sources {
        let row = cells(&|trace| trace.sources().get(source).copied().unwrap_or(0));
        writeln!(text, "| {source} |{row}")?;
    }
    writeln!(text, "| **all** |{}\n", cells(&Trace::len))?;
    Ok(())
}
