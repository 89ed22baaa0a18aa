//! The device under test: single registers, memory, and the way from reset to `DRIVER_OK` in any legal setting.
//!
//! Nothing here enforces the order of initialization; each check keeps or breaks it as it needs.

mod ask;
mod attack_pci;
mod attack_registers;
mod attacker;
mod disturbance;
mod fingerprint;
mod function_reset;
mod host;
mod kind;
mod obstacles;
mod pci;
mod recovery;
mod registers;
mod signals;
mod slot;
mod start;
mod traffic;
mod transport;
mod wrong_setup;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

pub(crate) use ask::{Answer, Offered};
pub(crate) use attacker::{Attacker, TABLE};
pub(crate) use disturbance::{About, undisturbed};
pub(crate) use kind::{BALLOON, BLOCK, BLOCK_ID, CONSOLE, ENTROPY, Kind, NETWORK, SECTOR, block_header};
pub(crate) use obstacles::Start;
pub(crate) use pci::{MSIX_CONTROL, MSIX_ENABLE, PciFunction};
pub(crate) use signals::Signals;
pub(crate) use start::StartOptions;
pub(crate) use traffic::{Damage, Shape};
pub(crate) use transport::{Isr, Transport, mmio, ports};

use crate::arena::{ARENA, Arena};
use crate::host::Host;
use crate::memory::MemoryEnds;
use crate::patience::Patience;
use crate::platform::AnyPlatform;
use crate::ring::{LEGACY_PAGE, RawQueue};
use crate::verdict::{Stop, Verdict, ensure, fail, trouble_unless};
use ballonet::balloon::{QueueNumbers, resolve};
use ballonet::memory::FrameRun;
use ballonet::pci::{Bdf, Command};
use ballonet::virtio::QueueIndex;
use ballonet::virtio::spec::{CapabilityType, Features, Status};
use ballonet::virtio::{DeviceHandle, TransportKind};
use fingerprint::Fingerprint;
use obstacles::Obstacles;
use pci::Structure;
use slot::CardSlot;
use transport::{ConfigRegisters, Mapping};

/// The most queues that are looked for.
const QUEUES_MAX: u16 = 64;
/// The most entries of a tested queue: larger ones do not fit into the arena.
pub(crate) const QUEUE_LIMIT: u16 = 1024;
/// Frames that the tester inflates and deflates.
pub(crate) const FRAMES: usize = 256;

/// Pieces of a quiet time: a busy wait, then sleeps.
const PIECES: u64 = 8;
/// The fewest sleeps in which nothing may happen. Before the second one ends a VMM's main loop has seen the notification;
/// each further one is for work that it leaves to its next turn.
const SLEEPS: u32 = 5;

/// The features of every type of device that the tester knows how to use.
pub(crate) const KNOWN: Features = Features::from_bits_retain(
    Features::INDIRECT_DESC.bits()
        | Features::ANY_LAYOUT.bits()
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

/// Queues by what the tester uses them for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Requests. A balloon inflates by them.
    First,
    /// Second requests for units that the first queue has served. A balloon deflates by them; a device without a second
    /// queue gets them in its first.
    Second,
    /// A balloon's statistics.
    Statistics,
    /// A balloon's hints of free memory.
    Hinting,
    /// A balloon's reports of free memory.
    Reporting,
    /// The queue of this number.
    Queue(u16),
}

/// The device.
pub(crate) struct TestDevice<'p> {
    pub(crate) platform: &'p mut (dyn AnyPlatform + 'p),
    host: Host<'p>,
    /// Its function, if it is on PCI.
    pub(crate) pci: Option<PciFunction>,
    pub(crate) kind: &'static Kind,
    /// Whether sectors of block devices may be written.
    pub(crate) writes: bool,
    /// Where memory ends, if that is known.
    memory: Option<MemoryEnds>,
    /// The port above it, if that is known.
    port: Option<Bdf>,
    /// Its slot, while a check has the host plug.
    slot: Option<CardSlot>,
    pub(crate) transport: Transport,
    pub(crate) isr: Arc<Isr>,
    pub(crate) config: ConfigRegisters,
    /// What it offers in the first 64 feature bits.
    pub(crate) offered: Features,
    /// The sizes of its queues.
    pub(crate) sizes: Vec<u16>,
    /// The numbers of a balloon's queues.
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
    /// Whether the setting and the last request are the simplest possible.
    pub(crate) is_plain: bool,
    /// A status with `DEVICE_NEEDS_RESET` seen during legal use, and with which features.
    pub(crate) needed_reset: Option<String>,
    /// What its registers hold after a reset, read by the first hostile check.
    fingerprint: Option<Fingerprint>,
}

/// How to drive a device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access {
    pub(crate) handle: DeviceHandle,
    /// By its legacy interface, even if it has a modern one.
    pub(crate) legacy: bool,
    pub(crate) writes: bool,
    pub(crate) memory: Option<MemoryEnds>,
    pub(crate) port: Option<Bdf>,
    pub(crate) patience: Patience,
}

