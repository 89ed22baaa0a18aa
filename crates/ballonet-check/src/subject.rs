//! The device under test, mapped: its registers one by one, and the way from reset to `DRIVER_OK` in any legal setting.
//!
//! Nothing here keeps to the order that a driver keeps to; the checks do, or do not, as they need.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::arena::{ARENA, Arena};
use super::obstacles::Obstacles;
use super::outcome::{Stop, Verdict, ensure, needs, own};
use super::ring::{Areas, Part, Placement, RawQueue};
use super::run::Patience;
use super::signals::Signals;
use super::site::Site;
use ballonet::balloon::BalloonPlatform;
use ballonet::balloon::wire::{FREE_PAGE_HINT, PAGE_REPORTING, STATS_VQ};
use ballonet::balloon::{QueueNumbers, resolve};
use ballonet::memory::{FrameRun, PageFrames};
use ballonet::pci::Command;
use ballonet::platform::{Platform, RegisterWindow, Registers};
use ballonet::virtio::spec::{CapabilityType, Features, NO_VECTOR, QUEUE_SIZE_MAX, Status, common};
use ballonet::virtio::{InterruptMode, QueueIndex};

/// How many queues a balloon has at most.
pub(super) const QUEUES: usize = 5;
/// The most entries of a queue that is tested: larger ones would not find room in the arena.
pub(super) const QUEUE_LIMIT: u16 = 1024;
/// Frames that the tester gives to the device and takes back.
pub(super) const FRAMES: usize = 256;

/// The features that the tester knows how to use.
pub(super) const KNOWN: Features = Features::from_bits_retain(
    0x3f | Features::INDIRECT_DESC.bits()
        | Features::EVENT_IDX.bits()
        | Features::VERSION_1.bits()
        | Features::ACCESS_PLATFORM.bits()
        | Features::RING_PACKED.bits()
        | Features::IN_ORDER.bits()
        | Features::ORDER_PLATFORM.bits()
        | Features::NOTIFICATION_DATA.bits()
        | Features::NOTIF_CONFIG_DATA.bits()
        | Features::RING_RESET.bits(),
);

/// How the device is brought up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setup {
    pub(super) features: Features,
    pub(super) mode: InterruptMode,
    /// The most entries in a queue; as many as the device allows otherwise.
    pub(super) size: u16,
    pub(super) placement: Placement,
    /// Whether queues have vectors, in the modes with messages.
    pub(super) mapped: bool,
}

/// The balloon's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Inflate,
    Deflate,
    Statistics,
    Reporting,
}

/// The device.
pub(super) struct Subject<'p, P: Platform> {
    pub(super) site: Site<'p, P>,
    pub(super) common: P::Registers,
    pub(super) notify: P::Registers,
    notify_window: RegisterWindow,
    pub(super) isr: Arc<P::Registers>,
    pub(super) device: P::Registers,
    /// What it offers in the first 64 feature bits.
    pub(super) offered: Features,
    pub(super) sizes: [u16; QUEUES],
    pub(super) numbers: QueueNumbers,
    pub(super) arena: Arena<P::Memory>,
    runs: Vec<FrameRun>,
    /// The numbers of the tester's frames, and whether the device may have each.
    pub(super) pfns: Vec<u32>,
    pub(super) away: Vec<bool>,
    pub(super) patience: Patience,
    /// What was accepted.
    pub(super) features: Features,
    pub(super) queues: Vec<RawQueue>,
    /// Where readable buffers are in the arena: start and end.
    pub(super) buffers: Vec<(usize, usize)>,
    pub(super) signals: Signals<P::Registers>,
    /// What keeps the device from being asked.
    pub(super) obstacles: Obstacles,
    /// Whether the setting, and the request posted last, are as plain as can be.
    pub(super) is_plain: bool,
    /// The status with `DEVICE_NEEDS_RESET` in it that showed during legal use, and when.
    pub(super) needed_reset: Option<String>,
}

/// A function whose device could not be mapped or does not answer sensibly, and why.
pub(super) struct Unopened<'p, P: Platform> {
    pub(super) site: Site<'p, P>,
    pub(super) stop: Stop,
}

impl<'p, P: Platform> Unopened<'p, P> {
    fn new(site: Site<'p, P>, stop: Stop) -> Box<Self> {
        Box::new(Self { site, stop })
    }
}

