//! A guest runs out of memory: with deflate-on-OOM it reclaims the balloon's memory, whatever the host's target, and
//! the balloon returns to the target afterwards.

use crate::support::event::Event;
use crate::support::qmp::OOM_TAGS;
use crate::support::{MIB, Outcome, Qemu, Trial, Version, Vm, ensure};
use crate::trial;

const MEMORY: u64 = 256 * MIB;
/// The memory that the host leaves; and the size of a program that does not fit into that.
const KEPT: u64 = 64 * MIB;
const WANTED: u64 = 160 * MIB;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (version, properties) in [
        (Version::V7_2, ""),
        (Version::V7_2, ",packed=on"),
        (Version::V7_2, ",disable-modern=on"),
        (Version::V10_0, ",vectors=6"),
        (Version::V10_0, ",vectors=0,packed=on"),
    ] {
        let device = properties.trim_start_matches(',').replace("=on", "").replace([',', '='], "_");
        let name = format!("oom::{version}::{}", if device.is_empty() { "modern" } else { &device });
        trials.push(trial(name, guest(version, &format!("deflate-on-oom=on{properties}")), served));
    }
    let newest = |properties| guest(Version::Newest, properties);
    trials.push(trial("oom::a_device_without_the_feature_keeps_its_memory", newest(""), refused));
    let declined = newest("deflate-on-oom=on").command_line("log=json features=-deflate_on_oom");
    trials.push(trial("oom::the_feature_can_be_declined", declined, refused));
    let both = "deflate-on-oom=on,free-page-reporting=on";
    trials.push(trial("oom::an_opposing_host_starves_no_program", newest(both), opposed));
    trials.push(trial("oom::held_memory_comes_from_the_balloon_too", newest("deflate-on-oom=on"), held));
    for version in [Version::V7_2, Version::V10_0] {
        let qemu = guest(version, "deflate-on-oom=on");
        trials.push(trial(format!("oom::{version}::statistics_show_it"), qemu, told));
    }
    trials
}

fn guest(version: Version, properties: &str) -> Qemu {
    Qemu::new(version).memory(MEMORY).balloon(properties).command_line("log=json oom-cooldown=100")
}

/// The running program's next event of this phase.
fn phase(vm: &mut Vm, phase: &str) -> Outcome<Event> {
    vm.event_where(&format!("work {phase}"), |event| {
        event.name() == "work" && event.text("phase").is_ok_and(|word| word == phase)
    })
}

/// Waits until the balloon has exactly the target size.
fn reaches(vm: &mut Vm, bytes: u64) -> Outcome {
    let mut last = 0;
    vm.wait_for("the balloon to have its target", |vm| {
        last = vm.qmp.actual()?;
        Ok((last == bytes).then_some(()))
    })
    .map_err(|error| format!("{error}: {last} of {bytes} bytes").into())
}

fn flawless(event: &Event) -> Outcome {
    ensure!(event.count("failures")? == 0, "allocations failed although the balloon could have deflated: {event}");
    ensure!(event.count("bad")? == 0, "what a program wrote has changed: {event}");
    Ok(())
}

/// Every frame is accounted for.
fn sound(vm: &mut Vm) -> Outcome<Event> {
    let memory = vm.ask("mem", "memory")?;
    ensure!(memory.flag("sound")? && memory.count("refused")? == 0, "the allocator's records are wrong: {memory}");
    Ok(memory)
}

fn served(vm: &mut Vm) -> Outcome {
    let ready = vm.event("ready")?;
    ensure!(ready.to_string().contains("deflate_on_oom"), "the feature should be accepted: {ready}");
    vm.balloon_to(KEPT)?;
    vm.serial.type_line(&format!("work verify:{}M", WANTED / MIB))?;
    let reclaim = vm.event("oom-reclaim")?;
    ensure!(
        reclaim.count("failed")? == 0 && reclaim.count("bytes")? > 0,
        "it should have been given memory: {reclaim}"
    );
    let done = phase(vm, "done")?;
    flawless(&done)?;
    ensure!(done.count("allocations")? > 10, "it should have allocated many pieces: {done}");
    // The program has ended, and the host has not changed the target.
    reaches(vm, KEPT)?;
    let memory = sound(vm)?;
    ensure!(memory.count("ballooned")? == (MEMORY - KEPT) / 4096, "the balloon is whole again: {memory}");
    vm.balloon_to(MEMORY)
}

