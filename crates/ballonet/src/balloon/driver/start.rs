//! From a device to a running balloon: the initialization sequence (virtio 1.4, 3.1.1).

use core::mem::offset_of;

use alloc::vec::Vec;

use super::Balloon;
use super::running::{Running, Unstopped};
use super::withheld::Withheld;
use crate::balloon::error::BalloonError;
use crate::balloon::options::Options;
use crate::balloon::platform::BalloonPlatform;
use crate::balloon::policy::request_shape::RequestShape;
use crate::balloon::queue_numbers::{QUEUES, QueueNumbers, resolve};
use crate::balloon::queues::hinting::HintingQueue;
use crate::balloon::queues::pages::Pages;
use crate::balloon::queues::poison::Poison;
use crate::balloon::queues::reporting::ReportingQueue;
use crate::balloon::queues::statistics::StatisticsQueue;
use crate::balloon::queues::{Made, Maker, Queues};
use crate::balloon::wire::{
    BalloonConfig, DEFLATE_ON_OOM, FREE_PAGE_HINT, MUST_TELL_HOST, PAGE_POISON, PAGE_REPORTING, STATS_VQ,
};
use crate::bus::heap;
use crate::platform::Platform;
use crate::virtio::spec::{DeviceType, Features};
use crate::virtio::{DeviceHandle, QueueIndex, RingFormat, Setup, TransportError, TransportKind};

/// The features that this driver implements on a transport.
///
/// - `MUST_TELL_HOST` costs nothing: frames are never used again before the host has confirmed.
/// - `DEFLATE_ON_OOM` allows [`Balloon::reclaim`] to deflate below the target.
/// - `ACCESS_PLATFORM`: all addresses of rings and buffers come from [`crate::platform::DmaMemory::device_address`], as
///   this bit requires; frame numbers stay physical, as the balloon defines them.
/// - `ORDER_PLATFORM`: on x86-64 the fences of [`crate::virtio::barrier`] order memory for devices as for CPUs;
///   elsewhere they might not.
/// - `ANY_LAYOUT`: implied by every modern device; if a legacy one offers it, it must be accepted (6.3).
/// - `PAGE_REPORTING` needs no `PAGE_POISON`, because nothing here expects free frames to keep their contents
///   (5.5.3.1).
/// - `PAGE_POISON` is accepted only if frames are filled, see [`unusable`].
/// - `INDIRECT_DESC` and `IN_ORDER` cost nothing if unused: only requests of several descriptors have tables, and an
///   in-order device may complete several requests by one used entry.
/// - `RING_RESET` is for [`Balloon::reset_queue`].
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

impl<P: BalloonPlatform> Balloon<P> {
    /// Starts a driver for the balloon `device`: a PCI function ([`Bdf`](crate::pci::Bdf)), or whatever else
    /// [`DeviceHandle`] names. Call [`Balloon::poll`] at once; it does all the work.
    ///
    /// # Errors
    /// When there is no balloon, or it does not start. Everything has been released, and FAILED is set.
    #[doc(alias = "virtballoon_probe")]
    pub fn probe(platform: &mut P, device: impl Into<DeviceHandle>, options: Options) -> Result<Self, BalloonError> {
        bring_up(platform, device.into(), &options, &mut Withheld::new()).map(|running| Self::new(options, running))
    }
}

/// Takes the balloon from any state to running: initially, and after each reset. Once the device has been reset,
/// `withheld` memory is released.
///
/// # Errors
/// As [`Balloon::probe`]. If the device is gone afterwards, the error is [`TransportError::Gone`].
pub(super) fn bring_up<P: BalloonPlatform>(
    platform: &mut P,
    device: DeviceHandle,
    options: &Options,
    withheld: &mut Withheld<P>,
) -> Result<Running<P>, BalloonError> {
    start_either_way(platform, device, options, withheld).map_err(|error| match error {
        BalloonError::NoFunction(_) => error,
        _ if device.is_present(platform) => error,
        _ => TransportError::Gone(device.address()).into(),
    })
}

/// Which queues are set up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// Queues of accepted features.
    Accepted,
    /// Every queue that the device has.
    Every,
}

/// Starts the device. If it then needs a reset at once, and queues were left out, starts it again with all queues: some
/// devices do not start otherwise (Firecracker, libkrun).
fn start_either_way<P: BalloonPlatform>(
    platform: &mut P,
    device: DeviceHandle,
    options: &Options,
    withheld: &mut Withheld<P>,
) -> Result<Running<P>, BalloonError> {
    let (running, left_out) = start(platform, device, options, withheld, Which::Accepted)?;
    if left_out == 0 || !running.needs_reset() {
        return Ok(running);
    }
    log::info!("{}: the device does not start with {left_out} queues left out; trying all of its queues", options.name);
    if let Err(Unstopped { error, queues }) = running.stop(platform, false) {
        withheld.keep(queues, 0);
        return Err(error.into());
    }
    start(platform, device, options, withheld, Which::Every).map(|(running, _)| running)
}

