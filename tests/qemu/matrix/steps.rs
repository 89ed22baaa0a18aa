//! Each step of the interrupt ladder, with each queue format and transport: the long job on one machine each, a quick
//! one on the other machines. The command line chooses the step; the cells cover the kernel's own choice.
//!
//! The long job: start on the expected step; inflate by half of the memory and deflate, exactly, while the host's
//! resident memory follows; report true statistics; follow a host that changes the target a hundred times; and leave
//! memory in use unchanged.

use std::time::Duration;

use super::cell::MACHINES;
use super::job;
use crate::support::{Outcome, Qemu, Trial, Version, Vm};
use crate::trial;

/// A step of the ladder: the device's offer, the command line, and the expected result.
struct Step {
    name: &'static str,
    version: Version,
    /// Properties of the device.
    balloon: &'static str,
    /// The kernel's `irq=`.
    irq: &'static str,
    /// The step that the kernel must report.
    expected: &'static str,
    /// The queue format that the kernel must report.
    ring: &'static str,
    /// The kernel's `transport=`.
    choice: &'static str,
    /// The transport that the kernel must report.
    transport: &'static str,
    /// The machine for the long job.
    machine: &'static str,
}

/// One line per step: it is read as a table.
#[rustfmt::skip]
const STEPS: [Step; 22] = [
    Step { name: "six_vectors",            version: Version::V10_0, balloon: "vectors=6",                   irq: "auto",        expected: "msix",        ring: "split",  choice: "auto",   transport: "modern", machine: "q35" },
    Step { name: "two_vectors",            version: Version::V10_0, balloon: "vectors=2",                   irq: "auto",        expected: "msix-shared", ring: "split",  choice: "auto",   transport: "modern", machine: "pc" },
    Step { name: "no_vectors",             version: Version::V10_0, balloon: "vectors=0",                   irq: "auto",        expected: "intx",        ring: "split",  choice: "auto",   transport: "modern", machine: "microvm" },
    Step { name: "forced_msix",            version: Version::V10_0, balloon: "vectors=6",                   irq: "msix",        expected: "msix",        ring: "split",  choice: "auto",   transport: "modern", machine: "microvm" },
    Step { name: "forced_msix_shared",     version: Version::V10_0, balloon: "vectors=6",                   irq: "msix-shared", expected: "msix-shared", ring: "split",  choice: "auto",   transport: "modern", machine: "q35" },
    Step { name: "forced_intx",            version: Version::V10_0, balloon: "vectors=6",                   irq: "intx",        expected: "intx",        ring: "split",  choice: "auto",   transport: "modern", machine: "pc" },
    Step { name: "forced_poll",            version: Version::V10_0, balloon: "vectors=6",                   irq: "poll",        expected: "poll",        ring: "split",  choice: "auto",   transport: "modern", machine: "q35" },
    Step { name: "no_msix",                version: Version::V7_2,  balloon: "",                            irq: "auto",        expected: "intx",        ring: "split",  choice: "auto",   transport: "modern", machine: "q35" },
    Step { name: "forced_intx",            version: Version::V7_2,  balloon: "",                            irq: "intx",        expected: "intx",        ring: "split",  choice: "auto",   transport: "modern", machine: "microvm" },
    Step { name: "forced_poll",            version: Version::V7_2,  balloon: "",                            irq: "poll",        expected: "poll",        ring: "split",  choice: "auto",   transport: "modern", machine: "pc" },
    Step { name: "packed_six_vectors",     version: Version::V10_0, balloon: "vectors=6,packed=on",         irq: "auto",        expected: "msix",        ring: "packed", choice: "auto",   transport: "modern", machine: "microvm" },
    Step { name: "packed_no_vectors",      version: Version::V10_0, balloon: "vectors=0,packed=on",         irq: "auto",        expected: "intx",        ring: "packed", choice: "auto",   transport: "modern", machine: "q35" },
    Step { name: "packed",                 version: Version::V7_2,  balloon: "packed=on",                   irq: "auto",        expected: "intx",        ring: "packed", choice: "auto",   transport: "modern", machine: "pc" },
    Step { name: "legacy_six_vectors",     version: Version::V10_0, balloon: "vectors=6,disable-modern=on", irq: "auto",        expected: "msix",        ring: "split",  choice: "auto",   transport: "legacy", machine: "pc" },
    Step { name: "legacy_two_vectors",     version: Version::V10_0, balloon: "vectors=2,disable-modern=on", irq: "auto",        expected: "msix-shared", ring: "split",  choice: "auto",   transport: "legacy", machine: "q35" },
    Step { name: "legacy_no_vectors",      version: Version::V10_0, balloon: "vectors=0,disable-modern=on", irq: "auto",        expected: "intx",        ring: "split",  choice: "auto",   transport: "legacy", machine: "pc" },
    Step { name: "transitional_as_legacy", version: Version::V10_0, balloon: "vectors=6",                   irq: "auto",        expected: "msix",        ring: "split",  choice: "legacy", transport: "legacy", machine: "q35" },
    Step { name: "legacy_forced_intx",     version: Version::V10_0, balloon: "vectors=6,disable-modern=on", irq: "intx",        expected: "intx",        ring: "split",  choice: "legacy", transport: "legacy", machine: "pc" },
    Step { name: "modern_only",            version: Version::V10_0, balloon: "vectors=6,disable-legacy=on", irq: "auto",        expected: "msix",        ring: "split",  choice: "auto",   transport: "modern", machine: "pc" },
    Step { name: "legacy",                 version: Version::V7_2,  balloon: "disable-modern=on",           irq: "auto",        expected: "intx",        ring: "split",  choice: "auto",   transport: "legacy", machine: "q35" },
    Step { name: "transitional_as_legacy", version: Version::V7_2,  balloon: "",                            irq: "auto",        expected: "intx",        ring: "split",  choice: "legacy", transport: "legacy", machine: "pc" },
    Step { name: "modern_only",            version: Version::V7_2,  balloon: "disable-legacy=on",           irq: "auto",        expected: "intx",        ring: "split",  choice: "modern", transport: "modern", machine: "microvm" },
];

