//! The CPUs: which exist, which run, and their per-CPU state.
//!
//! The boot CPU is number 0 and runs the main loop. The others are numbered in the order of the MADT. They take
//! interrupts, run jobs ([`run`]), and sleep otherwise.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering, fence};

use spin::Once;

use super::cpu::{Cpu, SleepState};
use crate::machine::interrupts::{local_apic, numbers};
use crate::machine::time::{clock, tsc};

/// The boot CPU.
static BOOT: Cpu = Cpu::new(0);
/// Slots for the other CPUs, by number. The first ones are taken, by CPUs that run or may still start.
pub(super) static OTHERS: Once<Vec<Once<&'static Cpu>>> = Once::new();
/// CPUs that run.
static RUNNING: AtomicU32 = AtomicU32::new(1);

/// Makes the current CPU the boot CPU, which began at this TSC. Called before anything that needs the current CPU.
pub(crate) fn begin(entry_tsc: u64) {
    BOOT.take();
    BOOT.set_started(entry_tsc);
    BOOT.set_running();
}

/// Records that `cpu`, the current CPU, runs.
pub(super) fn join(cpu: &Cpu) {
    cpu.set_apic_id(local_apic::id());
    cpu.set_started(tsc::now());
    RUNNING.fetch_add(1, Ordering::AcqRel);
    cpu.set_running();
}

/// How many CPUs run. Their numbers are 0 to this only if none failed to start.
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

/// Wakes a CPU that sleeps or is about to, so that it checks for work again. The work must have been stored before.
pub(crate) fn wake(cpu: &Cpu) {
    // Either this CPU sees that the other is about to sleep, or the other sees the stored work: see `idle_unless`.
    fence(Ordering::SeqCst);
    if cpu.sleep_state() != SleepState::Awake {
        local_apic::send(cpu.apic_id(), numbers::WAKE);
    }
}

/// One more than the number of the CPU that reports a failure of the kernel, while all others halt. 0 before.
static STOPPER: AtomicU32 = AtomicU32::new(0);
/// How long to wait for the others, in ms: a lost CPU must not prevent the report.
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
