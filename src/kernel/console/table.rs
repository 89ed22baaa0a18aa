//! The commands: name, arguments, description, and function of each.
//!
//! `help`, completion and docs/console.md derive from this table. A name may have several rows for different forms.

use alloc::format;
use alloc::vec::Vec;

use ballonet_check::similar;

use super::command::{Answer, Command, Context, say};
use super::commands::{balloon, cpus, devices, faults, machine, memory, programs, random, resources};
use crate::boot::{KernelOptions, Key};
use crate::console::Usage;

/// The commands.
const COMMANDS: &[Command] = &[
    Command::new(
        "help",
        "[COMMAND | options]",
        "this list, the part of it about a command, or the kernel's options",
        help,
    ),
    Command::new("info", "", "the kernel, the CPU, the clock, machine checks", machine::info),
    Command::new("acpi", "", "the ACPI tables, and how the machine is switched off and reset", machine::acpi),
    Command::new("pci", "[-v]", "the PCI devices", devices::pci),
    Command::new("mmio", "", "the virtio-mmio devices", devices::mmio),
    Command::new("virtio", "", "the balloon devices: features, queues, interrupts", balloon::virtio),
    Command::new("irq", "", "interrupt vectors and how often each came", devices::irq),
    Command::new("cpus", "", "the CPUs, the interrupts that came to each, and how long each slept", cpus::list),
    Command::new(
        "affinity",
        "QUEUE CPU [NAME]",
        "route a queue's interrupt, of balloon NAME or of all, to another CPU",
        cpus::affinity,
    ),
    Command::new("mem", "[map]", "memory by state", memory::mem),
    Command::new(
        "mem",
        "hold SIZE | verify | release",
        "fill memory with a pattern, verify the pattern, free the memory",
        memory::held,
    ),
    Command::new(
        "work",
        "[KIND:SIZE | stop]",
        "run a program that uses memory: sawtooth, steady, churn or verify",
        programs::work,
    ),
    Command::new(
        "log",
        "[all]",
        "the log from its beginning, a page at a time on a terminal; `all` without pauses",
        machine::log,
    ),
    Command::new(
        "balloon",
        "",
        "targets and sizes; the host sets them, as by `balloon MIB` in QEMU's monitor",
        balloon::balloon,
    ),
    Command::new("report", "", "report all free memory to the host at once", balloon::report),
    Command::new("stats", "", "the drivers' counters", balloon::stats),
    Command::new("cpu", "", "how long the kernel has run, and how long of that the boot CPU was awake", cpus::awake),
    Command::new(
        "latency",
        "start | stop",
        "allocate continuously, and report at the end how long allocations took",
        programs::latency,
    ),
    Command::new("reset", "[NAME]", "reset the balloon device NAME, or all, and start it again", balloon::reset),
    Command::new(
        "reset-queue",
        "QUEUE [NAME]",
        "reset its queue inflate or deflate, and use it again",
        balloon::reset_queue,
    ),
    Command::new("freeze", "[NAME]", "reset it and leave it stopped, until `restore`", balloon::freeze),
    Command::new("restore", "[NAME]", "start a frozen device again, with the memory it had", balloon::restore),
    Command::new("slots", "", "the hot-plug slots, and their devices", devices::slots),
    Command::new(
        "random",
        "[BYTES]",
        "random bytes from the first virtio entropy device, 1 to 64 of them, or 16",
        random::random,
    ),
    Command::new("resources", "", "counts of everything that could leak", resources::resources),
    Command::new("poweroff", "", "reset the devices and switch off, as the power button does", machine::power_off),
    Command::new("reboot", "", "reset the devices and start again", machine::reboot),
    Command::new(
        "fault",
        "page | panic [CPU] | nmi | hang | power SLOT",
        "fail on purpose, to see how failures are reported",
        faults::fault,
    ),
];

/// The commands' usages, in the order of the table.
pub fn commands() -> impl Iterator<Item = Usage> {
    COMMANDS.iter().map(|command| command.usage)
}

/// Runs the command in a line.
pub(super) fn run(line: &str, context: &mut Context<'_>) -> Answer {
    let mut words = line.split_ascii_whitespace();
    let Some(typed) = words.next() else { return Answer::Done };
    let name = if typed == "?" { "help" } else { typed };
    let arguments: Vec<&str> = words.collect();
    let rows = || COMMANDS.iter().filter(|command| command.usage.name == name);
    if rows().next().is_none() {
        unknown_command(typed);
        return Answer::Done;
    }
    let answer = rows().find_map(|command| (command.run)(&arguments, context));
    answer.unwrap_or_else(|| {
        match arguments.as_slice() {
            [] => say!("`{name}` needs an argument:"),
            given => say!("`{name} {}` is not valid:", given.join(" ")),
        }
        show_usage(Some(name));
        Answer::Done
    })
}

fn help(arguments: &[&str], _: &mut Context<'_>) -> Option<Answer> {
    match arguments {
        [] => show_usage(None),
        ["options"] => show_options(),
        [command] if commands().any(|usage| usage.name == *command) => show_usage(Some(command)),
        [unknown] => unknown_command(unknown),
        _ => return None,
    }
    Some(Answer::Done)
}

fn unknown_command(unknown: &str) {
    match similar(unknown, commands().map(|usage| usage.name)) {
        Some(name) => say!("there is no command `{unknown}`, did you mean `{name}`? `help` lists the commands"),
        None => say!("there is no command `{unknown}`; `help` lists the commands"),
    }
}

fn show_usage(only: Option<&str>) {
    for Usage { name, arguments, about } in commands().filter(|usage| only.is_none_or(|only| only == usage.name)) {
        let call = format!("{name} {arguments}");
        say!("  {call:<34} {about}");
    }
}

fn show_options() {
    say!("on the kernel command line, `key=value`; each with its values, and its value if not given in brackets:");
    let defaults = KernelOptions::default();
    for &key in Key::ALL {
        let valid = key.valid();
        let others = Some(valid.others()).filter(|others| !others.is_empty());
        let values: Vec<_> = valid.choices().chain(others).collect();
        let default = match format!("{}", defaults.value(key)) {
            none if none.is_empty() => none,
            value => format!(" [{value}]"),
        };
        say!("  {key}={}{default}", values.join("|"));
        say!("      {}", key.help());
    }
}
