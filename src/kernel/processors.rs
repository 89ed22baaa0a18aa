//! The console's view of the CPUs, and of which of them interrupts go to.

use alloc::boxed::Box;

use crate::console::count;
use crate::machine::{Machine, clock, cpus, local_apic, log as serial, tlb};

use super::balloons::{self, Balloons};

/// Lists the CPUs: an event each for programs.
pub(super) fn list() {
    for cpu in cpus::all() {
        let (number, id, interrupts, jobs) = (cpu.number(), cpu.apic_id(), cpu.interrupts(), cpu.jobs());
        let (up, slept) = (cpu.up(), cpu.slept());
        serial::emit("processor", |line| {
            line.number("number", number.into()).number("apic_id", id.into()).number("interrupts", interrupts);
            line.number("jobs", jobs).number("slept", slept).number("up", up);
        });
        if serial::is_text() {
            let share = u128::from(slept) * 100 / u128::from(up.max(1));
            serial::line(format_args!(
                "CPU {number:<3} APIC ID {id:<4} {interrupts:>10} interrupts {jobs:>8} jobs, asleep {share} % of the time"
            ));
        }
    }
    if tlb::interrupted() > 0 && serial::is_text() {
        let times = count(tlb::interrupted(), "time");
        serial::line(format_args!("to forget what was unmapped one was interrupted {times}"));
    }
}

/// Has another CPU than the boot CPU panic.
pub(super) fn fail(cpu: &str) {
    let job = Box::new(|| panic!("asked for at the console"));
    match cpu.parse().map(|cpu| cpus::run(cpu, job)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => serial::line(format_args!("{error}")),
        Err(_) => serial::line(format_args!("`{cpu}` is no number of a CPU; `cpus` lists those there are")),
    }
}

/// Has the queue of this name, of the balloon of this name or of all, interrupt another CPU.
pub(super) fn set_affinity(balloons: &mut Balloons, machine: &mut Machine, queue: &str, cpu: &str, name: Option<&str>) {
    let Ok(cpu) = cpu.parse::<u32>() else {
        return serial::line(format_args!("`{cpu}` is no number of a CPU; `cpus` lists those there are"));
    };
    let mut moved = false;
    for driver in balloons.drivers_mut().filter(|driver| name.is_none_or(|name| name == driver.name())) {
        let Some((queue, _)) = driver.queues().find(|(known, _)| *known == queue) else { continue };
        moved = true;
        match driver.set_queue_affinity(machine, queue, cpu) {
            Ok(()) => {
                serial::emit("affinity", |line| {
                    line.text("name", driver.name()).text("queue", queue).number("cpu", cpu.into());
                });
                if serial::is_text() {
                    serial::line(format_args!("{}: queue {queue} interrupts CPU {cpu}", driver.name()));
                }
            }
            Err(error) => serial::line(format_args!("{}: {error}", driver.name())),
        }
    }
    match name {
        _ if moved => {}
        Some(name) if balloons.drivers().all(|driver| driver.name() != name) => {
            balloons::tell_unknown(name);
        }
        _ => serial::line(format_args!("no running balloon has a queue `{queue}`; `virtio` lists those there are")),
    }
}

/// What a failure says in the course of which the CPU that tells of it gets NMIs: as when somebody presses the button.
pub(super) struct WithNmis;

impl core::fmt::Display for WithNmis {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("asked for at the console, with three NMIs ")?;
        for _ in 0..3 {
            local_apic::send_nmi_to_self();
            let sent = clock::tsc();
            while clock::tsc().saturating_sub(sent) < NMI_TICKS {
                core::hint::spin_loop();
            }
        }
        f.write_str("in the middle")
    }
}

/// TSC ticks within which an NMI to the CPU itself arrives, by far.
const NMI_TICKS: u64 = 1_000_000;
