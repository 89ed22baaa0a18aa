//! Commands for CPUs, and for the routing of interrupts to them.

use alloc::boxed::Box;
use core::{fmt, hint};

use crate::console::count;
use crate::console::events::{self, Nanoseconds};
use crate::machine::{Machine, asleep, clock, local_apic, log as serial, smp, tlb};
use ballonet::platform::Platform;

use crate::kernel::balloons::{self, Balloons};
use crate::kernel::console::command::{Answer, Context, say};

/// `cpus`: writes an event per CPU.
pub(in super::super) fn list(arguments: &[&str], _: &mut Context<'_>) -> Option<Answer> {
    let [] = arguments else { return None };
    for cpu in smp::all() {
        let (number, id, interrupts, jobs) = (cpu.number(), cpu.apic_id(), cpu.interrupts(), cpu.jobs());
        let (up, slept) = (cpu.up(), cpu.slept());
        serial::emit(&events::Processor {
            number,
            apic_id: id,
            interrupts,
            jobs,
            slept: Nanoseconds(slept),
            up: Nanoseconds(up),
        });
        if serial::is_text() {
            let share = u128::from(slept) * 100 / u128::from(up.max(1));
            say!(
                "CPU {number:<3} APIC ID {id:<4} {interrupts:>10} interrupts {jobs:>8} jobs, asleep {share} % of the time"
            );
        }
    }
    if tlb::interrupted() > 0 && serial::is_text() {
        let times = count(tlb::interrupted(), "time");
        say!("a CPU was interrupted {times} to flush its TLB");
    }
    Some(Answer::Done)
}

/// `cpu`: the time since entry, and the boot CPU's time awake.
pub(in super::super) fn awake(arguments: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    let [] = arguments else { return None };
    let up = context.machine.now();
    let awake = up.saturating_sub(asleep());
    serial::emit(&events::Cpu { up: Nanoseconds(up), awake: Nanoseconds(awake) });
    if serial::is_text() {
        say!("up {} ms, of which the boot CPU was awake for {} ms", up / 1_000_000, awake / 1_000_000);
    }
    Some(Answer::Done)
}

/// `affinity`.
pub(in super::super) fn affinity(arguments: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    let (queue, cpu, name) = match *arguments {
        [queue, cpu] => (queue, cpu, None),
        [queue, cpu, name] => (queue, cpu, Some(name)),
        _ => return None,
    };
    match cpu.parse() {
        Ok(cpu) => set_affinity(context.balloons, context.machine, queue, cpu, name),
        Err(_) => invalid_number(cpu),
    }
    Some(Answer::Done)
}

fn invalid_number(cpu: &str) {
    say!("invalid CPU number `{cpu}`; `cpus` lists the CPUs");
}

/// Makes a CPU other than the boot CPU panic.
pub(super) fn fail(cpu: &str) {
    let job = Box::new(|| panic!("asked for at the console"));
    match cpu.parse().map(|cpu| smp::run(cpu, job)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => say!("{error}"),
        Err(_) => invalid_number(cpu),
    }
}

/// Routes the interrupt of a queue, of the named balloon or of all, to another CPU.
fn set_affinity(balloons: &mut Balloons, machine: &mut Machine, queue: &str, cpu: u32, name: Option<&str>) {
    let mut moved = false;
    for driver in balloons.drivers_mut().filter(|driver| name.is_none_or(|name| name == driver.name())) {
        let Some((queue, _)) = driver.queues().find(|(known, _)| *known == queue) else { continue };
        moved = true;
        match driver.set_queue_affinity(machine, queue, cpu) {
            Ok(()) => {
                serial::emit(&events::Affinity { name: driver.name(), queue, cpu });
                if serial::is_text() {
                    say!("{}: queue {queue} interrupts CPU {cpu}", driver.name());
                }
            }
            Err(error) => say!("{}: {error}", driver.name()),
        }
    }
    match name {
        _ if moved => {}
        Some(name) if balloons.drivers().all(|driver| driver.name() != name) => {
            balloons::unknown_name(name);
        }
        _ => say!("no running balloon has a queue `{queue}`; `virtio` lists them"),
    }
}

/// A panic message during which the reporting CPU receives NMIs, as from a button.
pub(super) struct WithNmis;

impl fmt::Display for WithNmis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("asked for at the console, with three NMIs ")?;
        for _ in 0..3 {
            local_apic::send_nmi_to_self();
            let sent = clock::tsc();
            while clock::tsc().saturating_sub(sent) < NMI_TICKS {
                hint::spin_loop();
            }
        }
        f.write_str("in the middle")
    }
}

/// TSC ticks within which a self-sent NMI arrives, with a wide margin.
const NMI_TICKS: u64 = 1_000_000;
