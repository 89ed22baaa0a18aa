//! From a PCI function to a running balloon: the initialization sequence (virtio 1.4, 3.1.1), and how it is undone.

use alloc::vec::Vec;

use super::BalloonError;
use super::driver::Balloon;
use super::hinter::Hinter;
use super::options::Options;
use super::parts::{Parts, Unstopped, layout, queue_options, restore_command};
use super::poison::Poison;
use super::queues::{QUEUES, QueueNumbers, resolve};
use super::reporter::Reporter;
use super::requests::Requests;
use super::running::Running;
use super::shape::RequestShape;
use super::statistics::{MemoryStatistics, Selection};
use super::wire::{
    CONFIG_FREE_PAGE_HINT_CMD_ID, CONFIG_POISON_VAL, CONFIG_SIZE, DEFLATE_ON_OOM, FREE_PAGE_HINT, MUST_TELL_HOST,
    PAGE_POISON, PAGE_REPORTING, STATS_VQ,
};
use super::withheld::Withheld;
use crate::pci::{Bars, Bdf, Command, Function};
use crate::platform::{PageFrames, Platform};
use crate::virtio::spec::{DEVICE_TYPE_BALLOON, Features, MODERN_DEVICE_BASE, TRANSITIONAL_BALLOON, VENDOR};
use crate::virtio::{
    AnyTransport, Device, Doorbell, Failure, FeaturesOk, Interface, Kick, Queue, QueueIndex, QueueName, Reset,
    RingFormat, RingLayout, Transport, TransportError, TransportKind, Virtqueue, Wanted, find_vqs,
};

/// The features that this driver implements on a transport.
///
/// `MUST_TELL_HOST` costs nothing: frames are never used again before the host has confirmed. `DEFLATE_ON_OOM` allows what
/// [`Balloon::relieve`] does. `ACCESS_PLATFORM`: all
/// addresses of rings and buffers come from [`crate::platform::DmaMemory::device_address`], which is what this bit asks
/// for; frame numbers stay physical, as the balloon defines them. `ORDER_PLATFORM`: on x86-64 the fences of
/// [`crate::virtio::barrier`] order memory for devices just as for CPUs; elsewhere they might not. `ANY_LAYOUT` is a legacy
/// device's word for what every modern one does, and has to be accepted from it (6.3). `PAGE_REPORTING` needs no `PAGE_POISON`,
/// since nobody here expects free frames to keep what is in them (5.5.3.1). `PAGE_POISON` is accepted
/// only where frames are filled, see [`unusable`]. `INDIRECT_DESC` and `IN_ORDER` cost nothing where
/// nobody makes use of them: tables are there for requests of several descriptors, and a device that is in order may
/// answer a batch by one entry. `RING_RESET` is there for [`Device::reset_queue`].
const fn implemented(transport: TransportKind) -> Features {
    let features = MUST_TELL_HOST.union(STATS_VQ).union(DEFLATE_ON_OOM);
    let features = features.union(FREE_PAGE_HINT).union(PAGE_POISON).union(PAGE_REPORTING);
    let features = features.union(Features::EVENT_IDX).union(Features::INDIRECT_DESC);
    let features = match transport {
        TransportKind::Legacy => return features.union(Features::ANY_LAYOUT),
        TransportKind::Modern => {
            let kicks = Features::NOTIFICATION_DATA.union(Features::NOTIF_CONFIG_DATA);
            let features = features.union(Features::VERSION_1).union(Features::RING_PACKED).union(kicks);
            let features = features.union(Features::IN_ORDER).union(Features::RING_RESET);
            features.union(Features::ACCESS_PLATFORM)
        }
    };
    if cfg!(any(target_arch = "x86_64", target_arch = "x86")) {
        features.union(Features::ORDER_PLATFORM)
    } else {
        features
    }
}

/// The transport of a platform.
pub(super) type PlatformTransport<P> = AnyTransport<<P as Platform>::Registers>;

/// The doorbells, and the kick that waits for the device to run.
pub(super) struct Doorbells {
    pub(super) inflate: Doorbell,
    pub(super) deflate: Doorbell,
    /// The statistics queue's; it exists if the queue does.
    pub(super) statistics: Option<Doorbell>,
    /// The hinting queue's, likewise.
    pub(super) hinting: Option<Doorbell>,
    /// The reporting queue's, likewise.
    pub(super) reporting: Option<Doorbell>,
}

/// Whether a function is a balloon: by vendor and device alone, of which there are two that count (4.1.2).
pub(super) fn is_balloon(vendor: u16, device: u16) -> bool {
    vendor == VENDOR && (device == MODERN_DEVICE_BASE + DEVICE_TYPE_BALLOON || device == TRANSITIONAL_BALLOON)
}

