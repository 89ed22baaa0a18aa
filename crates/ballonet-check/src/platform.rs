//! The platform as a trait object, without its types. So a check is a plain function, and the list of checks a
//! constant.
//!
//! A virtual call per register access costs nothing compared with the access, which exits the guest.

use alloc::boxed::Box;
use core::any::Any;
use core::fmt;

use ballonet::balloon::BalloonPlatform;
use ballonet::memory::{FrameRun, PageFrames};
use ballonet::pci::{Bdf, ConfigSpace};
use ballonet::platform::{
    DmaExhausted, DmaMemory, Handled, Handler, InterruptLine, MapError, Platform, RegisterWindow, Registers, Vector,
    VectorError,
};

/// What an interrupt handler does.
pub(crate) type Action = Box<dyn FnMut() -> Handled + Send>;

/// What the tester needs of a [`Platform`] and its [`PageFrames`].
pub(crate) trait AnyPlatform {
    fn config_space(&mut self) -> &mut dyn ConfigSpace;
    fn map(&mut self, window: RegisterWindow) -> Result<Mapped, MapError>;
    fn unmap(&mut self, registers: Mapped);
    fn allocate_dma(&mut self, size: usize, align: usize) -> Result<Memory, DmaExhausted>;
    fn release_dma(&mut self, memory: Memory);
    fn allocate_vector(&mut self, name: fmt::Arguments<'_>, action: Action) -> Result<Vector, VectorError>;
    fn release_vector(&mut self, vector: Vector);
    fn attach_line(&mut self, line: InterruptLine, name: &str, action: Action) -> Result<Vector, VectorError>;
    fn detach_line(&mut self, vector: Vector);
    fn now(&self) -> u64;
    fn relax(&self);
    fn take_free(&mut self, most: u32) -> Option<FrameRun>;
    fn confirm_ballooned(&mut self, run: FrameRun);
    fn release(&mut self, run: FrameRun);
}

impl<P: BalloonPlatform<Memory: 'static>> AnyPlatform for P {
    fn config_space(&mut self) -> &mut dyn ConfigSpace {
        Platform::config(self)
    }

    fn map(&mut self, window: RegisterWindow) -> Result<Mapped, MapError> {
        Ok(Mapped(Box::new(Platform::map(self, window)?)))
    }

    fn unmap(&mut self, registers: Mapped) {
        Platform::unmap(self, own(registers.0));
    }

    fn allocate_dma(&mut self, size: usize, align: usize) -> Result<Memory, DmaExhausted> {
        Ok(Memory(Box::new(Platform::allocate_dma(self, size, align)?)))
    }

    fn release_dma(&mut self, memory: Memory) {
        Platform::release_dma(self, own(memory.0));
    }

    fn allocate_vector(&mut self, name: fmt::Arguments<'_>, action: Action) -> Result<Vector, VectorError> {
        Platform::allocate_vector(self, name, Handler::new(action))
    }

    fn release_vector(&mut self, vector: Vector) {
        Platform::release_vector(self, vector);
    }

    fn attach_line(&mut self, line: InterruptLine, name: &str, action: Action) -> Result<Vector, VectorError> {
        Platform::attach_line(self, line, format_args!("{name}"), Handler::new(action)).map_err(|(error, _)| error)
    }

    fn detach_line(&mut self, vector: Vector) {
        drop(Platform::detach_line(self, vector));
    }

    fn now(&self) -> u64 {
        Platform::now(self)
    }

    fn relax(&self) {
        Platform::relax(self);
    }

    fn take_free(&mut self, most: u32) -> Option<FrameRun> {
        self.frames().take_free(most)
    }

    fn confirm_ballooned(&mut self, run: FrameRun) {
        self.frames().confirm_ballooned(run);
    }

    fn release(&mut self, run: FrameRun) {
        self.frames().release(run);
    }
}

/// A resource as the type that the platform gave out. Panics if another platform gave it.
fn own<T: 'static>(given: Box<dyn Any>) -> T {
    *given.downcast().expect("a run has one platform")
}

/// Configuration space.
pub(crate) struct Config<'a>(&'a mut dyn ConfigSpace);

impl dyn AnyPlatform + '_ {
    pub(crate) fn config(&mut self) -> Config<'_> {
        Config(self.config_space())
    }
}

impl ConfigSpace for Config<'_> {
    fn size(&self, segment: u16, bus: u8) -> u16 {
        self.0.size(segment, bus)
    }

    fn read8(&self, function: Bdf, offset: u16) -> u8 {
        self.0.read8(function, offset)
    }

    fn read16(&self, function: Bdf, offset: u16) -> u16 {
        self.0.read16(function, offset)
    }

    fn read32(&self, function: Bdf, offset: u16) -> u32 {
        self.0.read32(function, offset)
    }

    fn write8(&mut self, function: Bdf, offset: u16, value: u8) {
        self.0.write8(function, offset, value);
    }

    fn write16(&mut self, function: Bdf, offset: u16, value: u16) {
        self.0.write16(function, offset, value);
    }

    fn write32(&mut self, function: Bdf, offset: u16, value: u32) {
        self.0.write32(function, offset, value);
    }
}

/// [`Registers`] of any type.
trait AnyRegisters: Registers + Any + Send + Sync {}
impl<T: Registers + Any + Send + Sync> AnyRegisters for T {}

/// A mapped window of registers.
pub(crate) struct Mapped(Box<dyn AnyRegisters>);

impl Registers for Mapped {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn read8(&self, offset: usize) -> u8 {
        self.0.read8(offset)
    }

    fn read16(&self, offset: usize) -> u16 {
        self.0.read16(offset)
    }

    fn read32(&self, offset: usize) -> u32 {
        self.0.read32(offset)
    }

    fn write8(&mut self, offset: usize, value: u8) {
        self.0.write8(offset, value);
    }

    fn write16(&mut self, offset: usize, value: u16) {
        self.0.write16(offset, value);
    }

    fn write32(&mut self, offset: usize, value: u32) {
        self.0.write32(offset, value);
    }

    fn write64(&mut self, offset: usize, value: u64) {
        self.0.write64(offset, value);
    }
}

/// [`DmaMemory`] of any type.
trait AnyMemory: DmaMemory + Any {}
impl<T: DmaMemory + Any> AnyMemory for T {}

/// Memory that the device is given.
pub(crate) struct Memory(Box<dyn AnyMemory>);

impl DmaMemory for Memory {
    fn device_address(&self) -> u64 {
        self.0.device_address()
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn load16(&self, offset: usize) -> u16 {
        self.0.load16(offset)
    }

    fn load32(&self, offset: usize) -> u32 {
        self.0.load32(offset)
    }

    fn load64(&self, offset: usize) -> u64 {
        self.0.load64(offset)
    }

    fn store16(&mut self, offset: usize, value: u16) {
        self.0.store16(offset, value);
    }

    fn store32(&mut self, offset: usize, value: u32) {
        self.0.store32(offset, value);
    }

    fn store64(&mut self, offset: usize, value: u64) {
        self.0.store64(offset, value);
    }

    fn write_bytes(&mut self, offset: usize, bytes: &[u8]) {
        self.0.write_bytes(offset, bytes);
    }

    fn read_bytes(&self, offset: usize, bytes: &mut [u8]) {
        self.0.read_bytes(offset, bytes);
    }
}
