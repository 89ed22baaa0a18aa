//! Balloons are plugged into and unplugged from root ports by native PCI Express hot-plug: nothing leaks.

use serde_json::{Value, json};

use crate::support::{Event, MIB, Outcome, Qemu, Trial, Version, Vm, ensure};
use crate::trial;

/// How often a device is unplugged and plugged in again.
const CYCLES: usize = 20;

/// Counts that must be equal each time a device is back, or gone.
const COUNTS: [&str; 8] = ["free", "used", "ballooned", "orphans", "dma", "vectors", "lines", "mappings"];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in [Version::V7_2, Version::V10_0] {
        // QEMU 7.2's balloon has no MSI-X.
        let vectors: &[Option<u32>] = if version == Version::V7_2 { &[None] } else { &[Some(6), Some(0)] };
        for &vectors in vectors {
            let name = |case: &str| {
                let how = if vectors.unwrap_or(0) > 0 { "msix" } else { "intx" };
                format!("hotplug::{version}::{how}::{case}")
            };
            let balloon = move || Balloon { vectors };
            trials.push(trial(name("twenty_cycles_in_traffic_leak_nothing"), q35(version, "prompt", 1), move |vm| {
                cycles(vm, balloon())
            }));
            trials.push(trial(name("two_ports_keep_apart"), q35(version, "prompt", 2), move |vm| {
                two_ports(vm, balloon())
            }));
        }
        let name = |case: &str| format!("hotplug::{version}::{case}");
        trials.push(trial(name("removed_without_notice"), q35(version, "prompt", 1), pulled));
        trials.push(trial(name("by_line_with_its_port_on_a_line"), lined(version), |vm| {
            cycle_once(vm, Balloon { vectors: None })
        }));
        trials.push(trial(name("polled"), polled(version), |vm| cycle_once(vm, Balloon { vectors: None })));
        trials.push(trial(name("port_with_msi"), with_msi(version), |vm| cycle_once(vm, Balloon { vectors: None })));
        trials.push(trial(name("port_whose_messages_are_blocked"), blocked(version), found_without_interrupts));
        trials.push(trial(name("another_device_is_left_alone"), q35(version, "prompt", 1), another_device));
        trials.push(trial(name("removing_a_switch_removes_its_slots"), switch(version), switch_goes));
        trials.push(trial(name("identical_slots_are_logged_once"), large_switch(version), told_once));
        trials.push(trial(name("microvm_without_firmware_windows"), microvm(version), |vm| {
            cycle_once(vm, Balloon { vectors: None })
        }));
    }
    trials.push(trial("hotplug::waits_of_the_specification", q35(Version::Newest, "on", 1), with_waits));
    trials.push(trial("hotplug::off", q35(Version::Newest, "off", 1), switched_off));
    trials
}

/// A q35 with native hot-plug and empty ports: `port0`, `port1`.
fn q35(version: Version, hotplug: &str, ports: usize) -> Qemu {
    with_ports(Qemu::new(version), "pcie-root-port", ports).command_line(&format!("log=json hotplug={hotplug}"))
}

fn with_ports(qemu: Qemu, driver: &str, ports: usize) -> Qemu {
    let qemu = qemu.without_balloon().global("ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off");
    (0..ports).fold(qemu, |qemu, port| {
        qemu.device(&format!("{driver},id=port{port},chassis={number},slot={number}", number = port + 1))
    })
}

fn lined(version: Version) -> Qemu {
    q35(version, "prompt", 1).command_line("log=json hotplug=prompt irq=intx")
}

fn polled(version: Version) -> Qemu {
    q35(version, "prompt", 1).command_line("log=json hotplug=prompt irq=poll")
}

/// A root port with MSI but no MSI-X.
fn with_msi(version: Version) -> Qemu {
    with_ports(Qemu::new(version), "ioh3420", 1).command_line("log=json hotplug=prompt")
}

