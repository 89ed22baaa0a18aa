//! MSI-X on a real device: an entropy device raises its assigned vector; if the vector is masked, later.

use alloc::vec::Vec;

use crate::machine::mmio::Window;
use crate::machine::smp::{self, Cpu};
use crate::machine::{Machine, vectors};
use ballonet::pci::{Bars, ConfigSpace, Function, Msix, MsixTable, MsixVector, capability};
use ballonet::platform::{Handled, Platform, Registers};
use ballonet::rng::Rng;
use ballonet::virtio::spec::DeviceType;
use ballonet::virtio::{DeviceOptions, InterruptMode, Interrupts, Pending};

use crate::tests::suite::{Context, Skip, Test, kernel_test, tests};
use crate::tests::support::{ONE_CPU, pass, wait_until};

pub(super) const TESTS: &[Test] = tests![
    a_device_raises_the_vector_it_was_given,
    a_queue_interrupts_the_cpu_that_it_is_moved_to,
    vectors_are_spread_over_the_cpus,
    answers_to_two_requests_differ,
    a_masked_entry_keeps_its_message_pending_until_it_is_unmasked,
    a_masked_function_keeps_its_message_pending_until_it_is_unmasked,
    an_entry_holds_the_message_of_its_vector,
    after_release_msix_is_off_its_entries_masked_and_vectors_and_memory_back,
];

/// Bytes of entropy in a request.
const BYTES: usize = 16;
/// The table entry for configuration changes.
const CONFIG_ENTRY: u16 = 0;
/// The table entry of the queue, after that for configuration changes.
const QUEUE_ENTRY: u16 = 1;
/// Offset of the vector control register in an entry of the table, and its only bit: the entry is masked.
const CONTROL: usize = 12;
const MASKED: u32 = 1;
/// How long to wait for something that must not happen.
const LONG_NS: u64 = 20_000_000;

fn must<T, E: core::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// A running entropy device, with a vector for its only queue.
struct Entropy {
    function: Function,
    bars: Bars,
    rng: Rng<Machine>,
}

impl Entropy {
    fn start(context: &mut Context) -> Result<Self, Skip> {
        let Context { machine, tree } = context;
        let is_entropy = |function: &Function| DeviceType::ENTROPY.is_function(function.vendor, function.device);
        let node = tree.nodes().iter().find(|node| is_entropy(&node.function));
        let node = node.ok_or_else(|| Skip::because("there is no virtio entropy device on PCI"))?;
        let (function, bars) = (node.function, node.bars);
        if must(Msix::find(machine.config(), &function, &bars)).is_none() {
            return Err(Skip::because("the virtio entropy device has no MSI-X"));
        }
        tree.open_path(machine.config(), function.bdf);
        let mut options = DeviceOptions::new("entropy");
        options.interrupts = Some(InterruptMode::PerQueue);
        let rng = must(Rng::probe(machine, function.bdf, options));
        Ok(Self { function, bars, rng })
    }

    fn interrupts(&mut self) -> &mut Interrupts<Window> {
        &mut self.rng.running.interrupts
    }

    /// The CPU's vector of an entry of the table.
    fn vector(&mut self, entry: u16) -> u8 {
        let vector = &self.interrupts().vectors()[usize::from(entry)];
        u8::try_from(vector.number).expect("a message's vector")
    }

    /// Number of interrupts of the queue.
    fn interrupted(&mut self) -> u64 {
        vectors::counted(self.vector(QUEUE_ENTRY))
    }

    fn table(&mut self) -> &mut MsixTable<Window> {
        self.interrupts().table_mut().expect("there is one in this mode")
    }

    /// Does something with the table's registers.
    fn registers<T>(&self, machine: &mut Machine, act: impl FnOnce(&mut Window) -> T) -> T {
        let msix = must(Msix::find(machine.config(), &self.function, &self.bars)).expect("it has the capability");
        let mut table = must(machine.map(msix.table));
        let result = act(&mut table);
        machine.unmap(table);
        result
    }