/// Starts the device, or undoes everything. Also returns how many of its queues were left out.
fn start<P: BalloonPlatform>(
    platform: &mut P,
    device: DeviceHandle,
    options: &Options,
    withheld: &mut Withheld<P>,
    which: Which,
) -> Result<(Running<P>, usize), BalloonError> {
    let poison = Poison::of(options.poison, platform.frames());
    let accepted = |kind, config_len| {
        let split = options.ring == Some(RingFormat::Split);
        let declined = unusable(config_len, poison) | if split { Features::RING_PACKED } else { Features::empty() };
        implemented(kind).difference(declined)
    };
    let setup = Setup::open(platform, device, options.device(), DeviceType::BALLOON, accepted, |platform, proof| {
        withheld.release(platform, proof);
    })?;
    let (connected, made, left_out) = setup.connect(platform, Made::new(), |platform, setup, made| {
        set_up(platform, setup, made, options, poison, which)
    })?;
    let mut queues = made.queues.expect("set-up creates the queues or fails");
    // The first buffer is in its queue before the device runs, and kicked afterwards.
    if let Some(statistics) = &mut queues.statistics {
        statistics.first_kick = statistics.send(platform);
    }
    Ok((Running::new(connected.run(), queues), left_out))
}

/// Implemented features that cannot be accepted: those whose field is beyond the device configuration, and
/// `PAGE_POISON` if frames are not filled (5.5.3.1).
fn unusable(config_len: usize, poison: Option<Poison>) -> Features {
    let mut unusable = Features::empty();
    if config_len < offset_of!(BalloonConfig, free_page_hint_cmd_id) + 4 {
        unusable |= FREE_PAGE_HINT;
    }
    if config_len < offset_of!(BalloonConfig, poison_val) + 4 || poison.is_none() {
        unusable |= PAGE_POISON;
    }
    unusable
}

/// Step 7: creates everything that the device needs before it runs, in `made`. Returns how many of its queues were left
/// out.
fn set_up<P: BalloonPlatform>(
    platform: &mut P,
    setup: &mut Setup<P>,
    made: &mut Made<P>,
    options: &Options,
    poison: Option<Poison>,
    which: Which,
) -> Result<usize, BalloonError> {
    let (device, length) = (setup.address(), setup.device.transport().config_len());
    if length < BalloonConfig::SIZE {
        return Err(BalloonError::ShortConfig { device, length });
    }
    let (numbers, sizes) = find_queues(setup)?;
    let features = setup.device.features();
    if let Some(format) = options.ring.filter(|forced| *forced != RingFormat::of(features)) {
        return Err(BalloonError::RingFormat { device, format });
    }
    let poison = poison.filter(|_| features.contains(PAGE_POISON));
    let maker = &mut Maker { platform, setup, made, sizes, limit: options.queue_size };
    let pages = Pages::make(maker, &numbers, options.window, options.shape.unwrap_or(RequestShape::REGION))?;
    let (statistics, hinting, reporting) = (None, None, None);
    maker.made.queues = Some(Queues { pages, statistics, hinting, reporting, unused: Vec::new(), poison });
    let optional = |feature: Features, number: Option<QueueIndex>| number.filter(|_| features.contains(feature));
    if let Some(index) = optional(STATS_VQ, numbers.statistics) {
        let queue = StatisticsQueue::make(maker, index)?;
        maker.queues().statistics = Some(queue);
    }
    if let Some(poison) = poison {
        maker.setup.device.write_config(offset_of!(BalloonConfig, poison_val), poison.value())?;
    }
    if let Some(index) = optional(FREE_PAGE_HINT, numbers.hinting) {
        let queue = HintingQueue::make(maker, index, poison)?;
        maker.queues().hinting = Some(queue);
    }
    if let Some(index) = optional(PAGE_REPORTING, numbers.reporting) {
        let queue = ReportingQueue::make(maker, index, options.reporting, poison)?;
        maker.queues().reporting = Some(queue);
    }
    let existing = (0..).map_while(QueueIndex::new).zip(sizes).filter(|(_, size)| *size != 0);
    let mut unused = 0;
    for (index, _) in existing {
        if maker.setup.has_queue(index) {
            continue;
        }
        unused += 1;
        if which == Which::Every {
            heap::reserve(&mut maker.queues().unused, 1)?;
            let queue = maker.simple_queue(index, None)?;
            maker.queues().unused.push(queue);
        }
    }
    Ok(unused)
}

/// The numbers of the queues, and the sizes of the first five; 0 for a queue that does not exist.
///
/// # Errors
/// When the device is gone, names an impossible size, or lacks a queue that every balloon has.
pub fn find_queues<P: Platform>(setup: &mut Setup<P>) -> Result<(QueueNumbers, [u16; QUEUES]), BalloonError> {
    let device = &mut setup.device;
    let count = device.transport().queue_count();
    let mut sizes = [0; QUEUES];
    for (index, size) in (0..count).map_while(QueueIndex::new).zip(&mut sizes) {
        *size = device.queue_size(index)?;
    }
    Ok((resolve(device.offered(), sizes)?, sizes))
}
