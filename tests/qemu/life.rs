//! Resets at work, power-off, reboot, and an unreachable target.

use std::time::Duration;

use crate::support::{MIB, Outcome, Qemu, Trial, Version, Vm, ensure, ensure_or_doubt};
use crate::trial;

/// A target that is set before the guest's first instruction.
const EARLY: u64 = 256 * MIB;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in [Version::V7_2, Version::V10_0] {
        let qemu = Qemu::new(version).memory(2048 * MIB);
        trials.push(trial(format!("life::{version}::reset_in_the_middle_of_an_inflate"), qemu, reset_while_inflating));
        for machine in ["q35", "pc", "microvm,pcie=on"] {
            let name = |case: &str| format!("life::{version}::{}::{case}", machine.trim_end_matches(",pcie=on"));
            let qemu = || Qemu::new(version).machine(machine);
            trials.push(trial(name("poweroff_ends_qemu_with_success"), qemu(), poweroff));
            trials.push(trial(name("reboot_starts_afresh"), qemu(), reboot));
            let small = qemu().memory(64 * MIB);
            trials.push(trial(name("reboot_after_all_memory_was_written"), small, reboot_after_writing));
        }
    }
    let newest = || Qemu::new(Version::Newest);
    trials.push(trial("life::absurd_target_stops_short", newest(), absurd_target));
    trials.push(trial("life::target_set_before_the_kernel_is_up", newest().early_target(EARLY), early_target));
    trials
}

/// The machine is reset while requests are in flight. The next boot sees the same target and follows it.
fn reset_while_inflating(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    let target = 512 * MIB;
    vm.qmp.set_target(target)?;
    let memory = vm.memory;
    vm.wait_for("the balloon to be on its way", |vm| {
        let actual = vm.qmp.actual()?;
        ensure_or_doubt!(actual > target, "the balloon was done before the reset");
        Ok((actual < memory - 64 * MIB).then_some(()))
    })?;
    vm.qmp.system_reset()?;
    vm.event("ready")?;
    vm.balloon_to(target)?;
    vm.balloon_to(memory)
}

fn poweroff(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.ask("poweroff", "exit")?;
    let status = vm.end()?;
    // isa-debug-exit turns the kernel's value into (value << 1) | 1.
    ensure!(status.code() == Some(33), "QEMU should end with status 33: {status}");
    Ok(())
}

fn reboot(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.balloon_to(vm.memory / 2)?;
    vm.serial.type_line("reboot")?;
    vm.event("ready")?;
    vm.balloon_to(vm.memory)
}

/// On reboot QEMU rewrites only part of the start info; the kernel must leave the rest intact.
fn reboot_after_writing(vm: &mut Vm) -> Outcome {
    let complaints = |vm: &Vm| vm.serial.all().iter().filter(|line| line.text.contains("boot information")).count();
    vm.event("ready")?;
    let first = complaints(vm);
    vm.ask("mem hold 10T", "held")?;
    vm.ask("mem release", "console")?;
    vm.serial.type_line("reboot")?;
    vm.event("ready")?;
    let both = complaints(vm);
    ensure!(
        both == 2 * first,
        "the second boot finds {} faults in what the loader says, the first {first}",
        both - first
    );
    vm.balloon_to(vm.memory / 2)
}

/// The host asks for all memory. The guest inflates as far as it can, reports once that it stops there, and keeps
/// running.
fn absurd_target(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.qmp.set_target(MIB)?;
    let short = vm.event("short")?;
    // The kernel counts the balloon's size, the host the memory left.
    ensure!(short.count("target")? == vm.memory - MIB, "the event names the target that was asked for: {short}");
    ensure!(!short.text("message")?.is_empty(), "the event says why: {short}");
    let kept = vm.memory - short.count("actual")?;
    ensure!(kept > MIB && kept < 64 * MIB, "the guest should keep little, but enough to live: {short}");
    ensure!(vm.qmp.actual()? == kept, "QEMU sees the same: {short}");
    // Long enough for a driver that spins to report again.
    std::thread::sleep(Duration::from_secs(1));
    vm.ask("info", "console")?;
    let told = vm.serial.all().iter().filter(|line| line.text.contains(r#""event":"short""#)).count();
    ensure!(told == 1, "the event should come once, not {told} times");
    vm.balloon_to(vm.memory)
}

/// The target was set before the driver started: the balloon follows without an interrupt.
fn early_target(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.wait_for("the balloon to follow the early target", |vm| Ok((vm.qmp.actual()? == EARLY).then_some(())))?;
    vm.balloon_to(vm.memory)
}