impl Step {
    /// Whether the command line sets options: then no cell covers the step.
    fn is_told(&self) -> bool {
        self.irq != "auto" || self.choice != "auto"
    }
}

pub(super) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for step in &STEPS {
        for (machine, properties) in MACHINES {
            let long = machine == step.machine;
            // The legacy interface needs I/O ports, which microvm does not give to PCI.
            let without_ports = machine == "microvm" && step.transport == "legacy";
            if without_ports || !(long || step.is_told()) {
                continue;
            }
            let name = format!("matrix::steps::{}::{machine}::{}", step.version, step.name);
            let qemu = Qemu::new(step.version)
                .machine(properties)
                .preallocated()
                .balloon(step.balloon)
                .command_line(&format!("log=json irq={} transport={}", step.irq, step.choice))
                .patience(Duration::from_secs(120));
            let seed = name.clone();
            trials.push(trial(name, qemu, move |vm| if long { whole(vm, step, &seed) } else { quick(vm, step) }));
        }
    }
    trials
}

fn come_up(vm: &mut Vm, step: &Step) -> Outcome {
    job::ready(vm, step.expected, step.transport, step.ring).map(drop)
}

fn whole(vm: &mut Vm, step: &Step, seed: &str) -> Outcome {
    come_up(vm, step)?;
    job::hold(vm)?;
    job::give_half(vm)?;
    vm.balloon_to(vm.memory)?;
    job::statistics(vm)?;
    job::changes(vm, seed)?;
    job::verify(vm)?;
    job::interrupts(vm, step.expected)
}

fn quick(vm: &mut Vm, step: &Step) -> Outcome {
    come_up(vm, step)?;
    job::give_half(vm)?;
    job::statistics_of_half(vm)?;
    vm.balloon_to(vm.memory)?;
    job::interrupts(vm, step.expected)
}
