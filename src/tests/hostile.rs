//! Devices and firmware misbehave: the kernel continues.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::acpi::IoApic;
use crate::machine::io_apic::{self, IoApicError};
use crate::machine::paging::{self, Access, PagingError};
use crate::machine::{clock, frames, idle_unless, lines, local_apic, timer, vectors};
use ballonet::pci::Bdf;
use ballonet::platform::{Handled, Platform, RegisterWindow};
use ballonet::virtio::spec::Features;
use ballonet::virtio::{QueueIndex, QueueOptions, RingLayout, TransportKind, Virtqueue};

use crate::tests::suite::{Skip, Test, kernel_test, tests};
use crate::tests::support::{Counter, Storm, wait_until};

pub(super) const TESTS: &[Test] = tests![
    a_device_that_never_stops_interrupting_does_not_stop_the_kernel,
    messages_that_name_a_vector_above_all_devices_do_not_stop_the_kernel_either,
    a_storm_that_comes_when_the_kernel_means_to_sleep_lets_it_wake_up,
    messages_that_name_vectors_that_are_never_acknowledged_do_not_make_the_cpu_deaf,
    messages_that_name_an_exception_are_not_delivered,
    registers_in_memory_are_not_mapped,
    registers_of_the_board_are_not_mapped_whatever_a_bar_says,
    registers_of_another_function_are_not_mapped_while_they_are_in_use,
    a_queue_that_is_too_large_for_what_memory_is_left_is_an_error,
    an_io_apic_that_is_not_there_is_not_taken,
    a_line_learns_its_input_only_from_an_interrupt_that_no_other_claims,
];

/// Makes a vector's handler request the next interrupt, over and over. `take` assigns the handler a vector.
fn storm(take: impl FnOnce(vectors::Handler) -> u8) {
    /// The storm ends after this many interrupts, so that the test ends in any case.
    const ENOUGH: u64 = 300_000;
    let count = Arc::new(AtomicU64::new(0));
    let storm = Storm::new();
    let (counted, mut ask_again) = (Arc::clone(&count), storm.ask_again());
    let handler = move || {
        if counted.fetch_add(1, Ordering::SeqCst) < ENOUGH {
            ask_again();
        }
        Handled::Yes
    };
    let held = vectors::holds();
    let number = take(vectors::Handler::new(handler));
    storm.set_vector(number);
    local_apic::send_to_self(number);
    wait_until(|| count.load(Ordering::SeqCst) > 0);
    for _ in 0..20 {
        vectors::note_progress();
    }
    storm.stop();
    let came = count.load(Ordering::SeqCst);
    assert!(came < ENOUGH, "the storm took all of the CPU until it ended by itself");
    // Interrupts that were held back still arrive; after those there are none.
    wait_until(|| count.load(Ordering::SeqCst) > came);
    assert!(vectors::holds() > held);
    vectors::release(number);
    assert_eq!(local_apic::in_service(), None);
}

kernel_test! {
    fn a_device_that_never_stops_interrupting_does_not_stop_the_kernel() {
        storm(|handler| vectors::allocate(String::from("storm"), handler).expect("a vector is free"));
    }
}

kernel_test! {
    fn messages_that_name_a_vector_above_all_devices_do_not_stop_the_kernel_either() {
        // A device chooses the contents of its messages.
        let vector = vectors::APIC_ERROR - 1;
        storm(|handler| {
            vectors::install(vector, String::from("storm"), handler);
            vector
        });
    }
}

kernel_test! {
    fn a_storm_that_comes_when_the_kernel_means_to_sleep_lets_it_wake_up() {
        let storm = Storm::new();
        let counter = Counter::with("storm", storm.ask_again());
        storm.set_vector(counter.vector);
        timer::take_fired();
        timer::arm_at(clock::nanoseconds() + 50_000_000);
        local_apic::send_to_self(counter.vector);
        while !timer::has_fired() {
            idle_unless(timer::has_fired);
        }
        storm.stop();
        drop(counter);
        vectors::note_progress();
        assert_eq!(local_apic::in_service(), None);
    }
}

