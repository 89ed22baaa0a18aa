//! Commands for the machine: its parts, its log, and its end.

use alloc::string::String;

use ballonet::platform::Platform;

use crate::acpi::{Acpi, SleepType};
use crate::console::count;
use crate::kernel::console::command::{Answer, Context, Outcome, say};
use crate::machine::memory_types::Mtrrs;
use crate::machine::{clock, local_apic, machine_check, power_button};

/// `info`.
pub(in super::super) fn info(arguments: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    let [] = arguments else { return None };
    let machine = &*context.machine;
    say!("ballonet {}, loaded by {}", env!("CARGO_PKG_VERSION"), machine.boot_info().protocol);
    say!("command line: {}", String::from_utf8_lossy(machine.boot_info().command_line.as_bytes()));
    for (what, name) in machine.identity.facts() {
        say!("{what}: {name}");
    }
    let mode = if local_apic::is_x2apic() { "x2APIC" } else { "xAPIC" };
    say!("local APIC {} in {mode} mode, {}", local_apic::id(), count(local_apic::errors(), "error"));
    if let Some(rate) = clock::rate() {
        say!("TSC: {rate}");
    }
    if let Some(mtrrs) = Mtrrs::read(&machine.features) {
        say!("memory is {} where no MTRR applies", mtrrs.default_type());
    }
    let image = machine.image();
    let place = image.place();
    say!("image: {:#x}-{:#x}, {} KiB", place.start, place.end - 1, (place.end - place.start) / 1024);
    for record in machine_check::records(&machine.features) {
        say!("machine check: {record}");
    }
    say!("up {} ms", machine.now() / 1_000_000);
    Some(Answer::Done)
}

/// `acpi`.
pub(in super::super) fn acpi(arguments: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    let [] = arguments else { return None };
    match &context.machine.acpi {
        Some(acpi) => describe_acpi(acpi),
        None => say!("there is no ACPI"),
    }
    Some(Answer::Done)
}

fn describe_acpi(acpi: &Acpi) {
    for table in &acpi.tables.list {
        say!("{table}");
    }
    for problem in &acpi.problems {
        say!("problem: {problem}");
    }
    if let Some(madt) = &acpi.madt {
        say!("{}, {}", count(madt.processors.len(), "CPU"), count(madt.io_apics.len(), "IOAPIC"));
    }
    match acpi.soft_off {
        Some(SleepType { a, b }) => say!("switched off by sleep type {a}, {b}"),
        None => say!("cannot switch off: there is no `_S5`"),
    }
    match acpi.fadt.as_ref().and_then(|fadt| fadt.reset) {
        Some(reset) => say!("reset by writing {:#x} to {}", reset.value, reset.register),
        None => say!("no reset register: the chipset's is tried, then the keyboard controller's"),
    }
    say!("power button: pressed {}", count(power_button::presses(), "time"));
}

/// `log`.
pub(in super::super) fn log(arguments: &[&str], _: &mut Context<'_>) -> Option<Answer> {
    match arguments {
        [] => Some(Answer::Log { all: false }),
        ["all"] => Some(Answer::Log { all: true }),
        _ => None,
    }
}

/// `poweroff`.
pub(in super::super) fn power_off(arguments: &[&str], _: &mut Context<'_>) -> Option<Answer> {
    arguments.is_empty().then_some(Answer::End(Outcome::PowerOff))
}

/// `reboot`.
pub(in super::super) fn reboot(arguments: &[&str], _: &mut Context<'_>) -> Option<Answer> {
    arguments.is_empty().then_some(Answer::End(Outcome::Reboot))
}
