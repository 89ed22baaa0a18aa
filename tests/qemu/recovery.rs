//! A balloon survives resets under load, from the console and by `DEVICE_NEEDS_RESET`, a freeze, and a device that
//! fails for good. Every frame is accounted for, and memory in use keeps its contents.

use std::thread::sleep;
use std::time::Duration;

use crate::support::event::Event;
use crate::support::random::Random;
use crate::support::{MIB, Outcome, Qemu, Trial, Version, Vm, ensure, ensure_or_doubt, note};
use crate::trial;

/// Memory that the guest fills with a pattern and keeps throughout.
const HELD: u64 = 16 * MIB;

/// Resets per run.
const RESETS: usize = 200;

/// After this many resets everything permanent is allocated; from then on nothing may leak.
const WARM: usize = 8;

/// Commands that the console remembers.
const HISTORY: usize = 16;

pub(crate) fn trials() -> Vec<Trial> {
    let newest = || Qemu::new(Version::V10_0).memory(256 * MIB).patience(Duration::from_secs(300));
    let old = || Qemu::new(Version::V7_2).memory(256 * MIB).patience(Duration::from_secs(300));
    let cells = [
        ("split", newest().balloon("vectors=6"), true),
        ("packed_by_line", newest().balloon("vectors=0,packed=on"), true),
        ("legacy", newest().balloon("vectors=2,disable-modern=on"), false),
        ("split_on_qemu-7.2", old(), true),
    ];
    let mut trials: Vec<_> = cells
        .into_iter()
        .map(|(name, qemu, queues)| {
            let test = move |vm: &mut Vm| resets(vm, name, queues);
            trial(format!("recovery::two_hundred_resets_in_the_middle_of_traffic::{name}"), qemu, test)
        })
        .collect();
    trials.push(trial("recovery::frozen_and_restored", newest().balloon("vectors=6"), freeze));
    trials.push(trial(
        "recovery::needs_reset_is_mended_and_given_up_on_in_the_end",
        newest().shared_memory().balloon("vectors=6"),
        needs_reset,
    ));
    trials
}

/// The console's counts of an idle balloon.
fn count(vm: &mut Vm) -> Outcome<Event> {
    let memory = vm.ask("mem", "memory")?;
    let mut sum = 0;
    for state in ["free", "used", "ballooned", "reserved"] {
        sum += memory.count(state)?;
    }
    ensure!(sum == memory.count("total")?, "frames are missing, or too many: {memory}");
    ensure!(memory.flag("sound")? && memory.count("refused")? == 0, "the records are wrong: {memory}");
    let ballooned = vm.memory - vm.qmp.actual()?;
    ensure!(memory.count("ballooned")? * 4096 == ballooned, "QEMU has {ballooned} bytes: {memory}");
    Ok(memory)
}

/// What must not grow: frames in use, but for what the heap holds (its size depends on how it is fragmented), and the
/// heap in use.
fn kept(vm: &mut Vm) -> Outcome<(u64, u64)> {
    // The heap has the console's history, which must not differ.
    for _ in 0..HISTORY / 2 {
        count(vm)?;
        vm.ask("resources", "resources")?;
    }
    let counts = vm.ask("resources", "resources")?;
    Ok((counts.count("used")? - counts.count("heap_mapped")? / 4096, counts.count("heap")?))
}

/// Resets by the console, of the device and of its queues in turn, while the host changes the target.
fn resets(vm: &mut Vm, seed: &str, queues: bool) -> Outcome {
    vm.event("ready")?;
    vm.ask(&format!("mem hold {}M", HELD / MIB), "held")?;
    let mut random = Random::seeded_by(seed);
    let (mut before, mut struck) = ((0, 0), 0);
    for reset in 0..RESETS {
        if reset == WARM {
            vm.balloon_to(vm.memory)?;
            before = kept(vm)?;
        }
        vm.qmp.set_target(random.within(vm.memory / 4, vm.memory) / 4096 * 4096)?;
        sleep(Duration::from_millis(random.within(0, 12)));
        let command = match reset % 4 {
            1 if queues => "reset-queue inflate",
            3 if queues => "reset-queue deflate",
            _ => "reset",
        };
        let event = vm.ask(command, "reset")?;
        ensure!(event.text("reason")? == "asked", "after {command:?}: {event}");
        ensure!(event.get("queue").is_some() == command.contains("queue"), "after {command:?}: {event}");
        struck += u32::from(event.count("inflating")? + event.count("deflating")? > 0);
    }
    note(&format!("{struck} of {RESETS} resets came while requests were in flight"));
    ensure_or_doubt!(struck > 0, "no reset came while requests were in flight");
    // Every target is still reached exactly, and statistics still arrive.
    for target in [vm.memory / 2 + 4096, vm.memory] {
        vm.balloon_to(target)?;
    }
    vm.qmp.poll_statistics(1)?;
    let offered = vm.qmp.statistics()?.last_update;
    vm.wait_for("statistics after the resets", |vm| Ok((vm.qmp.statistics()?.last_update > offered).then_some(())))?;
    let after = kept(vm)?;
    ensure!(before == after, "frames and bytes of heap in use: {before:?} before, {after:?} after");
    let verified = vm.ask("mem verify", "verify")?;
    ensure!(verified.flag("ok")? && verified.count("bytes")? == HELD, "the memory held has changed: {verified}");
    Ok(())
}

