//! The virtio-mmio transport (virtio 1.4, 4.2): registers at a fixed memory address, and one interrupt line.
//!
//! It cannot be enumerated: firmware or the user gives its address ([`MmioDevice`]). Its registers have two versions.
//! Version 2 differs from the modern PCI registers only in offsets and widths; version 1 is the legacy interface
//! (4.2.4), where a queue is one block of pages, given by the first one.
//!
//! Registers are accessed with 32 bits, the device configuration with the widths of its fields (4.2.2.2).

use super::{Doorbell, QueueResetState, TransportError, expect_queue_reset};
use crate::bus::{DeviceAddress, Events, Handler, RegisterWindow, Registers};
use crate::pci::MsixVector;
use crate::platform::Platform;
use crate::virtio::events::{MMIO_INTERRUPT, MMIO_INTERRUPT_LENGTH, mmio_interrupt};
use crate::virtio::queue::{Kick, QueueAddresses, QueueIndex};
use crate::virtio::spec::{Features, NO_VECTOR, QUEUE_SIZE_MAX, Status, mmio};
use crate::virtio::transport_kind::TransportKind;

mod device;

pub use device::{MmioDevice, MmioError, MmioIdentity};

/// The value read if no device responds.
const ALL_ONES: u32 = u32::MAX;

/// A virtio-mmio device's registers, mapped.
#[derive(Debug)]
pub(in crate::virtio) struct Mmio<R> {
    address: DeviceAddress,
    registers: R,
    /// Until the line's handler takes it: the handler needs its own mapping.
    interrupt: Option<R>,
    legacy: bool,
    /// The accepted features. Some change the format of a kick.
    accepted: Features,
}

impl<R: Registers + Send + Sync + 'static> Mmio<R> {
    /// Maps the registers of a device and identifies it. Writes no register.
    ///
    /// # Errors
    /// When they cannot be mapped, or hold no virtio device of a known version; nothing is mapped then.
    pub(in crate::virtio) fn open<P>(platform: &mut P, device: &MmioDevice) -> Result<(Self, MmioIdentity), MmioError>
    where
        P: Platform<Registers = R>,
    {
        let (registers, identity) = device.map(platform)?;
        let interrupt = device.window.part(MMIO_INTERRUPT as u64, MMIO_INTERRUPT_LENGTH as u64);
        let interrupt = interrupt.ok_or(MmioError::Small(device.window));
        match interrupt.and_then(|window| device::map(platform, window)) {
            Ok(interrupt) => {
                let legacy = identity.version == mmio::VERSION_LEGACY;
                let (address, interrupt) = (device.address(), Some(interrupt));
                Ok((Self { address, registers, interrupt, legacy, accepted: Features::empty() }, identity))
            }
            Err(error) => {
                platform.unmap(registers);
                Err(error)
            }
        }
    }

    fn select(&mut self, queue: QueueIndex) {
        self.registers.write32(mmio::QUEUE_SELECT, queue.number().into());
    }

    /// An error about a register, or that of a device that is gone.
    fn misfit(&self, register: &'static str, value: u32) -> TransportError {
        match self.status() {
            Err(error) => error,
            Ok(_) => TransportError::Register { device: self.address, register, value },
        }
    }

    /// A register of 64 bits, in two.
    fn read64(&self, register: usize) -> u64 {
        u64::from(self.registers.read32(register)) | u64::from(self.registers.read32(register + 4)) << 32
    }

    /// Enables the selected queue, whose size is already set (4.2.3.2).
    fn enable_modern(&mut self, size: u16, addresses: QueueAddresses) {
        self.registers.write32(mmio::QUEUE_SIZE, size.into());
        self.registers.write64(mmio::QUEUE_DESC, addresses.descriptors);
        self.registers.write64(mmio::QUEUE_DRIVER, addresses.driver);
        self.registers.write64(mmio::QUEUE_DEVICE, addresses.device);
        self.registers.write32(mmio::QUEUE_READY, 1);
    }

    /// Enables the queue of a legacy device, which computes the rings' addresses from the first page (4.2.4).
    fn enable_legacy(&mut self, queue: QueueIndex, size: u16, address: u64) -> Result<(), TransportError> {
        let page = u64::from(mmio::PAGE_SIZE);
        match u32::try_from(address / page) {
            // Frame 0 would disable the queue again.
            Ok(frame @ 1..) if address % page == 0 => {
                self.registers.write32(mmio::QUEUE_SIZE, size.into());
                self.registers.write32(mmio::QUEUE_ALIGN, mmio::PAGE_SIZE);
                self.registers.write32(mmio::QUEUE_FRAME, frame);
                Ok(())
            }
            _ => Err(TransportError::QueueAddress { device: self.address, queue, address }),
        }
    }

    /// The register that shows whether the selected queue is in use.
    fn in_use(&self) -> u32 {
        self.registers.read32(if self.legacy { mmio::QUEUE_FRAME } else { mmio::QUEUE_READY })
    }
}