/// What setting up gives beside the parts.
pub(super) struct Ready {
    pub(super) doorbells: Doorbells,
    pub(super) selection: Selection,
    pub(super) statistics_kick: Option<Kick>,
    /// Queues that nobody uses, and their sizes.
    left_out: Vec<(QueueIndex, u16)>,
}

impl<P: Platform + PageFrames + MemoryStatistics> Balloon<P> {
    /// Whether the PCI function with these IDs is a balloon.
    pub fn matches(vendor: u16, device: u16) -> bool {
        is_balloon(vendor, device)
    }

    /// Starts a driver for the balloon at `function`. It works from the first [`Balloon::poll`] on, to be called at once.
    ///
    /// # Errors
    /// When there is no balloon, or it cannot be brought up. Everything taken from the platform has been given back,
    /// and the device has been told that the driver gave up.
    #[doc(alias = "virtballoon_probe")]
    pub fn probe(platform: &mut P, function: Bdf, options: Options) -> Result<Self, BalloonError> {
        bring_up(platform, function, &options, &mut Withheld::new()).map(|running| Self::new(options, running))
    }
}

/// Takes the balloon at `function` from wherever it is to running: for the first time, and after each reset again. What is
/// `withheld` from it is had back once it has been reset.
///
/// # Errors
/// As [`Balloon::probe`]. Whatever goes wrong because the device goes away is [`TransportError::Gone`].
pub(super) fn bring_up<P>(
    platform: &mut P,
    function: Bdf,
    options: &Options,
    withheld: &mut Withheld<P>,
) -> Result<Running<P>, BalloonError>
where
    P: Platform + PageFrames + MemoryStatistics,
{
    let found = Function::probe(platform.config(), function).ok_or(BalloonError::NoFunction(function))?;
    let (vendor, device) = (found.vendor(), found.device());
    if !is_balloon(vendor, device) {
        return Err(BalloonError::NotABalloon { function, vendor, device });
    }
    start_either_way(platform, found, options, withheld).map_err(|error| match found.is_present(platform.config()) {
        true => error,
        false => TransportError::Gone(function).into(),
    })
}

/// Which queues are set up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Queues {
    /// Those of the features that were accepted.
    Accepted,
    /// Every one that the device has.
    Every,
}

/// Starts the device. If it then asks for a reset at once, and has queues that were left out, it is started once more with
/// those too: some devices start in no other way (Firecracker, libkrun).
fn start_either_way<P>(
    platform: &mut P,
    found: Function,
    options: &Options,
    withheld: &mut Withheld<P>,
) -> Result<Running<P>, BalloonError>
where
    P: Platform + PageFrames + MemoryStatistics,
{
    let (running, left_out) = start(platform, found, options, withheld, Queues::Accepted)?;
    if left_out == 0 || !running.needs_reset() {
        return Ok(running);
    }
    log::info!("{}: the device does not start with {left_out} queues left out; trying with all it has", options.name);
    if let Err(Unstopped { error, parts }) = running.stop(platform, false) {
        withheld.keep(parts, 0);
        return Err(error.into());
    }
    start(platform, found, options, withheld, Queues::Every).map(|(running, _)| running)
}

/// From the function's registers to a device that runs, and how many of its queues were left out; or everything is given
/// back.
fn start<P>(
    platform: &mut P,
    found: Function,
    options: &Options,
    withheld: &mut Withheld<P>,
    queues: Queues,
) -> Result<(Running<P>, usize), BalloonError>
where
    P: Platform + PageFrames + MemoryStatistics,
{
    let bars = Bars::size(platform.config(), &found);
    let interface = Interface::find(platform.config(), &found, &bars, options.transport)?;
    let interface = if options.through_config { interface.through_config()? } else { interface };
    let command = found.enable(platform.config(), interface.decoding(&bars));
    let transport = interface.open(platform).inspect_err(|_| restore_command(platform, &found, command))?;
    let mut device = match negotiate(platform, transport, options, withheld) {
        Ok(device) => device,
        Err(Failure { transport, error }) => {
            transport.release(platform);
            restore_command(platform, &found, command);
            return Err(error);
        }
    };
    let mut parts = Parts::new(found, command);
    // The device was reset: from here it may use memory, but has been given none.
    found.enable(platform.config(), Command::BUS_MASTER);
    let outcome = set_up(platform, &mut device, &bars, &mut parts, options).and_then(|ready| {
        let left_out = ready.left_out.len();
        if queues == Queues::Every {
            enable_idle(platform, &mut device, &mut parts, &ready.left_out, options)?;
        }
        Ok((ready, left_out))
    });
    match outcome {
        Ok((ready, left_out)) => Ok((Running::new(device.driver_ok(), parts, ready), left_out)),
        Err(error) => {
            let (transport, stopped) = device.quiesce(platform, true);
            // Why the device could not be started is what matters, and that it would not stop has been logged.
            let _ = parts.dismantle(platform, transport, stopped);
            Err(error)
        }
    }
}

