//! Programs in the kernel: the host backs the memory that they use, and gets back what they free, without a request.

use crate::support::event::Event;
use crate::support::{MIB, Outcome, Qemu, Trial, Version, Vm, ensure};
use crate::trial;

/// The most memory that the program uses.
const SIZE: u64 = 192 * MIB;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in [Version::V7_2, Version::V10_0] {
        let qemu = reporting(version).command_line(&format!("log=json work=sawtooth:{}M", SIZE / MIB));
        trials.push(trial(format!("work::{version}::resident_memory_follows_a_sawtooth"), qemu, follows));
    }
    let moving = reporting(Version::Newest).command_line("log=json work=churn:96M");
    trials.push(trial("work::patterns_hold_while_the_balloon_moves_the_other_way", moving, beside_the_balloon));
    let wrong = Qemu::new(Version::Newest).command_line("log=json work=sawtooth:lots work=saw:1M");
    trials.push(trial("work::invalid_programs_are_named", wrong, named));
    trials.push(trial("work::the_console_starts_and_stops_programs", Qemu::new(Version::Newest), by_hand));
    trials
}

fn reporting(version: Version) -> Qemu {
    Qemu::new(version).preallocated().balloon("free-page-reporting=on")
}

fn phase(vm: &mut Vm, phase: &str) -> Outcome<Event> {
    let event = vm.event_where(&format!("work {phase}"), |event| {
        event.name() == "work" && event.text("phase").is_ok_and(|word| word == phase)
    })?;
    ensure!(event.count("bad")? == 0, "what a program wrote has changed: {event}");
    Ok(event)
}

fn follows(vm: &mut Vm) -> Outcome {
    let flushed = vm.event("report")?;
    ensure!(flushed.count("bytes")? >= SIZE, "free memory should be reported at the start: {flushed}");
    for round in 0..2 {
        let full = phase(vm, "full")?;
        ensure!(
            full.count("bytes")? >= SIZE && full.count("failures")? == 0,
            "it should have all memory that it wants: {full}"
        );
        let high = vm.resident()?;
        ensure!(high >= SIZE, "round {round}: a program uses {} MiB, the host has {}", SIZE / MIB, high / MIB);
        phase(vm, "empty")?;
        let mut last = high;
        vm.wait_for("the resident memory to fall", |vm| {
            last = last.min(vm.resident()?);
            Ok((last + SIZE / 100 * 90 <= high).then_some(()))
        })
        .map_err(|error| format!("{error}: round {round}: from {} to {} MiB", high / MIB, last / MIB))?;
    }
    Ok(())
}

fn beside_the_balloon(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    for round in 0..8 {
        vm.balloon_to(if round % 2 == 0 { vm.memory / 2 } else { vm.memory })?;
        let event = phase(vm, "churning")?;
        ensure!(event.count("failures")? == 0, "there is memory enough: {event}");
    }
    vm.serial.type_line("work stop")?;
    phase(vm, "done").map(drop)
}

fn named(vm: &mut Vm) -> Outcome {
    for value in ["sawtooth:lots", "saw:1M"] {
        vm.event_where(&format!("warning of {value:?}"), |event| {
            event.name() == "log"
                && event.text("message").is_ok_and(|text| text.contains(value) && text.contains("churn:SIZE"))
        })?;
    }
    vm.event("ready").map(drop)
}

fn by_hand(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    let answer = vm.ask("work", "console")?;
    ensure!(answer.text("text")?.contains("no program"), "none runs: {answer}");
    let answer = vm.ask("work saw:1M", "console")?;
    ensure!(answer.text("text")?.contains("saw:1M"), "the invalid program should be named: {answer}");
    for kind in ["sawtooth", "steady"] {
        vm.serial.type_line(&format!("work {kind}:24M"))?;
        let full = phase(vm, "full")?;
        ensure!(full.text("kind")? == kind && full.count("bytes")? >= 24 * MIB, "it runs: {full}");
    }
    phase(vm, "verifying")?;
    vm.serial.type_line("work verify:10M")?;
    let done = phase(vm, "done")?;
    ensure!(done.text("kind")? == "verify" && done.count("bytes")? == 0, "it ends by itself: {done}");
    vm.serial.type_line("work steady:10M")?;
    phase(vm, "full")?;
    let before = vm.ask("resources", "resources")?.count("heap")?;
    vm.serial.type_line("work stop")?;
    phase(vm, "done")?;
    let after = vm.ask("resources", "resources")?.count("heap")?;
    ensure!(before > 8 * MIB && after < MIB, "its memory is free: {before} and {after} bytes of heap");
    Ok(())
}
