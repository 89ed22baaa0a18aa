//! The kernel's own tests, which need a machine: each boots alone and appears as one test.
//!
//! The test image lists its tests. `cargo test --test machine -- red_zone` runs those with `red_zone` in their names.
//! The whole image also runs in one boot on every machine: a failure must end one test and no other.

// A test program is an ordinary program of the host.
#![allow(clippy::std_instead_of_core)]

#[path = "support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use support::event::Event;
use support::runner::{self, Arguments, Completion, Failed, Trial};
use support::{Outcome, Qemu, Version, Vm, ensure, image, on};

/// Tests with this prefix fail on purpose, to prove that a failure is detected and contained.
const FAILS_ON_PURPOSE: &str = "expected_failure_";

/// Why the image skips a test that needs several CPUs.
const ONE_CPU: &str = "one CPU runs";
/// Number of CPUs of such a test.
const CPUS: u32 = 4;

fn main() -> ExitCode {
    runner::main("machine", trials)
}

fn trials(_: &Arguments) -> Vec<Trial> {
    support::version::prepare();
    match list() {
        Ok(names) => all(&names),
        Err(why) => vec![Trial::test("machine::list_of_tests", move || Err(why.clone())).in_short_suite()],
    }
}

fn qemu(version: Version, command_line: &str) -> Qemu {
    // The entropy device has MSI-X in every version.
    Qemu::new(version).image(image::tests()).device("virtio-rng-pci").command_line(command_line)
}

/// Boots the image to list its tests.
fn list() -> Result<Vec<String>, Failed> {
    let mut names = Vec::new();
    on(&qemu(Version::Newest, "log=json list=on"), |vm| {
        loop {
            let event = vm.event_where("test-name or exit", |event| matches!(event.name(), "test-name" | "exit"))?;
            if event.name() == "exit" {
                ensure!(!names.is_empty(), "the image has no tests");
                return Ok(());
            }
            names.push(event.text("name")?.to_owned());
        }
    })?;
    Ok(names)
}

fn all(names: &[String]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for name in names {
        // Only the newer version has x2APIC, and MSI-X on the balloon.
        for version in [Version::V10_0, Version::V7_2] {
            let name = name.clone();
            trials.push(Trial::ignorable_test(format!("machine::{version}::{name}"), move || alone(version, &name)));
        }
    }
    let names = Arc::new(names.to_vec());
    for version in [Version::V10_0, Version::V7_2] {
        for (machine, cpus) in [("q35", 1), ("pc", 1), ("microvm,pcie=on", 1), ("q35", CPUS)] {
            let names = Arc::clone(&names);
            let mut name = format!("machine::{version}::all_in_one_boot::{}", machine.trim_end_matches(",pcie=on"));
            if cpus > 1 {
                name += &format!("_with_{cpus}_cpus");
            }
            let trial = Trial::ignorable_test(name, move || {
                let qemu = qemu(version, "log=json").machine(machine).cpus(cpus).patience(Duration::from_secs(180));
                on(&qemu, |vm| together(vm, &names, cpus))
            });
            // Each of these boots runs every test, and a failure names the test.
            trials.push(trial.in_short_suite());
        }
    }
    trials
}

/// One test in its own boot; on several CPUs if it needs them.
fn alone(version: Version, name: &str) -> Result<Completion, Failed> {
    let qemu = qemu(version, &format!("log=json test={name}"));
    let (mut completion, mut skipped) = alone_on(&qemu, name)?;
    if skipped.as_deref() == Some(ONE_CPU) {
        (completion, skipped) = alone_on(&qemu.cpus(CPUS), name)?;
    }
    Ok(skipped.map_or(completion, Completion::ignored_with))
}

fn alone_on(qemu: &Qemu, name: &str) -> Result<(Completion, Option<String>), Failed> {
    let mut skipped = None;
    let completion = on(qemu, |vm| {
        let event = outcome(vm)?;
        ensure!(event.text("name")? == name, "another test has run: {event}");
        skipped = check(&event)?;
        vm.event("exit")?;
        vm.end().map(drop)
    })?;
    Ok((completion, skipped))
}

/// Every test in one boot, in order: a test that fails on purpose does not stop the rest.
fn together(vm: &mut Vm, names: &[String], cpus: u32) -> Outcome {
    for name in names {
        let event = outcome(vm).map_err(|error| format!("{name}: {error}"))?;
        ensure!(event.text("name")? == name, "{name} should have run now: {event}");
        let skipped = check(&event)?;
        ensure!(cpus == 1 || skipped.as_deref() != Some(ONE_CPU), "{cpus} CPUs should run: {event}");
    }
    vm.event("exit")?;
    vm.end().map(drop)
}

/// The next test's outcome, or the kernel's end. A fault is an event of its own, before the outcome of the test that
/// it ended.
fn outcome(vm: &mut Vm) -> Outcome<Event> {
    let event = vm.event_where("test", |event| matches!(event.name(), "test" | "exit") || event.is_fatal())?;
    if event.is_fatal() {
        return vm.event("test");
    }
    ensure!(event.name() == "test", "the kernel ended before the test did: {event}");
    Ok(event)
}

/// Checks for the expected outcome. Returns the reason if this machine cannot run the test.
fn check(event: &Event) -> Outcome<Option<String>> {
    let on_purpose = event.text("name")?.starts_with(FAILS_ON_PURPOSE);
    match event.text("outcome")? {
        "ok" => {
            ensure!(!on_purpose, "this test should have failed: {event}");
            Ok(None)
        }
        "skipped" => Ok(Some(event.text("message")?.to_owned())),
        _ => {
            ensure!(on_purpose, "{event}");
            ensure!(!event.text("message")?.is_empty(), "a failure says what happened: {event}");
            Ok(None)
        }
    }
}
