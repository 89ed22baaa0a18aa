//! Fakes for unit tests: memory that both sides see, a clock, a transport that objects to steps out of order.

use alloc::rc::Rc;
use alloc::sync::Arc;
use core::cell::{Cell, RefCell};

use super::queue::{Kick, QueueAddresses, QueueIndex};
use super::spec::{Features, Status};
use super::transport::{AnyTransport, Doorbell, QueueResetState, Transport, TransportError};
use super::transport_kind::TransportKind;
use crate::bus::Events;
use crate::pci::{Bdf, ConfigSpace, MsixVector};
use crate::platform::{DeviceAddress, DmaExhausted, DmaMemory, Handler, MapError, Platform, RegisterWindow, Registers};

/// The device address of the fake memory.
pub(crate) const RAM_ADDRESS: u64 = 0x12_3456_7000;

/// Memory of driver and device. Clones are the same memory.
#[derive(Debug, Clone)]
pub(crate) struct Ram(Rc<RefCell<Vec<u8>>>);

impl Ram {
    pub(crate) fn new(size: usize) -> Self {
        Self(Rc::new(RefCell::new(vec![0; size])))
    }

    pub(crate) fn load<const N: usize>(&self, offset: usize) -> [u8; N] {
        assert!(offset.is_multiple_of(N), "misaligned load of {N} bytes at {offset:#x}");
        self.0.borrow()[offset..offset + N].try_into().unwrap()
    }

    pub(crate) fn store<const N: usize>(&self, offset: usize, bytes: [u8; N]) {
        assert!(offset.is_multiple_of(N), "misaligned store of {N} bytes at {offset:#x}");
        self.0.borrow_mut()[offset..offset + N].copy_from_slice(&bytes);
    }
}

impl DmaMemory for Ram {
    fn device_address(&self) -> u64 {
        RAM_ADDRESS
    }
    fn len(&self) -> usize {
        self.0.borrow().len()
    }
    fn load16(&self, offset: usize) -> u16 {
        u16::from_ne_bytes(self.load(offset))
    }
    fn load32(&self, offset: usize) -> u32 {
        u32::from_ne_bytes(self.load(offset))
    }
    fn load64(&self, offset: usize) -> u64 {
        u64::from_ne_bytes(self.load(offset))
    }
    fn store16(&mut self, offset: usize, value: u16) {
        self.store(offset, value.to_ne_bytes());
    }
    fn store32(&mut self, offset: usize, value: u32) {
        self.store(offset, value.to_ne_bytes());
    }
    fn store64(&mut self, offset: usize, value: u64) {
        self.store(offset, value.to_ne_bytes());
    }
    fn write_bytes(&mut self, offset: usize, bytes: &[u8]) {
        self.0.borrow_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    fn read_bytes(&self, offset: usize, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.0.borrow()[offset..offset + bytes.len()]);
    }
}

/// An access to a register: `w` or `r`, bits, offset, value.
pub(crate) type Access = (char, u32, usize, u64);

/// Registers that hold written values, log every access, and return scripted answers.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) bytes: Vec<u8>,
    pub(crate) accesses: Vec<Access>,
    /// Scripted answers to reads at an offset, in order; then the held value.
    pub(crate) script: Vec<(usize, u64)>,
}

/// A window of [`Log`]. Clones are the same registers.
#[derive(Debug, Clone, Default)]
pub(crate) struct LoggedRegisters(pub(crate) Arc<std::sync::Mutex<Log>>);

impl LoggedRegisters {
    pub(crate) fn new(size: usize) -> Self {
        let new = Self::default();
        new.0.lock().unwrap().bytes = vec![0; size];
        new
    }

    /// Scripts `value` as the answer to the next read at `offset`.
    pub(crate) fn script(&self, offset: usize, value: u64) {
        self.0.lock().unwrap().script.push((offset, value));
    }

