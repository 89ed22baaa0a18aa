//! Tests the device model: operates a balloon register by register, first correctly and then with one misstep at a
//! time. A model that misses a misstep would prove nothing about a driver.

use ballonet::memory::FrameRun;
use ballonet::memory::PageFrames;
use ballonet::pci::{Bdf, ConfigSpace};
use ballonet::platform::{DmaMemory, Handled, Handler, Platform, RegisterWindow, Registers, Vector};

use ballonet_models::feature::{NOTIF_CONFIG_DATA, NOTIFICATION_DATA, PAGE_REPORTING};
use ballonet_models::{Behaviour, Machine, ModelPlatform};

mod missteps;

type Window = <ModelPlatform as Platform>::Registers;
type Dma = <ModelPlatform as Platform>::Memory;

/// A deliberate misstep, named after the clause that it breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slip {
    None,
    NoReset,
    ResetNotAwaited,
    StatusDropsBits,
    StatusSkipsDriver,
    FeatureNotOffered,
    FeatureReserved,
    HighWordForgotten,
    FeaturesOkNotRead,
    FeaturesAfterOk,
    ConfigDuringNegotiation,
    WideStatus,
    ReadOnlyField,
    OddQueueSize,
    AddressHalfMissing,
    AddressMisaligned,
    VectorBeyondTable,
    VectorNotRead,
    VectorAfterEnable,
    EnableZero,
    UsedRingDirty,
    KickBeforeDriverOk,
    KickWide,
    KickWrongValue,
    NoBusMaster,
    ActualByBytes,
    TargetWithoutGeneration,
    LongRequest,
    PfnOutsideRam,
    PfnNotTaken,
    InflateTwice,
    DeflateOfNothing,
    PageTouched,
    BufferChanged,
    BufferNotDma,
    ReleaseBeforeReset,
    BarWithDecodeOn,
    StatusRegisterCleared,
    CapabilityWritten,
    StatisticsMissing,
    StatisticsTwice,
    StatisticsOdd,
    StatisticsOtherTags,
    IsrInMsixMode,
    WriteAfterFailed,
    ConfigBeyondOffer,
    NarrowFeatures,
    WideVector,
    QueueMissing,
    NarrowKickWithData,
    WrongKickWithData,
    WrongKickByName,
    WrongKickWithDataByName,
    WrongProgress,
    NoKick,
    HoleRead,
    HoleWritten,
    MapElsewhere,
    VectorMasked,
    MessageUnmasked,
    TableNarrow,
    QueueResetUnaccepted,
    OddPfns,
    ReportOfOthers,
    ReportOfParts,
    ReportTwice,
    Ballooned,
    Deflating,
}

pub struct Hand {
    pub machine: Machine,
    pub platform: ModelPlatform,
    pub at: Bdf,
    slip: Slip,
    msix: Window,
    common: Window,
    device: Window,
    notify: Window,
    isr: Window,
    vector: Option<Vector>,
}

/// A queue set up manually.
pub struct Ring {
    memory: Dma,
    buffer: Dma,
    index: u16,
    published: u16,
}

const SIZE: u16 = 8;
const AVAILABLE: usize = 16 * SIZE as usize;
const USED: usize = 256;

impl Hand {
    fn new(slip: Slip) -> Self {
        let kicks = match slip {
            Slip::NarrowKickWithData | Slip::WrongKickWithData | Slip::WrongProgress => NOTIFICATION_DATA,
            Slip::WrongKickByName => NOTIF_CONFIG_DATA,
            Slip::WrongKickWithDataByName => NOTIFICATION_DATA | NOTIF_CONFIG_DATA,
            Slip::ReportOfOthers | Slip::ReportOfParts | Slip::ReportTwice => PAGE_REPORTING,
            _ => 0,
        };
        let conforming = Behaviour::conforming();
        let features = conforming.features | kicks;
        Self::on(conforming.with_features(features), slip)
    }

