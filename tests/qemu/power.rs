//! The power button, and the ways in which a machine powers off or reboots.

use serde_json::json;

use crate::support::{Event, MIB, Outcome, Qemu, Trial, Version, Vm, ensure};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in [Version::V7_2, Version::V10_0] {
        for machine in ["q35", "pc"] {
            let name = |case: &str| format!("power::{version}::{machine}::{case}");
            let qemu = || Qemu::new(version).machine(machine).without_debug_exit();
            trials.push(trial(name("button_switches_off"), qemu(), button));
            let deflating = qemu().command_line("log=json poweroff=deflate");
            trials.push(trial(name("button_deflates_the_balloon_on_request"), deflating, button_deflates));
        }
        let name = |case: &str| format!("power::{version}::{case}");
        let microvm = || Qemu::new(version).machine("microvm,pcie=on").without_debug_exit();
        trials.push(trial(name("microvm::poweroff_without_a_button"), microvm(), hardware_reduced));
        let without_acpi = Qemu::new(version).machine("microvm,acpi=off");
        trials.push(trial(name("microvm::reboot_by_the_last_resort"), without_acpi.without_balloon(), last_resort));
        for (case, machine, way) in [
            ("by_the_keyboard_controller", "pc,acpi=off", "the keyboard controller's reset"),
            ("by_the_chipset", "pc,acpi=off,i8042=off", "port 0xCF9"),
            ("by_a_triple_fault", "microvm,acpi=off", "a triple fault"),
        ] {
            let qemu = Qemu::new(version).machine(machine).without_debug_exit().without_balloon();
            let qemu = qemu.option("-action", "reboot=shutdown");
            let name = name(&format!("without_acpi::ends_{case}"));
            trials.push(trial(name, qemu, move |vm| ends_without_acpi(vm, way)));
        }
        let pc = Qemu::new(version).machine("pc").without_debug_exit();
        trials.push(trial(name("pc::general_purpose_event_cannot_storm"), pc, general_purpose_event));
        let q35 = Qemu::new(version).without_debug_exit();
        trials.push(trial(name("q35::button_whose_interrupt_is_lost"), q35.clone(), interrupt_lost));
        trials.push(trial(name("q35::timer_event_cannot_storm"), q35, timer_event));
    }
    trials
}

/// The button ends the kernel cleanly: the device is reset, the host keeps ballooned memory, power goes off.
fn button(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    message(vm, "the power button", |text| text.starts_with("power button: detected"))?;
    vm.balloon_to(vm.memory / 2)?;
    vm.qmp.system_powerdown()?;
    let pressed = vm.event("power-button")?;
    ensure!(pressed.count("presses")? == 1, "one press should count once: {pressed}");
    message(vm, "MiB stay with the host", |text| text.contains("reset; 256 MiB"))?;
    ends_switched_off(vm)
}

fn button_deflates(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.balloon_to(vm.memory / 2)?;
    vm.qmp.system_powerdown()?;
    vm.event("power-button")?;
    message(vm, "nothing stays with the host", |text| text.contains("reset; 0 MiB stay with the host"))?;
    ends_switched_off(vm)
}

/// Hardware-reduced ACPI powers off through another register and has no fixed button; the log says so.
fn hardware_reduced(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    message(vm, "why there is no button", |text| text.contains("no power button: ACPI is hardware-reduced"))?;
    vm.serial.type_line("poweroff")?;
    ends_switched_off(vm)
}

/// Nothing takes an exit status or powers off: the serial line gives the status, and the first reset that works ends
/// the run.
fn ends_without_acpi(vm: &mut Vm, way: &str) -> Outcome {
    vm.event("no-device")?;
    vm.serial.type_line("poweroff")?;
    ends_switched_off(vm)?;
    ends_by_reset(vm, Some(way))
}

/// Which reset was the end, the last that was announced; `None` if none was.
pub(crate) fn ends_by_reset(vm: &Vm, way: Option<&str>) -> Outcome {
    let lines = vm.serial.all();
    let mut announced = lines.iter().filter_map(|line| line.text.split_once("is still on: it is ended by "));
    let last = announced.next_back().map(|(_, rest)| rest.trim_end_matches("\"}"));
    ensure!(last == way, "it should end by {way:?}, not by {last:?}");
    Ok(())
}

/// No reset register, neither ACPI's nor the chipset's, and no keyboard controller: only a triple fault is left.
fn last_resort(vm: &mut Vm) -> Outcome {
    vm.event("no-device")?;
    vm.serial.type_line("reboot")?;
    vm.event("no-device")?;
    vm.ask("info", "console").map(drop)
}

