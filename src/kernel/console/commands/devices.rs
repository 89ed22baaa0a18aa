//! Commands for devices: PCI functions, virtio-mmio devices, interrupts, hot-plug slots.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use ballonet::pci::listing::{Details, Line};
use ballonet::platform::Platform;
use ballonet::virtio::listing;

use crate::console::{count, events};
use crate::kernel::console::command::{Answer, Context, say};
use crate::kernel::console::job::Job;
use crate::machine::{lines, log as serial, smp, vectors};

/// `pci`.
pub(in super::super) fn pci(arguments: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    match arguments {
        [] => context.tree.nodes().iter().for_each(|node| say!("{}", Line(&node.function))),
        ["-v"] => return Some(Answer::Job(Job::list(details(context)))),
        _ => return None,
    }
    Some(Answer::Done)
}

/// `mmio`.
pub(in super::super) fn mmio(arguments: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    let [] = arguments else { return None };
    context.mmio.iter().for_each(|found| say!("{found}"));
    if context.mmio.is_empty() {
        say!("there is no virtio-mmio device");
    }
    Some(Answer::Done)
}

/// The PCI functions with their BARs and capabilities, as lines.
fn details(context: &mut Context<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for node in context.tree.nodes() {
        lines.push(format!("{}", Line(&node.function)));
        let details = Details { config: context.machine.config(), node, vendor: listing::describe };
        lines.extend(format!("{details}").lines().map(String::from));
    }
    lines
}

/// `irq`.
pub(in super::super) fn irq(arguments: &[&str], _: &mut Context<'_>) -> Option<Answer> {
    let [] = arguments else { return None };
    lines::trim();
    vectors::views().for_each(|view| vector(&view));
    for (name, claimed, inputs) in lines::views() {
        match inputs.as_slice() {
            [input] => interrupts(&name, claimed, None, format_args!("interrupt line, at GSI {input}")),
            inputs => {
                let about =
                    format_args!("interrupt line, at one of {} GSIs: the first interrupt shows which", inputs.len());
                interrupts(&name, claimed, None, about);
            }
        }
    }
    if vectors::holds() > 0 {
        say!("interrupts were blocked {}: devices interrupted without a pause", count(vectors::holds(), "time"));
    }
    if lines::storms() > 0 {
        say!("{} masked: no handler claimed its interrupts", count(lines::storms(), "input"));
    }
    Some(Answer::Done)
}

fn vector(view: &vectors::VectorView) {
    let name = if view.name.is_empty() { "(released)" } else { &view.name };
    let (number, on, cpu) = (view.vector, OnCpus(view), Some(view.cpu));
    match view.unclaimed {
        0 => interrupts(name, view.count, cpu, format_args!("vector {number:#04x}{on}")),
        unclaimed => {
            let about = format_args!("vector {number:#04x}{on}, {unclaimed} not claimed by any device");
            interrupts(name, view.count, cpu, about);
        }
    }
    for &(cpu, count) in &view.by_cpu {
        serial::emit(&events::IrqCpu { name, cpu, count });
    }
}

/// Where a vector is routed, and where its interrupts arrived, on a machine with several CPUs.
struct OnCpus<'v>(&'v vectors::VectorView);

impl fmt::Display for OnCpus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if smp::count() == 1 {
            return Ok(());
        }
        write!(f, " to CPU {}", self.0.cpu)?;
        let elsewhere = self.0.by_cpu.iter().filter(|(cpu, _)| *cpu != self.0.cpu);
        elsewhere.into_iter().try_for_each(|(cpu, count)| write!(f, ", {count} came to CPU {cpu}"))
    }
}

/// Writes the event with an interrupt's name and count, and a vector's CPU.
fn interrupts(name: &str, count: u64, cpu: Option<u32>, about: fmt::Arguments<'_>) {
    if serial::is_text() {
        say!("{name:<20} {count:>10}  {about}");
    } else {
        serial::emit(&events::Irq { name, count, cpu });
    }
}

/// `slots`.
pub(in super::super) fn slots(arguments: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    let [] = arguments else { return None };
    for port in context.slots.ports() {
        let (mode, interrupts) = port.interrupts();
        say!("{}: behind {}, {}; {mode}, {}", port.name(), port.bdf(), port.stage(), count(interrupts, "interrupt"));
        for node in context.tree.behind(port.bdf()) {
            say!("  {}", Line(&node.function));
        }
    }
    if context.slots.count() == 0 {
        say!("there is no hot-plug slot, or `hotplug=off` leaves them alone");
    }
    Some(Answer::Done)
}