/// Steps 1 to 6: reset, acknowledge, settle the features.
fn negotiate<P: Platform + PageFrames>(
    platform: &mut P,
    transport: PlatformTransport<P>,
    options: &Options,
    withheld: &mut Withheld<P>,
) -> Result<Device<PlatformTransport<P>, FeaturesOk>, Failure<PlatformTransport<P>, BalloonError>> {
    let device = Device::<_, Reset>::new(transport, platform).map_err(convert)?;
    withheld.release(platform, &device.quiesced());
    let implemented = implemented(device.transport().kind());
    let split = options.ring == Some(RingFormat::Split);
    let unusable = unusable::<P>(device.transport().config_len(), options);
    let declined = options.declined | unusable | if split { Features::RING_PACKED } else { Features::empty() };
    let wanted = Wanted { implemented, declined, dependencies: &[] };
    device.acknowledge().driver().negotiate(&wanted).map_err(convert)
}

/// Features that are not accepted although they are implemented: those whose field a device configuration of this length does
/// not have, and that of a fill value where nobody fills (5.5.3.1).
fn unusable<P: PageFrames>(config_len: usize, options: &Options) -> Features {
    let mut unusable = Features::empty();
    if config_len < CONFIG_FREE_PAGE_HINT_CMD_ID + 4 {
        unusable |= FREE_PAGE_HINT;
    }
    if config_len < CONFIG_POISON_VAL + 4 || Poison::<P>::of(options).is_none() {
        unusable |= PAGE_POISON;
    }
    unusable
}

fn convert<T, E: Into<BalloonError>>(failure: Failure<T, E>) -> Failure<T, BalloonError> {
    Failure { transport: failure.transport, error: failure.error.into() }
}