/// The bits of the device's status, in QEMU's words.
fn status(vm: &mut Vm) -> Outcome<String> {
    Ok(vm.qmp.virtio_status()?["status"]["statuses"].to_string())
}

/// A frozen balloon keeps its size and does nothing; restored, it follows the host's current target.
fn freeze(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.ask(&format!("mem hold {}M", HELD / MIB), "held")?;
    vm.balloon_to(vm.memory / 2)?;
    vm.qmp.set_target(vm.memory / 4)?;
    let frozen = vm.ask("freeze", "freeze")?;
    let kept = frozen.count("actual")?;
    let seen = status(vm)?;
    ensure!(!seen.contains("DRIVER_OK"), "QEMU sees {seen}");
    vm.qmp.set_target(vm.memory)?;
    // Long enough for a driver that is not frozen to act.
    sleep(Duration::from_millis(300));
    let memory = vm.ask("mem", "memory")?;
    ensure!(memory.count("ballooned")? * 4096 == kept, "{kept} bytes were with the host: {memory}");
    vm.ask("freeze virtio0", "freeze")?;
    vm.ask("restore", "restore")?;
    vm.wait_for("the target as it is by now", |vm| Ok((vm.qmp.actual()? == vm.memory).then_some(())))?;
    vm.balloon_to(vm.memory / 4)?;
    count(vm)?;
    vm.serial.type_line("freeze virtio7")?;
    vm.event_where("answer that names virtio7", |event| event.text("text").is_ok_and(|text| text.contains("virtio7")))?;
    let verified = vm.ask("mem verify", "verify")?;
    ensure!(verified.flag("ok")?, "the memory held has changed: {verified}");
    Ok(())
}

/// Makes QEMU's device need a reset: while the machine is stopped, makes an invalid descriptor available on the
/// inflate queue. QEMU reads its queues when the machine continues, and finds the error.
fn stumble(vm: &mut Vm) -> Outcome {
    vm.qmp.stop()?;
    let queue = vm.qmp.virtio_queue(0)?;
    let available = queue["vring-avail"].as_u64().filter(|at| *at != 0).ok_or("the queue is not in use")?;
    let size = queue["vring-num"].as_u64().filter(|size| *size != 0).ok_or("the queue has no size")?;
    let index = vm.read_memory(available + 2)?;
    vm.write_memory(available + 4 + 2 * (u64::from(index) % size), u16::MAX)?;
    vm.write_memory(available + 2, index.wrapping_add(1))?;
    vm.qmp.cont()
}

/// A device that needs a reset gets one, and works as before. If it keeps needing resets, the driver gives it up; the
/// kernel survives that, and `reset` tries again.
fn needs_reset(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.ask(&format!("mem hold {}M", HELD / MIB), "held")?;
    vm.balloon_to(vm.memory / 2)?;
    stumble(vm)?;
    let event = vm.event("reset")?;
    ensure!(event.text("reason")? == "needs-reset", "the device said that it needs one: {event}");
    vm.balloon_to(vm.memory / 4)?;
    vm.balloon_to(vm.memory / 2)?;
    count(vm)?;
    let failed = loop {
        stumble(vm)?;
        let next = vm.event_where("reset or failed", |event| ["reset", "failed"].contains(&event.name()))?;
        if next.name() == "failed" {
            break next;
        }
    };
    ensure!(failed.text("error")?.contains("needs a reset again"), "the error should be named: {failed}");
    let seen = status(vm)?;
    ensure!(seen.contains("FAILED") && !seen.contains("DRIVER_OK"), "QEMU sees {seen}");
    // The host keeps its memory, and the kernel runs on.
    let memory = vm.ask("mem", "memory")?;
    ensure!(memory.count("ballooned")? * 4096 == vm.memory / 2 && memory.flag("sound")?, "{memory}");
    vm.ask("reset", "reset")?;
    vm.balloon_to(vm.memory)?;
    count(vm)?;
    let verified = vm.ask("mem verify", "verify")?;
    ensure!(verified.flag("ok")?, "the memory held has changed: {verified}");
    Ok(())
}