    /// Requests entropy.
    fn request(&mut self) {
        self.rng.request(BYTES);
    }

    /// Waits for an answer, with or without an interrupt.
    fn receive(&mut self) -> [u8; BYTES] {
        let (mut bytes, mut count) = ([0; BYTES], None);
        wait_until(|| {
            count = must(self.rng.poll(&mut bytes));
            count.is_some()
        });
        assert!(count.is_some_and(|count| count > 0), "an answer without entropy");
        bytes
    }

    /// Whether the queue's entry has a pending interrupt.
    fn is_pending(&mut self) -> bool {
        must(self.table().is_pending(queue_entry()))
    }

    fn stop(self, machine: &mut Machine) {
        must(self.rng.shutdown(machine));
    }
}

fn queue_entry() -> MsixVector {
    MsixVector::new(QUEUE_ENTRY).expect("a small number")
}

kernel_test! {
    fn a_device_raises_the_vector_it_was_given(context) {
        let mut entropy = Entropy::start(context)?;
        for round in 1..=20 {
            entropy.request();
            entropy.receive();
            wait_until(|| entropy.interrupted() == round);
        }
        assert_eq!(vectors::counted(entropy.vector(CONFIG_ENTRY)), 0, "there was no configuration interrupt");
        // Taking an answer also takes the handler's note: leave this answer for now.
        entropy.request();
        wait_until(|| entropy.interrupted() == 21);
        assert!(entropy.interrupts().take() != Pending::default(), "the handler has noted the queue");
        entropy.receive();
        entropy.stop(&mut context.machine);
    }
}

kernel_test! {
    fn a_queue_interrupts_the_cpu_that_it_is_moved_to(context) {
        let cpus: Vec<u32> = smp::all().map(Cpu::number).collect();
        if cpus.len() == 1 {
            return Err(Skip::because(ONE_CPU));
        }
        let mut entropy = Entropy::start(context)?;
        let vector = entropy.vector(QUEUE_ENTRY);
        let counts = || smp::all().map(|cpu| cpu.counted(vector)).collect::<Vec<_>>();
        // Up and back down.
        for &cpu in cpus.iter().chain(cpus.iter().rev()) {
            must(entropy.interrupts().set_queue_affinity(&mut context.machine, "requests", cpu));
            assert_eq!(entropy.interrupts().queue_affinity(&context.machine, "requests"), Some(cpu));
            let mut expected = counts();
            expected[cpu as usize] += 1;
            entropy.request();
            entropy.receive();
            wait_until(|| entropy.interrupted() == expected.iter().sum::<u64>());
            assert_eq!(counts(), expected, "interrupts by CPU, after one that was CPU {cpu}'s");
        }
        let refused = entropy.interrupts().set_queue_affinity(&mut context.machine, "requests", smp::count());
        assert!(refused.is_err(), "there is no such CPU");
        entropy.interrupts().synchronize(&mut context.machine);
        entropy.stop(&mut context.machine);
    }
}

kernel_test! {
    fn vectors_are_spread_over_the_cpus(context) {
        if smp::count() == 1 {
            return Err(Skip::because(ONE_CPU));
        }
        let mut taken = Vec::new();
        let before: Vec<_> = smp::all().map(|cpu| vectors::on_cpu(cpu.number())).collect();
        for _ in 0..4 * smp::count() {
            let vector = context.machine.allocate_vector(format_args!("spread"), vectors::Handler::new(|| Handled::Yes));
            taken.push(vector.expect("a vector is free"));
        }
        let after: Vec<_> = smp::all().map(|cpu| vectors::on_cpu(cpu.number())).collect();
        taken.into_iter().for_each(|vector| context.machine.release_vector(vector));
        let (least, most) = (after.iter().min(), after.iter().max());
        assert!(least.zip(most).is_some_and(|(least, most)| most - least <= 1), "{before:?} before, {after:?} then");
    }
}

