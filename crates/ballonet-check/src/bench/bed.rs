//! The device brought up for a measurement: its inflate and deflate queues, the reporting queue if wanted, and
//! their interrupts.

use alloc::vec::Vec;

use super::error::BenchError;
use ballonet::balloon::{Options, find_queues};
use ballonet::platform::Platform;
use ballonet::virtio::spec::{DeviceType, Features};
use ballonet::virtio::{
    BringUpError, DeviceHandle, DeviceOptions, Doorbell, InterruptMode, Parts, QueueIndex, QueueSetup, Quiesced,
    Running, Setup, TransportKind, UsedLength, Virtqueue,
};

/// A queue whose requests carry no token: the caller keeps their memory.
type Vring<P> = Virtqueue<<P as Platform>::Memory, ()>;

/// A balloon's first two queues, wherever the others are (virtio 1.4, 5.5.2).
const QUEUES: [&str; 2] = ["inflate", "deflate"];
/// The index of the reporting queue among the queues of a bed, if it is wanted.
pub(super) const REPORTING: usize = QUEUES.len();

/// The largest queue that is made.
const QUEUE_SIZE_LIMIT: u16 = 256;

/// What every case accepts, if it is offered.
const ALWAYS: Features = Features::VERSION_1.union(Features::ACCESS_PLATFORM).union(Features::ANY_LAYOUT);

/// What the device is brought up with.
#[derive(Debug, Clone, Copy)]
pub(super) struct BedOptions {
    /// Features beyond those that are always accepted, all of them offered. They decide the format of the queues.
    pub(super) features: Features,
    /// The most segments of a request that goes through an indirect table; 0 for no tables.
    pub(super) indirect_entries: u16,
    /// The queue for reports of free pages, if it is wanted.
    pub(super) reporting: Option<QueueIndex>,
}

/// What a device offers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offer {
    pub(super) transport: TransportKind,
    /// A legacy device has only the first 32 bits, whatever it offers.
    pub(super) features: Features,
    /// The queue for reports of free pages.
    pub(super) reporting: Option<QueueIndex>,
}

impl Offer {
    /// Reads what the device offers, and resets it.
    pub(super) fn read<P: Platform>(
        platform: &mut P,
        device: DeviceHandle,
        options: &Options,
    ) -> Result<Self, BenchError> {
        let mut options = device_options(options);
        options.declined = Features::empty();
        let mut setup = Setup::open(platform, device, options, DeviceType::BALLOON, |_, _| ALWAYS, |_, _| {})?;
        let found = find_queues(&mut setup);
        let device = &setup.device;
        let (transport, offered) = (device.transport().kind(), device.offered());
        let legacy = Features::from_bits_retain(u32::MAX.into());
        let features = if transport.is_legacy() { offered & legacy } else { offered };
        setup.abandon(platform).map_err(BringUpError::from)?;
        Ok(Self { transport, features, reporting: found?.0.reporting })
    }
}

/// A device that runs, and its queues.
pub(super) struct Bed<P: Platform> {
    running: Running<P>,
    queues: Queues<P>,
}

struct Queues<P: Platform>(Vec<Vring<P>>);

impl<P: Platform> Parts<P> for Queues<P> {
    fn release(self, platform: &mut P, proof: &Quiesced) {
        self.0.into_iter().for_each(|queue| drop(queue.release(platform, proof)));
    }
}

/// One queue with its doorbell and the running device: everything needed to send a request.
pub(super) struct QueueAccess<'a, P: Platform> {
    pub(super) running: &'a mut Running<P>,
    pub(super) queue: &'a mut Vring<P>,
    pub(super) doorbell: Doorbell,
}

impl<P: Platform> Bed<P> {
    /// Brings the device up.
    pub(super) fn open(
        platform: &mut P,
        device: DeviceHandle,
        options: &Options,
        wanted: BedOptions,
    ) -> Result<Self, BenchError> {
        let (options, features) = (device_options(options), ALWAYS | wanted.features);
        let setup = Setup::open(platform, device, options, DeviceType::BALLOON, |_, _| features, |_, _| {})?;
        let (connected, queues, ()) =
            setup.connect(platform, Queues(Vec::new()), |platform, setup, queues| -> Result<_, BringUpError> {
                for (index, name) in wanted.queues() {
                    let layout = setup.layout(index, QUEUE_SIZE_LIMIT)?;
                    let (name, indirect_entries) = (Some(name), wanted.indirect_entries);
                    // As the balloon's driver.
                    let used_length = UsedLength::Lenient;
                    let queue = QueueSetup { index, name, layout, indirect_entries, used_length };
                    queues.0.push(setup.add_queue(platform, &queue)?);
                }
                Ok(())
            })?;
        Ok(Self { running: connected.run(), queues })
    }

    /// Stops the device and gives everything back. Returns whether the device has stopped and so uses no memory any
    /// more.
    pub(super) fn close(self, platform: &mut P) -> bool {
        self.running.stop(platform, self.queues, false).is_ok()
    }

    /// How the device interrupts.
    pub(super) fn interrupt_mode(&self) -> InterruptMode {
        self.running.interrupts.mode()
    }

    /// The queue at this place, and its doorbell.
    pub(super) fn queue(&mut self, place: usize) -> QueueAccess<'_, P> {
        let queue = &mut self.queues.0[place];
        let doorbell = self.running.doorbell(queue.index());
        QueueAccess { running: &mut self.running, queue, doorbell }
    }
}

impl BedOptions {
    /// The queues that are wanted.
    fn queues(self) -> impl Iterator<Item = (QueueIndex, &'static str)> {
        let first = (0..).map_while(QueueIndex::new).zip(QUEUES);
        first.chain(self.reporting.map(|index| (index, "reporting")))
    }
}

/// The options that hold for a virtio device of any type.
fn device_options(options: &Options) -> DeviceOptions {
    let mut device = DeviceOptions::new(options.name);
    (device.transport, device.through_config) = (options.transport, options.through_config);
    (device.interrupts, device.declined) = (options.interrupts, options.declined);
    device
}
