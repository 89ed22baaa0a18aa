//! Waiting for interrupts.

use core::sync::atomic::{Ordering, fence};

use x86_64::instructions::interrupts::{self, without_interrupts};

use super::cpu::{Cpu, SleepState};
use crate::machine::interrupts::{traps, vectors};
use crate::machine::paging::tlb;

/// Waits for an interrupt, unless `is_pending` says that there is something to do already. What a handler on this CPU
/// notes between the question and the wait is not lost: interrupts are off from before the one until the instruction
/// after `sti`, which is the other (SDM vol. 2, STI). What another CPU notes is not lost either: it wakes this one, see
/// [`registry::wake`], unless it has noted it before the question.
pub(crate) fn idle_unless(is_pending: impl FnOnce() -> bool) {
    let cpu = Cpu::this();
    interrupts::disable();
    // Behind that, or a device that never falls silent could have everything held back once more before the CPU sleeps.
    vectors::note_progress();
    cpu.set_sleep_state(SleepState::Looking);
    fence(Ordering::SeqCst);
    if is_pending() {
        cpu.set_sleep_state(SleepState::Awake);
        interrupts::enable();
    } else {
        cpu.fall_asleep();
        traps::enable_and_halt();
        // A maskable interrupt has set it awake, anything else has not.
        without_interrupts(|| {
            cpu.set_sleep_state(SleepState::Awake);
            tlb::catch_up();
            cpu.note_slept();
        });
    }
}

/// How long this CPU has slept since entry, in nanoseconds, with the interrupts that woke it; 0 until the clock's rate
/// is known.
pub(crate) fn asleep() -> u64 {
    Cpu::this().slept()
}