    /// Sets the bytes that reads return.
    pub(crate) fn hold(&self, offset: usize, bytes: &[u8]) {
        self.0.lock().unwrap().bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Takes the writes so far.
    pub(crate) fn writes(&self) -> Vec<Access> {
        let accesses = core::mem::take(&mut self.0.lock().unwrap().accesses);
        accesses.into_iter().filter(|access| access.0 == 'w').collect()
    }

    fn read(&self, offset: usize, bits: u32) -> u64 {
        let mut log = self.0.lock().unwrap();
        let size = bits as usize / 8;
        assert!(offset.is_multiple_of(size), "misaligned read at {offset:#x}");
        let held = (0..size).rev().fold(0, |value, at| value << 8 | u64::from(log.bytes[offset + at]));
        let scripted = log.script.iter().position(|(at, _)| *at == offset);
        let value = scripted.map_or(held, |position| log.script.remove(position).1);
        log.accesses.push(('r', bits, offset, value));
        value
    }

    fn write(&self, offset: usize, bits: u32, value: u64) {
        let mut log = self.0.lock().unwrap();
        let size = bits as usize / 8;
        assert!(offset.is_multiple_of(size), "misaligned write at {offset:#x}");
        log.bytes[offset..offset + size].copy_from_slice(&value.to_le_bytes()[..size]);
        log.accesses.push(('w', bits, offset, value));
    }
}

impl Registers for LoggedRegisters {
    fn len(&self) -> usize {
        self.0.lock().unwrap().bytes.len()
    }
    fn read8(&self, offset: usize) -> u8 {
        self.read(offset, 8) as u8
    }
    fn read16(&self, offset: usize) -> u16 {
        self.read(offset, 16) as u16
    }
    fn read32(&self, offset: usize) -> u32 {
        self.read(offset, 32) as u32
    }
    fn write8(&mut self, offset: usize, value: u8) {
        self.write(offset, 8, value.into());
    }
    fn write16(&mut self, offset: usize, value: u16) {
        self.write(offset, 16, value.into());
    }
    fn write32(&mut self, offset: usize, value: u32) {
        self.write(offset, 32, value.into());
    }
}

/// Configuration space with nothing in it.
pub(crate) struct NoConfig;

impl ConfigSpace for NoConfig {
    fn size(&self, _: u16, _: u8) -> u16 {
        0
    }
    fn read8(&self, _: Bdf, _: u16) -> u8 {
        u8::MAX
    }
    fn read16(&self, _: Bdf, _: u16) -> u16 {
        u16::MAX
    }
    fn read32(&self, _: Bdf, _: u16) -> u32 {
        u32::MAX
    }
    fn write8(&mut self, _: Bdf, _: u16, _: u8) {}
    fn write16(&mut self, _: Bdf, _: u16, _: u16) {}
    fn write32(&mut self, _: Bdf, _: u16, _: u32) {}
}

/// A platform whose clock advances when read, and that maps windows by their address.
pub(crate) struct FakePlatform {
    config: NoConfig,
    clock: Cell<u64>,
    /// How far the clock advances per read.
    pub(crate) tick: u64,
    /// The registers at each address that can be mapped.
    pub(crate) windows: Vec<(u64, LoggedRegisters)>,
    /// Number of live mappings.
    pub(crate) mapped: usize,
}

impl FakePlatform {
    pub(crate) fn new() -> Self {
        Self { config: NoConfig, clock: Cell::new(0), tick: 1_000, windows: Vec::new(), mapped: 0 }
    }
}

impl Platform for FakePlatform {
    type Config = NoConfig;
    type Registers = LoggedRegisters;
    type Memory = Ram;

    fn config(&mut self) -> &mut NoConfig {
        &mut self.config
    }
    fn map(&mut self, window: RegisterWindow) -> Result<LoggedRegisters, MapError> {
        let found = self.windows.iter().find(|(address, _)| *address == window.address);
        let registers = found.map(|(_, registers)| registers.clone());
        self.mapped += usize::from(registers.is_some());
        registers.ok_or(MapError { window, reason: "nothing there" })
    }
    fn unmap(&mut self, _: LoggedRegisters) {
        self.mapped -= 1;
    }
    fn allocate_dma(&mut self, size: usize, _: usize) -> Result<Ram, DmaExhausted> {
        Ok(Ram::new(size))
    }
    fn release_dma(&mut self, _: Ram) {}
    fn now(&self) -> u64 {
        self.clock.replace(self.clock.get() + self.tick)
    }
}

/// A fake device for the status sequence.
#[derive(Debug, Default)]
pub(crate) struct FakeTransport {
    pub(crate) offered: Features,
    pub(crate) accepted: Option<Features>,
    /// Features that the device refuses.
    pub(crate) disliked: Features,
    pub(crate) status: Cell<u8>,
    /// How many more reads of the status after a reset return the old one.
    pub(crate) slow: Cell<u32>,
    pub(crate) gone: bool,
    /// It is a legacy device.
    pub(crate) legacy: bool,
    /// Every status written.
    pub(crate) statuses: Vec<u8>,
    pub(crate) kicks: usize,
    /// A reset was requested and is not finished.
    pub(crate) resetting: bool,
    /// Successive values that the registers of a queue under reset read as; the last one repeats.
    pub(crate) queue_reset: Vec<QueueResetState>,
    /// The steps on queues, in order.
    pub(crate) queue_steps: Vec<QueueStep>,
}

/// A step on a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueStep {
    Reset(u16),
    Look(u16),
    Vector(u16, Option<u16>),
    Enable(u16, u16, u64),
}