/// A switch below a port, with an empty slot.
/// A port behind an IOMMU that lets no message through. It would also block the disk controller, for which firmware
/// waits.
fn blocked(version: Version) -> Qemu {
    let iommu = "virtio-iommu-pci,boot-bypass=off,disable-legacy=on";
    with_ports(Qemu::new(version).machine("q35,sata=off").device(iommu), "pcie-root-port", 1)
        .command_line("log=json hotplug=prompt")
}

fn switch(version: Version) -> Qemu {
    let qemu = q35(version, "prompt", 2).device("x3130-upstream,id=upstream,bus=port0");
    qemu.device("xio3130-downstream,id=downstream,bus=upstream,chassis=3,slot=3")
}

/// Slots of the large switch.
const MANY: usize = 10;

fn large_switch(version: Version) -> Qemu {
    let qemu = q35(version, "prompt", 1).device("x3130-upstream,id=upstream,bus=port0");
    (0..MANY).fold(qemu, |qemu, slot| {
        qemu.device(&format!(
            "xio3130-downstream,id=down{slot},bus=upstream,chassis={slot},slot={slot}",
            slot = slot + 5
        ))
    })
}

fn microvm(version: Version) -> Qemu {
    let qemu = Qemu::new(version).machine("microvm,pcie=on").without_balloon();
    qemu.device("pcie-root-port,id=port0,chassis=1,slot=1").command_line("log=json hotplug=prompt")
}

/// The balloon's properties.
#[derive(Clone, Copy)]
struct Balloon {
    /// MSI-X vectors; `None` for QEMU's default.
    vectors: Option<u32>,
}

impl Balloon {
    fn properties(self, port: usize) -> Value {
        let mut properties =
            json!({ "driver": "virtio-balloon-pci", "id": format!("balloon{port}"), "bus": format!("port{port}") });
        if let Some(vectors) = self.vectors {
            properties["vectors"] = vectors.into();
        }
        properties
    }
}

/// Adds a balloon to a port and waits until the kernel drives it.
fn plug(vm: &mut Vm, balloon: Balloon, port: usize) -> Outcome<Event> {
    vm.qmp.device_add(&balloon.properties(port))?;
    let ready = vm.event("ready")?;
    slot_is(vm, port, "on")?;
    Ok(ready)
}

/// Waits until a slot reaches a state.
fn slot_is(vm: &mut Vm, port: usize, state: &str) -> Outcome {
    let name = format!("slot{}", port + 1);
    let there = |event: &Event| {
        let has = |field, value: &str| event.text(field).is_ok_and(|text| text == value);
        event.name() == "slot" && has("name", &name) && has("state", state)
    };
    vm.event_where(&format!("{name} {state}"), there).map(drop)
}

/// Unplugs the balloon in a port, and waits until QEMU has removed it.
fn unplug(vm: &mut Vm, port: usize) -> Outcome {
    let id = format!("balloon{port}");
    vm.qmp.device_del(&id)?;
    slot_is(vm, port, "off")?;
    vm.wait_for("the device to go", |vm| Ok((!vm.qmp.has_device(&id)?).then_some(())))
}

fn resources(vm: &mut Vm) -> Outcome<Event> {
    vm.ask("resources", "resources")
}

fn compare(first: &Event, now: &Event, when: &str) -> Outcome {
    for count in COUNTS {
        ensure!(first.count(count)? == now.count(count)?, "{when}: `{count}` differs\nfirst {first}\nnow   {now}");
    }
    Ok(())
}

/// The heap is equal to the byte if the same commands were typed: the console keeps a history.
fn compare_heap(first: &Event, now: &Event, when: &str) -> Outcome {
    compare(first, now, when)?;
    ensure!(first.count("heap")? == now.count("heap")?, "{when}: the heap differs\nfirst {first}\nnow   {now}");
    Ok(())
}