kernel_test! {
    fn answers_to_two_requests_differ(context) {
        let mut entropy = Entropy::start(context)?;
        let answers = [(); 2].map(|()| {
            entropy.request();
            entropy.receive()
        });
        assert_ne!(answers[0], answers[1]);
        entropy.stop(&mut context.machine);
    }
}

kernel_test! {
    fn a_masked_entry_keeps_its_message_pending_until_it_is_unmasked(context) {
        let mut entropy = Entropy::start(context)?;
        let control = 16 * usize::from(QUEUE_ENTRY) + CONTROL;
        entropy.registers(&mut context.machine, |table| table.write32(control, table.read32(control) | MASKED));
        assert!(!entropy.is_pending());
        entropy.request();
        entropy.receive();
        wait_until(|| entropy.is_pending());
        pass(LONG_NS);
        assert_eq!(entropy.interrupted(), 0, "a masked entry interrupts");
        must(entropy.table().unmask(queue_entry()));
        wait_until(|| entropy.interrupted() == 1);
        assert!(!entropy.is_pending(), "it was sent");
        entropy.stop(&mut context.machine);
    }
}

kernel_test! {
    fn a_masked_function_keeps_its_message_pending_until_it_is_unmasked(context) {
        let mut entropy = Entropy::start(context)?;
        entropy.table().set_function_mask(context.machine.config(), true);
        entropy.request();
        entropy.receive();
        wait_until(|| entropy.is_pending());
        pass(LONG_NS);
        assert_eq!(entropy.interrupted(), 0, "a masked function interrupts");
        entropy.table().set_function_mask(context.machine.config(), false);
        wait_until(|| entropy.interrupted() == 1);
        assert!(!entropy.is_pending(), "it was sent");
        entropy.stop(&mut context.machine);
    }
}

kernel_test! {
    fn an_entry_holds_the_message_of_its_vector(context) {
        let mut entropy = Entropy::start(context)?;
        let messages: Vec<_> = entropy.interrupts().vectors().iter().map(|vector| vector.message).collect();
        for (message, entry) in messages.into_iter().zip(0..) {
            let message = message.expect("a vector of MSI-X has a message");
            let expected = [message.address as u32, (message.address >> 32) as u32, message.data, 0];
            let read = |table: &mut Window| [0, 4, 8, CONTROL].map(|at| table.read32(16 * entry + at));
            let [address, high, data, control] = entropy.registers(&mut context.machine, read);
            assert_eq!([address, high, data, control & MASKED], expected, "address, data, mask");
        }
        entropy.stop(&mut context.machine);
    }
}

kernel_test! {
    fn after_release_msix_is_off_its_entries_masked_and_vectors_and_memory_back(context) {
        let vectors_before = vectors::allocated();
        let used = || crate::machine::frames::counts().used;
        // One round before, so that page tables and heap have their final size.
        Entropy::start(context)?.stop(&mut context.machine);
        let used_before = used();

        let mut entropy = Entropy::start(context)?;
        entropy.request();
        entropy.receive();
        let (function, bars) = (entropy.function, entropy.bars);
        let machine = &mut context.machine;
        entropy.stop(machine);
        assert_eq!((vectors::allocated(), used()), (vectors_before, used_before), "vectors, frames");

        let capability = must(function.capability(machine.config(), capability::id::MSI_X));
        let capability = capability.expect("it has the capability");
        const ENABLED: u16 = 1 << 15;
        assert_eq!(must(capability.read16(machine.config(), 2)) & ENABLED, 0, "MSI-X is still on");
        let msix = must(Msix::find(machine.config(), &function, &bars)).expect("it has the capability");
        let table = must(machine.map(msix.table));
        let masked = (0..usize::from(msix.entries)).all(|entry| table.read32(16 * entry + CONTROL) & MASKED != 0);
        machine.unmap(table);
        assert!(masked, "an entry is not masked");
        assert_ne!(machine.config().read32(function.bdf, 0), u32::MAX, "it still answers");
    }
}
