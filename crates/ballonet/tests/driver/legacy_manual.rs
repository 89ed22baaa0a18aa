//! Tests the model's legacy interface with manual accesses: first correct use, then one misstep at a time.

use ballonet::memory::PageFrames;
use ballonet::pci::{Bdf, ConfigSpace};
use ballonet::platform::{DmaMemory, Platform, RegisterWindow, Registers};

use ballonet_models::{Behaviour, Machine, ModelPlatform};

type Window = <ModelPlatform as Platform>::Registers;
type Dma = <ModelPlatform as Platform>::Memory;

/// A misstep, named after the clause that it breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slip {
    None,
    NoReset,
    StatusDropsBits,
    FeaturesOk,
    FeaturesForgotten,
    FeaturesLate,
    FeatureNotOffered,
    Bit30,
    AnyLayoutDeclined,
    WideStatus,
    NarrowFrame,
    SizeWritten,
    FrameZero,
    FrameTwice,
    FrameBeforeFeatures,
    BlockTooShort,
    NoSuchQueue,
    VectorNotRead,
    VectorWithoutMsix,
    KickBeforeDriverOk,
    KickWide,
    KickNobody,
    ModernDoorbell,
    ActualByBytes,
    ConfigWhereMsixHasIt,
    QueueMissing,
}

struct Hand {
    machine: Machine,
    platform: ModelPlatform,
    at: Bdf,
    slip: Slip,
    ports: Window,
    modern: Window,
}

/// Queue size; only the device chooses it.
const SIZE: u16 = 64;
const AVAILABLE: usize = 16 * SIZE as usize;

impl Hand {
    fn new(slip: Slip) -> Self {
        let (machine, at) = Machine::with_balloon(64, Behaviour::conforming().transitional());
        let mut platform = ModelPlatform::new(&machine);
        let config = platform.config();
        config.write16(at, 4, 7);
        let ports = u64::from(config.read32(at, 0x10) & !3);
        let modern = u64::from(config.read32(at, 0x20) & !0xf) | u64::from(config.read32(at, 0x24)) << 32;
        let mut map = |bar, io, address, length| {
            platform
                .map(RegisterWindow { device: at.into(), bar: Some(bar), io, address, length })
                .expect("BARs decode")
        };
        let (ports, modern) = (map(0, true, ports, 0x40), map(4, false, modern, 0x38));
        Self { machine, platform, at, slip, ports, modern }
    }

    fn is(&self, slip: Slip) -> bool {
        self.slip == slip
    }

    fn negotiate(&mut self) {
        if !self.is(Slip::NoReset) {
            self.ports.write8(0x12, 0);
            while self.ports.read8(0x12) != 0 {}
        }
        self.ports.write8(0x12, 1);
        self.ports.write8(0x12, if self.is(Slip::StatusDropsBits) { 2 } else { 3 });
        if self.is(Slip::WideStatus) {
            self.ports.read16(0x12);
        }
        let offered = self.ports.read32(0);
        assert_eq!(offered >> 30 & 1, 1, "bit 30 is offered as bait");
        // Neither statistics nor EVENT_IDX, to keep this short.
        let accepted = match self.slip {
            Slip::FeatureNotOffered => 1 << 27 | 1 << 5,
            Slip::Bit30 => 1 << 27 | 1 << 30,
            Slip::AnyLayoutDeclined => 0,
            _ => 1 << 27,
        };
        if self.is(Slip::FrameBeforeFeatures) {
            self.ports.write32(8, 1);
        }
        if !self.is(Slip::FeaturesForgotten) {
            self.ports.write32(4, accepted);
        }
        if self.is(Slip::FeaturesOk) {
            self.ports.write8(0x12, 11);
        }
    }

    fn set_up_queue(&mut self, index: u16) -> Dma {
        let size = if self.is(Slip::BlockTooShort) { 4096 } else { 8192 };
        let memory = self.platform.allocate_dma(size, 4096).expect("there is memory");
        self.ports.write16(0x0e, if self.is(Slip::NoSuchQueue) { 9 } else { index });
        if !self.is(Slip::NoSuchQueue) {
            assert_eq!(self.ports.read16(0x0c), SIZE);
        }
        if self.is(Slip::SizeWritten) {
            self.ports.write16(0x0c, 32);
        }
        let frame = (memory.device_address() / 4096) as u32;
        if self.is(Slip::NarrowFrame) {
            self.ports.write16(8, frame as u16);
        }
        self.ports.write32(8, frame);
        assert!(self.slip != Slip::None || self.ports.read32(8) == frame);
        match self.slip {
            Slip::FrameZero => self.ports.write32(8, 0),
            Slip::FrameTwice => self.ports.write32(8, frame),
            _ => {}
        }
        memory
    }

