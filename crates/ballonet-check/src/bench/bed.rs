//! The device brought up for a measurement: inflate and deflate queue, and their interrupts.

use alloc::vec::Vec;

use super::error::BenchError;
use ballonet::balloon::{Options, find_queues};
use ballonet::pci::Bdf;
use ballonet::platform::Platform;
use ballonet::virtio::spec::{DeviceType, Features};
use ballonet::virtio::{
    self, DeviceOptions, Doorbell, InterruptMode, Parts, QueueIndex, QueueSetup, Quiesced, Running, TransportKind,
    UsedLength, Virtqueue,
};

/// A queue whose requests lend nothing but what the traveller holds.
pub(super) type Vring<P> = Virtqueue<<P as Platform>::Memory, ()>;

/// A balloon's first two queues, wherever the others are (virtio 1.4, 5.5.2).
const QUEUES: [&str; 2] = ["inflate", "deflate"];
/// The place of the reporting queue among the queues of a bed, where it is wanted.
pub(super) const REPORTING: usize = QUEUES.len();

/// The largest queue that is made.
const QUEUE_SIZE_LIMIT: u16 = 256;

/// What every case accepts, if it is offered.
const ALWAYS: Features = Features::VERSION_1.union(Features::ACCESS_PLATFORM).union(Features::ANY_LAYOUT);

/// What the device is brought up with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    /// Features beyond those that are always accepted, all of them offered. They say how the queues are laid out.
    pub(super) features: Features,
    /// The most pieces of a request that go through a table; 0 for none.
    pub(super) indirect_entries: u16,
    /// The queue for reports of free pages, if it is wanted.
    pub(super) reporting: Option<QueueIndex>,
}

/// What a device offers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offer {
    pub(super) transport: TransportKind,
    /// A legacy device has no bits beyond the first 32, whatever it says.
    pub(super) features: Features,
    /// The queue for reports of free pages.
    pub(super) reporting: Option<QueueIndex>,
}

/// A device that runs, and all that it was given.
pub(super) struct Bed<P: Platform> {
    running: Running<P>,
    queues: Queues<P>,
    doorbells: Vec<Doorbell>,
}

/// What a request needs to travel.
pub(super) struct Lane<'a, P: Platform> {
    pub(super) running: &'a mut Running<P>,
    pub(super) queue: &'a mut Vring<P>,
    pub(super) doorbell: Doorbell,
}

/// The queues that a device is lent.
struct Queues<P: Platform>(Vec<Vring<P>>);

impl<P: Platform> Parts<P> for Queues<P> {
    fn release(self, platform: &mut P, proof: &Quiesced) {
        for queue in self.0 {
            queue.release(platform, proof);
        }
    }
}

/// What the device at `function` offers. The device has been reset.
pub(super) fn offered<P: Platform>(platform: &mut P, function: Bdf, options: &Options) -> Result<Offer, BenchError> {
    let mut setup = open(platform, function, options, (ALWAYS, Features::empty()))?;
    let found = find_queues(&mut setup);
    let (transport, offered) = (setup.device().transport().kind(), setup.device().offered());
    let legacy = Features::from_bits_retain(u32::MAX.into());
    let features = if transport.is_legacy() { offered & legacy } else { offered };
    setup.abandon(platform)?;
    Ok(Offer { transport, features, reporting: found?.0.reporting })
}

/// The device at `function`, reset and with these features accepted if it offers them, but for those declined.
fn open<P: Platform>(
    platform: &mut P,
    function: Bdf,
    options: &Options,
    (implemented, declined): (Features, Features),
) -> Result<virtio::Setup<P>, BenchError> {
    let mut chosen = DeviceOptions::new(options.name.clone());
    (chosen.transport, chosen.interrupts, chosen.declined) = (options.transport, options.interrupts, declined);
    Ok(virtio::Setup::open(platform, function, chosen, DeviceType::BALLOON, |_, _| implemented, |_, _| {})?)
}

impl<P: Platform> Bed<P> {
    /// Brings the device up.
    pub(super) fn make(platform: &mut P, function: Bdf, options: &Options, setup: Setup) -> Result<Self, BenchError> {
        let features = (ALWAYS | setup.features, options.declined);
        let device = open(platform, function, options, features)?;
        let (connected, queues, ()) =
            device.connect(platform, Queues(Vec::new()), |platform, device, queues| -> Result<_, BenchError> {
                for (index, name) in setup.queues() {
                    let (indirect_entries, used_length) = (setup.indirect_entries, UsedLength::Lenient);
                    let layout = device.layout(index, QUEUE_SIZE_LIMIT)?;
                    let wanted = QueueSetup { index, name: Some(name), layout, indirect_entries, used_length };
                    queues.0.push(device.add_queue(platform, &wanted)?);
                }
                Ok(())
            })?;
        let running = connected.run();
        let doorbells = queues.0.iter().map(|queue| running.doorbell(queue.index())).collect();
        Ok(Self { running, queues, doorbells })
    }

    /// Stops the device and gives everything back. Returns whether it has stopped, and so let go of all memory.
    pub(super) fn unmake(self, platform: &mut P) -> bool {
        self.running.stop(platform, self.queues, false).is_ok()
    }

    /// How the device interrupts.
    pub(super) fn interrupt_mode(&self) -> InterruptMode {
        self.running.interrupts().mode()
    }

    /// The queue with this number, and what belongs to it.
    pub(super) fn lane(&mut self, number: usize) -> Lane<'_, P> {
        let (queue, doorbell) = (&mut self.queues.0[number], self.doorbells[number]);
        Lane { running: &mut self.running, queue, doorbell }
    }
}

impl Setup {
    /// The queues that are wanted, with their names.
    fn queues(self) -> impl Iterator<Item = (QueueIndex, &'static str)> {
        let first = (0..).map_while(QueueIndex::new).zip(QUEUES);
        first.chain(self.reporting.map(|index| (index, "reporting")))
    }
}
