//! The local APIC: its ID, and that it delivers, acknowledges and reports errors as it should.

use alloc::sync::Arc;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::machine::TrapFrame;
use crate::machine::{local_apic, recovery, vectors};

use crate::tests::suite::{Skip, Test, kernel_test, tests};
use crate::tests::support::{Counter, Hooked, pass, wait_until};

pub(super) const TESTS: &[Test] = tests![
    the_id_is_that_of_the_boot_processor_in_the_madt,
    it_is_in_x2apic_mode_where_the_cpu_offers_that,
    an_interrupt_to_self_is_delivered,
    an_interrupt_that_was_acknowledged_lets_the_next_of_its_priority_through,
    an_interrupt_is_in_service_while_its_handler_runs_and_no_longer,
    an_interrupt_waits_until_interrupts_are_on,
    a_spurious_interrupt_is_counted_and_not_acknowledged,
    it_has_reported_no_errors,
];

kernel_test! {
    fn the_id_is_that_of_the_boot_processor_in_the_madt(context) {
        let madt = context.machine.acpi.as_ref().and_then(|acpi| acpi.madt.as_ref());
        let boot = madt.and_then(|madt| madt.processors.first());
        let boot = boot.ok_or_else(|| Skip::because("no MADT has processors"))?;
        assert_eq!(local_apic::id(), boot.apic_id);
    }
}

kernel_test! {
    fn it_is_in_x2apic_mode_where_the_cpu_offers_that(context) {
        assert_eq!(local_apic::is_x2apic(), context.machine.features.x2apic);
        const APIC_BASE: u32 = 0x1B;
        // SAFETY: every x86-64 CPU has this MSR.
        let base = unsafe { x86_64::registers::model_specific::Msr::new(APIC_BASE).read() };
        let mode = (base >> 11 & 1, base >> 10 & 1);
        assert_eq!(mode, (1, local_apic::is_x2apic().into()), "enabled, x2APIC");
    }
}

kernel_test! {
    fn an_interrupt_to_self_is_delivered() {
        let counter = Counter::new("self");
        local_apic::send_to_self(counter.vector);
        counter.wait_for(1);
        assert_eq!(vectors::counted(counter.vector), 1);
    }
}

kernel_test! {
    fn an_interrupt_that_was_acknowledged_lets_the_next_of_its_priority_through() {
        let counters = [Counter::new("one"), Counter::new("other")];
        assert_eq!(counters[0].vector >> 4, counters[1].vector >> 4, "one priority");
        for round in 1..=100 {
            for counter in &counters {
                local_apic::send_to_self(counter.vector);
                counter.wait_for(round);
            }
        }
        assert_eq!(local_apic::in_service(), None);
    }
}

kernel_test! {
    fn an_interrupt_is_in_service_while_its_handler_runs_and_no_longer() {
        let was = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&was);
        let look = move || seen.store(local_apic::in_service().is_some(), Ordering::SeqCst);
        let counter = Counter::with("in-service", look);
        assert_eq!(local_apic::in_service(), None);
        local_apic::send_to_self(counter.vector);
        counter.wait_for(1);
        assert!(was.load(Ordering::SeqCst));
        assert_eq!(local_apic::in_service(), None);
    }
}

kernel_test! {
    fn an_interrupt_waits_until_interrupts_are_on() {
        let counter = Counter::new("held-back");
        x86_64::instructions::interrupts::without_interrupts(|| {
            local_apic::send_to_self(counter.vector);
            pass(1_000_000);
            assert_eq!(counter.count(), 0);
        });
        counter.wait_for(1);
    }
}

/// The vector that [`leave_in_service`] does not acknowledge.
static LEFT: AtomicU8 = AtomicU8::new(0);

fn leave_in_service(frame: &mut TrapFrame) -> bool {
    frame.vector == u64::from(LEFT.load(Ordering::SeqCst)) || recovery::abandon_on_exception(frame)
}

kernel_test! {
    fn a_spurious_interrupt_is_counted_and_not_acknowledged() {
        let counter = Counter::new("in-service");
        LEFT.store(counter.vector, Ordering::SeqCst);
        let hooked = Hooked::with(leave_in_service);
        local_apic::send_to_self(counter.vector);
        wait_until(|| local_apic::in_service() == Some(counter.vector));
        drop(hooked);
        let before = vectors::counted(vectors::SPURIOUS);
        // SAFETY: the vector has a gate, whose stub preserves all registers.
        unsafe { asm!("int {}", const vectors::SPURIOUS) };
        // Acknowledging it would have ended the other interrupt.
        let left = local_apic::in_service();
        local_apic::end_of_interrupt();
        assert_eq!(vectors::counted(vectors::SPURIOUS), before + 1);
        assert_eq!(left, Some(counter.vector), "the spurious interrupt was acknowledged");
        assert_eq!(local_apic::in_service(), None);
    }
}

kernel_test! {
    fn it_has_reported_no_errors() {
        assert_eq!((local_apic::errors(), vectors::counted(vectors::APIC_ERROR)), (0, 0));
    }
}
