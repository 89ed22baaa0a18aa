//! Waiting for interrupts.

use core::sync::atomic::{Ordering, fence};

use x86_64::instructions::interrupts::{self, without_interrupts};

use super::cpu::{Cpu, SleepState};
use crate::machine::interrupts::{traps, vectors};
use crate::machine::paging::tlb;
use crate::machine::time::{clock, timer};

/// Waits for an interrupt, unless `is_pending` says that there is work already. Bits that a handler on this CPU sets
/// between the check and the wait are not lost: interrupts are off from before the check until the instruction after
/// `sti`, which is the `hlt` (SDM vol. 2, STI). Bits from another CPU are not lost either: either the check sees them,
/// or that CPU wakes this one ([`registry::wake`]).
pub(crate) fn idle_unless(is_pending: impl FnOnce() -> bool) {
    let cpu = Cpu::this();
    interrupts::disable();
    // After the check, or a device that never falls silent could get all interrupts blocked again before the CPU
    // sleeps.
    vectors::note_progress();
    cpu.set_sleep_state(SleepState::Looking);
    fence(Ordering::SeqCst);
    if is_pending() {
        cpu.set_sleep_state(SleepState::Awake);
        interrupts::enable();
    } else {
        cpu.fall_asleep();
        traps::enable_and_halt();
        // A maskable interrupt has marked it awake; anything else has not.
        without_interrupts(|| {
            cpu.set_sleep_state(SleepState::Awake);
            tlb::catch_up();
            cpu.note_slept();
        });
    }
}

/// Sleeps for this many nanoseconds. Only the boot CPU may, which has the timer.
pub(crate) fn sleep(nanoseconds: u64) {
    timer::take_fired();
    timer::arm_at(clock::nanoseconds().saturating_add(nanoseconds));
    while !timer::has_fired() {
        idle_unless(timer::has_fired);
    }
    timer::take_fired();
}

/// How long this CPU has slept since entry, in nanoseconds, including the interrupts that woke it; 0 until the clock's
/// rate is known.
pub(crate) fn asleep() -> u64 {
    Cpu::this().slept()
}
