//! The balloon on virtio-mmio: QEMU's microvm without PCI, with and without ACPI, with registers of either version.
//!
//! With ACPI, the DSDT declares the devices. Without it, QEMU puts them on the command line, and the MP table
//! describes the interrupt routing. A cell of this matrix does what a cell of the PCI matrix does; a test run covers
//! every pair of values.

#[path = "mmio/cell.rs"]
mod cell;
#[path = "mmio/rate.rs"]
mod rate;

use std::time::Duration;

use super::matrix::{cover, job};
use crate::support::event::Event;
use crate::support::{MIB, Outcome, Qemu, Trial, Version, Vm, ensure};
use crate::trial;
pub(crate) use cell::Registers;
use cell::{BARE, Cell, MACHINES, TWO_IOAPICS};

/// Every possible combination of this many values occurs in a cell of a test run.
const STRENGTH: u32 = 2;

pub(crate) fn trials() -> Vec<Trial> {
    let cells: Vec<_> = Cell::all().collect();
    let mut trials: Vec<_> = cover::covering(&cells, STRENGTH).iter().map(|cell| in_cell("mmio", *cell)).collect();
    for version in [Version::V7_2, Version::V10_0] {
        for registers in Registers::ALL {
            for machine in ["microvm,acpi=on", "microvm,acpi=off"] {
                let name = |case: &str| format!("mmio::{version}::{}::{registers}::{case}", short(machine));
                let qemu = |properties: &str| guest(version, machine, registers, properties);
                trials.push(trial(name("whole_life"), qemu(""), whole_life));
                let polled = qemu("").command_line("log=json irq=poll");
                trials.push(trial(name("polled"), polled, |vm| quick(vm, "poll")));
            }
        }
    }
    for (version, registers) in [(Version::V7_2, Registers::Legacy), (Version::V10_0, Registers::Modern)] {
        let qemu = |machine: &str| guest(version, machine, registers, "");
        let name = |case: &str| format!("mmio::{version}::{case}");
        let reporting = guest(version, "microvm,acpi=off", registers, "free-page-reporting=on").preallocated();
        trials.push(trial(name("reporting"), reporting, reports));
        let other = qemu("microvm,acpi=on").device("virtio-rng-device").device("virtio-rng-device");
        trials.push(trial(name("beside_entropy_devices"), other, beside_entropy_devices));
        let named = "log=json virtio_mmio.device=512@0xfeb02e00:5 virtio_mmio.device=512@0xfeb02e00:6";
        trials.push(trial(name("announced_twice"), qemu("microvm,acpi=on").command_line(named), announced_once));
        let several = qemu("microvm,acpi=off").cpus(4);
        trials.push(trial(name("four_cpus_by_the_mp_table"), several, four_cpus));
        let forced = qemu("microvm,acpi=on").command_line("log=json irq=msix");
        trials.push(trial(name("no_msix"), forced, |vm| refused(vm, "has no MSI-X")));
        let check = qemu("microvm,acpi=on").command_line("log=json mode=check checks=mmio,requests-complete");
        trials.push(trial(name("check"), check, checks_registers));
        let bench = qemu("microvm,acpi=on").command_line("log=json mode=bench").patience(Duration::from_secs(120));
        trials.push(trial(name("bench"), bench, measures));
    }
    for (machine, properties) in [("bare", BARE), ("two_ioapics", TWO_IOAPICS)] {
        for (version, registers) in [(Version::V7_2, Registers::Modern), (Version::V10_0, Registers::Legacy)] {
            let name = format!("mmio::{version}::{machine}::{registers}::whole_life");
            trials.push(trial(name, guest(version, properties, registers, ""), whole_life));
        }
    }
    trials.extend(rate::trials());
    let wrong = "log=json virtio_mmio.device=512@0xfeb00000:5 virtio_mmio.device=64@0xfeb00200:5 \
                 virtio_mmio.device=512@0xd0000000:5";
    let qemu = Qemu::new(Version::Newest).machine("microvm,acpi=on").without_balloon().command_line(wrong);
    trials.push(trial("mmio::windows_without_a_device", qemu, nothing_there));
    trials
}

/// The whole matrix, only on request.
pub(crate) fn full() -> Vec<Trial> {
    Cell::all().map(|cell| in_cell("full", cell).with_ignored_flag(true)).collect()
}

/// A machine with a balloon on MMIO.
pub(crate) fn guest(version: Version, machine: &str, registers: Registers, properties: &str) -> Qemu {
    let legacy = if registers == Registers::Legacy { "on" } else { "off" };
    let qemu = Qemu::new(version).machine(machine).global(&format!("virtio-mmio.force-legacy={legacy}"));
    qemu.balloon_on_mmio(properties)
}

fn short(machine: &str) -> &'static str {
    MACHINES.into_iter().find(|(_, properties)| *properties == machine).map_or("microvm", |(name, _)| name)
}