/// The balloon is unplugged while it inflates and plugged in again, twenty times.
fn cycles(vm: &mut Vm, balloon: Balloon) -> Outcome {
    vm.event("no-device")?;
    let (mut first_with, mut first_without) = (None, None);
    for cycle in 0..CYCLES {
        plug(vm, balloon, 0)?;
        vm.balloon_to(vm.memory - 64 * MIB)?;
        vm.balloon_to(vm.memory)?;
        let with = resources(vm)?;
        ensure!(with.count("ballooned")? == 0, "everything is back: {with}");
        compare_heap(first_with.get_or_insert_with(|| with.clone()), &with, &format!("with a balloon, cycle {cycle}"))?;
        // The host changes the target while the balloon moves.
        vm.qmp.set_target(vm.memory / 4)?;
        let memory = vm.memory;
        vm.wait_for("the balloon to be on its way", |vm| Ok((vm.qmp.actual()? < memory).then_some(())))?;
        unplug(vm, 0)?;
        let without = resources(vm)?;
        ensure!(without.count("ballooned")? == 0, "everything is back: {without}");
        compare_heap(
            first_without.get_or_insert_with(|| without.clone()),
            &without,
            &format!("without, cycle {cycle}"),
        )?;
    }
    Ok(())
}

/// Two balloons in two ports: one leaves, the other stays, and each returns to its own.
fn two_ports(vm: &mut Vm, balloon: Balloon) -> Outcome {
    vm.event("no-device")?;
    plug(vm, balloon, 0)?;
    // QEMU has one balloon at a time; the other port gets a device that the kernel does not drive.
    vm.qmp.device_add(&json!({ "driver": "virtio-rng-pci", "id": "rng", "bus": "port1" }))?;
    slot_is(vm, 1, "on")?;
    vm.balloon_to(vm.memory - 64 * MIB)?;
    vm.qmp.device_del("rng")?;
    slot_is(vm, 1, "off")?;
    vm.balloon_to(vm.memory)?;
    unplug(vm, 0)?;
    plug(vm, balloon, 1)?;
    vm.balloon_to(vm.memory - 64 * MIB)?;
    unplug(vm, 1)?;
    plug(vm, balloon, 0)?;
    vm.balloon_to(vm.memory / 2)?;
    vm.balloon_to(vm.memory)
}

/// After one cycle the counts are as before.
fn cycle_once(vm: &mut Vm, balloon: Balloon) -> Outcome {
    vm.event("no-device")?;
    let mut first = None;
    for cycle in 0..3 {
        plug(vm, balloon, 0)?;
        vm.balloon_to(vm.memory / 2)?;
        unplug(vm, 0)?;
        let without = resources(vm)?;
        compare_heap(first.get_or_insert_with(|| without.clone()), &without, &format!("cycle {cycle}"))?;
    }
    Ok(())
}

/// The slots of a switch share one log line, with their number.
fn told_once(vm: &mut Vm) -> Outcome {
    vm.event("no-device")?;
    let lines = vm.serial.all();
    let told: Vec<_> = lines
        .iter()
        .filter(|line| line.text.contains(": hot-plug slot") || line.text.contains(" hot-plug slots"))
        .collect();
    let once = told.iter().filter(|line| line.text.contains(&format!(": {MANY} hot-plug slots behind "))).count();
    // The port above the switch is another slot.
    ensure!(once == 1 && told.len() <= 2, "{MANY} slots should be reported in one line: {told:?}");
    Ok(())
}

/// A switch is unplugged together with the slot behind it: nothing of it remains, and the other slots work.
fn switch_goes(vm: &mut Vm) -> Outcome {
    vm.event("no-device")?;
    let with = resources(vm)?;
    vm.qmp.device_del("upstream")?;
    slot_is(vm, 0, "off")?;
    let without = resources(vm)?;
    let (before, after) = (with.count("vectors")?, without.count("vectors")?);
    ensure!(after + 1 == before, "the vector of the slot stays\nfirst {with}\nnow   {without}");
    plug(vm, Balloon { vectors: None }, 1)?;
    vm.balloon_to(vm.memory / 2)?;
    unplug(vm, 1)?;
    plug(vm, Balloon { vectors: None }, 0)?;
    vm.balloon_to(vm.memory / 2)
}

