//! Page poison: the driver tells QEMU the fill value of free memory, and the guest's RAM really has it; QEMU discards
//! reported memory only if the value is zero.

use crate::support::{MIB, Outcome, Qemu, Trial, Version, Vm, ensure};
use crate::trial;

/// Bytes in a region that is reported.
const REGION: u64 = 2 * MIB;

pub(crate) fn trials() -> Vec<Trial> {
    let guest = |version, poison: &str| {
        let line = format!("log=json poison={poison}");
        Qemu::new(version).memory(256 * MIB).balloon("free-page-reporting=on").command_line(&line)
    };
    let mut trials = Vec::new();
    for version in [Version::V7_2, Version::V10_0] {
        let name = |case: &str| format!("poison::{version}::{case}");
        let shared = guest(version, "0x5a").shared_memory();
        trials.push(trial(name("free_memory_holds_the_announced_value"), shared, holds));
        let touched = |poison| guest(version, poison).preallocated();
        trials.push(trial(name("reported_zeros_are_discarded"), touched("0x00"), |vm| reports(vm, true)));
        trials.push(trial(name("reported_memory_with_another_value_stays"), touched("0x5a"), |vm| reports(vm, false)));
        trials.push(trial(name("without_a_value_the_feature_is_declined"), guest(version, "off"), declines));
    }
    trials
}

/// The features as QEMU sees them.
fn seen(vm: &mut Vm) -> Outcome<String> {
    Ok(vm.qmp.virtio_status()?["guest-features"].to_string())
}

/// Where whole regions are free, by the console's map of memory.
fn free_regions(vm: &mut Vm) -> Outcome<Vec<u64>> {
    vm.serial.type_line("mem map")?;
    // The answer to a second command marks the end of the map.
    vm.serial.type_line("mem verify")?;
    let mut regions = Vec::new();
    loop {
        let event = vm.event_where("line of the map", |event| ["console", "verify"].contains(&event.name()))?;
        if event.name() == "verify" {
            return Ok(regions);
        }
        let words: Vec<&str> = event.text("text")?.split_whitespace().collect();
        if let [start, kib, "KiB", "free"] = words[..] {
            let start = u64::from_str_radix(start.trim_start_matches("0x"), 16)?;
            let end = start + kib.parse::<u64>()? * 1024;
            regions.extend((start.next_multiple_of(REGION)..end.saturating_sub(REGION)).step_by(REGION as usize));
        }
    }
}

/// Every free region was reported or deflated: it holds the value from first to last byte.
fn holds(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.event("report")?;
    let features = seen(vm)?;
    ensure!(features.contains("POISON"), "QEMU sees {features}");
    vm.ask("mem hold 32M", "held")?;
    for target in [vm.memory / 2, vm.memory, vm.memory / 4, vm.memory] {
        vm.balloon_to(target)?;
    }
    vm.ask("mem release", "console")?;
    vm.ask("report", "report")?;
    let regions = free_regions(vm)?;
    ensure!(regions.len() as u64 > vm.memory / REGION / 4 * 3, "{} regions are free", regions.len());
    for region in regions {
        for offset in [0, 4096, REGION / 2 + 2, REGION - 2] {
            let found = vm.read_memory(region + offset)?;
            ensure!(found == 0x5a5a, "{found:#x} at {:#x}, which is free", region + offset);
        }
    }
    Ok(())
}

/// QEMU discards reported memory only if the guest expects zeros there.
fn reports(vm: &mut Vm, discards: bool) -> Outcome {
    let full = vm.resident()?;
    let flushed = vm.event("report")?;
    ensure!(flushed.count("bytes")? >= vm.memory / 100 * 90, "nearly all memory is free: {flushed}");
    if discards {
        return vm
            .wait_for("the resident memory to fall", |vm| Ok((vm.resident()? < full - vm.memory / 2).then_some(())));
    }
    let left = vm.resident()?;
    ensure!(left >= full - vm.memory / 4, "memory that holds a value was discarded: {full}, then {left} bytes");
    vm.balloon_to(vm.memory / 2)?;
    vm.balloon_to(vm.memory)
}

fn declines(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    let features = seen(vm)?;
    ensure!(!features.contains("POISON"), "QEMU sees {features}");
    vm.balloon_to(vm.memory / 2)
}
