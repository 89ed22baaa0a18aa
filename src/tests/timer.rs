//! The timer: never early, never lost.

use crate::machine::{clock, idle_unless, sleep, timer, vectors};

use crate::tests::suite::{Test, kernel_test, tests};
use crate::tests::support::{pass, wait_until};

pub(super) const TESTS: &[Test] = tests![
    it_never_fires_early,
    a_deadline_in_the_past_fires,
    a_sleep_is_never_short,
    it_fires_once,
    arming_again_replaces_the_deadline,
    disarming_keeps_it_from_firing,
    idling_does_not_wait_when_something_is_pending,
    idling_never_misses_the_interrupt_that_comes_just_before,
];

/// Waits for the timer as the kernel does.
fn sleep_until_fired() {
    while !timer::take_fired() {
        idle_unless(timer::has_fired);
    }
}

kernel_test! {
    fn it_never_fires_early() {
        for step in 0..400_u64 {
            let deadline = clock::nanoseconds() + step * step * 20;
            timer::arm_at(deadline);
            wait_until(timer::has_fired);
            let now = clock::nanoseconds();
            assert!(timer::take_fired() && now >= deadline, "{} ns early", deadline - now);
        }
    }
}

kernel_test! {
    fn a_deadline_in_the_past_fires() {
        for deadline in [0, 1, clock::nanoseconds() / 2, clock::nanoseconds()] {
            timer::arm_at(deadline);
            sleep_until_fired();
        }
    }
}

kernel_test! {
    fn a_sleep_is_never_short() {
        for nanoseconds in [0, 1, 50_000, 3_000_000] {
            let start = clock::nanoseconds();
            sleep(nanoseconds);
            let slept = clock::nanoseconds() - start;
            assert!(slept >= nanoseconds && !timer::has_fired(), "slept {slept} of {nanoseconds} ns");
        }
    }
}

kernel_test! {
    fn it_fires_once() {
        let before = vectors::counted(vectors::TIMER);
        timer::arm_at(clock::nanoseconds() + 1_000_000);
        sleep_until_fired();
        pass(20_000_000);
        assert!(!timer::has_fired());
        assert!(vectors::counted(vectors::TIMER) > before);
    }
}

kernel_test! {
    fn arming_again_replaces_the_deadline() {
        timer::arm_at(clock::nanoseconds() + 10_000_000);
        timer::arm_at(clock::nanoseconds() + 3_600_000_000_000);
        // After a long pause of the host, the first deadline may have passed in between.
        timer::take_fired();
        pass(50_000_000);
        assert!(!timer::has_fired(), "the first deadline still held");
        let sooner = clock::nanoseconds() + 5_000_000;
        timer::arm_at(sooner);
        sleep_until_fired();
        assert!(clock::nanoseconds() >= sooner);
    }
}

kernel_test! {
    fn disarming_keeps_it_from_firing() {
        timer::arm_at(clock::nanoseconds() + 10_000_000);
        timer::disarm();
        // After a long pause of the host, it may have fired in between.
        timer::take_fired();
        pass(50_000_000);
        assert!(!timer::has_fired());
    }
}

kernel_test! {
    fn idling_does_not_wait_when_something_is_pending() {
        timer::disarm();
        // With nothing to wake the CPU, waiting would never end.
        for _ in 0..1000 {
            idle_unless(|| true);
        }
        assert!(x86_64::instructions::interrupts::are_enabled());
    }
}

kernel_test! {
    fn idling_never_misses_the_interrupt_that_comes_just_before() {
        // The moments range from long before the CPU halts to long after. A lost wake-up would halt it permanently.
        for round in 0..5000_u64 {
            timer::arm_at(clock::nanoseconds() + round % 500 * 100);
            sleep_until_fired();
        }
    }
}
