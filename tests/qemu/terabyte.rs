//! A machine with 1 TiB of memory; the host backs only pages that are touched, and the kernel touches little but its
//! records.

use std::time::Duration;

use crate::support::{MIB, Outcome, Qemu, Trial, Version, Vm, ensure};
use crate::trial;

const GIB: u64 = 1024 * MIB;
const TIB: u64 = 1024 * GIB;

/// The size to which the balloon inflates.
const GIVEN: u64 = 4 * GIB;

/// The highest resident memory of QEMU: its own records of that RAM (three bits per page) and the memory that the
/// guest touches.
const MOST_RESIDENT: u64 = GIB;

/// The most memory that may be reserved besides the records, or missing: firmware's tables, holes, the image.
const LEFT_OUT: u64 = 16 * MIB;

/// The records take slightly over 168 bytes per 2 MiB.
const REGIONS_A_RECORD: u64 = 12_000;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in [Version::V7_2, Version::V10_0] {
        // QEMU's CPU has 40 address bits by default, which end at 1 TiB. This CPU claims to be AMD's; there memory
        // begins at 1 TiB, except for the first 2 GiB.
        for (name, machine) in [("q35", "q35"), ("microvm", "microvm,pcie=on")] {
            let qemu = Qemu::new(version).machine(machine).memory(TIB).sparse().cpu("max,phys-bits=42");
            let qemu = qemu.patience(Duration::from_secs(180));
            trials.push(trial(format!("terabyte::{version}::{name}"), qemu, works));
        }
        let qemu = Qemu::new(version).memory(TIB).sparse().cpu("max,phys-bits=42").balloon("free-page-reporting=on");
        let qemu = qemu.patience(Duration::from_secs(180));
        trials.push(trial(format!("terabyte::{version}::reports"), qemu, reports));
    }
    trials
}

/// The balloon inflates and deflates exactly, without touching or changing memory.
fn works(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    let bytes = |frames: u64| frames * 4096;
    let memory = vm.ask("mem", "memory")?;
    let (total, reserved) = (bytes(memory.count("total")?), bytes(memory.count("reserved")?));
    ensure!(memory.flag("sound")? && total <= vm.memory && vm.memory - total < LEFT_OUT, "all is managed: {memory}");
    ensure!(reserved < vm.memory / REGIONS_A_RECORD + LEFT_OUT, "the records take little: {memory}");
    modest(vm, "after the start")?;

    vm.ask("mem hold 64M", "held")?;
    vm.balloon_to(vm.memory - GIVEN)?;
    let away = vm.ask("mem", "memory")?;
    ensure!(bytes(away.count("ballooned")?) == GIVEN, "{GIVEN} bytes are the host's: {away}");
    vm.balloon_to(vm.memory)?;
    let back = vm.ask("mem", "memory")?;
    ensure!(back.count("ballooned")? == 0 && back.flag("sound")?, "everything is back: {back}");
    let verified = vm.ask("mem verify", "verify")?;
    ensure!(verified.flag("ok")? && verified.count("bytes")? == 64 * MIB, "memory has changed: {verified}");
    modest(vm, "after the balloon has moved")
}

/// All free memory is reported, half a million regions; later, memory that was used since.
fn reports(vm: &mut Vm) -> Outcome {
    let first = vm.event("report")?.count("bytes")?;
    let most = vm.ask("mem", "memory")?.count("free")? * 4096;
    ensure!(first <= most && most - first < LEFT_OUT, "{first} of {most} free bytes were reported");
    modest(vm, "after all was reported")?;

    vm.ask(&format!("mem hold {}M", GIVEN / MIB / 4), "held")?;
    let used = vm.resident()?;
    vm.ask("mem release", "console")?;
    vm.wait_for("the memory to be reported again", |vm| {
        Ok((used - vm.resident()?.min(used) > GIVEN / 5).then_some(()))
    })?;
    vm.balloon_to(vm.memory - GIVEN)?;
    vm.balloon_to(vm.memory)?;
    let memory = vm.ask("mem", "memory")?;
    ensure!(memory.flag("sound")? && memory.count("ballooned")? == 0, "everything is back: {memory}");
    modest(vm, "after the balloon has moved")
}

/// Little of the guest's memory is resident.
fn modest(vm: &Vm, when: &str) -> Outcome {
    let resident = vm.resident()?;
    ensure!(resident < MOST_RESIDENT, "{when} QEMU has {} MiB of the host's memory", resident / MIB);
    Ok(())
}
