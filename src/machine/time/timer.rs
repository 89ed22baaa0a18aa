//! One timer interrupt at a requested moment, from the local APIC, by TSC deadline if the CPU has it.

use alloc::string::String;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::machine::cpu::cpuid::Features;
use crate::machine::interrupts::{local_apic, vectors};
use crate::machine::time::clock;
use ballonet::platform::Handled;

static DEADLINES: AtomicBool = AtomicBool::new(false);
static FIRED: AtomicBool = AtomicBool::new(false);
/// The requested moment, in nanoseconds since entry; `NEVER` if none is.
static DEADLINE: AtomicU64 = AtomicU64::new(NEVER);
const NEVER: u64 = u64::MAX;

/// Sets the timer up. The clock has been calibrated.
pub(crate) fn initialise(features: &Features) {
    DEADLINES.store(features.tsc_deadline, Ordering::Relaxed);
    vectors::install(vectors::TIMER, String::from("timer"), vectors::Handler::new(interrupt));
    take_back();
}

/// Takes the local APIC's timer back, disarmed, from its other user.
pub(crate) fn take_back() {
    DEADLINE.store(NEVER, Ordering::Relaxed);
    local_apic::start_countdown(0, vectors::TIMER);
    if DEADLINES.load(Ordering::Relaxed) {
        local_apic::use_deadlines(vectors::TIMER);
    }
}

fn interrupt() -> Handled {
    match DEADLINE.load(Ordering::Relaxed) {
        // It was pending when the timer was disarmed.
        NEVER => {}
        // A countdown has only 32 bits, so it may expire early: then wait again.
        deadline if clock::nanoseconds() < deadline => program(deadline),
        _ => {
            DEADLINE.store(NEVER, Ordering::Relaxed);
            FIRED.store(true, Ordering::Release);
        }
    }
    Handled::Yes
}

/// Requests an interrupt at `deadline` nanoseconds since entry, instead of any earlier request.
pub(crate) fn arm_at(deadline: u64) {
    if DEADLINE.load(Ordering::Relaxed) == deadline {
        // Programming it costs an exit to the hypervisor.
        return;
    }
    DEADLINE.store(deadline, Ordering::Relaxed);
    program(deadline);
}

/// Disarms the timer.
pub(crate) fn disarm() {
    if DEADLINE.load(Ordering::Relaxed) == NEVER {
        return;
    }
    DEADLINE.store(NEVER, Ordering::Relaxed);
    if DEADLINES.load(Ordering::Relaxed) {
        local_apic::set_deadline(0);
    } else {
        local_apic::start_countdown(0, vectors::TIMER);
    }
}

/// Whether the timer has fired since the last call.
pub(crate) fn take_fired() -> bool {
    FIRED.swap(false, Ordering::Acquire)
}

/// Whether the timer has fired since the last call of [`take_fired`].
pub(crate) fn has_fired() -> bool {
    FIRED.load(Ordering::Acquire)
}

fn program(deadline: u64) {
    if DEADLINES.load(Ordering::Relaxed) {
        // A deadline of 0 would disarm.
        local_apic::set_deadline(clock::tsc_at(deadline).max(1));
        return;
    }
    let apic_hz = clock::rate().map_or(0, |rate| rate.apic_hz);
    let wait = deadline.saturating_sub(clock::nanoseconds());
    let ticks = u128::from(wait) * u128::from(apic_hz) / 1_000_000_000;
    local_apic::start_countdown(u32::try_from(ticks).unwrap_or(u32::MAX).max(1), vectors::TIMER);
}
