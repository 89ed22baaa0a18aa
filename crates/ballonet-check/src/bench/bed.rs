//! The device brought up for a measurement: inflate and deflate queue, and their interrupts.

use alloc::vec::Vec;

use super::error::BenchError;
use ballonet::balloon::{Options, find_queues};
use ballonet::pci::{Bars, Bdf, Command, Function};
use ballonet::platform::Platform;
use ballonet::virtio::spec::Features;
use ballonet::virtio::{
    Alignment, AnyTransport, Device, Doorbell, DriverFound, DriverOk, Failure, FeaturesOk, Interface, InterruptMode,
    Interrupts, Layout, QueueIndex, QueueName, QueueOptions, Quiesced, Reset, RingFormat, RingLayout, Transport,
    TransportError, TransportKind, UsedLength, Virtqueue, Wanted, find_vqs,
};

/// A queue whose requests lend nothing but what the traveller holds.
pub(super) type Vring<P> = Virtqueue<<P as Platform>::Memory, ()>;
type AnyDevice<P, S> = Device<AnyTransport<<P as Platform>::Registers>, S>;

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
    device: AnyDevice<P, DriverOk>,
    interrupts: Interrupts<P::Registers>,
    queues: Vec<(Vring<P>, Doorbell)>,
    site: Site,
}

/// What a request needs to travel.
pub(super) struct Lane<'a, P: Platform> {
    pub(super) device: &'a mut AnyDevice<P, DriverOk>,
    pub(super) interrupts: &'a Interrupts<P::Registers>,
    pub(super) queue: &'a mut Vring<P>,
    pub(super) doorbell: Doorbell,
}

/// The function, and its command register as it was found.
struct Site {
    function: Function,
    command: Command,
}

/// What the device at `function` offers. The device has been reset.
pub(super) fn offered<P: Platform>(platform: &mut P, function: Bdf, options: &Options) -> Result<Offer, BenchError> {
    let (device, _, site) = find(platform, function, options)?;
    let wanted = Wanted { implemented: ALWAYS, declined: Features::empty(), dependencies: &[] };
    let (outcome, transport) = match device.negotiate(&wanted) {
        Ok(mut device) => {
            let found = find_queues(&mut device);
            let (transport, offered) = (device.transport().kind(), device.offered());
            let features = match transport {
                TransportKind::Modern => offered,
                TransportKind::Legacy => offered & Features::from_bits_retain(u32::MAX.into()),
            };
            let (registers, stopped) = device.quiesce(platform, false);
            let offer = found.map(|(numbers, _)| Offer { transport, features, reporting: numbers.reporting });
            (stopped.map_err(BenchError::from).and_then(|_| Ok(offer?)), registers)
        }
        Err(Failure { transport, error }) => (Err(error.into()), transport),
    };
    site.leave(platform, transport);
    outcome
}

/// The device at `function`, reset and known to have a driver.
fn find<P: Platform>(
    platform: &mut P,
    function: Bdf,
    options: &Options,
) -> Result<(AnyDevice<P, DriverFound>, Bars, Site), BenchError> {
    let found = Function::probe(platform.config(), function).ok_or(BenchError::NoFunction(function))?;
    let bars = Bars::size(platform.config(), &found);
    let interface = Interface::find(platform.config(), &found, &bars, options.transport)?;
    let site = Site { command: found.enable(platform.config(), interface.decoding(&bars)), function: found };
    let transport = match interface.open(platform) {
        Ok(transport) => transport,
        Err(error) => {
            site.restore(platform);
            return Err(error.into());
        }
    };
    match Device::<_, Reset>::new(transport, platform) {
        Ok(device) => Ok((device.acknowledge().driver(), bars, site)),
        Err(Failure { transport, error }) => {
            site.leave(platform, transport);
            Err(error.into())
        }
    }
}

impl Site {
    /// Whatever the device says of itself, from here it can write no memory.
    fn silence<P: Platform>(&self, platform: &mut P) {
        self.function.disable(platform.config(), Command::BUS_MASTER);
    }

    fn leave<P: Platform>(self, platform: &mut P, transport: AnyTransport<P::Registers>) {
        transport.release(platform);
        self.restore(platform);
    }

    fn restore<P: Platform>(&self, platform: &mut P) {
        let ours = Command::IO | Command::MEMORY | Command::BUS_MASTER;
        self.function.disable(platform.config(), ours - self.command);
    }
}

