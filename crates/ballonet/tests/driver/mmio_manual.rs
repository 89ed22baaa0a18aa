//! Tests the device model on MMIO: operates its registers manually, first correctly and then with one misstep at a
//! time.

use ballonet::memory::PageFrames;
use ballonet::platform::{DeviceAddress, DmaMemory, Platform, RegisterWindow, Registers};
use ballonet::virtio::DeviceHandle;

use ballonet_models::{Behaviour, Machine, ModelPlatform};

type Window = <ModelPlatform as Platform>::Registers;
type Dma = <ModelPlatform as Platform>::Memory;

/// A deliberate misstep, named after the clause that it breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slip {
    None,
    NoReset,
    NarrowStatus,
    WideConfig,
    UndefinedOffset,
    ReadOnlyWritten,
    WriteOnlyRead,
    OtherVersion,
    FeaturesUnselected,
    AcceptedUnselected,
    SizeBeyondLimit,
    SizeForgotten,
    WrittenWhileReady,
    AckUndefined,
    AckUnasked,
    KickWithUpperHalf,
    KickBeforeDriverOk,
    LegacyUpperFeatures,
    LegacyNoPageSize,
    LegacyNoAlignment,
    LegacyOddAlignment,
    TargetWithoutGeneration,
}

struct Hand {
    machine: Machine,
    platform: ModelPlatform,
    at: ballonet::pci::Bdf,
    slip: Slip,
    legacy: bool,
    registers: Window,
}

/// Entries of the queues.
const SIZE: u32 = 32;

fn map(machine: &Machine, platform: &mut ModelPlatform, at: ballonet::pci::Bdf) -> Window {
    let DeviceHandle::Mmio(device) = machine.handle(at) else { panic!("it is on MMIO") };
    let DeviceAddress::Mmio(address) = device.address() else { panic!("it is on MMIO") };
    let window = RegisterWindow { device: device.address(), bar: None, io: false, address, length: 0x200 };
    platform.map(window).expect("the window is there")
}

impl Hand {
    fn new(legacy: bool, slip: Slip) -> Self {
        let conforming = Behaviour::conforming();
        let behaviour = if legacy { conforming.on_legacy_mmio() } else { conforming.on_mmio() };
        let (machine, at) = Machine::with_balloon(64, behaviour);
        let mut platform = ModelPlatform::new(&machine);
        let registers = map(&machine, &mut platform, at);
        Self { machine, platform, at, slip, legacy, registers }
    }

    fn is(&self, slip: Slip) -> bool {
        self.slip == slip
    }

    fn write(&mut self, offset: usize, value: u32) {
        self.registers.write32(offset, value);
    }

    fn negotiate(&mut self) {
        assert_eq!(self.registers.read32(0), 0x7472_6976);
        assert_eq!(self.registers.read32(4), if self.legacy { 1 } else { 2 });
        assert_eq!(self.registers.read32(8), 5);
        if !self.is(Slip::NoReset) {
            self.write(0x70, 0);
            while self.registers.read32(0x70) != 0 {}
        }
        self.write(0x70, 1);
        self.write(0x70, 3);
        if !self.is(Slip::FeaturesUnselected) {
            self.write(0x14, 0);
        }
        assert!(self.registers.read32(0x10) != 0 || self.slip != Slip::None);
        if !self.legacy {
            self.write(0x14, 1);
            self.registers.read32(0x10);
        }
        if !self.is(Slip::AcceptedUnselected) {
            self.write(0x24, 0);
        }
        // A legacy device gets ANY_LAYOUT. Neither statistics nor EVENT_IDX, to keep this short.
        self.write(0x20, if self.legacy { 1 << 27 } else { 0 });
        if !self.legacy || self.is(Slip::LegacyUpperFeatures) {
            self.write(0x24, 1);
            self.write(0x20, 1);
        }
        if self.legacy && !self.is(Slip::LegacyNoPageSize) {
            self.write(0x28, 4096);
        }
        if !self.legacy {
            self.write(0x70, 11);
            assert!(self.registers.read32(0x70) == 11 || self.slip != Slip::None);
        }
        match self.slip {
            Slip::NarrowStatus => drop(self.registers.read8(0x70)),
            Slip::UndefinedOffset => drop(self.registers.read32(0x18)),
            Slip::ReadOnlyWritten => self.write(0x34, 1),
            Slip::WriteOnlyRead => drop(self.registers.read32(0x30)),
            Slip::OtherVersion if self.legacy => drop(self.registers.read32(0x44)),
            Slip::OtherVersion => self.write(0x28, 4096),
            _ => {}
        }
    }

    fn set_up_queue(&mut self, index: u32) -> Dma {
        let memory = self.platform.allocate_dma(8192, 4096).expect("there is memory");
        let start = memory.device_address();
        self.write(0x30, index);
        let registers = [if self.legacy { 0x40 } else { 0x44 }, 0x34].map(|offset| self.registers.read32(offset));
        assert!(registers == [0, 64] || self.slip != Slip::None);
        if !self.is(Slip::SizeForgotten) {
            self.write(0x38, if self.is(Slip::SizeBeyondLimit) { 128 } else { SIZE });
        }
        if self.legacy {
            if !self.is(Slip::LegacyNoAlignment) {
                self.write(0x3c, if self.is(Slip::LegacyOddAlignment) { 64 } else { 4096 });
            }
            self.write(0x40, (start / 4096) as u32);
            return memory;
        }
        for (register, at) in [(0x80, 0), (0x90, 16 * u64::from(SIZE)), (0xa0, 4096)] {
            self.write(register, (start + at) as u32);
            self.write(register + 4, ((start + at) >> 32) as u32);
        }
        self.write(0x44, 1);
        if self.is(Slip::WrittenWhileReady) {
            self.write(0x80, 0);
        }
        memory
    }