impl<'p, P: BalloonPlatform> Subject<'p, P> {
    /// Maps the structures of a function and resets it.
    pub(super) fn open(site: Site<'p, P>, patience: Patience) -> Result<Box<Self>, Box<Unopened<'p, P>>> {
        let windows = match windows(&site) {
            Ok(windows) => windows,
            Err(stop) => return Err(Unopened::new(site, stop)),
        };
        let decoding = if windows.iter().any(|window| window.io) { Command::IO } else { Command::MEMORY };
        site.function.enable(site.platform.config(), decoding | Command::MEMORY | Command::BUS_MASTER);
        let mut mapped = Vec::with_capacity(windows.len());
        for window in windows {
            match site.platform.map(window) {
                Ok(registers) => mapped.push(registers),
                Err(error) => {
                    mapped.into_iter().for_each(|registers| site.platform.unmap(registers));
                    return Err(Unopened::new(site, Stop::Trouble(format!("{error}"))));
                }
            }
        }
        let Ok([common, notify, isr, device]) = <[P::Registers; 4]>::try_from(mapped) else {
            unreachable!("four windows were mapped");
        };
        let memory = match site.platform.allocate_dma(ARENA, 4096) {
            Ok(memory) => memory,
            Err(error) => {
                [common, notify, isr, device].into_iter().for_each(|registers| site.platform.unmap(registers));
                return Err(Unopened::new(site, Stop::Trouble(format!("{error}"))));
            }
        };
        let zero = QueueIndex::new(0).unwrap_or_else(|| unreachable!("0 is a queue's number"));
        let numbers = QueueNumbers { inflate: zero, deflate: zero, statistics: None, hinting: None, reporting: None };
        let mut subject = Box::new(Self {
            common,
            notify,
            notify_window: windows[1],
            isr: Arc::new(isr),
            device,
            offered: Features::empty(),
            sizes: [0; QUEUES],
            numbers,
            arena: Arena::new(memory),
            runs: Vec::new(),
            pfns: Vec::new(),
            away: Vec::new(),
            patience,
            features: Features::empty(),
            queues: Vec::new(),
            buffers: Vec::new(),
            signals: Signals::none(),
            obstacles: Obstacles::default(),
            is_plain: false,
            needed_reset: None,
            site,
        });
        match subject.acquaint() {
            Ok(()) => Ok(subject),
            Err(stop) => Err(Unopened::new(subject.close(), stop)),
        }
    }

    /// Finds out what there is to test.
    fn acquaint(&mut self) -> Verdict {
        self.begin()?;
        self.offered = self.read_offered();
        self.negotiate_least()?;
        for index in 0..QUEUES as u16 {
            self.sizes[usize::from(index)] = self.queue_size(index);
        }
        match resolve(self.offered, self.sizes) {
            Ok(numbers) => self.numbers = numbers,
            Err(error) => ensure!(false, "{error}"),
        }
        while self.pfns.len() < FRAMES {
            let Some(run) = self.site.platform.frames().take_free((FRAMES - self.pfns.len()) as u32) else { break };
            self.pfns.extend(run.pfns().map(ballonet::memory::Pfn::as_u32));
            self.runs.push(run);
        }
        own!(self.pfns.len() >= 64, "only {} frames of memory are free to test with", self.pfns.len());
        self.away = alloc::vec![false; self.pfns.len()];
        self.reset()
    }

    /// Gives everything back.
    pub(super) fn close(mut self) -> Site<'p, P> {
        let stopped = self.stop().is_ok();
        self.site.function.disable(self.site.platform.config(), Command::BUS_MASTER);
        let memory = self.arena.into_memory();
        if stopped {
            self.site.platform.release_dma(memory);
        } else {
            // A device that would not stop may write to it permanently.
            core::mem::forget(memory);
        }
        let mut place = 0;
        for run in self.runs {
            let away = self.away.iter().skip(place).take(run.count() as usize).any(|away| *away);
            place += run.count() as usize;
            // What the device did not give back stays with the host.
            let frames = self.site.platform.frames();
            if away || !stopped { frames.confirm_ballooned(run) } else { frames.release(run) }
        }
        for registers in [self.common, self.notify, self.device] {
            self.site.platform.unmap(registers);
        }
        if let Some(isr) = Arc::into_inner(self.isr) {
            self.site.platform.unmap(isr);
        }
        self.site
    }
}