/// The operations of [`Transport`].
impl FakeTransport {
    pub(crate) fn kind(&self) -> TransportKind {
        if self.legacy { TransportKind::Legacy } else { TransportKind::Modern }
    }

    pub(crate) fn address(&self) -> DeviceAddress {
        Bdf::new(0, 0, 3, 0).unwrap().into()
    }
    pub(crate) fn features(&mut self) -> Features {
        assert_eq!(self.status.get(), 3, "features read in another state than ACKNOWLEDGE DRIVER");
        self.offered
    }
    pub(crate) fn set_features(&mut self, features: Features) {
        assert_eq!(self.status.get(), 3, "features written in another state than ACKNOWLEDGE DRIVER");
        self.accepted = Some(features);
    }
    pub(crate) fn status(&self) -> Result<Status, TransportError> {
        if self.gone {
            return Err(TransportError::Gone(self.address()));
        }
        if self.resetting {
            match self.slow.get() {
                0 => self.status.set(0),
                left => self.slow.set(left - 1),
            }
        }
        Ok(Status::from_bits_retain(self.status.get()))
    }
    pub(crate) fn set_status(&mut self, status: Status) {
        let (old, new) = (self.status.get(), status.bits());
        self.statuses.push(new);
        self.resetting = new == 0;
        if self.resetting {
            return;
        }
        // FEATURES_OK may be unset by the device only.
        assert_eq!(new & (old & !8), old & !8, "status {new:#x} drops bits of {old:#x}");
        let refused = self.accepted.is_some_and(|accepted| accepted.intersects(self.disliked));
        self.status.set(if refused { new & !8 } else { new });
    }
    pub(crate) fn generation(&self) -> Option<u32> {
        Some(0)
    }
    pub(crate) fn queue_count(&self) -> u16 {
        0
    }
    pub(crate) fn queue_size(&mut self, _: QueueIndex) -> Result<u16, TransportError> {
        Ok(0)
    }
    pub(crate) fn set_config_vector(&mut self, _: Option<MsixVector>) -> Result<(), TransportError> {
        Ok(())
    }
    pub(crate) fn set_queue_vector(
        &mut self,
        queue: QueueIndex,
        vector: Option<MsixVector>,
    ) -> Result<(), TransportError> {
        self.queue_steps.push(QueueStep::Vector(queue.number(), vector.map(MsixVector::number)));
        Ok(())
    }
    pub(crate) fn enable_queue(
        &mut self,
        queue: QueueIndex,
        size: u16,
        addresses: QueueAddresses,
    ) -> Result<Doorbell, TransportError> {
        self.queue_steps.push(QueueStep::Enable(queue.number(), size, addresses.descriptors));
        Ok(Doorbell { offset: 0, number: 0 })
    }
    pub(crate) fn start_queue_reset(&mut self, queue: QueueIndex) -> Result<(), TransportError> {
        self.queue_steps.push(QueueStep::Reset(queue.number()));
        Ok(())
    }
    pub(crate) fn queue_reset_state(&mut self, queue: QueueIndex) -> Result<QueueResetState, TransportError> {
        if self.gone {
            return Err(TransportError::Gone(self.address()));
        }
        self.queue_steps.push(QueueStep::Look(queue.number()));
        let state = self.queue_reset[0];
        if self.queue_reset.len() > 1 {
            self.queue_reset.remove(0);
        }
        Ok(state)
    }
    pub(crate) fn notify(&mut self, _: Doorbell, _: Kick) {
        assert_eq!(self.status.get() & 4, 4, "kicked before DRIVER_OK");
        self.kicks += 1;
    }
    pub(crate) fn line_handler<R>(&mut self, _: &'static Events, _: u32) -> Option<Handler<R>> {
        None
    }
    pub(crate) fn release<P: Platform>(self, _: &mut P) {}
}

impl Transport<LoggedRegisters> {
    /// The fake that it is.
    pub(crate) fn fake(&self) -> &FakeTransport {
        let AnyTransport::Fake(fake) = &self.0 else { panic!("it is no fake") };
        fake
    }

    pub(crate) fn fake_mut(&mut self) -> &mut FakeTransport {
        let AnyTransport::Fake(fake) = &mut self.0 else { panic!("it is no fake") };
        fake
    }
}