    /// A test driver without a misstep, on a device with QEMU's layout.
    pub fn right(behaviour: Behaviour) -> Self {
        Self::on(behaviour, Slip::None)
    }

    fn on(behaviour: Behaviour, slip: Slip) -> Self {
        let (machine, at) = Machine::with_balloon(64, behaviour);
        let mut platform = ModelPlatform::new(&machine);
        let config = platform.config();
        if slip == Slip::BarWithDecodeOn {
            config.write16(at, 4, 2);
            config.write32(at, 0x20, u32::MAX);
        }
        if slip == Slip::StatusRegisterCleared {
            config.write32(at, 4, 0xffff_0000);
        }
        if slip == Slip::CapabilityWritten {
            config.write32(at, 0x48, 0);
        }
        config.write16(at, 4, if slip == Slip::NoBusMaster { 2 } else { 6 });
        let base = |low: u16| u64::from(config.read32(at, low) & !0xf);
        let (msix, rest) = (base(0x14), base(0x20) | u64::from(config.read32(at, 0x24)) << 32);
        let mut map = |bar, address, length| {
            platform.map(RegisterWindow { device: at.into(), bar: Some(bar), io: false, address, length }).unwrap()
        };
        let (common, isr) = (map(4, rest, 0x40), map(4, rest + 0x1000, 1));
        let (device, notify) = (map(4, rest + 0x2000, 12), map(4, rest + 0x3000, 0x1000));
        let msix = map(1, msix, 0x80);
        Self { machine, platform, at, slip, msix, common, device, notify, isr, vector: None }
    }

    fn is(&self, slip: Slip) -> bool {
        self.slip == slip
    }

    fn negotiate(&mut self) {
        if !self.is(Slip::NoReset) {
            self.common.write8(0x14, 0);
            while !self.is(Slip::ResetNotAwaited) && self.common.read8(0x14) != 0 {}
        }
        self.common.write8(0x14, 1);
        self.common.write8(
            0x14,
            match self.slip {
                Slip::StatusDropsBits => 2,
                Slip::StatusSkipsDriver => 11,
                _ => 3,
            },
        );
        if self.is(Slip::WideStatus) {
            self.common.read32(0x14);
        }
        if self.is(Slip::NarrowFeatures) {
            self.common.read16(0x04);
        }
        if self.is(Slip::WideVector) {
            self.common.read32(0x10);
        }
        if self.is(Slip::ReadOnlyField) {
            self.common.write16(0x12, 1);
        }
        let mut words = [0, 0];
        for (word, bits) in words.iter_mut().enumerate() {
            self.common.write32(0x00, word as u32);
            *bits = self.common.read32(0x04);
        }
        // Without features that demand more of a driver, or whose meaning depends on the VMM.
        words[0] &= !(1 << 29 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 7);
        if !self.reports() {
            words[0] &= !(1 << 5);
        }
        if !self.of_statistics() && !self.is(Slip::StatisticsMissing) {
            words[0] &= !(1 << 1);
        }
        match self.slip {
            Slip::FeatureNotOffered => words[0] |= 1 << 5,
            Slip::FeatureReserved => words[0] |= 1 << 30,
            _ => {}
        }
        if self.is(Slip::ConfigDuringNegotiation) {
            self.device.write32(4, 0);
        }
        for (word, bits) in words.into_iter().enumerate() {
            if word == 0 || !self.is(Slip::HighWordForgotten) {
                self.common.write32(0x08, word as u32);
                self.common.write32(0x0c, bits);
            }
        }
        self.common.write8(0x14, 11);
        if !self.is(Slip::FeaturesOkNotRead) {
            self.common.read8(0x14);
        }
        if self.is(Slip::FeaturesAfterOk) {
            self.common.write32(0x0c, words[1]);
        }
    }