impl<P: Platform> Bed<P> {
    /// Brings the device up.
    pub(super) fn make(platform: &mut P, function: Bdf, options: &Options, setup: Setup) -> Result<Self, BenchError> {
        let (device, bars, site) = find(platform, function, options)?;
        let implemented = ALWAYS | setup.features;
        let wanted = Wanted { implemented, declined: options.declined, dependencies: &[] };
        let mut device = match device.negotiate(&wanted) {
            Ok(device) => device,
            Err(Failure { transport, error }) => {
                site.leave(platform, transport);
                return Err(error.into());
            }
        };
        site.function.enable(platform.config(), Command::BUS_MASTER);
        let mut queues = Vec::new();
        let outcome = make_queues(platform, &mut device, setup, &mut queues)
            .and_then(|()| start(platform, &mut device, (&site.function, &bars), options, (setup, queues.as_slice())));
        match outcome {
            Ok((interrupts, doorbells)) => {
                let queues = queues.into_iter().zip(doorbells).collect();
                Ok(Self { device: device.driver_ok(), interrupts, queues, site })
            }
            Err(error) => {
                let (transport, stopped) = device.quiesce(platform, true);
                site.silence(platform);
                dismantle(platform, queues, &stopped);
                site.leave(platform, transport);
                Err(error)
            }
        }
    }

    /// Stops the device and gives everything back. Returns whether it has stopped, and so let go of all memory.
    pub(super) fn unmake(self, platform: &mut P) -> bool {
        let (transport, stopped) = self.device.quiesce(platform, false);
        self.site.silence(platform);
        dismantle(platform, self.queues.into_iter().map(|(queue, _)| queue), &stopped);
        self.interrupts.release(platform, &self.site.function);
        self.site.leave(platform, transport);
        stopped.is_ok()
    }

    /// How the device interrupts.
    pub(super) fn interrupt_mode(&self) -> InterruptMode {
        self.interrupts.mode()
    }

    /// The queue with this number, and what belongs to it.
    pub(super) fn lane(&mut self, number: usize) -> Lane<'_, P> {
        let (queue, doorbell) = &mut self.queues[number];
        Lane { device: &mut self.device, interrupts: &self.interrupts, queue, doorbell: *doorbell }
    }
}

/// Allocates the queues.
fn make_queues<P: Platform>(
    platform: &mut P,
    device: &mut AnyDevice<P, FeaturesOk>,
    setup: Setup,
    queues: &mut Vec<Vring<P>>,
) -> Result<(), BenchError> {
    let function = device.transport().function();
    let kind = device.transport().kind();
    // As the balloon's driver has it.
    let used_length = match kind {
        TransportKind::Modern => UsedLength::Lenient,
        TransportKind::Legacy => UsedLength::Ignored,
    };
    let Setup { features, indirect_entries, .. } = setup;
    let (event_idx, in_order) = (features.contains(Features::EVENT_IDX), features.contains(Features::IN_ORDER));
    let options = QueueOptions { event_idx, in_order, indirect_entries, used_length };
    for QueueName { index: queue, .. } in setup.queues() {
        let size = device.queue_size(queue)?;
        let layout = match kind {
            TransportKind::Modern => RingLayout::fitting(RingFormat::of(features), size.min(QUEUE_SIZE_LIMIT)),
            // It has that size and no other.
            TransportKind::Legacy => Layout::new(size, Alignment::Legacy).map(RingLayout::Split),
        };
        let layout = layout.ok_or(TransportError::QueueSize { function, queue, size })?;
        queues.push(Virtqueue::allocate(platform, queue, layout, options)?);
    }
    Ok(())
}

/// Gives the queues interrupts and shows them to the device.
fn start<P: Platform>(
    platform: &mut P,
    device: &mut AnyDevice<P, FeaturesOk>,
    function: (&Function, &Bars),
    options: &Options,
    (setup, queues): (Setup, &[Vring<P>]),
) -> Result<(Interrupts<P::Registers>, Vec<Doorbell>), BenchError> {
    use ballonet::virtio::Queue;
    let names: Vec<_> = setup.queues().collect();
    let interrupts = find_vqs(platform, device, function, &options.name, &names, options.interrupts)?;
    let enabled =
        names.iter().zip(queues).map(|(name, queue)| device.enable_queue(name.index, queue.size(), queue.addresses()));
    match enabled.collect() {
        Ok(doorbells) => Ok((interrupts, doorbells)),
        Err(error) => {
            interrupts.release(platform, function.0);
            Err(error.into())
        }
    }
}

impl Setup {
    /// The queues that are wanted.
    fn queues(self) -> impl Iterator<Item = QueueName> {
        let first = (0..).map_while(QueueIndex::new).zip(QUEUES).map(|(index, name)| QueueName { index, name });
        first.chain(self.reporting.map(|index| QueueName { index, name: "reporting" }))
    }
}

/// Gives the queues' memory back, unless the device may still use it.
fn dismantle<P: Platform>(
    platform: &mut P,
    queues: impl IntoIterator<Item = Vring<P>>,
    stopped: &Result<Quiesced, TransportError>,
) {
    for queue in queues {
        match stopped {
            Ok(proof) => drop(queue.release(platform, proof)),
            // Dropping it could give it back.
            Err(_) => core::mem::forget(queue),
        }
    }
}
