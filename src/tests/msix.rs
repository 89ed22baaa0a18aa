//! MSI-X on a real device: an entropy device raises the vector that it was given, unless it is masked, and then later.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ballonet::pci::{Bars, Command, ConfigSpace, Function, Msix, MsixTable, MsixVector, capability};
use ballonet::platform::{DmaMemory, Handled, Platform, Registers};
use ballonet::virtio::spec::{Features, VENDOR};
use ballonet::virtio::{
    Alignment, Capabilities, Chain, Device, Doorbell, DriverOk, InterruptMode, Interrupts, Layout, Modern, Queue,
    QueueIndex, QueueName, Segment, SplitQueue, Transport, Wanted, find_vqs,
};
use ballonet_kernel::machine::cpus::{self, Cpu};
use ballonet_kernel::machine::dma::DmaRegion;
use ballonet_kernel::machine::mmio::Window;
use ballonet_kernel::machine::{Machine, vectors};

use crate::suite::{Context, Skip, kernel_test};
use crate::support::{ONE_CPU, pass, wait_until};

/// The PCI device IDs of an entropy device, modern and transitional (virtio 1.4, 4.1.2.1).
const ENTROPY: [u16; 2] = [0x1044, 0x1005];
/// Bytes of entropy in a request.
const BYTES: u32 = 16;
/// The table entry of the queue, after that for configuration changes.
const QUEUE_ENTRY: u16 = 1;
/// How long something that must not happen is waited for.
const LONG_NS: u64 = 20_000_000;

fn must<T, E: core::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// An entropy device that is running, with a vector for its only queue.
struct Entropy {
    function: Function,
    bars: Bars,
    device: Device<Modern<Window>, DriverOk>,
    queue: SplitQueue<DmaRegion, ()>,
    doorbell: Doorbell,
    buffer: DmaRegion,
    interrupts: Interrupts<Window>,
}

impl Entropy {
    fn start(context: &mut Context) -> Result<Self, Skip> {
        let Context { machine, tree } = context;
        let is_entropy = |function: &Function| function.vendor() == VENDOR && ENTROPY.contains(&function.device());
        let node = tree.nodes().iter().find(|node| is_entropy(node.function()));
        let node = node.ok_or_else(|| Skip::because("there is no virtio entropy device on PCI"))?;
        let (function, bars) = (*node.function(), *node.bars());
        if must(Msix::find(machine.config(), &function, &bars)).is_none() {
            return Err(Skip::because("the virtio entropy device has no MSI-X"));
        }
        tree.open_path(machine.config(), function.bdf());
        function.enable(machine.config(), Command::MEMORY | Command::BUS_MASTER);
        let found = must(Capabilities::find(machine.config(), &function, &bars));
        let capabilities = found.ok_or_else(|| Skip::because("the virtio entropy device is a legacy one"))?;
        let transport = must(Modern::new(machine, &capabilities));
        let device = must(Device::new(transport, machine).map_err(|failure| failure.error));
        let wanted = Wanted { implemented: Features::VERSION_1, declined: Features::empty(), dependencies: &[] };
        let mut device = must(device.acknowledge().driver().negotiate(&wanted).map_err(|failure| failure.error));

        let index = QueueIndex::new(0).expect("a small number");
        let queues = [QueueName { index, name: "requests" }];
        let mode = Some(InterruptMode::PerQueue);
        let interrupts = must(find_vqs(machine, &mut device, (&function, &bars), "entropy", &queues, mode));
        let layout = Layout::new(8, Alignment::Modern).expect("a power of two");
        let queue = must(SplitQueue::allocate(machine, index, layout, Default::default()));
        let doorbell = must(device.enable_queue(index, layout.size(), queue.addresses()));
        let buffer = must(machine.allocate_dma(BYTES as usize, BYTES as usize));
        Ok(Self { function, bars, device: device.driver_ok(), queue, doorbell, buffer, interrupts })
    }

    /// The CPU's vector of the queue.
    fn vector(&self) -> u8 {
        let vector = &self.interrupts.vectors()[usize::from(QUEUE_ENTRY)];
        u8::try_from(vector.number).expect("a message's vector")
    }

    /// How often the queue has interrupted.
    fn interrupted(&self) -> u64 {
        vectors::counted(self.vector())
    }

    fn table(&mut self) -> &mut MsixTable<Window> {
        self.interrupts.table_mut().expect("there is one in this mode")
    }

    /// Asks for entropy.
    fn request(&mut self) {
        let segment = Segment { address: self.buffer.device_address(), length: BYTES };
        let added = self.queue.add(Chain::writable(&[segment]), ());
        assert!(added.is_ok(), "{added:?}");
        if let Some(kick) = self.queue.publish() {
            self.device.kick(self.doorbell, kick);
        }
    }

    /// Waits for an answer, which need not have interrupted.
    fn receive(&mut self) {
        let mut completion = None;
        wait_until(|| {
            completion = must(self.queue.pop());
            completion.is_some()
        });
        assert!(completion.is_some_and(|completion| completion.written > 0), "an answer without entropy");
    }

