//! From a PCI function to a running balloon: the initialization sequence (virtio 1.4, 3.1.1), and how it is undone.

use alloc::vec::Vec;

use super::BalloonError;
use super::driver::Balloon;
use super::hinter::Hinter;
use super::options::Options;
use super::parts::{Parts, USED_LENGTH, Unstopped};
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
use crate::platform::{PageFrames, Platform};
use crate::virtio::spec::{DeviceType, Features};
use crate::virtio::{
    DeviceHandle, Doorbell, QueueIndex, QueueSetup, RingFormat, RingLayout, Setup, TransportError, TransportKind,
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
    if transport.is_legacy() {
        return features.union(Features::ANY_LAYOUT);
    }
    let kicks = Features::NOTIFICATION_DATA.union(Features::NOTIF_CONFIG_DATA);
    let features = features.union(Features::VERSION_1).union(Features::RING_PACKED).union(kicks);
    let features = features.union(Features::IN_ORDER).union(Features::RING_RESET);
    let features = features.union(Features::ACCESS_PLATFORM);
    if cfg!(any(target_arch = "x86_64", target_arch = "x86")) {
        features.union(Features::ORDER_PLATFORM)
    } else {
        features
    }
}

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

impl<P: Platform + PageFrames + MemoryStatistics> Balloon<P> {
    /// Whether the PCI function with these IDs is a balloon.
    pub fn matches(vendor: u16, device: u16) -> bool {
        DeviceType::BALLOON.is_function(vendor, device)
    }

    /// Starts a driver for the balloon `device`: a PCI function ([`crate::pci::Bdf`]), or whatever else
    /// [`DeviceHandle`] names. It works from the first [`Balloon::poll`] on, to be called at once.
    ///
    /// # Errors
    /// When there is no balloon, or it cannot be brought up. Everything taken from the platform has been given back,
    /// and the device has been told that the driver gave up.
    #[doc(alias = "virtballoon_probe")]
    pub fn probe(platform: &mut P, device: impl Into<DeviceHandle>, options: Options) -> Result<Self, BalloonError> {
        bring_up(platform, device.into(), &options, &mut Withheld::new()).map(|running| Self::new(options, running))
    }
}

