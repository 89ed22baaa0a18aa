//! The device under test: its registers one by one, its memory, and the way from reset to `DRIVER_OK` in any legal setting.
//!
//! Nothing here keeps to the order of initialization; the checks do, or do not, as they need.

mod arena;
mod disturbance;
mod obstacles;
mod pci;
mod registers;
mod signals;
mod start;
mod traffic;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use ballonet::balloon::wire::BalloonConfig;

pub(crate) use arena::{ARENA, Arena};
pub(crate) use disturbance::{About, undisturbed};
pub(crate) use obstacles::Start;
pub(crate) use pci::PciFunction;
pub(crate) use signals::Signals;
pub(crate) use start::StartOptions;
pub(crate) use traffic::{Damage, Shape};

use crate::check::{Stop, Verdict, fail, trouble_unless};
use crate::platform::Mapped;
use crate::ring::RawQueue;
use crate::run::Patience;
use ballonet::balloon::{QueueNumbers, resolve};
use ballonet::memory::FrameRun;
use ballonet::pci::Command;
use ballonet::platform::RegisterWindow;
use ballonet::virtio::QueueIndex;
use ballonet::virtio::spec::{CapabilityType, CommonConfig, Features, Status};
use obstacles::Obstacles;

/// How many queues a balloon has at most.
pub(crate) const QUEUES: usize = 5;
/// The most entries of a queue that is tested: larger ones would not find room in the arena.
pub(crate) const QUEUE_LIMIT: u16 = 1024;
/// Frames that the tester inflates and deflates.
pub(crate) const FRAMES: usize = 256;

/// The features that the tester knows how to use.
pub(crate) const KNOWN: Features = Features::from_bits_retain(
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

/// The balloon's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Inflate,
    Deflate,
    Statistics,
    Reporting,
}

/// The device.
pub(crate) struct TestDevice<'p> {
    pub(crate) pci: PciFunction<'p>,
    pub(crate) common: Mapped,
    pub(crate) notify: Mapped,
    notify_window: RegisterWindow,
    pub(crate) isr: Arc<Mapped>,
    pub(crate) config: Mapped,
    /// What it offers in the first 64 feature bits.
    pub(crate) offered: Features,
    pub(crate) sizes: [u16; QUEUES],
    pub(crate) numbers: QueueNumbers,
    pub(crate) arena: Arena,
    runs: Vec<FrameRun>,
    /// The numbers of the tester's frames, and whether the device may have each.
    pub(crate) pfns: Vec<u32>,
    pub(crate) away: Vec<bool>,
    pub(crate) patience: Patience,
    /// What was accepted.
    pub(crate) features: Features,
    pub(crate) queues: Vec<RawQueue>,
    /// Where readable buffers are in the arena: start and end.
    pub(crate) buffers: Vec<(usize, usize)>,
    pub(crate) signals: Signals,
    /// Defects that block checks.
    pub(crate) obstacles: Obstacles,
    /// Whether the setting and the last request are the plainest possible.
    pub(crate) is_plain: bool,
    /// A status with `DEVICE_NEEDS_RESET` seen during legal use, and with which features.
    pub(crate) needed_reset: Option<String>,
}

/// A function whose device could not be mapped or does not answer sensibly, and why.
pub(crate) struct Unopened<'p> {
    pub(crate) pci: PciFunction<'p>,
    pub(crate) stop: Stop,
}

impl<'p> Unopened<'p> {
    fn new(pci: PciFunction<'p>, stop: Stop) -> Box<Self> {
        Box::new(Self { pci, stop })
    }
}