/// Step 7: everything that the device needs before it runs. What has been taken is in `parts`, also after an error.
fn set_up<P: Platform + PageFrames + MemoryStatistics>(
    platform: &mut P,
    device: &mut Device<PlatformTransport<P>, FeaturesOk>,
    bars: &Bars,
    parts: &mut Parts<P>,
    options: &Options,
) -> Result<Ready, BalloonError> {
    let length = device.transport().config_len();
    if length < CONFIG_SIZE {
        return Err(BalloonError::ShortConfig { function: parts.function.bdf(), length });
    }
    let (numbers, sizes) = find_queues(device)?;
    let statistics = numbers.statistics.filter(|_| device.features().contains(STATS_VQ));
    let selection = Selection::of(&platform.statistics());

    let (features, function, kind) = (device.features(), parts.function.bdf(), device.transport().kind());
    let format = RingFormat::of(features);
    if let Some(forced) = options.ring.filter(|forced| *forced != format) {
        return Err(BalloonError::RingFormat { function, format: forced });
    }
    let layout_of = |queue: QueueIndex| {
        let size = sizes[usize::from(queue.number())];
        if kind == TransportKind::Legacy && size > options.queue_size {
            log::warn!("{}: queue {queue} has {size} entries, and a legacy device's cannot have fewer", options.name);
        }
        layout(kind, format, size, options.queue_size).ok_or(TransportError::QueueSize { function, queue, size })
    };
    let inflate_layout = layout_of(numbers.inflate)?;
    let deflate_layout = layout_of(numbers.deflate)?;
    let smaller = inflate_layout.size().min(deflate_layout.size());
    // A chain has no more descriptors than its queue, also where they are in a table (2.7.5.3.1).
    let shape = options.shape.unwrap_or(RequestShape::REGION).within(smaller);
    let window = options.window.clamp(1, 256).min(smaller);
    let requests = parts.requests.insert(Requests::allocate(platform, window, shape)?);
    let how = |layout: RingLayout| queue_options(kind, features, requests.table_entries(layout.size()));
    let (inflate_how, deflate_how) = (how(inflate_layout), how(deflate_layout));
    let inflate = parts.inflate.insert(Virtqueue::allocate(platform, numbers.inflate, inflate_layout, inflate_how)?);
    let deflate = parts.deflate.insert(Virtqueue::allocate(platform, numbers.deflate, deflate_layout, deflate_how)?);
    let mut statistics_queue = match statistics {
        Some(queue) => {
            let layout = layout_of(queue)?;
            let how = queue_options(kind, features, 1);
            Some((queue, parts.statistics.insert(Virtqueue::allocate(platform, queue, layout, how)?)))
        }
        None => None,
    };

    if let Some(poison) = Poison::of(options).filter(|_| features.contains(PAGE_POISON)) {
        device.write_config32(CONFIG_POISON_VAL, poison.value())?;
        parts.poison = Some(poison);
    }
    let hinter = match numbers.hinting.filter(|_| features.contains(FREE_PAGE_HINT)) {
        Some(index) => {
            let how = (kind, layout_of(index)?, queue_options(kind, features, 1));
            Some((index, parts.hinter.insert(Hinter::allocate(platform, index, how, parts.poison)?)))
        }
        None => None,
    };
    let reporter = match numbers.reporting.filter(|_| device.features().contains(PAGE_REPORTING)) {
        Some(index) => {
            let queue = Virtqueue::allocate(platform, index, layout_of(index)?, queue_options(kind, features, 1))?;
            Some((index, parts.reporter.insert(Reporter::new(queue, options.reporting, parts.poison, platform.now()))))
        }
        None => None,
    };

    let mut names = Vec::with_capacity(QUEUES);
    names.push(QueueName { index: numbers.inflate, name: "inflate" });
    names.push(QueueName { index: numbers.deflate, name: "deflate" });
    names.extend(statistics_queue.as_ref().map(|(index, _)| QueueName { index: *index, name: "stats" }));
    names.extend(hinter.as_ref().map(|(index, _)| QueueName { index: *index, name: "hinting" }));
    names.extend(reporter.as_ref().map(|(index, _)| QueueName { index: *index, name: "reporting" }));
    let function = (&parts.function, bars);
    parts.interrupts = Some(find_vqs(platform, device, function, &options.name, &names, options.interrupts)?);

    let doorbells = Doorbells {
        inflate: device.enable_queue(numbers.inflate, inflate.size(), inflate.addresses())?,
        deflate: device.enable_queue(numbers.deflate, deflate.size(), deflate.addresses())?,
        statistics: match &statistics_queue {
            Some((index, queue)) => Some(device.enable_queue(*index, queue.size(), queue.addresses())?),
            None => None,
        },
        hinting: match &hinter {
            Some((index, hinter)) => {
                let queue = hinter.queue();
                Some(device.enable_queue(*index, queue.size(), queue.addresses())?)
            }
            None => None,
        },
        reporting: match &reporter {
            Some((index, reporter)) => {
                let queue = reporter.queue();
                Some(device.enable_queue(*index, queue.size(), queue.addresses())?)
            }
            None => None,
        },
    };
    // The first buffer is there before the device runs, and kicked once it does.
    let statistics_kick =
        statistics_queue.as_mut().and_then(|(_, queue)| requests.offer_statistics(&mut **queue, &selection, platform));
    let used = |index: QueueIndex| names.iter().any(|name| name.index == index);
    let there = (0..).map_while(QueueIndex::new).zip(sizes).filter(|(_, size)| *size != 0);
    let left_out = there.filter(|(index, _)| !used(*index)).collect();
    Ok(Ready { doorbells, selection, statistics_kick, left_out })
}

/// Sets up queues that nobody uses.
fn enable_idle<P: Platform>(
    platform: &mut P,
    device: &mut Device<PlatformTransport<P>, FeaturesOk>,
    parts: &mut Parts<P>,
    left_out: &[(QueueIndex, u16)],
    options: &Options,
) -> Result<(), BalloonError> {
    let (features, function, kind) = (device.features(), parts.function.bdf(), device.transport().kind());
    for &(queue, size) in left_out {
        let layout = layout(kind, RingFormat::of(features), size, options.queue_size);
        let layout = layout.ok_or(TransportError::QueueSize { function, queue, size })?;
        parts.idle.push(Virtqueue::allocate(platform, queue, layout, queue_options(kind, features, 1))?);
        let Some(idle) = parts.idle.last() else { continue };
        device.enable_queue(queue, idle.size(), idle.addresses())?;
    }
    Ok(())
}

/// The numbers of the queues, and the sizes of the first five.
pub fn find_queues<T: Transport>(
    device: &mut Device<T, FeaturesOk>,
) -> Result<(QueueNumbers, [u16; QUEUES]), BalloonError> {
    let count = device.transport().queue_count();
    let mut sizes = [0; QUEUES];
    for (index, size) in (0..count).map_while(QueueIndex::new).zip(&mut sizes) {
        *size = device.queue_size(index)?;
    }
    Ok((resolve(device.offered(), sizes)?, sizes))
}
