//! Inflating adapts to the host: its huge pages return whole, and memory that the guest has written goes first.

use std::fs;
use std::sync::{Mutex, PoisonError};

use crate::support::{Completion, Failed, MIB, Outcome, Qemu, Trial, Version, Vm, ensure, on};
use crate::trial;

/// The host's pool of 2 MiB huge pages.
const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";
/// RAM of a guest that is backed by huge pages.
const HUGE: u64 = 128 * MIB;
/// Memory that a program writes and frees.
const WRITTEN: u64 = 192 * MIB;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (version, device) in [(Version::V7_2, ""), (Version::V10_0, "vectors=6"), (Version::V10_0, "packed=on")] {
        let name = |case: &str| {
            let device = if device.is_empty() { "modern" } else { device };
            format!("engine::{version}::{}::{case}", device.replace("=on", "").replace('=', "_"))
        };
        let qemu = Qemu::new(version).balloon(device);
        trials.push(trial(name("chains_are_found_to_be_read"), qemu.clone(), reads_chains));
        trials.push(trial(name("written_memory_goes_first"), qemu.clone(), written_goes_first));
        let comma = if device.is_empty() { "" } else { "," };
        let reporting = qemu.clone().balloon(&format!("free-page-reporting=on{comma}{device}"));
        let reporting = reporting.command_line("log=json report-age=3600000");
        trials.push(trial(name("written_memory_is_reported_and_goes_first"), reporting, written_goes_first));
        let huge = qemu.memory(HUGE).hugetlb();
        let halves = huge.clone().command_line("log=json request=256x1");
        trials.push(huge_trial(name("huge_pages_are_freed"), huge, gives_huge_pages));
        trials.push(huge_trial(name("halves_free_no_huge_pages"), halves, keeps_huge_pages));
    }
    trials
}

/// A test that needs huge pages of the host; ignored where the host grants none.
fn huge_trial(name: String, qemu: Qemu, test: fn(&mut Vm) -> Outcome) -> Trial {
    Trial::ignorable_test(name, move || with_huge_pages(&qemu, test))
}

fn with_huge_pages(qemu: &Qemu, test: fn(&mut Vm) -> Outcome) -> Result<Completion, Failed> {
    static POOL_IN_USE: Mutex<()> = Mutex::new(());
    let _alone = POOL_IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
    match Granted::new(qemu.memory / (2 * MIB)) {
        Some(_granted) => on(qemu, test),
        None => Ok(Completion::ignored_with("this host grants no huge pages")),
    }
}

/// Huge pages reserved on the host; dropping this value returns them.
struct Granted {
    before: u64,
}

impl Granted {
    /// Reserves this many unused huge pages; `None` if the host does not grant them.
    fn new(pages: u64) -> Option<Self> {
        let (before, free) = (pool("nr_hugepages")?, pool("free_hugepages")?);
        let granted = Self { before };
        if free < pages {
            fs::write(format!("{POOL}/nr_hugepages"), (before + pages - free).to_string()).ok()?;
        }
        (pool("free_hugepages")? >= pages).then_some(granted)
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        // Without permission to reserve, there is nothing to return.
        let _ = fs::write(format!("{POOL}/nr_hugepages"), self.before.to_string());
    }
}

fn pool(file: &str) -> Option<u64> {
    fs::read_to_string(format!("{POOL}/{file}")).ok()?.trim().parse().ok()
}

/// At the first inflation the kernel detects that QEMU reads chains, and loses no memory.
fn reads_chains(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.ask("mem hold 32M", "held")?;
    vm.balloon_to(vm.memory / 2)?;
    let strategy = vm.event("strategy")?;
    ensure!(strategy.text("chains")? == "read" && strategy.text("request")? == "256x2", "{strategy}");
    vm.balloon_to(vm.memory)?;
    vm.balloon_to(vm.memory / 4)?;
    vm.balloon_to(vm.memory)?;
    let verified = vm.ask("mem verify", "verify")?;
    ensure!(verified.flag("ok")?, "the memory held has changed: {verified}");
    Ok(())
}

/// The balloon first takes free memory that a program has used, so the host's memory falls by that much.
fn written_goes_first(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    let reporting = vm.qmp.virtio_status()?["guest-features"].to_string().contains("REPORTING");
    if reporting {
        vm.event("report")?;
    }
    vm.ask(&format!("mem hold {}M", WRITTEN / MIB), "held")?;
    vm.ask("mem release", "console")?;
    let before = vm.resident()?;
    vm.balloon_to(vm.memory - WRITTEN)?;
    let fell = before.saturating_sub(vm.resident()?);
    ensure!(fell >= WRITTEN / 100 * 90, "{} MiB were given, the host has {} MiB less", WRITTEN / MIB, fell / MIB);
    if reporting {
        // The host decides which path is faster. The driver measures both and takes the faster one.
        let strategy = vm.event("strategy")?;
        let (first, direct) = (strategy.count("report_first")?, strategy.count("direct")?);
        let path = if direct > first { "direct" } else { "report-first" };
        ensure!(first > 0 && direct > 0 && strategy.text("path")? == path, "{strategy}");
    }
    vm.balloon_to(vm.memory)
}

/// The host gets back as many huge pages as were inflated.
fn gives_huge_pages(vm: &mut Vm) -> Outcome {
    let fell = huge_pages_given(vm)?;
    ensure!(fell == HUGE / 2, "{} MiB were given, and {} MiB of huge pages came back", HUGE / 2 / MIB, fell / MIB);
    vm.balloon_to(vm.memory)?;
    vm.ask("mem hold 32M", "held")?;
    let verified = vm.ask("mem verify", "verify")?;
    ensure!(verified.flag("ok")?, "memory that has come back does not keep what is written to it: {verified}");
    Ok(())
}

/// Half-size requests free no huge page: this proves that the test above can fail.
fn keeps_huge_pages(vm: &mut Vm) -> Outcome {
    let fell = huge_pages_given(vm)?;
    ensure!(fell == 0, "{} MiB of huge pages came back although none was given in one request", fell / MIB);
    Ok(())
}

/// Inflates by half of memory; returns by how many bytes QEMU's huge pages fell.
fn huge_pages_given(vm: &mut Vm) -> Outcome<u64> {
    vm.event("ready")?;
    let before = vm.huge_pages()?;
    ensure!(before >= HUGE, "all memory should be in huge pages at the start: {} MiB", before / MIB);
    vm.balloon_to(vm.memory - HUGE / 2)?;
    Ok(before.saturating_sub(vm.huge_pages()?))
}