kernel_test! {
    fn messages_that_name_vectors_that_are_never_acknowledged_do_not_make_the_cpu_deaf() {
        let counter = Counter::new("after");
        for (sent, vector) in (1..).zip([vectors::SPURIOUS, vectors::PIC, vectors::PIC + 7, vectors::PIC + 15]) {
            local_apic::send_to_self(vector);
            local_apic::send_to_self(counter.vector);
            counter.wait_for(sent);
            assert_eq!(local_apic::in_service(), None, "vector {vector:#x}");
        }
    }
}

kernel_test! {
    fn messages_that_name_an_exception_are_not_delivered() {
        // The APIC accepts vectors from 16 on, and the CPU cannot tell such a message from the exception with that
        // number.
        let counter = Counter::new("after");
        for vector in 16..vectors::FIRST_EXTERNAL {
            let before = vectors::counted(vector);
            local_apic::send_to_self(vector);
            local_apic::send_to_self(counter.vector);
            counter.wait_for(u64::from(vector) - 15);
            assert_eq!(vectors::counted(vector), before, "vector {vector} was delivered");
        }
        // Nor after the kernel has held everything back and let it in again.
        local_apic::hold_up_to(vectors::SPURIOUS);
        local_apic::hold_none();
        local_apic::send_to_self(counter.vector);
        counter.wait_for(17);
        assert_eq!(local_apic::in_service(), None);
    }
}

kernel_test! {
    fn registers_in_memory_are_not_mapped(context) {
        let image = context.machine.image().place().start;
        let run = frames::allocate(1, 1).expect("a frame is free");
        let frame = run.address();
        let open = |address, length| {
            paging::with(|space| space.open_window(address, length, Access::Device, &mut frames::ForTables))
        };
        let before = paging::with(|space| space.windows());
        // The last range begins inside a VGA adapter's registers.
        for (address, length) in [(image, 4096), (frame, 32), (frame + 0x800, 4), (frame - 1, 2), (0xA_0000, 1 << 30)] {
            assert_eq!(open(address, length), Err(PagingError::Memory { address, length }), "{address:#x}+{length:#x}");
        }
        let function = Bdf::new(0, 0, 31, 7).expect("a place");
        let window = RegisterWindow { device: function.into(), bar: Some(0), io: false, address: frame, length: 64 };
        assert!(context.machine.map(window).is_err(), "a BAR in memory is mapped");
        let entry = |address| IoApic { id: 9, address, gsi_base: 1000 };
        let error = io_apic::add(&entry(run.start().start())).expect_err("an IOAPIC in memory is taken");
        assert!(matches!(error, IoApicError::Map(PagingError::Memory { .. })), "{error}");
        assert_eq!(paging::with(|space| space.windows()), before);
        frames::free(run).expect("it was allocated");
    }
}

kernel_test! {
    fn registers_of_the_board_are_not_mapped_whatever_a_bar_says(context) {
        let before = paging::with(|space| space.windows());
        let config = context.machine.config().regions().next().map(|region| region.range.start().as_u64());
        let memory = [0xFEC0_0000, 0xFED0_0000, 0xFEE0_0000, 0xFEEF_F000, 0xFEBF_F000 + 0x800].into_iter().chain(config);
        // The status register behind 0xE2 would make the kernel end.
        let ports = [0x20, 0x3F8, 0xCF8, 0xCFC, 0xE2, 0xFFF];
        for (io, address) in memory.map(|address| (false, address)).chain(ports.map(|port| (true, port))) {
            let function = Bdf::new(0, 0, 31, 7).expect("a place");
            let window = RegisterWindow { device: function.into(), bar: Some(0), io, address, length: 0x1000 };
            let Err(error) = context.machine.map(window) else { panic!("{window} is mapped") };
            assert_eq!(error.window, window);
        }
        assert_eq!(paging::with(|space| space.windows()), before);
    }
}

