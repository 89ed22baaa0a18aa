//! Proves that a failure is detected, reported and contained: tests that fail on purpose, in each possible way.

use alloc::string::String;
use core::arch::asm;

use crate::machine::{frames, local_apic, paging, vectors};
use ballonet::platform::Handled;

use crate::tests::suite::{Test, kernel_test, tests};
use crate::tests::support::wait_until;

pub(super) const TESTS: &[Test] = tests![
    expected_failure_assertion,
    expected_failure_fault,
    expected_failure_in_handler,
    expected_failure_by_fault_in_handler,
    expected_failure_under_locks,
];

kernel_test! {
    fn expected_failure_assertion() {
        let one = core::hint::black_box(1);
        assert_eq!(one, 2, "a \"failure\" on purpose\twith what JSON escapes: \\");
    }
}

kernel_test! {
    fn expected_failure_fault() {
        // SAFETY: the exception ends the test before anything else runs.
        unsafe { asm!("ud2") };
    }
}

kernel_test! {
    fn expected_failure_in_handler() {
        let vector = vectors::allocate(String::from("panics"), vectors::Handler::new(|| panic!("in a handler, on purpose")));
        local_apic::send_to_self(vector.expect("a vector is free"));
        wait_until(|| false);
    }
}

kernel_test! {
    fn expected_failure_by_fault_in_handler() {
        let handler = || {
            // SAFETY: the exception ends the test before anything else runs.
            unsafe { asm!("ud2") };
            Handled::Yes
        };
        let vector = vectors::allocate(String::from("faults"), vectors::Handler::new(handler)).expect("a vector is free");
        local_apic::send_to_self(vector);
        wait_until(|| false);
    }
}

kernel_test! {
    fn expected_failure_under_locks() {
        paging::with(|_| frames::with(|_| panic!("with two locks held, on purpose")));
    }
}
