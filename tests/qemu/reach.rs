//! Drives the balloon through its PCI configuration access capability, with nothing mapped: by each access method of
//! configuration space, at each step of the interrupt ladder. Not on microvm, where QEMU aborts when that window is
//! used.

use crate::support::event::Event;
use crate::support::random::Random;
use crate::support::{MIB, Outcome, Qemu, Trial, Version, Vm, ensure};
use crate::trial;

/// How often the host changes the target while the guest works.
const CHANGES: u32 = 12;

pub(crate) fn trials() -> Vec<Trial> {
    let cells = [
        ("six_vectors", Version::V10_0, "q35", "vectors=6", "irq=auto", "msix"),
        ("two_vectors_packed", Version::V10_0, "q35", "vectors=2,packed=on", "irq=auto", "msix-shared"),
        ("line", Version::V7_2, "q35", "", "irq=auto", "intx"),
        ("line_by_ports", Version::V7_2, "pc", "", "irq=auto", "intx"),
        ("line_by_ports", Version::V10_0, "pc", "vectors=0", "irq=auto", "intx"),
        ("polling", Version::V10_0, "q35", "vectors=6", "irq=poll", "poll"),
    ];
    let mut trials: Vec<_> = cells
        .into_iter()
        .map(|(name, version, machine, balloon, irq, expected)| {
            let line = format!("log=json access=window {irq}");
            let qemu = Qemu::new(version).machine(machine).balloon(balloon).memory(256 * MIB).command_line(&line);
            trial(format!("reach::{version}::{name}"), qemu, move |vm: &mut Vm| works(vm, expected))
        })
        .collect();
    let newest = || Qemu::new(Version::Newest).memory(256 * MIB);
    let legacy = newest().balloon("disable-modern=on,disable-legacy=off").command_line("log=json access=window");
    trials.push(trial("reach::legacy_ports_have_no_window", legacy, refused));
    trials.push(trial("reach::the_list_names_virtio_capabilities", newest(), listed));
    trials
}

/// The driver reaches everything through the window, and does the exact work.
fn works(vm: &mut Vm, expected: &str) -> Outcome {
    let ready = vm.event("ready")?;
    ensure!(ready.text("irq")? == expected, "the step should be {expected}: {ready}");
    ensure!(ready.text("transport")? == "modern", "the transport should be modern: {ready}");
    let reached = |line: &str| line.contains("through configuration space");
    let count = vm.serial.all().iter().filter(|line| reached(&line.text)).count();
    ensure!(count == 4, "{count} of four structures are reached through configuration space");
    vm.balloon_to(vm.memory / 2)?;
    let mut random = Random::seeded_by(expected);
    for _ in 0..CHANGES {
        vm.qmp.set_target(random.within(vm.memory / 2, vm.memory) / 4096 * 4096)?;
        std::thread::sleep(std::time::Duration::from_millis(random.within(0, 30)));
    }
    vm.balloon_to(vm.memory)?;
    let status = vm.qmp.virtio_status()?["status"]["statuses"].to_string();
    ensure!(status.contains("DRIVER_OK"), "QEMU sees no driver: {status}");
    if expected == "poll" {
        return Ok(());
    }
    vm.serial.type_line("irq")?;
    let of_ours =
        |event: &Event| event.name() == "irq" && event.text("name").is_ok_and(|name| name.starts_with("virtio0"));
    let vector = vm.event_where("the balloon's interrupts", of_ours)?;
    ensure!(vector.count("count")? > 0, "no interrupt has come: {vector}");
    Ok(())
}

/// The option is honoured fully or refused: without a window there is an error that names it.
fn refused(vm: &mut Vm) -> Outcome {
    vm.event_where("an error that names the window", |event| {
        event.name() == "log"
            && event.text("level").is_ok_and(|level| level == "error")
            && event.text("message").is_ok_and(|message| message.contains("PCI configuration access"))
    })
    .map(drop)
}

/// The console lists each structure, and the device keeps working: the list did not use the window.
fn listed(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.serial.type_line("pci -v")?;
    for name in [
        "virtio common configuration, BAR4 0x0+0x1000",
        "virtio ISR status, BAR4 ",
        "virtio device configuration, BAR4 ",
        "virtio notification, BAR4 0x3000+0x1000, multiplier 4",
        "virtio PCI configuration access",
    ] {
        vm.wait_for(&format!("a line with {name:?}"), |vm| {
            Ok(vm.serial.all().iter().any(|line| line.text.contains(name)).then_some(()))
        })?;
    }
    vm.balloon_to(vm.memory / 2)
}