/// The balloon keeps the host's target: a program that does not fit is ended. The kernel continues.
fn refused(vm: &mut Vm) -> Outcome {
    let ready = vm.event("ready")?;
    ensure!(!ready.to_string().contains("deflate_on_oom"), "the feature should not be there: {ready}");
    vm.balloon_to(KEPT)?;
    vm.serial.type_line(&format!("work verify:{}M", WANTED / MIB))?;
    let ended = phase(vm, "ended")?;
    ensure!(ended.count("failures")? == 1 && ended.count("bad")? == 0, "it should have been ended: {ended}");
    ensure!(vm.qmp.actual()? == KEPT, "the balloon should hold what the host wants");
    sound(vm)?;
    // Memory that the host returns by itself is usable again.
    vm.balloon_to(MEMORY - 16 * MIB)?;
    vm.serial.type_line(&format!("work verify:{}M", WANTED / MIB))?;
    flawless(&phase(vm, "done")?)?;
    vm.balloon_to(KEPT)?;
    vm.balloon_to(MEMORY)
}

/// The host keeps asking for all memory while a program allocates and frees.
fn opposed(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.serial.type_line(&format!("work churn:{}M", WANTED / MIB))?;
    for round in 0..12 {
        // Alternating values, so that each is a new target.
        vm.qmp.set_target((8 + round % 3) * MIB)?;
        flawless(&phase(vm, "churning")?)?;
    }
    let reclaimed = vm.serial.all().iter().any(|line| line.text.contains(r#"{"event":"oom-reclaim""#));
    ensure!(reclaimed, "memory should have run out");
    vm.serial.type_line("work stop")?;
    flawless(&phase(vm, "done")?)?;
    vm.qmp.set_target(KEPT)?;
    reaches(vm, KEPT)?;
    sound(vm)?;
    vm.balloon_to(MEMORY)
}

fn held(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.balloon_to(KEPT)?;
    let held = vm.ask(&format!("mem hold {}M", WANTED / MIB), "held")?;
    ensure!(held.count("bytes")? == WANTED, "all of it should be allocated: {held}");
    let verified = vm.ask("mem verify", "verify")?;
    ensure!(verified.flag("ok")?, "what was held has changed: {verified}");
    vm.ask("mem release", "console")?;
    reaches(vm, KEPT)
}

/// QEMU 7.2 knows none of the last six tags, and still takes the others.
fn told(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.balloon_to(KEPT)?;
    vm.serial.type_line(&format!("work verify:{}M", WANTED / MIB))?;
    flawless(&phase(vm, "done")?)?;
    let offered = vm.qmp.statistics()?.last_update;
    vm.qmp.poll_statistics(1)?;
    let statistics = vm.wait_for("statistics", |vm| {
        let statistics = vm.qmp.statistics()?;
        Ok((statistics.last_update > offered).then_some(statistics))
    })?;
    ensure!(statistics.need("stat-total-memory")? <= MEMORY, "the tags that every QEMU knows are there");
    let newer: Vec<_> = OOM_TAGS.iter().filter_map(|name| statistics.get(name)).collect();
    match newer.as_slice() {
        [] => Ok(()),
        [killed, stalls, async_scan, scan, async_reclaim, reclaim] => {
            ensure!(*killed == 0 && *async_scan == 0 && *async_reclaim == 0, "none of that has happened: {newer:?}");
            ensure!(*stalls > 0 && *reclaim > 0 && scan >= reclaim, "memory was reclaimed: {newer:?}");
            Ok(())
        }
        some => Err(format!("QEMU knows all of them or none: {some:?}").into()),
    }
}