    fn enable_msix(&mut self) {
        let vector = self.platform.allocate_vector(format_args!("hand"), Handler::new(|| Handled::Yes)).unwrap();
        let message = vector.message.unwrap();
        let control = self.msix_control();
        self.platform.config().write16(self.at, control, 1 << 15);
        self.msix.write64(0, message.address);
        self.msix.write32(8, message.data);
        self.msix.write32(12, u32::from(self.is(Slip::VectorMasked)));
        match self.slip {
            Slip::MessageUnmasked => self.msix.write32(8, message.data),
            Slip::TableNarrow => drop(self.msix.read16(8)),
            _ => {}
        }
        self.vector = Some(vector);
    }

    fn msix_control(&mut self) -> u16 {
        let config = self.platform.config();
        let mut at = u16::from(config.read8(self.at, 0x34));
        while config.read8(self.at, at) != 0x11 {
            at = u16::from(config.read8(self.at, at + 1));
        }
        at + 2
    }

    fn set_up_queue(&mut self, index: u16) -> Ring {
        let mut memory = self.platform.allocate_dma(1024, 4096).unwrap();
        let buffer = self.platform.allocate_dma(8192, 4096).unwrap();
        if self.is(Slip::UsedRingDirty) {
            memory.store16(USED + 2, 1);
        }
        let start = memory.device_address() + if self.is(Slip::AddressMisaligned) { 4 } else { 0 };
        self.common.write16(0x16, index);
        self.common.write16(0x18, if self.is(Slip::OddQueueSize) { 6 } else { SIZE });
        self.common.write64(0x20, start);
        self.common.write64(0x28, start + AVAILABLE as u64);
        self.common.write32(0x30, (start + USED as u64) as u32);
        if !self.is(Slip::AddressHalfMissing) {
            self.common.write32(0x34, 0);
        }
        self.common.write16(0x1a, if self.is(Slip::VectorBeyondTable) { 8 } else { 0 });
        if !self.is(Slip::VectorNotRead) {
            self.common.read16(0x1a);
        }
        self.common.write16(0x1c, u16::from(!self.is(Slip::EnableZero)));
        if self.is(Slip::VectorAfterEnable) {
            self.common.write16(0x1a, 0);
        }
        Ring { memory, buffer, index, published: 0 }
    }

    /// Whether the misstep concerns statistics, which need a buffer.
    fn of_statistics(&self) -> bool {
        matches!(self.slip, Slip::StatisticsTwice | Slip::StatisticsOdd | Slip::StatisticsOtherTags)
    }

    /// Whether the misstep concerns reports of free memory.
    fn reports(&self) -> bool {
        matches!(self.slip, Slip::ReportOfOthers | Slip::ReportOfParts | Slip::ReportTwice)
    }

    fn kick(&mut self, ring: &Ring) {
        let at = 4 * usize::from(ring.index);
        match self.slip {
            Slip::KickWide => self.notify.write32(at, ring.index.into()),
            Slip::KickWrongValue => self.notify.write16(at, ring.index + 1),
            Slip::NarrowKickWithData => self.notify.write16(at, ring.index),
            Slip::WrongKickWithData | Slip::WrongKickWithDataByName => self.notify.write32(at, 0x7777),
            Slip::WrongKickByName => self.notify.write16(at, 0x7777),
            Slip::WrongProgress => self.notify.write32(at, 99 << 16 | u32::from(ring.index)),
            Slip::NoKick => self.machine.each_balloon(ballonet_models::Balloon::check_idle),
            _ => self.notify.write16(at, ring.index),
        }
    }

    fn send(&mut self, ring: &mut Ring, pfns: &[u32]) {
        let bytes: Vec<u8> = pfns.iter().flat_map(|pfn| pfn.to_le_bytes()).collect();
        self.send_bytes(ring, &bytes);
    }