fn in_cell(prefix: &str, cell: Cell) -> Trial {
    let qemu = guest(cell.version, cell.machine.1, cell.registers, &cell.properties());
    let qemu = qemu.memory(256 * MIB).preallocated();
    // With IN_ORDER, QEMU 10.0 remembers requests in an array of 128, and on MMIO offers queues of 1024: it writes past
    // the array, and may abort.
    let qemu = if cell.in_order { qemu.command_line("log=json queue-size=128") } else { qemu };
    let prefix = if prefix == "mmio" { "mmio::cell".to_string() } else { prefix.to_string() };
    trial(format!("{prefix}::{cell}"), qemu, move |vm| work(vm, &cell))
}

fn work(vm: &mut Vm, cell: &Cell) -> Outcome {
    let ready = job::ready(vm, "intx", cell.registers.transport(), cell.ring())?;
    job::features(vm, &ready, &cell.features())?;
    job::give_half(vm)?;
    job::statistics_of_half(vm)?;
    vm.balloon_to(vm.memory)?;
    job::interrupts(vm, "intx")
}

fn quick(vm: &mut Vm, irq: &str) -> Outcome {
    let ready = vm.event("ready")?;
    ensure!(ready.text("irq")? == irq, "the interrupts should be {irq}: {ready}");
    vm.balloon_to(vm.memory / 2)?;
    job::statistics_of_half(vm)?;
    vm.balloon_to(vm.memory)
}

/// Inflates and deflates, follows changing targets, and goes through resets of the device and of a queue, a freeze
/// and a restore, with memory in use throughout.
fn whole_life(vm: &mut Vm) -> Outcome {
    let ready = vm.event("ready")?;
    ensure!(ready.text("device")?.starts_with("mmio@0xfeb0"), "the device is on MMIO: {ready}");
    job::hold(vm)?;
    job::statistics(vm)?;
    vm.balloon_to(vm.memory / 2)?;
    vm.ask("reset", "reset")?;
    vm.balloon_to(vm.memory / 4)?;
    vm.ask("freeze", "freeze")?;
    vm.ask("restore", "restore")?;
    vm.balloon_to(vm.memory)?;
    job::changes(vm, "mmio")?;
    job::verify(vm)?;
    job::interrupts(vm, "intx")
}

/// Free memory goes back to the host by itself.
fn reports(vm: &mut Vm) -> Outcome {
    let flushed = vm.event("report")?;
    ensure!(flushed.count("bytes")? >= vm.memory / 100 * 95, "nearly all memory is free: {flushed}");
    let most = vm.memory / 4;
    vm.wait_for("the resident memory to fall", |vm| Ok((vm.resident()? < most).then_some(())))
}

fn beside_entropy_devices(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    let random = vm.ask("random 32", "random")?;
    ensure!(random.count("count")? == 32, "32 bytes should come: {random}");
    vm.balloon_to(vm.memory / 2)?;
    vm.balloon_to(vm.memory)
}

/// ACPI and the command line announce the same device; it is driven once, as ACPI describes it.
fn announced_once(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.serial.type_line("mmio")?;
    let told = |event: &Event| event.text("text").is_ok_and(|text| text.contains("GSI 47"));
    vm.event_where("the line of the device", told)?;
    vm.balloon_to(vm.memory / 2)?;
    vm.serial.type_line("reset virtio1")?;
    let none = |event: &Event| event.text("text").is_ok_and(|text| text.contains("there is no balloon `virtio1`"));
    vm.event_where("the answer that there is one balloon", none).map(drop)
}

fn four_cpus(vm: &mut Vm) -> Outcome {
    let told =
        |event: &Event| event.text("message").is_ok_and(|message| message.contains("MP table: 4 CPUs, 1 IOAPIC"));
    vm.event_where("what the MP table says", told)?;
    vm.event("ready")?;
    vm.serial.type_line("cpus")?;
    vm.event_where("the fourth CPU", |event| {
        event.name() == "processor" && event.count("number").is_ok_and(|number| number == 3)
    })?;
    vm.balloon_to(vm.memory / 2)?;
    vm.balloon_to(vm.memory)
}

/// The device is not driven; the log gives this reason.
fn refused(vm: &mut Vm, reason: &'static str) -> Outcome {
    vm.event_where(reason, |event| event.text("message").is_ok_and(|message| message.contains(reason)))?;
    vm.event("no-device").map(drop)
}

fn checks_registers(vm: &mut Vm) -> Outcome {
    let summary = vm.event("checks")?;
    ensure!(summary.flag("ok")? && summary.count("passed")? > 8, "the registers are as they must be: {summary}");
    Ok(())
}

fn measures(vm: &mut Vm) -> Outcome {
    for name in ["driver.inflate", "driver.deflate"] {
        let figure =
            vm.event_where(name, |event| event.name() == "bench" && event.text("name").is_ok_and(|it| it == name));
        figure?;
    }
    vm.event("exit").map(drop)
}

/// Placeholders cause no errors; a device that is not virtio, or too small, is named.
fn nothing_there(vm: &mut Vm) -> Outcome {
    for reason in ["too small for the registers", "has no virtio device: MagicValue reads"] {
        vm.event_where(reason, |event| event.text("message").is_ok_and(|message| message.contains(reason)))?;
    }
    vm.event("no-device").map(drop)
}