/// Takes the balloon from wherever it is to running: for the first time, and after each reset again. What is
/// `withheld` from it is had back once it has been reset.
///
/// # Errors
/// As [`Balloon::probe`]. Whatever goes wrong because the device goes away is [`TransportError::Gone`].
pub(super) fn bring_up<P>(
    platform: &mut P,
    device: DeviceHandle,
    options: &Options,
    withheld: &mut Withheld<P>,
) -> Result<Running<P>, BalloonError>
where
    P: Platform + PageFrames + MemoryStatistics,
{
    start_either_way(platform, device, options, withheld).map_err(|error| match error {
        BalloonError::NoFunction(_) => error,
        _ if device.is_present(platform) => error,
        _ => TransportError::Gone(device.address()).into(),
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
    device: DeviceHandle,
    options: &Options,
    withheld: &mut Withheld<P>,
) -> Result<Running<P>, BalloonError>
where
    P: Platform + PageFrames + MemoryStatistics,
{
    let (running, left_out) = start(platform, device, options, withheld, Queues::Accepted)?;
    if left_out == 0 || !running.needs_reset() {
        return Ok(running);
    }
    log::info!("{}: the device does not start with {left_out} queues left out; trying with all it has", options.name);
    if let Err(Unstopped { error, parts }) = running.stop(platform, false) {
        withheld.keep(parts, 0);
        return Err(error.into());
    }
    start(platform, device, options, withheld, Queues::Every).map(|(running, _)| running)
}

/// From the function's registers to a device that runs, and how many of its queues were left out; or everything is given
/// back.
fn start<P>(
    platform: &mut P,
    device: DeviceHandle,
    options: &Options,
    withheld: &mut Withheld<P>,
    queues: Queues,
) -> Result<(Running<P>, usize), BalloonError>
where
    P: Platform + PageFrames + MemoryStatistics,
{
    let accepted = |kind, config_len| {
        let split = options.ring == Some(RingFormat::Split);
        let declined =
            unusable::<P>(config_len, options) | if split { Features::RING_PACKED } else { Features::empty() };
        implemented(kind).difference(declined)
    };
    let setup = Setup::open(platform, device, options.device(), DeviceType::BALLOON, accepted, |platform, proof| {
        withheld.release(platform, proof);
    })?;
    let (connected, mut parts, left_out) = setup
        .connect(platform, Parts::new(), |platform, setup, parts| set_up(platform, setup, parts, options, queues))?;
    let selection = Selection::of(&platform.statistics());
    // The first buffer is there before the device runs, and kicked once it does.
    let queue = parts.statistics.as_mut().zip(parts.requests.as_mut());
    let statistics_kick = queue.and_then(|(queue, requests)| requests.offer_statistics(queue, &selection, platform));
    Ok((Running::new(connected.run(), parts, selection, statistics_kick), left_out))
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

/// Step 7: everything that the device needs before it runs, in `parts`. Returns how many of its queues were left out.
fn set_up<P: Platform + PageFrames + MemoryStatistics>(
    platform: &mut P,
    setup: &mut Setup<P>,
    parts: &mut Parts<P>,
    options: &Options,
    which: Queues,
) -> Result<usize, BalloonError> {
    let (device, length) = (setup.address(), setup.device().transport().config_len());
    if length < CONFIG_SIZE {
        return Err(BalloonError::ShortConfig { device, length });
    }
    let (numbers, sizes) = find_queues(setup)?;
    let features = setup.device().features();
    if let Some(format) = options.ring.filter(|forced| *forced != RingFormat::of(features)) {
        return Err(BalloonError::RingFormat { device, format });
    }
    let layout = |setup: &Setup<P>, queue: QueueIndex| {
        setup.layout_of(queue, sizes[usize::from(queue.number())], options.queue_size)
    };
    let queue_setup = |index, name, layout, indirect_entries| QueueSetup {
        index,
        name,
        layout,
        indirect_entries,
        used_length: USED_LENGTH,
    };
    let inflate_layout = layout(setup, numbers.inflate)?;
    let deflate_layout = layout(setup, numbers.deflate)?;
    let smaller = inflate_layout.size().min(deflate_layout.size());
    // A chain has no more descriptors than its queue, also where they are in a table (2.7.5.3.1).
    let shape = options.shape.unwrap_or(RequestShape::REGION).within(smaller);
    let window = options.window.clamp(1, 256).min(smaller);
    let requests = parts.requests.insert(Requests::allocate(platform, window, shape)?);
    let paged = |requests: &Requests<P::Memory>, index, name, layout: RingLayout| {
        queue_setup(index, Some(name), layout, requests.table_entries(layout.size()))
    };
    let inflate = paged(requests, numbers.inflate, "inflate", inflate_layout);
    parts.inflate = Some(setup.add_queue(platform, &inflate)?);
    let deflate = paged(requests, numbers.deflate, "deflate", deflate_layout);
    parts.deflate = Some(setup.add_queue(platform, &deflate)?);
    let single = |setup: &Setup<P>, index, name| layout(setup, index).map(|layout| queue_setup(index, name, layout, 1));
    if let Some(index) = numbers.statistics.filter(|_| features.contains(STATS_VQ)) {
        let statistics = single(setup, index, Some("stats"))?;
        parts.statistics = Some(setup.add_queue(platform, &statistics)?);
    }
    if let Some(poison) = Poison::of(options).filter(|_| features.contains(PAGE_POISON)) {
        setup.device().write_config32(CONFIG_POISON_VAL, poison.value())?;
        parts.poison = Some(poison);
    }
    if let Some(index) = numbers.hinting.filter(|_| features.contains(FREE_PAGE_HINT)) {
        let hinting = single(setup, index, Some("hinting"))?;
        parts.hinter = Some(Hinter::allocate(platform, setup, &hinting, parts.poison)?);
    }
    if let Some(index) = numbers.reporting.filter(|_| features.contains(PAGE_REPORTING)) {
        let reporting = single(setup, index, Some("reporting"))?;
        let queue = setup.add_queue(platform, &reporting)?;
        parts.reporter = Some(Reporter::new(queue, options.reporting, parts.poison, platform.now()));
    }
    let there = (0..).map_while(QueueIndex::new).zip(sizes).filter(|(_, size)| *size != 0);
    let unused: Vec<_> = there.map(|(index, _)| index).filter(|index| !setup.has_queue(*index)).collect();
    if which == Queues::Every {
        for &index in &unused {
            let idle = single(setup, index, None)?;
            parts.idle.push(setup.add_queue(platform, &idle)?);
        }
    }
    Ok(unused.len())
}

/// The numbers of the queues, and the sizes of the first five.
pub fn find_queues<P: Platform>(setup: &mut Setup<P>) -> Result<(QueueNumbers, [u16; QUEUES]), BalloonError> {
    let device = setup.device();
    let count = device.transport().queue_count();
    let mut sizes = [0; QUEUES];
    for (index, size) in (0..count).map_while(QueueIndex::new).zip(&mut sizes) {
        *size = device.queue_size(index)?;
    }
    Ok((resolve(device.offered(), sizes)?, sizes))
}