/// The SCI's line changes behind the kernel's back, by the register of the LPC bridge (ICH9, 13.1.15): the press is
/// found all the same.
fn interrupt_lost(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    message(vm, "the power button", |text| text.starts_with("power button: detected by the ACPI interrupt, GSI 9"))?;
    // Function 00:1f.0, register 0x44: registers enabled, and GSI 10.
    vm.qmp.monitor("o /w 0xcf8 0x8000f844")?;
    vm.qmp.monitor("o /b 0xcfc 0x81")?;
    ensure!(read(vm, "/b", 0xCFC)? == 0x81, "the SCI should be at GSI 10");
    // The button is read once at the start.
    vm.ask("info", "console")?;
    vm.qmp.system_powerdown()?;
    vm.event("power-button")?;
    ends_switched_off(vm)
}

/// PIIX4's enable register of general-purpose events, and the bit of PCI hot-plug.
const GPE_ENABLE: u16 = 0xAFE2;
const HOT_PLUG: u8 = 1 << 1;

/// A general-purpose event is enabled behind the kernel's back and stays asserted: the kernel disables it, and the
/// button still works.
fn general_purpose_event(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    message(vm, "the power button", |text| text.starts_with("power button: detected"))?;
    vm.qmp.monitor(&format!("o /b {GPE_ENABLE:#x} {HOT_PLUG:#x}"))?;
    vm.qmp.device_add(&json!({ "driver": "virtio-rng-pci", "id": "rng0", "addr": "0x1e" }))?;
    vm.wait_for("the event to be turned off", |vm| Ok((read(vm, "/b", GPE_ENABLE)? == 0).then_some(())))?;
    works_on(vm)
}

/// ICH9's PM1 enable register, at the address that SeaBIOS assigns, and the bits of timer and button.
const PM1_ENABLE: u16 = 0x602;
const TIMER: u16 = 1 << 0;
const POWER_BUTTON: u16 = 1 << 8;

/// The same with the PM timer, which overflows every 2.3 s.
fn timer_event(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    message(vm, "the power button", |text| text.starts_with("power button: detected"))?;
    ensure!(read(vm, "/h", PM1_ENABLE)? == POWER_BUTTON, "the button and nothing else should be enabled");
    vm.qmp.monitor(&format!("o /h {PM1_ENABLE:#x} {:#x}", TIMER | POWER_BUTTON))?;
    vm.wait_for("the event to be turned off", |vm| Ok((read(vm, "/h", PM1_ENABLE)? == POWER_BUTTON).then_some(())))?;
    works_on(vm)
}

/// The balloon follows, the ACPI interrupt came, but only a few times, and the button works.
fn works_on(vm: &mut Vm) -> Outcome {
    vm.balloon_to(vm.memory - 64 * MIB)?;
    vm.serial.type_line("irq")?;
    let acpi = |event: &Event| event.name() == "irq" && event.text("name").is_ok_and(|name| name == "acpi");
    let acpi = vm.event_where("the ACPI interrupts", acpi)?;
    let count = acpi.count("count")?;
    ensure!((1..=3).contains(&count), "one event should have interrupted once or so: {acpi}");
    vm.qmp.system_powerdown()?;
    vm.event("power-button")?;
    ends_switched_off(vm)
}

/// Reads an I/O port of the guest with the monitor's `i`.
fn read(vm: &mut Vm, format: &str, port: u16) -> Outcome<u16> {
    let answer = vm.qmp.monitor(&format!("i {format} {port:#x}"))?;
    let value = answer.trim().rsplit_once("0x").and_then(|(_, digits)| u16::from_str_radix(digits, 16).ok());
    Ok(value.ok_or_else(|| format!("the monitor should have read a port: {answer:?}"))?)
}

fn message(vm: &mut Vm, what: &str, wanted: impl Fn(&str) -> bool) -> Outcome {
    let wanted = |event: &Event| event.name() == "log" && event.text("message").is_ok_and(&wanted);
    // It may have been logged before the last awaited line.
    let said =
        |vm: &Vm| vm.serial.all().iter().filter_map(|line| Event::parse(&line.text).ok()).any(|event| wanted(&event));
    if said(vm) { Ok(()) } else { vm.event_where(what, wanted).map(drop) }
}

/// Here only powering off ends QEMU with status 0.
pub(crate) fn ends_switched_off(vm: &mut Vm) -> Outcome {
    let exit = vm.event("exit")?;
    ensure!(exit.count("status")? == 33, "the kernel should end with success: {exit}");
    let status = vm.end()?;
    ensure!(status.code() == Some(0), "the machine should be switched off: {status}");
    Ok(())
}
