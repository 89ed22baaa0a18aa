//! Device registers above 4 GiB, placed there by firmware or by the kernel: the balloon works.

use std::cell::Cell;

use serde_json::json;

use crate::support::{Event, MIB, Outcome, Qemu, Trial, Version, Vm, ensure};
use crate::trial;

const GIB: u64 = 1024 * MIB;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in [Version::V7_2, Version::V10_0] {
        let name = |case: &str| format!("registers::{version}::{case}");
        let qemu = || Qemu::new(version).memory(256 * MIB);
        // Firmware moves registers up when 32-bit space is too small for all.
        let beside_large = |machine: &str| {
            let memory = "memory-backend-ram,id=large,size=8G,share=on,reserve=off";
            qemu().machine(machine).object(memory).device("ivshmem-plain,memdev=large")
        };
        trials.push(trial(name("put_up_by_firmware_on_q35"), beside_large("q35"), |vm| works(vm, 4 * GIB)));
        trials.push(trial(name("put_up_by_firmware_on_pc"), beside_large("pc"), |vm| works(vm, 4 * GIB)));
        let port = "pcie-root-port,id=port0,chassis=1,slot=1,pref64-reserve=16G";
        let behind_port = qemu().device(port).balloon("bus=port0");
        trials.push(trial(name("in_a_port_s_window"), behind_port, |vm| works(vm, 4 * GIB)));
        // Only the kernel assigns addresses to hot-plugged devices, and on microvm, where the window is the upper
        // quarter of the CPU's address space.
        let empty_port = qemu().without_balloon().device(port).command_line("log=json hotplug=prompt");
        let empty_port = empty_port.global("ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off");
        trials.push(trial(name("put_by_the_kernel_into_a_port_s_window"), empty_port, plugged));
        let microvm = || qemu().machine("microvm,pcie=on");
        for bits in [40, 46, 48, 52] {
            let qemu = microvm().cpu(&format!("max,phys-bits={bits}"));
            let least = 3 << (bits - 2);
            trials.push(trial(name(&format!("put_up_by_the_kernel_of_{bits}_bits")), qemu, move |vm| works(vm, least)));
        }
    }
    trials
}

fn plugged(vm: &mut Vm) -> Outcome {
    vm.event("no-device")?;
    vm.qmp.device_add(&json!({ "driver": "virtio-balloon-pci", "id": "balloon0", "bus": "port0" }))?;
    works(vm, 4 * GIB)
}

/// All registers are at `least` or above, except MSI-X, which QEMU keeps in a 32-bit BAR; and the balloon works.
pub(crate) fn works(vm: &mut Vm, least: u64) -> Outcome {
    let ready = vm.event("ready")?;
    ensure!(ready.text("transport")? == "modern", "the registers should be those of BAR 4: {ready}");
    let bar = balloon_bar(vm)?;
    let address =
        bar.split_once(" at 0x").and_then(|(_, rest)| rest.split(',').next()).ok_or("BAR 4 has no address")?;
    ensure!(u64::from_str_radix(address, 16)? >= least, "the registers should be at {least:#x} or above: {bar}");
    let around = |line: &str| line.contains("through configuration space");
    ensure!(!vm.serial.all().iter().any(|line| around(&line.text)), "the registers should be mapped");
    vm.balloon_to(vm.memory / 2)?;
    vm.balloon_to(vm.memory)?;
    vm.serial.type_line("irq")?;
    let of_ours =
        |event: &Event| event.name() == "irq" && event.text("name").is_ok_and(|name| name.starts_with("virtio0"));
    let vector = vm.event_where("the balloon's interrupts", of_ours)?;
    ensure!(vector.count("count")? > 0, "no interrupt has come: {vector}");
    Ok(())
}

/// The line about the balloon's BAR 4 in the console's list of devices.
fn balloon_bar(vm: &mut Vm) -> Outcome<String> {
    vm.serial.type_line("pci -v")?;
    let of_balloon = Cell::new(false);
    let bar = vm.event_where("the balloon's BAR 4", |event| {
        let Ok(text) = event.text("text") else { return false };
        if !text.starts_with(' ') {
            of_balloon.set(text.contains("balloon"));
        }
        of_balloon.get() && text.contains("BAR4: 64-bit prefetchable memory")
    })?;
    Ok(bar.text("text")?.to_owned())
}
