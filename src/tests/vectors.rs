//! Interrupt vectors: each allocated once, freed, and silent from then on.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::machine::{local_apic, smp, vectors};
use ballonet::platform::{Handled, Platform, VectorError};

use crate::tests::suite::{Test, kernel_test, tests};
use crate::tests::support::{Counter, pass, wait_until};

pub(super) const TESTS: &[Test] = tests![
    all_vectors_can_be_had_once_and_no_more,
    every_device_vector_can_be_delivered,
    a_released_vector_does_not_run_its_handler_any_more,
    an_unclaimed_interrupt_is_counted,
    a_platform_vector_has_the_message_that_raises_it,
];

kernel_test! {
    fn all_vectors_can_be_had_once_and_no_more() {
        let before = vectors::allocated();
        let mut taken = Vec::new();
        let error = loop {
            match vectors::allocate(String::from("all"), vectors::Handler::new(|| Handled::Yes)) {
                Ok(vector) => taken.push(vector),
                Err(error) => break error,
            }
        };
        assert_eq!(error, VectorError::Exhausted(vectors::DEVICE_VECTORS));
        assert_eq!(before + taken.len(), vectors::DEVICE_VECTORS as usize);
        assert!(taken.is_sorted_by(|a, b| a < b), "each once: {taken:?}");
        taken.into_iter().for_each(vectors::release);
        assert_eq!(vectors::allocated(), before);
        let again = Counter::new("again");
        assert!(again.vector >= vectors::FIRST_EXTERNAL);
    }
}

kernel_test! {
    fn every_device_vector_can_be_delivered() {
        let free = vectors::allocated()..vectors::DEVICE_VECTORS as usize;
        let counters: Vec<_> = free.map(|_| Counter::new("each")).collect();
        for counter in &counters {
            local_apic::send_to_self(counter.vector);
            counter.wait_for(1);
        }
        assert!(counters.iter().all(|counter| counter.count() == 1 && vectors::counted(counter.vector) == 1));
    }
}

kernel_test! {
    fn a_released_vector_does_not_run_its_handler_any_more() {
        let count = Arc::new(AtomicU64::new(0));
        let handlers = Arc::clone(&count);
        let handler = move || {
            handlers.fetch_add(1, Ordering::SeqCst);
            Handled::Yes
        };
        let vector = vectors::allocate(String::from("short"), vectors::Handler::new(handler)).expect("a vector is free");
        local_apic::send_to_self(vector);
        wait_until(|| count.load(Ordering::SeqCst) == 1);
        vectors::release(vector);
        assert_eq!(Arc::strong_count(&count), 1, "the handler is dropped");
        let before = vectors::counted(vector);
        local_apic::send_to_self(vector);
        wait_until(|| vectors::counted(vector) > before);
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert_eq!(local_apic::in_service(), None, "an unclaimed interrupt is acknowledged all the same");
    }
}

kernel_test! {
    fn an_unclaimed_interrupt_is_counted() {
        let vector = vectors::allocate(String::from("not-mine"), vectors::Handler::new(|| Handled::No)).expect("a vector is free");
        local_apic::send_to_self(vector);
        wait_until(|| vectors::counted(vector) == 1);
        pass(1_000_000);
        let view = vectors::views().find(|view| view.vector == vector).expect("it has an owner");
        vectors::release(vector);
        assert_eq!((view.count, view.unclaimed, view.name.as_str()), (1, 1, "not-mine"));
    }
}

kernel_test! {
    fn a_platform_vector_has_the_message_that_raises_it(context) {
        let machine = &mut context.machine;
        let vector = machine.allocate_vector(format_args!("message"), vectors::Handler::new(|| Handled::Yes));
        let vector = vector.expect("a vector is free");
        let message = vector.message.expect("a vector for messages has one");
        let cpu = smp::get(machine.vector_affinity(&vector)).expect("it interrupts a CPU that runs");
        assert_eq!(message.address, 0xFEE0_0000 | u64::from(cpu.apic_id()) << 12);
        assert_eq!(message.data, vector.number);
        machine.release_vector(vector);
    }
}