impl<P: Platform> Subject<'_, P> {
    // Registers.

    pub(super) fn status(&self) -> Verdict<Status> {
        match self.common.read8(common::DEVICE_STATUS) {
            u8::MAX => Err(Stop::Gone),
            status => Ok(Status::from_bits_retain(status)),
        }
    }

    pub(super) fn set_status(&mut self, status: Status) {
        self.common.write8(common::DEVICE_STATUS, status.bits());
    }

    /// A word of the offered features.
    pub(super) fn feature_word(&mut self, select: u32) -> u32 {
        self.common.write32(common::DEVICE_FEATURE_SELECT, select);
        self.common.read32(common::DEVICE_FEATURE)
    }

    pub(super) fn read_offered(&mut self) -> Features {
        Features::from_words([self.feature_word(0), self.feature_word(1)])
    }

    pub(super) fn accept(&mut self, features: Features) {
        for (select, word) in (0..).zip(features.words()) {
            self.common.write32(common::DRIVER_FEATURE_SELECT, select);
            self.common.write32(common::DRIVER_FEATURE, word);
        }
    }

    pub(super) fn select(&mut self, queue: u16) {
        self.common.write16(common::QUEUE_SELECT, queue);
    }

    pub(super) fn queue_size(&mut self, queue: u16) -> u16 {
        self.select(queue);
        self.common.read16(common::QUEUE_SIZE)
    }

    /// The numbers of the queues that are there.
    pub(super) fn present(&self) -> impl Iterator<Item = u16> + use<P> {
        let sizes = self.sizes;
        (0..QUEUES as u16).filter(move |queue| sizes[usize::from(*queue)] != 0)
    }

    /// Waits until something holds; `false` if it does not in time.
    pub(super) fn wait(&mut self, limit: u64, mut holds: impl FnMut(&mut Self) -> Verdict<bool>) -> Verdict<bool> {
        let start = self.site.platform.now();
        loop {
            // The clock before the look: time that the host takes away in between must not count.
            let waited = self.site.platform.now().saturating_sub(start);
            if holds(self)? {
                return Ok(true);
            }
            if waited >= limit {
                return Ok(false);
            }
            self.site.platform.relax();
        }
    }

    /// Lets time pass in which nothing is to happen.
    pub(super) fn linger(&mut self) -> Verdict {
        let quiet = self.patience.quiet;
        self.wait(quiet, |_| Ok(false)).map(drop)
    }

    /// Resets the device. One that did not finish a reset is not waited for again.
    pub(super) fn reset(&mut self) -> Verdict {
        if let Some(reason) = &self.obstacles.stuck {
            return Err(Stop::Failed(reason.clone()));
        }
        self.set_status(Status::empty());
        let limit = self.patience.stall;
        if self.wait(limit, |subject| Ok(subject.status()?.is_empty()))? {
            return Ok(());
        }
        let status = self.status()?;
        Err(self.stick(format!("a reset was not done after {} ms: the status is {status}", limit / 1_000_000)))
    }

    /// Nothing more can be asked, for this reason.
    fn stick(&mut self, reason: String) -> Stop {
        self.obstacles.stuck = Some(reason.clone());
        Stop::Failed(reason)
    }

    /// Resets the device and tells it that there is a driver. Before that it need not say what it has (3.1.1).
    pub(super) fn begin(&mut self) -> Verdict {
        self.reset()?;
        self.set_status(Status::ACKNOWLEDGE);
        self.set_status(Status::ACKNOWLEDGE | Status::DRIVER);
        let status = self.status()?;
        if status.is_empty() || status.contains(Status::FAILED) {
            let set = Status::ACKNOWLEDGE | Status::DRIVER;
            return Err(
                self.stick(format!("the device takes no status after a reset: {set} was set, {status} is read"))
            );
        }
        Ok(())
    }

    /// Resets the device and takes back what it was given. Called after each check.
    pub(super) fn stop(&mut self) -> Verdict {
        let outcome = self.reset();
        let signals = core::mem::replace(&mut self.signals, Signals::none());
        signals.release(&mut self.site);
        self.queues.clear();
        self.buffers.clear();
        outcome
    }

    // Bringing up.

    /// Every feature that is offered and known.
    pub(super) fn usable(&self) -> Features {
        self.offered & KNOWN
    }

    /// The least that the device must be given: without these it need not work.
    pub(super) fn least(&self) -> Features {
        self.offered & (Features::VERSION_1 | Features::ACCESS_PLATFORM)
    }

    /// The ordinary setting: the least features, no interrupts, queues as large as they are.
    pub(super) fn plain(&self) -> Setup {
        Setup {
            features: self.least(),
            mode: InterruptMode::Polling,
            size: QUEUE_LIMIT,
            placement: Placement::Plain,
            mapped: true,
        }
    }

    /// Resets the device and goes up to `FEATURES_OK`; whether that stuck.
    pub(super) fn negotiate(&mut self, features: Features) -> Verdict<bool> {
        self.begin()?;
        // A device may look at what it offers only when asked.
        let _ = self.read_offered();
        self.accept(features);
        self.set_status(Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK);
        Ok(self.status()?.contains(Status::FEATURES_OK))
    }

    /// Goes through initialization until queues can be read: with the least features, if the device accepts them.
    pub(super) fn negotiate_least(&mut self) -> Verdict {
        self.negotiate(self.least()).map(drop)
    }

    /// Everything up to before `DRIVER_OK`.
    pub(super) fn prepare(&mut self, setup: &Setup) -> Verdict {
        self.try_start()?;
        self.set_up(setup)
    }

    /// The same, for a device that is not known to start.
    pub(super) fn set_up(&mut self, setup: &Setup) -> Verdict {
        self.stop()?;
        self.arena.clear();
        let taken = self.negotiate(setup.features)?;
        needs!(taken, "the device does not take the features {}", setup.features);
        self.features = setup.features;
        self.is_plain = *setup == self.plain();
        let messages = matches!(setup.mode, InterruptMode::PerQueue | InterruptMode::Shared);
        let roles: Vec<u16> = self.wanted_queues();
        let vectors = match setup.mode {
            InterruptMode::PerQueue => roles.len() + 1,
            InterruptMode::Shared => 2,
            InterruptMode::Line | InterruptMode::Polling => 0,
        };
        let isr = Arc::clone(&self.isr);
        self.signals = Signals::set_up(&mut self.site, &isr, setup.mode, vectors).map_err(Stop::Skipped)?;
        if messages {
            self.set_vector(common::CONFIG_MSIX_VECTOR, 0)?;
        }
        for (place, queue) in roles.into_iter().enumerate() {
            self.select(queue);
            if messages && setup.mapped {
                let vector = if setup.mode == InterruptMode::Shared { 1 } else { place as u16 + 1 };
                self.set_vector(common::QUEUE_MSIX_VECTOR, vector)?;
            }
            self.enable(queue, setup)?;
        }
        if self.wants_every_queue() {
            let others: Vec<u16> =
                self.present().filter(|number| self.queues.iter().all(|queue| queue.index != *number)).collect();
            for queue in others {
                self.enable(queue, setup)?;
            }
        }
        Ok(())
    }

    /// The queues that are used with the features accepted.
    fn wanted_queues(&self) -> Vec<u16> {
        let numbers = self.numbers;
        let optional =
            [(numbers.statistics, STATS_VQ), (numbers.hinting, FREE_PAGE_HINT), (numbers.reporting, PAGE_REPORTING)];
        let optional = optional.into_iter().filter(|(_, feature)| self.features.contains(*feature));
        let all = [Some(numbers.inflate), Some(numbers.deflate)].into_iter().chain(optional.map(|(queue, _)| queue));
        all.flatten().map(QueueIndex::number).collect()
    }

    fn set_vector(&mut self, register: usize, vector: u16) -> Verdict {
        self.common.write16(register, vector);
        let read = self.common.read16(register);
        needs!(read != NO_VECTOR, "the device refuses vector {vector}");
        ensure!(read == vector, "vector {vector} reads back as {read:#06x}");
        Ok(())
    }

    /// Puts a queue to use.
    pub(super) fn enable(&mut self, queue: u16, setup: &Setup) -> Verdict {
        let packed = self.features.contains(Features::RING_PACKED);
        let now = self.queue_size(queue);
        // The first size: one check reports a size that survives a reset, the others do not depend on it.
        let most = self.sizes.get(usize::from(queue)).copied().unwrap_or(now);
        ensure!(most != 0 && most <= QUEUE_SIZE_MAX, "queue {queue} has {most} entries");
        let mut size = most.min(setup.size).min(QUEUE_LIMIT);
        if !packed {
            size = 1 << size.ilog2();
        }
        let areas = RawQueue::place(&mut self.arena, size, packed, setup.placement)?;
        if size != now {
            self.common.write16(common::QUEUE_SIZE, size);
        }
        self.write_areas(areas);
        let ring = RawQueue::new(&mut self.arena, (queue, size), areas, self.features, setup.placement);
        self.queues.push(ring);
        self.common.write16(common::QUEUE_ENABLE, 1);
        Ok(())
    }

    pub(super) fn write_areas(&mut self, areas: Areas) {
        for (register, area) in [
            (common::QUEUE_DESC, areas.descriptors),
            (common::QUEUE_DRIVER, areas.driver),
            (common::QUEUE_DEVICE, areas.device),
        ] {
            self.common.write64(register, self.arena.address(area));
        }
    }

    /// Sets `DRIVER_OK`.
    pub(super) fn go(&mut self) -> Verdict {
        self.set_status(Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK | Status::DRIVER_OK);
        let status = self.status()?;
        self.note_status(status);
        let well = status.contains(Status::DRIVER_OK) && !status.contains(Status::DEVICE_NEEDS_RESET);
        ensure!(well, "the device does not start: the status is {status}, with features {}", self.features);
        Ok(())
    }

    /// Brings the device up.
    pub(super) fn start(&mut self, setup: &Setup) -> Verdict {
        self.prepare(setup)?;
        self.go()
    }

    // Queues.

    /// The number of a queue, if it is in use.
    pub(super) fn number(&self, role: Role) -> Verdict<u16> {
        let queue = match role {
            Role::Inflate => Some(self.numbers.inflate),
            Role::Deflate => Some(self.numbers.deflate),
            Role::Statistics => self.numbers.statistics,
            Role::Reporting => self.numbers.reporting,
        };
        queue.map(QueueIndex::number).ok_or_else(|| Stop::Skipped(format!("the device has no {role:?} queue")))
    }

    /// Does something with a queue in use and the arena.
    pub(super) fn with_queue<T>(
        &mut self,
        role: Role,
        act: impl FnOnce(&mut RawQueue, &mut Arena<P::Memory>) -> T,
    ) -> Verdict<T> {
        let number = self.number(role)?;
        let queue = self.queues.iter_mut().find(|queue| queue.index == number);
        match queue {
            Some(queue) => Ok(act(queue, &mut self.arena)),
            None => Err(Stop::Skipped(format!("queue {number} is not in use"))),
        }
    }

    pub(super) fn add(&mut self, role: Role, chain: &[Part], table: Option<usize>) -> Verdict<u16> {
        self.with_queue(role, |queue, arena| queue.add(arena, chain, table))?
    }

    /// Shows the device what was added; whether it wants to be kicked.
    pub(super) fn publish(&mut self, role: Role) -> Verdict<bool> {
        self.with_queue(role, RawQueue::publish)
    }

    /// Kicks a queue with the width and value that were agreed on (4.1.5.2).
    pub(super) fn kick(&mut self, role: Role) -> Verdict {
        let (queue, progress) = self.with_queue(role, |queue, _| (queue.index, queue.progress()))?;
        let (offset, number) = self.doorbell(queue)?;
        if self.features.contains(Features::NOTIFICATION_DATA) {
            self.notify.write32(offset, u32::from(progress) << 16 | u32::from(number));
        } else {
            self.notify.write16(offset, number);
        }
        Ok(())
    }

    /// Where a queue is kicked, and with what.
    pub(super) fn doorbell(&mut self, queue: u16) -> Verdict<(usize, u16)> {
        self.select(queue);
        let offset = u64::from(self.common.read16(common::QUEUE_NOTIFY_OFF)) * u64::from(self.site.multiplier());
        let width = if self.features.contains(Features::NOTIFICATION_DATA) { 4 } else { 2 };
        let (length, address) = (self.notify.len() as u64, self.notify_window.address);
        ensure!(
            offset + width <= length && (address + offset).is_multiple_of(width),
            "the doorbell of queue {queue} is at {offset:#x}, of {length:#x} bytes"
        );
        let number = if self.features.contains(Features::NOTIF_CONFIG_DATA) {
            ensure!(self.common.len() >= common::QUEUE_NOTIF_CONFIG_DATA + 2, "there is no queue_notif_config_data");
            self.common.read16(common::QUEUE_NOTIF_CONFIG_DATA)
        } else {
            queue
        };
        Ok((offset as usize, number))
    }
}

/// Where the four structures are that every balloon has.
fn windows<P: Platform>(site: &Site<'_, P>) -> Verdict<[RegisterWindow; 4]> {
    Ok([
        site.window(CapabilityType::Common, common::SIZE as u64)?,
        site.window(CapabilityType::Notify, 2)?,
        site.window(CapabilityType::Isr, 1)?,
        site.window(CapabilityType::Device, ballonet::balloon::wire::CONFIG_SIZE as u64)?,
    ])
}