impl<'p> TestDevice<'p> {
    /// Maps the registers of a device of type `kind` and resets it. Fails if they cannot be mapped or their values make
    /// no sense.
    pub(crate) fn open(
        platform: &'p mut (dyn AnyPlatform + 'p),
        pci: Option<PciFunction>,
        kind: &'static Kind,
        access: Access,
        host: Host<'p>,
    ) -> Verdict<Box<Self>> {
        let mapping = map(platform, pci.as_ref(), kind, access)?;
        let memory = match platform.allocate_dma(ARENA, ARENA_ALIGN) {
            Ok(memory) => memory,
            Err(error) => {
                mapping.unmap(platform);
                return Err(Stop::trouble(format_args!("{error}")));
            }
        };
        let zero = QueueIndex::new(0).unwrap_or_else(|| unreachable!("0 is a queue's number"));
        let numbers = QueueNumbers { inflate: zero, deflate: zero, statistics: None, hinting: None, reporting: None };
        let Mapping { transport, isr, config } = mapping;
        let mut device = Box::new(Self {
            platform,
            host,
            pci,
            kind,
            writes: access.writes,
            memory: access.memory,
            port: access.port,
            slot: None,
            transport,
            isr,
            config,
            offered: Features::empty(),
            sizes: Vec::new(),
            numbers,
            arena: Arena::new(memory),
            runs: Vec::new(),
            pfns: Vec::new(),
            away: Vec::new(),
            patience: access.patience,
            features: Features::empty(),
            queues: Vec::new(),
            buffers: Vec::new(),
            signals: Signals::none(),
            obstacles: Obstacles::default(),
            is_plain: false,
            needed_reset: None,
            fingerprint: None,
        });
        match device.discover() {
            Ok(()) => Ok(device),
            Err(stop) => {
                device.close();
                Err(stop)
            }
        }
    }

    /// Reads offered features and queues, and takes the frames to test with.
    fn discover(&mut self) -> Verdict {
        self.begin()?;
        self.offered = self.read_offered();
        self.negotiate_least()?;
        self.sizes = (0..QUEUES_MAX).map(|queue| self.queue_size(queue)).collect();
        if self.kind.number == BALLOON {
            let sizes = [0, 1, 2, 3, 4].map(|queue| self.sizes[queue]);
            match resolve(self.offered, sizes) {
                Ok(numbers) => self.numbers = numbers,
                Err(error) => fail!("{error}"),
            }
            self.take_frames()?;
        } else {
            ensure!(self.present().next().is_some(), "the device has no queue");
        }
        self.reset()
    }

    /// Takes the frames that a balloon gets and returns.
    fn take_frames(&mut self) -> Verdict {
        while self.pfns.len() < FRAMES {
            let Some(run) = self.platform.take_free((FRAMES - self.pfns.len()) as u32) else { break };
            self.pfns.extend(run.pfns().map(|pfn| pfn.0));
            self.runs.push(run);
        }
        trouble_unless!(self.pfns.len() >= 64, "only {} frames of memory are free to test with", self.pfns.len());
        self.away = alloc::vec![false; self.pfns.len()];
        Ok(())
    }

    /// Gives everything back.
    pub(crate) fn close(mut self) {
        let stopped = self.stop().is_ok();
        if let Some(pci) = &self.pci {
            pci.function.disable(&mut self.platform.config(), Command::BUS_MASTER);
        }
        let memory = self.arena.into_memory();
        if stopped {
            self.platform.release_dma(memory);
        } else {
            // A device that would not stop may write to it permanently.
            core::mem::forget(memory);
        }
        let mut place = 0;
        for run in self.runs {
            let away = self.away.iter().skip(place).take(run.count() as usize).any(|away| *away);
            place += run.count() as usize;
            // Frames that the device did not return stay with the host.
            if away || !stopped { self.platform.confirm_ballooned(run) } else { self.platform.release(run) }
        }
        Mapping { transport: self.transport, isr: self.isr, config: self.config }.unmap(self.platform);
    }
}

/// The kind of transport by which a device is driven.
pub(crate) fn transport_of(pci: Option<&PciFunction>, legacy: bool, version: u32) -> TransportKind {
    match (pci, legacy) {
        (None, _) if version == 1 => TransportKind::MmioLegacy,
        (None, _) => TransportKind::Mmio,
        (Some(pci), false) if pci.has(CapabilityType::Common) || !pci.may_be_legacy() => TransportKind::Modern,
        (Some(_), _) => TransportKind::Legacy,
    }
}