/// The operations of [`super::Transport`].
impl<R: Registers + Send + Sync + 'static> Mmio<R> {
    pub(super) fn kind(&self) -> TransportKind {
        if self.legacy { TransportKind::MmioLegacy } else { TransportKind::Mmio }
    }

    pub(super) const fn address(&self) -> DeviceAddress {
        self.address
    }

    /// A legacy device has 32 features. `NOTIF_CONFIG_DATA` is for PCI only (6.3).
    pub(super) fn features(&mut self) -> Features {
        let mut words = [0; 2];
        let count = if self.legacy { 1 } else { 2 };
        for (select, word) in (0..).zip(&mut words).take(count) {
            self.registers.write32(mmio::DEVICE_FEATURES_SELECT, select);
            *word = self.registers.read32(mmio::DEVICE_FEATURES);
        }
        Features::from(words).difference(Features::NOTIF_CONFIG_DATA)
    }

    /// A legacy device also learns the size of pages, before any queue is used (4.2.4).
    pub(super) fn set_features(&mut self, features: Features) {
        self.accepted = features;
        let count = if self.legacy { 1 } else { 2 };
        for (select, word) in (0..).zip(<[u32; 2]>::from(features)).take(count) {
            self.registers.write32(mmio::DRIVER_FEATURES_SELECT, select);
            self.registers.write32(mmio::DRIVER_FEATURES, word);
        }
        if self.legacy {
            self.registers.write32(mmio::GUEST_PAGE_SIZE, mmio::PAGE_SIZE);
        }
    }

    pub(super) fn status(&self) -> Result<Status, TransportError> {
        match self.registers.read32(mmio::STATUS) {
            ALL_ONES => Err(TransportError::Gone(self.address)),
            value => u8::try_from(value).map(Status::from_bits_retain).map_err(|_| TransportError::Register {
                device: self.address,
                register: "Status",
                value,
            }),
        }
    }

    pub(super) fn set_status(&mut self, status: Status) {
        self.registers.write32(mmio::STATUS, status.bits().into());
    }

    pub(super) fn generation(&self) -> Option<u32> {
        (!self.legacy).then(|| self.registers.read32(mmio::CONFIG_GENERATION))
    }

    /// All registers; the device configuration begins at [`mmio::CONFIG`].
    pub(super) const fn registers(&self) -> &R {
        &self.registers
    }

    pub(super) const fn registers_mut(&mut self) -> &mut R {
        &mut self.registers
    }

    /// The device does not report the number; missing queues have size 0.
    pub(super) fn queue_count(&self) -> u16 {
        u16::MAX
    }

    pub(super) fn queue_size(&mut self, queue: QueueIndex) -> Result<u16, TransportError> {
        self.select(queue);
        let value = self.registers.read32(mmio::QUEUE_SIZE_LIMIT);
        let size = u16::try_from(value).ok().filter(|size| *size <= QUEUE_SIZE_MAX);
        size.ok_or_else(|| self.misfit("QueueSizeMax", value))
    }

    /// There is a line, but no vectors.
    pub(super) fn set_config_vector(&mut self, vector: Option<MsixVector>) -> Result<(), TransportError> {
        self.no_vector(vector)
    }

    pub(super) fn set_queue_vector(
        &mut self,
        _queue: QueueIndex,
        vector: Option<MsixVector>,
    ) -> Result<(), TransportError> {
        self.no_vector(vector)
    }

    fn no_vector(&self, vector: Option<MsixVector>) -> Result<(), TransportError> {
        let refused = |vector| TransportError::VectorRefused { device: self.address, vector, read: NO_VECTOR };
        vector.map_or(Ok(()), |vector| Err(refused(vector)))
    }

    pub(super) fn enable_queue(
        &mut self,
        queue: QueueIndex,
        size: u16,
        addresses: QueueAddresses,
    ) -> Result<Doorbell, TransportError> {
        self.select(queue);
        let used = self.in_use();
        if used != 0 {
            let register = if self.legacy { "QueuePFN" } else { "QueueReady" };
            return Err(self.misfit(register, used));
        }
        let most = self.queue_size(queue)?;
        if size == 0 || size > most {
            return Err(TransportError::QueueSize { device: self.address, queue, size });
        }
        if self.legacy {
            self.enable_legacy(queue, size, addresses.descriptors)?;
        } else {
            self.enable_modern(size, addresses);
        }
        Ok(Doorbell { offset: mmio::QUEUE_NOTIFY, number: queue.number() })
    }

    pub(super) fn start_queue_reset(&mut self, queue: QueueIndex) -> Result<(), TransportError> {
        expect_queue_reset(self.accepted, self.address, queue)?;
        self.select(queue);
        self.registers.write32(mmio::QUEUE_RESET, 1);
        Ok(())
    }

    /// Both registers count: a device that does not implement `QueueReset` reads 0 there at once, although its queue is
    /// still enabled.
    pub(super) fn queue_reset_state(&mut self, queue: QueueIndex) -> Result<QueueResetState, TransportError> {
        expect_queue_reset(self.accepted, self.address, queue)?;
        self.select(queue);
        let reset = self.registers.read32(mmio::QUEUE_RESET);
        let enabled = self.registers.read32(mmio::QUEUE_READY);
        match (u16::try_from(reset), u16::try_from(enabled)) {
            (Ok(reset), Ok(enabled)) => Ok(QueueResetState { reset, enabled }),
            (Err(_), _) => Err(self.misfit("QueueReset", reset)),
            (_, Err(_)) => Err(self.misfit("QueueReady", enabled)),
        }
    }

    #[inline]
    pub(super) fn notify(&mut self, doorbell: Doorbell, kick: Kick) {
        let progress = if self.accepted.contains(Features::NOTIFICATION_DATA) { kick.progress } else { 0 };
        let value = u32::from(progress) << 16 | u32::from(doorbell.number);
        self.registers.write32(doorbell.offset, value);
    }

    /// The handler of its interrupt line, which takes the interrupt registers; `None` if they have been taken already.
    pub(super) fn line_handler(&mut self, events: &'static Events, queues: u32) -> Option<Handler<R>> {
        Some(Handler::noting(mmio_interrupt, events, queues, Some(self.interrupt.take()?)))
    }

    /// All ones mean that there is no such region (4.2.2.1).
    pub(super) fn shared_memory(&mut self, id: u8) -> Option<RegisterWindow> {
        if self.legacy {
            return None;
        }
        self.registers.write32(mmio::SHARED_MEMORY_SELECT, id.into());
        let length = self.read64(mmio::SHARED_MEMORY_LENGTH);
        let address = self.read64(mmio::SHARED_MEMORY_BASE);
        let is_there = length != 0 && length != u64::MAX && address.checked_add(length).is_some();
        is_there.then_some(RegisterWindow { device: self.address, bar: None, io: false, address, length })
    }

    pub(super) fn release<P: Platform<Registers = R>>(self, platform: &mut P) {
        platform.unmap(self.registers);
        if let Some(interrupt) = self.interrupt {
            platform.unmap(interrupt);
        }
    }
}

#[cfg(test)]
mod tests;