    fn send_bytes(&mut self, ring: &mut Ring, bytes: &[u8]) {
        ring.buffer.write_bytes(0, bytes);
        let slot = ring.published % SIZE;
        let at = 16 * usize::from(slot);
        let address = if self.is(Slip::BufferNotDma) { 0x80_0000 } else { ring.buffer.device_address() };
        ring.memory.store64(at, address);
        ring.memory.store32(at + 8, bytes.len() as u32);
        ring.memory.store16(at + 12, 0);
        ring.memory.store16(AVAILABLE + 4 + 2 * usize::from(slot), slot);
        ring.published += 1;
        ring.memory.store16(AVAILABLE + 2, ring.published);
        self.kick(ring);
        if self.is(Slip::BufferChanged) {
            self.machine.balloon(self.at, |b, bus| {
                b.stall_from_now(true);
                bus.now += 1_000_000;
                b.work(bus);
            });
            ring.buffer.store32(0, 0);
            self.machine.balloon(self.at, |b, _| b.stall_from_now(false));
        }
        while self.machine.sleep() {}
    }

    /// Starts the device. Returns the inflate and the deflate queue.
    pub fn start(&mut self) -> (Ring, Ring) {
        self.negotiate();
        let queues = (self.set_up_queue(0), self.set_up_queue(1));
        self.common.write8(0x14, 15);
        queues
    }

    /// Sends frame numbers in a chain with one descriptor per part.
    pub fn send_chain(&mut self, ring: &mut Ring, parts: &[&[u32]]) {
        let (mut at, start) = (0, ring.buffer.device_address());
        for (slot, part) in parts.iter().enumerate() {
            let bytes: Vec<u8> = part.iter().flat_map(|pfn| pfn.to_le_bytes()).collect();
            ring.buffer.write_bytes(at, &bytes);
            ring.memory.store64(16 * slot, start + at as u64);
            ring.memory.store32(16 * slot + 8, bytes.len() as u32);
            ring.memory.store16(16 * slot + 12, u16::from(slot + 1 < parts.len()));
            ring.memory.store16(16 * slot + 14, slot as u16 + 1);
            at += bytes.len();
        }
        ring.memory.store16(AVAILABLE + 4 + 2 * usize::from(ring.published % SIZE), 0);
        ring.published += 1;
        ring.memory.store16(AVAILABLE + 2, ring.published);
        self.kick(ring);
        while self.machine.sleep() {}
    }