/// No interrupt of the port arrives: the kernel finds the new device by itself, and says so.
fn found_without_interrupts(vm: &mut Vm) -> Outcome {
    vm.event_where("the slot", |event| {
        event
            .text("message")
            .is_ok_and(|message| message.contains("slot1: hot-plug slot") && message.ends_with("off; msix"))
    })?;
    // The first poll finds what was there before.
    vm.ask("info", "console")?;
    vm.qmp.device_add(&json!({ "driver": "virtio-rng-pci", "id": "rng0", "bus": "port0" }))?;
    slot_is(vm, 0, "on")?;
    vm.event_where("a warning of lost interrupts", |event| {
        event.text("message").is_ok_and(|message| {
            message.starts_with("slot1: none of its interrupts (msix) has arrived") && message.contains("it is polled")
        })
    })
    .map(drop)
}

fn another_device(vm: &mut Vm) -> Outcome {
    vm.event("no-device")?;
    vm.qmp.device_add(&json!({ "driver": "virtio-rng-pci", "id": "rng", "bus": "port0" }))?;
    slot_is(vm, 0, "on")?;
    let told = vm.serial.all().iter().any(|line| line.text.contains("there is no driver for 01:00.0"));
    ensure!(told, "the kernel says that it has no driver");
    vm.qmp.device_del("rng")?;
    slot_is(vm, 0, "off")?;
    plug(vm, Balloon { vectors: None }, 0)?;
    vm.balloon_to(vm.memory / 2)
}

/// Power is cut while the driver runs; it reads all ones. The slot releases the device, powers it again, and the
/// device works.
fn pulled(vm: &mut Vm) -> Outcome {
    vm.event("no-device")?;
    let balloon = Balloon { vectors: None };
    plug(vm, balloon, 0)?;
    let mut first = None;
    for cycle in 0..3 {
        vm.balloon_to(vm.memory / 2)?;
        vm.ask("fault power slot1", "removed")?;
        vm.event("ready")?;
        slot_is(vm, 0, "on")?;
        // Neither the host's nor a new driver's initial size: once it is reached, nothing moves any more.
        vm.balloon_to(vm.memory / 4 * 3)?;
        vm.balloon_to(vm.memory)?;
        let with = resources(vm)?;
        compare(first.get_or_insert_with(|| with.clone()), &with, &format!("cycle {cycle}"))?;
    }
    unplug(vm, 0)
}

/// Five seconds in which a second press cancels, and one until power is off.
fn with_waits(vm: &mut Vm) -> Outcome {
    vm.event("no-device")?;
    plug(vm, Balloon { vectors: None }, 0)?;
    let pressed = std::time::Instant::now();
    vm.qmp.device_del("balloon0")?;
    slot_is(vm, 0, "about to switch off")?;
    vm.balloon_to(vm.memory / 2)?;
    slot_is(vm, 0, "off")?;
    let waited = pressed.elapsed().as_secs_f64();
    ensure!(waited >= 5.9, "the slot was off after {waited} s, and should have waited for 6");
    plug(vm, Balloon { vectors: None }, 0)?;
    vm.balloon_to(vm.memory / 2)
}

/// With `hotplug=off` nothing is plugged in, and everything else works.
fn switched_off(vm: &mut Vm) -> Outcome {
    vm.event("no-device")?;
    vm.qmp.device_add(&Balloon { vectors: None }.properties(0))?;
    let counts = resources(vm)?;
    ensure!(counts.count("balloons")? == 0, "the slot should be ignored: {counts}");
    let slots = vm.ask("slots", "console")?;
    ensure!(slots.text("text")?.contains("hotplug=off"), "the console says why: {slots}");
    Ok(())
}