    fn inflate(&mut self, ring: &mut Dma) {
        let mut buffer = self.platform.allocate_dma(4096, 4096).expect("there is memory");
        let run = self.platform.frames.take_free(4).expect("there are frames");
        for (i, pfn) in run.pfns().map(|pfn| pfn.0).enumerate() {
            buffer.store32(4 * i, pfn);
        }
        ring.store64(0, buffer.device_address());
        ring.store32(8, 16);
        ring.store16(16 * SIZE as usize + 2, 1);
        self.write(0x50, if self.is(Slip::KickWithUpperHalf) { 0x1_0000 } else { 0 });
        while self.machine.sleep() {}
    }

    fn acknowledge(&mut self) {
        let status = self.registers.read32(0x60);
        assert!(status & 1 != 0 || self.slip != Slip::None, "the queue was used");
        let ack = match self.slip {
            Slip::AckUndefined => status | 0x10,
            Slip::AckUnasked => 3 & !status | if status == 3 { 0x4 } else { 0 },
            _ => status,
        };
        self.write(0x64, ack);
        assert!(self.registers.read32(0x60) == 0 || self.slip != Slip::None);
    }

    /// Starts the device and inflates once.
    fn run(mut self) -> Vec<&'static str> {
        self.negotiate();
        let mut ring = self.set_up_queue(0);
        self.set_up_queue(1);
        if self.is(Slip::KickBeforeDriverOk) {
            self.write(0x50, 0);
        }
        self.write(0x70, if self.legacy { 7 } else { 15 });
        self.machine.balloon(self.at, |b, bus| b.set_target(4, bus));
        if !self.legacy && !self.is(Slip::TargetWithoutGeneration) {
            self.registers.read32(0xfc);
        }
        if self.is(Slip::WideConfig) {
            self.registers.read16(0x100);
        }
        assert!(self.registers.read32(0x100) == 4 || self.slip != Slip::None);
        self.inflate(&mut ring);
        self.acknowledge();
        self.write(0x104, 4);
        self.machine.missteps().into_iter().map(|m| m.clause).collect()
    }
}

#[test]
fn a_correct_driver_causes_no_findings() {
    for legacy in [false, true] {
        let hand = Hand::new(legacy, Slip::None);
        let (machine, at) = (hand.machine.clone(), hand.at);
        assert_eq!(hand.run(), [""; 0]);
        assert_eq!(machine.balloon(at, |b, _| (b.actual(), b.queue(0).completed)), (4, 1));
    }
}

#[test]
fn the_model_names_the_clause_of_each_misstep() {
    use Slip::*;
    let both = [false, true];
    let slips: [(Slip, &[bool], &str); 21] = [
        (NoReset, &both, "INIT-02"),
        (NarrowStatus, &both, "MMIO-REG-02"),
        (WideConfig, &both, "CFG-04"),
        (UndefinedOffset, &both, "MMIO-REG-01"),
        (ReadOnlyWritten, &both, "MMIO-REG-01"),
        (WriteOnlyRead, &both, "MMIO-REG-01"),
        (OtherVersion, &both, "MMIO-REG-01"),
        (FeaturesUnselected, &both, "MMIO-REG-06"),
        (AcceptedUnselected, &both, "MMIO-REG-07"),
        (SizeBeyondLimit, &both, "MMIO-REG-08"),
        (SizeForgotten, &[false], "MMIO-REG-08"),
        (WrittenWhileReady, &[false], "MMIO-REG-09"),
        (AckUndefined, &both, "MMIO-REG-12"),
        (AckUnasked, &both, "MMIO-REG-12"),
        (KickWithUpperHalf, &both, "PACKED-DESC-03"),
        (KickBeforeDriverOk, &both, "INIT-14"),
        (LegacyUpperFeatures, &[true], "LEG-MMIO-01"),
        (LegacyNoPageSize, &[true], "LEG-MMIO-02"),
        (LegacyNoAlignment, &[true], "LEG-MMIO-03"),
        (LegacyOddAlignment, &[true], "LEG-MMIO-03"),
        (TargetWithoutGeneration, &[false], "CFG-03"),
    ];
    for (slip, versions, clause) in slips {
        for &legacy in versions {
            let found = Hand::new(legacy, slip).run();
            assert!(found.contains(&clause), "{slip:?} should break {clause}; found {found:?}");
        }
    }
}

#[test]
fn only_the_identification_of_a_placeholder_is_read() {
    let mut behaviour = Behaviour::conforming().on_mmio();
    behaviour.mmio.as_mut().expect("it is on MMIO").placeholder = true;
    let (machine, at) = Machine::with_balloon(8, behaviour);
    let mut platform = ModelPlatform::new(&machine);
    let registers = map(&machine, &mut platform, at);
    assert_eq!([0, 4, 8].map(|offset| registers.read32(offset)), [0x7472_6976, 2, 0]);
    machine.expect_no_missteps();
    registers.read32(0x0c);
    assert!(machine.missteps().iter().any(|misstep| misstep.clause == "MMIO-INIT-01"));
}