    fn vectors(&mut self) {
        if self.is(Slip::VectorNotRead) {
            let config = self.platform.config();
            let mut at = u16::from(config.read8(self.at, 0x34));
            while config.read8(self.at, at) != 0x11 {
                at = u16::from(config.read8(self.at, at + 1));
            }
            config.write16(self.at, at + 2, 0xc000);
            self.ports.write16(0x14, 0);
        }
        if self.is(Slip::VectorWithoutMsix) {
            self.ports.write16(0x14, 0);
        }
    }

    fn inflate(&mut self, ring: &mut Dma) {
        let mut buffer = self.platform.allocate_dma(4096, 4096).expect("there is memory");
        let run = self.platform.frames.take_free(4).expect("there are frames");
        let pfns: Vec<u32> = run.pfns().map(|pfn| pfn.0).collect();
        for (i, pfn) in pfns.iter().enumerate() {
            buffer.store32(4 * i, *pfn);
        }
        ring.store64(0, buffer.device_address());
        ring.store32(8, 4 * pfns.len() as u32);
        ring.store16(AVAILABLE + 2, 1);
        match self.slip {
            Slip::KickWide => self.ports.write8(0x10, 0),
            Slip::KickNobody => self.ports.write16(0x10, 7),
            _ => self.ports.write16(0x10, 0),
        }
        while self.machine.sleep() {}
    }

    /// Starts the device and inflates once.
    fn run(mut self) -> Vec<&'static str> {
        self.negotiate();
        let mut ring = self.set_up_queue(0);
        if !self.is(Slip::QueueMissing) {
            self.set_up_queue(1);
        }
        self.vectors();
        if self.is(Slip::KickBeforeDriverOk) {
            self.ports.write16(0x10, 0);
        }
        self.ports.write8(0x12, 7);
        match self.slip {
            Slip::FeaturesLate => self.ports.write32(4, 1 << 27),
            Slip::ModernDoorbell => drop(self.modern.read16(0x18)),
            _ => {}
        }
        self.machine.balloon(self.at, |b, bus| b.set_target(4, bus));
        let target = self.ports.read32(0x14);
        assert!(self.slip != Slip::None || target == 4, "the configuration follows the header");
        self.inflate(&mut ring);
        match self.slip {
            Slip::ActualByBytes => self.ports.write8(0x18, 4),
            Slip::ConfigWhereMsixHasIt => self.ports.write32(0x1c, 4),
            _ => self.ports.write32(0x18, 4),
        }
        self.machine.missteps().into_iter().map(|m| m.clause).collect()
    }
}

#[test]
fn a_correct_legacy_driver_causes_no_findings() {
    let hand = Hand::new(Slip::None);
    let (machine, at) = (hand.machine.clone(), hand.at);
    assert_eq!(hand.run(), [""; 0]);
    assert_eq!(machine.balloon(at, |b, _| (b.actual(), b.queue(0).completed)), (4, 1));
}

#[test]
fn the_model_names_the_clause_of_each_misstep_of_a_legacy_driver() {
    use Slip::*;
    let slips = [
        (NoReset, "INIT-02"),
        (StatusDropsBits, "STATUS-02"),
        (FeaturesOk, "LEG-INIT-01"),
        (FeaturesForgotten, "INIT-08"),
        (FeaturesLate, "INIT-08"),
        (FeatureNotOffered, "FEAT-01"),
        (Bit30, "LEG-RSVD-02"),
        (AnyLayoutDeclined, "LEG-RSVD-01"),
        (WideStatus, "LEG-PCI-01"),
        (NarrowFrame, "LEG-PCI-01"),
        (SizeWritten, "LEG-PCI-01"),
        (FrameZero, "LEG-VQ"),
        (FrameTwice, "LEG-VQ"),
        (FrameBeforeFeatures, "INIT-10"),
        (BlockTooShort, "LEG-VQ-03"),
        (NoSuchQueue, "LEG-VQ"),
        (VectorNotRead, "PCI-MSIX-05"),
        (VectorWithoutMsix, "BAL-ACTUAL"),
        (KickBeforeDriverOk, "INIT-14"),
        (KickWide, "PCI-NOTIF-01"),
        (KickNobody, "PCI-NOTIF-03"),
        (ModernDoorbell, "LEG-CORE-02"),
        (ActualByBytes, "BAL-ACTUAL"),
        (ConfigWhereMsixHasIt, "BAL-ACTUAL"),
        (QueueMissing, "INIT-10"),
    ];
    for (slip, clause) in slips {
        let found = Hand::new(slip).run();
        assert!(found.contains(&clause), "{slip:?} should break {clause}; found {found:?}");
    }
}