impl<'p> TestDevice<'p> {
    /// Maps the structures of a function and resets it.
    pub(crate) fn open(pci: PciFunction<'p>, patience: Patience) -> Result<Box<Self>, Box<Unopened<'p>>> {
        let windows = match windows(&pci) {
            Ok(windows) => windows,
            Err(stop) => return Err(Unopened::new(pci, stop)),
        };
        let decoding = if windows.iter().any(|window| window.io) { Command::IO } else { Command::MEMORY };
        pci.function.enable(&mut pci.platform.config(), decoding | Command::MEMORY | Command::BUS_MASTER);
        let mut mapped = Vec::with_capacity(windows.len());
        for window in windows {
            match pci.platform.map(window) {
                Ok(registers) => mapped.push(registers),
                Err(error) => {
                    mapped.into_iter().for_each(|registers| pci.platform.unmap(registers));
                    return Err(Unopened::new(pci, Stop::Trouble(format!("{error}"))));
                }
            }
        }
        let Ok([common, notify, isr, config]) = <[Mapped; 4]>::try_from(mapped) else {
            unreachable!("four windows were mapped");
        };
        let memory = match pci.platform.allocate_dma(ARENA, 4096) {
            Ok(memory) => memory,
            Err(error) => {
                [common, notify, isr, config].into_iter().for_each(|registers| pci.platform.unmap(registers));
                return Err(Unopened::new(pci, Stop::Trouble(format!("{error}"))));
            }
        };
        let zero = QueueIndex::new(0).unwrap_or_else(|| unreachable!("0 is a queue's number"));
        let numbers = QueueNumbers { inflate: zero, deflate: zero, statistics: None, hinting: None, reporting: None };
        let mut device = Box::new(Self {
            common,
            notify,
            notify_window: windows[1],
            isr: Arc::new(isr),
            config,
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
            pci,
        });
        match device.discover() {
            Ok(()) => Ok(device),
            Err(stop) => Err(Unopened::new(device.close(), stop)),
        }
    }

    /// Reads offered features and queues, and takes the frames to test with.
    fn discover(&mut self) -> Verdict {
        self.begin()?;
        self.offered = self.read_offered();
        self.negotiate_least()?;
        for index in 0..QUEUES as u16 {
            self.sizes[usize::from(index)] = self.queue_size(index);
        }
        match resolve(self.offered, self.sizes) {
            Ok(numbers) => self.numbers = numbers,
            Err(error) => fail!("{error}"),
        }
        while self.pfns.len() < FRAMES {
            let Some(run) = self.pci.platform.take_free((FRAMES - self.pfns.len()) as u32) else { break };
            self.pfns.extend(run.pfns().map(|pfn| pfn.0));
            self.runs.push(run);
        }
        trouble_unless!(self.pfns.len() >= 64, "only {} frames of memory are free to test with", self.pfns.len());
        self.away = alloc::vec![false; self.pfns.len()];
        self.reset()
    }

    /// Gives everything back.
    pub(crate) fn close(mut self) -> PciFunction<'p> {
        let stopped = self.stop().is_ok();
        self.pci.function.disable(&mut self.pci.platform.config(), Command::BUS_MASTER);
        let memory = self.arena.into_memory();
        if stopped {
            self.pci.platform.release_dma(memory);
        } else {
            // A device that would not stop may write to it permanently.
            core::mem::forget(memory);
        }
        let mut place = 0;
        for run in self.runs {
            let away = self.away.iter().skip(place).take(run.count() as usize).any(|away| *away);
            place += run.count() as usize;
            // Frames that the device did not return stay with the host.
            if away || !stopped { self.pci.platform.confirm_ballooned(run) } else { self.pci.platform.release(run) }
        }
        for registers in [self.common, self.notify, self.config] {
            self.pci.platform.unmap(registers);
        }
        if let Some(isr) = Arc::into_inner(self.isr) {
            self.pci.platform.unmap(isr);
        }
        self.pci
    }
}

impl TestDevice<'_> {
    /// Waits until something holds; `false` if it does not in time.
    pub(crate) fn wait(&mut self, limit: u64, mut holds: impl FnMut(&mut Self) -> Verdict<bool>) -> Verdict<bool> {
        let start = self.pci.platform.now();
        loop {
            // The clock before the look: time that the host takes away in between must not count.
            let waited = self.pci.platform.now().saturating_sub(start);
            if holds(self)? {
                return Ok(true);
            }
            if waited >= limit {
                return Ok(false);
            }
            self.pci.platform.relax();
        }
    }

    /// Lets time pass in which nothing may happen.
    pub(crate) fn wait_quiet(&mut self) -> Verdict {
        let quiet = self.patience.quiet;
        self.wait(quiet, |_| Ok(false)).map(drop)
    }

    /// Resets the device. If an earlier reset did not finish, fails without waiting again.
    pub(crate) fn reset(&mut self) -> Verdict {
        if let Some(reason) = &self.obstacles.stuck {
            return Err(Stop::Failed(reason.clone()));
        }
        self.set_status(Status::empty());
        let limit = self.patience.stall;
        if self.wait(limit, |device| Ok(device.status()?.is_empty()))? {
            return Ok(());
        }
        let status = self.status()?;
        Err(self.stick(format!("a reset was not done after {} ms: the status is {status}", limit / 1_000_000)))
    }

    /// Notes that no more checks are possible, and why.
    fn stick(&mut self, reason: String) -> Stop {
        self.obstacles.stuck = Some(reason.clone());
        Stop::Failed(reason)
    }

    /// Resets the device and sets ACKNOWLEDGE and DRIVER. Before that, features and queues need not be readable (3.1.1).
    pub(crate) fn begin(&mut self) -> Verdict {
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

    /// Resets the device and forgets its queues and buffers. Called after each check.
    pub(crate) fn stop(&mut self) -> Verdict {
        let outcome = self.reset();
        let signals = core::mem::replace(&mut self.signals, Signals::none());
        signals.release(&mut self.pci);
        self.queues.clear();
        self.buffers.clear();
        outcome
    }
}

/// The windows of the four structures that every balloon has.
fn windows(pci: &PciFunction<'_>) -> Verdict<[RegisterWindow; 4]> {
    Ok([
        pci.window(CapabilityType::Common, CommonConfig::SIZE as u64)?,
        pci.window(CapabilityType::Notify, 2)?,
        pci.window(CapabilityType::Isr, 1)?,
        pci.window(CapabilityType::Device, BalloonConfig::SIZE as u64)?,
    ])
}