/// Maps the registers of a device.
fn map(platform: &mut dyn AnyPlatform, pci: Option<&PciFunction>, kind: &Kind, access: Access) -> Verdict<Mapping> {
    let Some(pci) = pci else {
        let DeviceHandle::Mmio(device) = access.handle else {
            return Err(Stop::trouble(format_args!(
                "{} is on a bus that the tester does not know",
                access.handle.address()
            )));
        };
        return Mapping::mmio(platform, device);
    };
    let legacy = transport_of(Some(pci), access.legacy, 0) == TransportKind::Legacy;
    let in_ports = |structure: &&Structure| pci.bars.get(structure.bar).is_ok_and(ballonet::pci::Bar::is_io);
    let ports =
        legacy || pci.structures.iter().filter(|structure| structure.has_place()).any(|structure| in_ports(&structure));
    let decoding = if ports { Command::IO | Command::MEMORY } else { Command::MEMORY };
    let before = pci.function.enable(&mut platform.config(), decoding | Command::BUS_MASTER);
    let mapping = if legacy { Mapping::legacy(platform, pci) } else { Mapping::modern(platform, pci, kind.config) };
    if mapping.is_err() {
        pci.function.set_command(&mut platform.config(), before);
    }
    mapping
}

/// Alignment of the tester's memory: a page, which legacy queues need.
const ARENA_ALIGN: usize = LEGACY_PAGE;

impl TestDevice<'_> {
    /// Waits until something holds; `false` if it does not in time.
    pub(crate) fn wait(&mut self, limit: u64, mut holds: impl FnMut(&mut Self) -> Verdict<bool>) -> Verdict<bool> {
        let start = self.platform.now();
        loop {
            // The clock is read before the condition: time that the host steals in between must not count.
            let waited = self.platform.now().saturating_sub(start);
            if holds(self)? {
                return Ok(true);
            }
            if waited >= limit {
                return Ok(false);
            }
            self.platform.relax();
        }
    }

    /// Lets the device act on what it was sent, until something holds; `false` if that does not hold after so many
    /// quiet times. The verdict is the same on a busy host where sleep is ordered behind the device's work.
    pub(crate) fn settle(
        &mut self,
        quiet_times: u64,
        mut holds: impl FnMut(&mut Self) -> Verdict<bool>,
    ) -> Verdict<bool> {
        let (start, piece) = (self.platform.now(), self.patience.quiet / PIECES);
        let limit = quiet_times * self.patience.quiet;
        let Some(sleep) = self.patience.sleep else { return self.wait(limit, holds) };
        // Most devices need less than the first piece, and no sleep is that short.
        if self.wait(piece, &mut holds)? {
            return Ok(true);
        }
        let mut slept = 0;
        loop {
            sleep(piece);
            slept += 1;
            let waited = self.platform.now().saturating_sub(start);
            if holds(self)? {
                return Ok(true);
            }
            if waited >= limit && slept >= SLEEPS {
                return Ok(false);
            }
        }
    }

    /// Waits for a time in which nothing may happen.
    pub(crate) fn wait_quiet(&mut self) -> Verdict {
        self.settle(1, |_| Ok(false)).map(drop)
    }

    /// Resets the device. If an earlier reset did not finish, fails without waiting again.
    pub(crate) fn reset(&mut self) -> Verdict {
        if let Some(reason) = &self.obstacles.stuck {
            return Err(Stop::failed(format_args!("{reason}")));
        }
        self.set_status(Status::empty());
        let limit = self.patience.stall;
        if self.wait(limit, |device| Ok(device.status()?.is_empty()))? {
            return Ok(());
        }
        let status = self.status()?;
        Err(self.stick(format!("a reset did not finish within {} ms: the status is {status}", limit / 1_000_000)))
    }

    /// Notes that no more checks are possible, and why.
    fn stick(&mut self, reason: String) -> Stop {
        let stop = Stop::failed(format_args!("{reason}"));
        self.obstacles.stuck = Some(reason);
        stop
    }

    /// Resets the device and sets ACKNOWLEDGE and DRIVER. Before that, features and queues need not be readable
    /// (3.1.1).
    pub(crate) fn begin(&mut self) -> Verdict {
        self.reset()?;
        self.set_status(Status::ACKNOWLEDGE);
        self.set_status(Status::ACKNOWLEDGE | Status::DRIVER);
        let status = self.status()?;
        if status.is_empty() || status.contains(Status::FAILED) {
            let set = Status::ACKNOWLEDGE | Status::DRIVER;
            return Err(
                self.stick(format!("the device accepts no status after a reset: {set} was written, {status} is read"))
            );
        }
        Ok(())
    }

    /// Resets the device and forgets its queues and buffers. Called after each check.
    pub(crate) fn stop(&mut self) -> Verdict {
        let outcome = self.reset();
        let signals = core::mem::replace(&mut self.signals, Signals::none());
        signals.release(self.platform, self.pci.as_ref());
        self.config.start = 0;
        self.queues.clear();
        self.buffers.clear();
        outcome
    }
}
