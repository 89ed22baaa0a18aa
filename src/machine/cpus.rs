//! The CPUs: which there are, which of them run, and what each has for itself.
//!
//! The boot CPU is number 0 and runs the main loop. The others are numbered as in the MADT. They take interrupts and run jobs
//! ([`run`]), and sleep otherwise.

mod cpu;
mod job;
mod start;
mod trampoline;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};

use spin::Once;

pub use self::cpu::{Cpu, Rest};
pub use self::job::{Job, JobError, run};
pub(super) use self::start::start;
pub use self::trampoline::PAGE_LIMIT;

use super::{cpu as features, local_apic, vectors};

/// The boot CPU.
static BOOT: Cpu = Cpu::new(0);
/// The other CPUs, in the order of their numbers, whether or not they run.
static OTHERS: Once<Vec<&'static Cpu>> = Once::new();
/// CPUs that run.
static RUNNING: AtomicU32 = AtomicU32::new(1);

/// Makes the CPU that runs the boot CPU. Before anything that asks which CPU runs.
pub(super) fn begin() {
    BOOT.take();
    BOOT.set_running();
}

/// How many CPUs run. They have the numbers below only if all have been started that the MADT names.
pub fn count() -> u32 {
    RUNNING.load(Ordering::Acquire)
}

/// The CPUs that run, in the order of their numbers.
pub fn all() -> impl Iterator<Item = &'static Cpu> {
    let others = OTHERS.get().into_iter().flatten().copied();
    core::iter::once(&BOOT).chain(others).filter(|cpu| cpu.is_running())
}

/// The CPU with this number, if it runs.
pub fn get(number: u32) -> Option<&'static Cpu> {
    match number {
        0 => Some(&BOOT),
        _ => OTHERS.get()?.get(number as usize - 1).copied().filter(|cpu| cpu.is_running()),
    }
}

/// The boot CPU.
pub fn boot() -> &'static Cpu {
    &BOOT
}

/// Wakes a CPU that sleeps, or is about to, so that it looks again at what there is to do. What it is to find has been
/// stored before.
pub fn wake(cpu: &Cpu) {
    // Either this CPU sees that the other means to sleep, or the other sees what was stored: see `idle_unless`.
    fence(Ordering::SeqCst);
    if cpu.rest() != Rest::Awake {
        local_apic::send(cpu.apic_id(), vectors::WAKE);
    }
}

/// Set when the kernel has failed: every CPU but the one that reports it is to stand still.
static STOPPING: AtomicBool = AtomicBool::new(false);
/// How long the others are waited for, in ms: one that is lost does not keep the report from being made.
const STOP_PATIENCE: u32 = 200;

/// Has every other CPU stand still for good, by an NMI, and waits until they do.
pub(super) fn stop_others() {
    if count() == 1 {
        return;
    }
    STOPPING.store(true, Ordering::SeqCst);
    let this = Cpu::this().number();
    let others = || all().filter(move |cpu| cpu.number() != this);
    others().for_each(|cpu| local_apic::send_nmi(cpu.apic_id()));
    for _ in 0..STOP_PATIENCE {
        if others().all(Cpu::has_stopped) {
            return;
        }
        features::wait_some_ms(1);
    }
}

/// Stands still for good: the kernel has failed on another CPU, which tells of it.
pub(super) fn stop_this() -> ! {
    Cpu::this().stop()
}

/// Stands still for good if the kernel has failed on another CPU. Called for an NMI.
pub(super) fn stop_if_asked() {
    if STOPPING.load(Ordering::SeqCst) {
        stop_this();
    }
}
