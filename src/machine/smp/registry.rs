//! The CPUs: which there are, which of them run, and what each has for itself.
//!
//! The boot CPU is number 0 and runs the main loop. The others are numbered as they come, in the order of the MADT.
//! They take interrupts and run jobs ([`run`]), and sleep otherwise.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering, fence};

use spin::Once;

use super::cpu::{Cpu, SleepState};
use crate::machine::interrupts::{local_apic, numbers};
use crate::machine::time::{clock, tsc};

/// The boot CPU.
static BOOT: Cpu = Cpu::new(0);
/// Places for the other CPUs, in the order of their numbers, of which the first ones are taken: by CPUs that run, or
/// may.
pub(super) static OTHERS: Once<Vec<Once<&'static Cpu>>> = Once::new();
/// CPUs that run.
static RUNNING: AtomicU32 = AtomicU32::new(1);

/// Makes the CPU that runs the boot CPU, which began at this TSC. Before anything that asks which CPU runs.
pub(crate) fn begin(entry_tsc: u64) {
    BOOT.take();
    BOOT.set_started(entry_tsc);
    BOOT.set_running();
}

/// Notes that the CPU that runs, which is `cpu`, takes part.
pub(super) fn join(cpu: &Cpu) {
    cpu.set_apic_id(local_apic::id());
    cpu.set_started(tsc::now());
    RUNNING.fetch_add(1, Ordering::AcqRel);
    cpu.set_running();
}

/// How many CPUs run. They have the numbers below only if none was lost when it was started.
pub(crate) fn count() -> u32 {
    RUNNING.load(Ordering::Acquire)
}

/// The CPUs that run, in the order of their numbers.
pub(crate) fn all() -> impl Iterator<Item = &'static Cpu> {
    let others = OTHERS.get().into_iter().flatten().map_while(Once::get).copied();
    core::iter::once(&BOOT).chain(others).filter(|cpu| cpu.is_running())
}

/// The CPU with this number, if it runs.
pub(crate) fn get(number: u32) -> Option<&'static Cpu> {
    match number {
        0 => Some(&BOOT),
        _ => OTHERS.get()?.get(number as usize - 1)?.get().copied().filter(|cpu| cpu.is_running()),
    }
}

/// The boot CPU.
pub(crate) fn boot() -> &'static Cpu {
    &BOOT
}

/// Wakes a CPU that sleeps, or is about to, so that it looks again at what there is to do. What it is to find has been
/// stored before.
pub(crate) fn wake(cpu: &Cpu) {
    // Either this CPU sees that the other means to sleep, or the other sees what was stored: see `idle_unless`.
    fence(Ordering::SeqCst);
    if cpu.sleep_state() != SleepState::Awake {
        local_apic::send(cpu.apic_id(), numbers::WAKE);
    }
}

/// One more than the number of the CPU that reports a failure of the kernel, while all others halt. 0 before.
static STOPPER: AtomicU32 = AtomicU32::new(0);
/// How long the others are waited for, in ms: one that is lost does not keep the report from being made.
const STOP_PATIENCE: u32 = 200;

/// Halts every other CPU by an NMI, and waits until they have halted.
pub(crate) fn stop_others() {
    let this = Cpu::this().number();
    STOPPER.store(this + 1, Ordering::SeqCst);
    let others = || all().filter(move |cpu| cpu.number() != this);
    others().for_each(|cpu| local_apic::send_nmi(cpu.apic_id()));
    for _ in 0..STOP_PATIENCE {
        if others().all(Cpu::has_stopped) {
            return;
        }
        clock::wait_some_ms(1);
    }
}

/// Halts: the kernel has failed on another CPU, which reports it.
pub(crate) fn stop_this() -> ! {
    Cpu::this().stop()
}

/// Halts if the kernel has failed on another CPU. Returns whether this one reports that it has. Called for
/// an NMI.
pub(crate) fn stop_if_asked() -> bool {
    match STOPPER.load(Ordering::SeqCst) {
        0 => false,
        stopper if stopper == Cpu::this().number() + 1 => true,
        _ => stop_this(),
    }
}
