//! A platform that maps the structures of a fuzzed function, and checks where each is.

use ballonet::pci::{AddressRange, Bars, Function};
use ballonet::platform::{DmaExhausted, DmaMemory, MapError, Platform, RegisterWindow, Registers};

use crate::pci::Space;

/// The platform of one function.
pub struct Mapper<'s> {
    pub space: &'s mut Space,
    pub function: Function,
    /// Its BARs, unless configuration space reads wrong.
    pub bars: Option<Bars>,
}

/// Registers of a device that is gone: all ones.
pub struct AllOnes(usize);

/// DMA memory, of which there is none.
pub enum NoMemory {}

impl Platform for Mapper<'_> {
    type Config = Space;
    type Registers = AllOnes;
    type Memory = NoMemory;

    fn config(&mut self) -> &mut Space {
        self.space
    }

    fn map(&mut self, window: RegisterWindow) -> Result<AllOnes, MapError> {
        if let Some(bars) = &self.bars {
            expect_inside(window, &self.function, bars);
        }
        Ok(AllOnes(window.length as usize))
    }

    fn allocate_dma(&mut self, size: usize, align: usize) -> Result<NoMemory, DmaExhausted> {
        Err(DmaExhausted { size, align })
    }

    fn release_dma(&mut self, memory: NoMemory) {
        match memory {}
    }

    fn now(&self) -> u64 {
        // Waits for a device end at once.
        self.space.accesses.set(self.space.accesses.get() + 1);
        self.space.accesses.get() << 32
    }
}

impl AllOnes {
    fn check(&self, offset: usize, width: usize) {
        assert!(offset.is_multiple_of(width) && offset + width <= self.0, "{width} bytes at {offset:#x}");
    }
}

impl Registers for AllOnes {
    fn len(&self) -> usize {
        self.0
    }

    fn read8(&self, offset: usize) -> u8 {
        self.check(offset, 1);
        u8::MAX
    }

    fn read16(&self, offset: usize) -> u16 {
        self.check(offset, 2);
        u16::MAX
    }

    fn read32(&self, offset: usize) -> u32 {
        self.check(offset, 4);
        u32::MAX
    }

    fn write8(&mut self, offset: usize, _value: u8) {
        self.check(offset, 1);
    }

    fn write16(&mut self, offset: usize, _value: u16) {
        self.check(offset, 2);
    }

    fn write32(&mut self, offset: usize, _value: u32) {
        self.check(offset, 4);
    }
}

impl DmaMemory for NoMemory {
    fn device_address(&self) -> u64 {
        match *self {}
    }

    fn len(&self) -> usize {
        match *self {}
    }

    fn load16(&self, _offset: usize) -> u16 {
        match *self {}
    }

    fn load32(&self, _offset: usize) -> u32 {
        match *self {}
    }

    fn load64(&self, _offset: usize) -> u64 {
        match *self {}
    }

    fn store16(&mut self, _offset: usize, _value: u16) {
        match *self {}
    }

    fn store32(&mut self, _offset: usize, _value: u32) {
        match *self {}
    }

    fn store64(&mut self, _offset: usize, _value: u64) {
        match *self {}
    }

    fn write_bytes(&mut self, _offset: usize, _bytes: &[u8]) {
        match *self {}
    }

    fn read_bytes(&self, _offset: usize, _bytes: &mut [u8]) {
        match *self {}
    }
}

/// A window lies in its BAR.
pub fn expect_inside(window: RegisterWindow, function: &Function, bars: &Bars) {
    let bar = window.bar.and_then(|bar| bars.get(bar).ok()).expect("a window is in a BAR that there is");
    let range = bar.range().expect("a window is in a BAR with an address");
    let own = AddressRange::new(window.address, window.length).expect("a window has a length");
    assert!(contains(range, own) && window.io == bar.is_io() && window.device == function.bdf.into(), "{window}");
}

/// Whether a range includes all of another.
pub fn contains(range: AddressRange, other: AddressRange) -> bool {
    range.first() <= other.first() && other.last() <= range.last()
}