    /// Whether the queue's entry waits to be sent.
    fn is_pending(&mut self) -> bool {
        must(self.table().is_pending(queue_entry()))
    }

    fn stop(self, machine: &mut Machine) {
        let (transport, stopped) = self.device.quiesce(machine, false);
        let proof = must(stopped);
        self.queue.release(machine, &proof);
        machine.release_dma(self.buffer);
        self.interrupts.release(machine, &self.function);
        transport.release(machine);
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
        let config = u8::try_from(entropy.interrupts.vectors()[0].number).expect("a message's vector");
        assert_eq!(vectors::counted(config), 0, "nothing was said about the configuration");
        assert!(entropy.interrupts.take() != ballonet::virtio::Pending::default(), "the handler has noted the queue");
        entropy.stop(&mut context.machine);
    }
}

kernel_test! {
    fn a_queue_interrupts_the_cpu_that_it_is_moved_to(context) {
        let cpus: Vec<u32> = cpus::all().map(Cpu::number).collect();
        if cpus.len() == 1 {
            return Err(Skip::because(ONE_CPU));
        }
        let mut entropy = Entropy::start(context)?;
        let vector = entropy.vector();
        let counts = || cpus::all().map(|cpu| cpu.counted(vector)).collect::<Vec<_>>();
        // There, and back.
        for &cpu in cpus.iter().chain(cpus.iter().rev()) {
            must(entropy.interrupts.set_queue_affinity(&mut context.machine, "requests", cpu));
            assert_eq!(entropy.interrupts.queue_affinity(&context.machine, "requests"), Some(cpu));
            let mut expected = counts();
            expected[cpu as usize] += 1;
            entropy.request();
            entropy.receive();
            wait_until(|| entropy.interrupted() == expected.iter().sum());
            assert_eq!(counts(), expected, "interrupts by CPU, after one that was CPU {cpu}'s");
        }
        let refused = entropy.interrupts.set_queue_affinity(&mut context.machine, "requests", cpus::count());
        assert!(refused.is_err(), "there is no such CPU");
        entropy.interrupts.synchronize(&mut context.machine);
        entropy.stop(&mut context.machine);
    }
}

kernel_test! {
    fn vectors_are_spread_over_the_cpus(context) {
        if cpus::count() == 1 {
            return Err(Skip::because(ONE_CPU));
        }
        let mut taken = Vec::new();
        let before: Vec<_> = cpus::all().map(|cpu| vectors::on_cpu(cpu.number())).collect();
        for _ in 0..4 * cpus::count() {
            let vector = context.machine.allocate_vector("spread".into(), Box::new(|| Handled::Yes));
            taken.push(vector.expect("a vector is free"));
        }
        let after: Vec<_> = cpus::all().map(|cpu| vectors::on_cpu(cpu.number())).collect();
        taken.into_iter().for_each(|vector| context.machine.release_vector(vector));
        let (least, most) = (after.iter().min(), after.iter().max());
        assert!(least.zip(most).is_some_and(|(least, most)| most - least <= 1), "{before:?} before, {after:?} then");
    }
}

kernel_test! {
    fn answers_to_two_requests_differ(context) {
        let mut entropy = Entropy::start(context)?;
        let mut answers = [[0; BYTES as usize]; 2];
        for answer in &mut answers {
            entropy.request();
            entropy.receive();
            entropy.buffer.read_bytes(0, answer);
        }
        assert_ne!(answers[0], answers[1]);
        entropy.stop(&mut context.machine);
    }
}

kernel_test! {
    fn a_masked_entry_keeps_its_message_pending_until_it_is_unmasked(context) {
        let mut entropy = Entropy::start(context)?;
        must(entropy.table().mask(queue_entry()));
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
        let messages: Vec<_> = entropy.interrupts.vectors().iter().map(|vector| vector.message).collect();
        for (message, entry) in messages.into_iter().zip(0..) {
            let entry = MsixVector::new(entry).expect("a small number");
            assert_eq!(Some(must(entropy.table().message(entry))), message);
            assert!(!must(entropy.table().is_masked(entry)));
        }
        entropy.stop(&mut context.machine);
    }
}

kernel_test! {
    fn after_release_msix_is_off_its_entries_masked_and_vectors_and_memory_back(context) {
        let vectors_before = vectors::allocated();
        let used = || ballonet_kernel::machine::frames::counts().used;
        // Once before, so that page tables and heap have grown as far as they will.
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
        let table = must(machine.map(msix.table()));
        let masked = (0..usize::from(msix.entries())).all(|entry| table.read32(16 * entry + 12) & 1 != 0);
        machine.unmap(table);
        assert!(masked, "an entry is not masked");
        assert_ne!(machine.config().read32(function.bdf(), 0), u32::MAX, "it still answers");
    }
}