    /// The whole life of a balloon: start, one inflate and one deflate, shutdown.
    fn run(mut self) -> Vec<&'static str> {
        self.negotiate();
        self.enable_msix();
        self.common.write16(0x10, 0);
        self.common.read16(0x10);
        let mut inflate = self.set_up_queue(0);
        if self.is(Slip::QueueMissing) {
            self.common.write8(0x14, 15);
            return self.found();
        }
        let mut deflate = self.set_up_queue(1);
        let statistics = self.of_statistics().then(|| self.set_up_queue(2));
        let reporting = self.reports().then(|| self.set_up_queue(4));
        if self.is(Slip::QueueResetUnaccepted) {
            self.common.write16(0x3a, 1);
        }
        if self.is(Slip::KickBeforeDriverOk) {
            self.kick(&inflate);
        }
        self.common.write8(0x14, 15);
        self.machine.balloon(self.at, |b, bus| b.set_target(4, bus));
        if !self.is(Slip::TargetWithoutGeneration) {
            self.common.read8(0x15);
        }
        self.device.read32(0);
        if self.is(Slip::ConfigBeyondOffer) {
            self.device.read32(8);
        }
        if let Some(ring) = statistics {
            self.answer(ring);
        }
        if let Some(ring) = reporting {
            self.report(ring);
        }
        match self.slip {
            Slip::HoleRead => drop(self.notify.read16(0)),
            Slip::HoleWritten => self.isr.write8(0, 0),
            Slip::MapElsewhere => {
                let window =
                    RegisterWindow { device: self.at.into(), bar: Some(4), io: false, address: 0x1000, length: 8 };
                assert!(self.platform.map(window).is_err());
            }
            _ => {}
        }
        self.exchange(&mut inflate, &mut deflate);
        if self.is(Slip::ActualByBytes) {
            self.device.write8(4, 4);
        }
        if self.is(Slip::IsrInMsixMode) {
            self.isr.read8(0);
        }
        if self.is(Slip::ReleaseBeforeReset) {
            self.platform.release_dma(inflate.memory);
        }
        if self.is(Slip::WriteAfterFailed) {
            self.common.write8(0x14, 15 | 128);
            self.common.write32(0x08, 0);
        }
        self.found()
    }

    /// The broken clauses.
    fn found(&self) -> Vec<&'static str> {
        self.machine.missteps().into_iter().map(|m| m.clause).collect()
    }

    /// Reports memory that the driver does not own, a partial frame, or the same frame twice.
    fn report(&mut self, mut ring: Ring) {
        let run = self.platform.frames.take_free(2).unwrap();
        let start = FrameRun::start(run).start().as_u64();
        let (offset, length) = match self.slip {
            Slip::ReportOfOthers => (2 * 4096, 4096),
            Slip::ReportOfParts => (0, 2048),
            _ => (0, 4096),
        };
        let buffers = if self.is(Slip::ReportTwice) { 2 } else { 1 };
        for slot in 0..buffers {
            ring.memory.store64(16 * slot, start + offset);
            ring.memory.store32(16 * slot + 8, length);
            ring.memory.store16(16 * slot + 12, 2);
            ring.memory.store16(AVAILABLE + 4 + 2 * slot, slot as u16);
        }
        ring.memory.store16(AVAILABLE + 2, buffers as u16);
        self.kick(&ring);
        while self.machine.sleep() {}
    }

    /// Sends invalid statistics.
    fn answer(&mut self, mut ring: Ring) {
        let report = |tags: [u16; 3]| tags.iter().flat_map(|tag| [tag.to_le_bytes(); 5].concat()).collect::<Vec<_>>();
        let first = report([0, 1, 2]);
        self.send_bytes(&mut ring, if self.is(Slip::StatisticsOdd) { &first[..20] } else { &first });
        if !self.is(Slip::StatisticsTwice) {
            self.machine.balloon(self.at, |b, bus| assert!(b.request_statistics(bus)));
        }
        let second = report(if self.is(Slip::StatisticsOtherTags) { [2, 1, 0] } else { [0, 1, 2] });
        self.send_bytes(&mut ring, &second);
    }

    fn exchange(&mut self, inflate: &mut Ring, deflate: &mut Ring) {
        let run = self.platform.frames.take_free(4).unwrap();
        let mut pfns: Vec<u32> = run.pfns().map(|pfn| pfn.0).collect();
        match self.slip {
            Slip::LongRequest => pfns = self.platform.frames.take_free(257).unwrap().pfns().map(|pfn| pfn.0).collect(),
            Slip::PfnOutsideRam => pfns[0] = 0x8_0000,
            Slip::PfnNotTaken => pfns[0] = FrameRun::start(run).0 + 4,
            Slip::InflateTwice => pfns[1] = pfns[0],
            Slip::DeflateOfNothing => {
                self.send(deflate, &pfns);
                return;
            }
            _ => {}
        }
        if self.is(Slip::OddPfns) {
            return self.send_bytes(inflate, &pfns[0].to_le_bytes()[..3]);
        }
        self.send(inflate, &pfns);
        if self.is(Slip::LongRequest) {
            return;
        }
        self.device.write32(4, pfns.len() as u32);
        if self.is(Slip::PageTouched) {
            use vm_memory::{Bytes, GuestAddress};
            let address = GuestAddress(u64::from(pfns[2]) * 4096 + 2048);
            self.machine.bus(|bus| bus.ram.memory().write_obj(0_u8, address).unwrap());
        }
        if self.is(Slip::Ballooned) {
            PageFrames::release(&mut self.platform.frames, run);
            return;
        }
        if self.is(Slip::Deflating) {
            self.machine.balloon(self.at, |b, _| b.stall_from_now(true));
            self.send(deflate, &pfns);
            PageFrames::release(&mut self.platform.frames, run);
            return;
        }
        self.send(deflate, &pfns);
        self.device.write32(4, 0);
    }
}
