//! Free page reporting: unused memory returns to the host by itself, without inflating and without a request, and
//! comes back on the next use.

use crate::support::{MIB, Outcome, Qemu, Trial, Version, Vm, ensure};
use crate::trial;

/// Memory that a program uses and frees.
const USED: u64 = 192 * MIB;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (version, properties) in [
        (Version::V7_2, ""),
        (Version::V7_2, ",packed=on"),
        (Version::V7_2, ",disable-modern=on"),
        (Version::V10_0, ",vectors=6"),
        (Version::V10_0, ",vectors=2,packed=on"),
        (Version::V10_0, ",vectors=6,disable-modern=on"),
    ] {
        let qemu = || guest(version, properties);
        let name = |case: &str| {
            let device = properties.trim_start_matches(',').replace("=on", "").replace([',', '='], "_");
            format!("reporting::{version}::{}::{case}", if device.is_empty() { "modern" } else { &device })
        };
        trials.push(trial(name("unused_memory_returns"), qemu(), follows_use));
    }
    let newest = |line: &str| guest(Version::Newest, "").command_line(line);
    let old = newest("log=json report-age=3600000");
    trials.push(trial("reporting::young_memory_stays_until_it_is_asked_for", old, waits_for_age));
    let much = newest("log=json report-age=1 report-threshold=1T");
    trials.push(trial("reporting::little_memory_stays_until_it_is_asked_for", much, waits_for_age));
    let declined = newest("log=json features=-page_reporting");
    trials.push(trial("reporting::nothing_is_reported_when_it_is_declined", declined, declines));
    trials.push(trial("reporting::beside_a_balloon_that_moves", newest("log=json"), beside_the_balloon));
    trials
}

/// A guest with reporting; all its memory is preallocated on the host.
fn guest(version: Version, properties: &str) -> Qemu {
    Qemu::new(version).preallocated().balloon(&format!("free-page-reporting=on{properties}"))
}

/// Waits until the guest's resident memory is at most this many bytes.
fn falls_to(vm: &mut Vm, bytes: u64) -> Outcome {
    let mut last = 0;
    vm.wait_for("the resident memory to fall", |vm| {
        last = vm.resident()?;
        Ok((last <= bytes).then_some(()))
    })
    .map_err(|error| format!("{error}: {} MiB, not {}", last / MIB, bytes / MIB).into())
}

/// After the start little of the guest is resident; a program's memory is resident only while the program uses it.
fn follows_use(vm: &mut Vm) -> Outcome {
    let full = vm.resident()?;
    ensure!(full >= vm.memory, "all memory should be there at the start: {} MiB", full / MIB);
    let flushed = vm.event("report")?;
    ensure!(flushed.count("bytes")? >= vm.memory / 100 * 95, "nearly all memory is free: {flushed}");
    let empty = full - vm.memory / 100 * 95;
    falls_to(vm, empty)?;
    for _ in 0..3 {
        vm.ask(&format!("mem hold {}M", USED / MIB), "held")?;
        let used = vm.resident()?;
        ensure!(used >= USED, "a program uses {} MiB, and the host has {}", USED / MIB, used / MIB);
        let verified = vm.ask("mem verify", "verify")?;
        ensure!(verified.flag("ok")?, "what a program wrote has changed: {verified}");
        vm.ask("mem release", "console")?;
        falls_to(vm, empty)?;
    }
    let ready = vm.serial.all().iter().any(|line| line.text.contains(r#""page_reporting""#));
    ensure!(ready, "the kernel should say that it has the feature");
    ensure!(vm.qmp.virtio_status()?["guest-features"].to_string().contains("REPORTING"), "QEMU sees the feature");
    vm.balloon_to(vm.memory / 2)?;
    vm.balloon_to(vm.memory)
}

/// With these options, freed memory is not reported until a console command flushes it.
fn waits_for_age(vm: &mut Vm) -> Outcome {
    vm.event("report")?;
    vm.ask(&format!("mem hold {}M", USED / MIB), "held")?;
    let used = vm.resident()?;
    vm.ask("mem release", "console")?;
    // Twice the default age.
    std::thread::sleep(std::time::Duration::from_millis(600));
    let kept = vm.resident()?;
    // QEMU also frees some of its own memory.
    let gone = used.saturating_sub(kept);
    ensure!(gone < USED / 4, "{} MiB of {} were reported too early", gone / MIB, used / MIB);
    let flushed = vm.ask("report", "report")?;
    ensure!(flushed.count("bytes")? >= vm.memory / 100 * 95 + USED, "all of it is reported again: {flushed}");
    falls_to(vm, used - USED / 100 * 95)
}

fn declines(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    let full = vm.resident()?;
    vm.serial.type_line("report")?;
    vm.event_where("refusal", |event| event.text("text").is_ok_and(|text| text.contains("page_reporting")))?;
    ensure!(vm.resident()? >= full - USED / 4, "memory went although reporting was declined");
    let seen = vm.qmp.virtio_status()?["guest-features"].to_string();
    ensure!(!seen.contains("REPORTING"), "QEMU sees {seen}");
    Ok(())
}

/// The balloon reaches every target exactly while free memory is reported and a program keeps a pattern.
fn beside_the_balloon(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.ask("mem hold 64M", "held")?;
    for round in 0..20_u64 {
        vm.balloon_to(vm.memory / 2 + round % 5 * 8 * MIB)?;
        vm.serial.type_line("report")?;
        vm.balloon_to(vm.memory)?;
        if round % 4 == 0 {
            vm.ask("mem hold 16M", "held")?;
        }
    }
    let verified = vm.ask("mem verify", "verify")?;
    ensure!(verified.flag("ok")? && verified.count("bytes")? == 144 * MIB, "the memory held has changed: {verified}");
    Ok(())
}