kernel_test! {
    fn registers_of_another_function_are_not_mapped_while_they_are_in_use(context) {
        let function = |number| Bdf::new(0, 0, 31, number).expect("a place");
        // Nothing is there, and nothing accesses it.
        for (io, address) in [(false, 0xF_F000_0000), (true, 0x5000)] {
            let of = |number, address, length| RegisterWindow {
                device: function(number).into(),
                bar: Some(0),
                io,
                address,
                length,
            };
            let own = context.machine.map(of(6, address + 0x40, 0x40)).expect("a free place");
            let again = context.machine.map(of(6, address, 0x80)).expect("parts of one function may overlap");
            context.machine.unmap(again);
            for (address, length) in [(address, 0x41), (address + 0x40, 0x40), (address + 0x7F, 1), (address, 0x100)] {
                assert!(context.machine.map(of(7, address, length)).is_err(), "{address:#x}+{length:#x} is mapped");
            }
            let beside = context.machine.map(of(7, address, 0x40)).expect("beside it");
            context.machine.unmap(beside);
            context.machine.unmap(own);
            let after = context.machine.map(of(7, address + 0x40, 0x40)).expect("it was unmapped");
            context.machine.unmap(after);
        }
    }
}

kernel_test! {
    fn a_queue_that_is_too_large_for_what_memory_is_left_is_an_error(context) {
        // A legacy device dictates the size of its queues.
        let layout = RingLayout::for_device(TransportKind::Legacy, Features::empty(), 32768, 0).expect("a power of two");
        let mut runs = Vec::with_capacity(16384);
        let mut size = 512;
        while size > 0 {
            match frames::allocate(size, 1) {
                Ok(run) => runs.push(run),
                Err(_) => size /= 2,
            }
            assert!(runs.len() < runs.capacity(), "memory is in more pieces than the test has room for");
        }
        // Less memory than the ring needs, and less than the kernel's own record of it: neither may end the kernel.
        for _ in 0..3 {
            let index = QueueIndex::new(0).expect("every device has one");
            let queue = Virtqueue::<_, [u64; 64]>::allocate(&mut context.machine, index, layout, QueueOptions::default());
            assert!(queue.is_err(), "a queue was made of nothing");
        }
        for run in runs {
            frames::free(run).expect("it was allocated");
        }
    }
}

kernel_test! {
    fn an_io_apic_that_is_not_there_is_not_taken() {
        // Nothing responds directly below the addresses that all PCs reserve for the chipset.
        let address = ballonet::memory::PhysAddr::new(0xFEBF_F000).expect("an address");
        let before = io_apic::end();
        assert_eq!(io_apic::add(&IoApic { id: 9, address, gsi_base: 1000 }), Err(IoApicError::Absent));
        assert_eq!(io_apic::end(), before);
    }
}

/// The inputs where the line of this name may arrive.
fn inputs(name: &str) -> Vec<u32> {
    lines::views().into_iter().find(|(known, ..)| known == name).map_or(Vec::new(), |(_, _, inputs)| inputs)
}

kernel_test! {
    fn a_line_learns_its_input_only_from_an_interrupt_that_no_other_claims(context) {
        let madt = context.machine.acpi.as_ref().and_then(|acpi| acpi.madt.as_ref());
        let asked = [Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false))];
        let mut ids = Vec::new();
        for (name, asked) in ["one", "two"].into_iter().zip(&asked) {
            let asked = Arc::clone(asked);
            // Like an ISR register: reading it clears the request.
            let handler = move || if asked.swap(false, Ordering::SeqCst) { Handled::Yes } else { Handled::No };
            let id = local_apic::id().try_into().map_err(|_| Skip::because("the IOAPIC cannot name this CPU"))?;
            let line = lines::attach(0xFF, madt, id, String::from(name), vectors::Handler::new(handler));
            ids.push(line.map_err(|refused| {
                assert_eq!(refused.error, None, "vectors are free");
                Skip::because("there is no IOAPIC")
            })?);
        }
        let [first, second, ..] = inputs("one")[..] else { return Err(Skip::because("there is but one input")) };
        let raise = |gsi: u32, who: &[usize]| {
            who.iter().for_each(|&who| asked[who].store(true, Ordering::SeqCst));
            let name = alloc::format!("GSI {gsi}");
            let view = vectors::views().find(|view| view.name == name).expect("the input has a vector");
            local_apic::send_to_self(view.vector);
            wait_until(|| vectors::counted(view.vector) > view.count);
        };
        raise(first, &[0, 1]);
        assert!(inputs("one").len() > 1 && inputs("two").len() > 1, "both asked: the owner of the input is unknown");
        raise(first, &[0]);
        assert_eq!(inputs("one"), [first]);
        raise(second, &[1]);
        assert_eq!(inputs("two"), [second]);
        ids.into_iter().for_each(|id| drop(lines::detach(id)));
    }
}
