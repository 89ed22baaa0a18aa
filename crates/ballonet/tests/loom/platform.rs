//! A platform with one block of memory, which is all that a queue requests.

use ballonet::pci::{Bdf, ConfigSpace};
use ballonet::platform::{DmaExhausted, MapError, Platform, RegisterWindow, Registers};

use super::memory::Memory;

/// The platform; it has its memory until that is allocated.
pub struct OneBlock(pub Option<Memory>);

/// A part that this platform lacks.
pub enum Absent {}

impl Platform for OneBlock {
    type Config = Absent;
    type Registers = Absent;
    type Memory = Memory;

    fn config(&mut self) -> &mut Absent {
        unreachable!("a queue has no configuration space")
    }

    fn map(&mut self, window: RegisterWindow) -> Result<Absent, MapError> {
        Err(MapError { window, reason: "there is no bus" })
    }

    fn unmap(&mut self, registers: Absent) {
        match registers {}
    }

    fn allocate_dma(&mut self, size: usize, align: usize) -> Result<Memory, DmaExhausted> {
        self.0.take().ok_or(DmaExhausted { size, align })
    }

    fn release_dma(&mut self, memory: Memory) {
        self.0 = Some(memory);
    }

    fn now(&self) -> u64 {
        0
    }
}

impl ConfigSpace for Absent {
    fn size(&self, _segment: u16, _bus: u8) -> u16 {
        match *self {}
    }

    fn read8(&self, _function: Bdf, _offset: u16) -> u8 {
        match *self {}
    }

    fn read16(&self, _function: Bdf, _offset: u16) -> u16 {
        match *self {}
    }

    fn read32(&self, _function: Bdf, _offset: u16) -> u32 {
        match *self {}
    }

    fn write8(&mut self, _function: Bdf, _offset: u16, _value: u8) {
        match *self {}
    }

    fn write16(&mut self, _function: Bdf, _offset: u16, _value: u16) {
        match *self {}
    }

    fn write32(&mut self, _function: Bdf, _offset: u16, _value: u32) {
        match *self {}
    }
}

impl Registers for Absent {
    fn len(&self) -> usize {
        match *self {}
    }

    fn read8(&self, _offset: usize) -> u8 {
        match *self {}
    }

    fn read16(&self, _offset: usize) -> u16 {
        match *self {}
    }

    fn read32(&self, _offset: usize) -> u32 {
        match *self {}
    }

    fn write8(&mut self, _offset: usize, _value: u8) {
        match *self {}
    }

    fn write16(&mut self, _offset: usize, _value: u16) {
        match *self {}
    }

    fn write32(&mut self, _offset: usize, _value: u32) {
        match *self {}
    }
}
