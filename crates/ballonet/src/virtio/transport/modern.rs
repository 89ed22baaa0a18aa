//! The modern virtio-pci transport (virtio 1.4, 4.1): structures in BARs, found by capabilities.
//!
//! Every register is accessed at its own width; 64-bit ones as two 32-bit stores, low half first (4.1.3.1).

use alloc::vec::Vec;
use core::mem::offset_of;

use derive_more::{Display, Error};

use super::{ALL_ONES, Doorbell, QueueResetState, TransportError, expect_queue_reset};
use crate::bus::{DeviceAddress, Events, Handler, RegisterWindow, Registers};
use crate::pci::{Capability, ConfigWindow, MsixVector};
use crate::platform::{MapError, Platform};
use crate::virtio::capability::{Capabilities, SharedMemory, StructureLocation};
use crate::virtio::events::intx_interrupt;
use crate::virtio::queue::{Kick, QueueAddresses, QueueIndex};
use crate::virtio::spec::{CommonConfig, Features, NO_VECTOR, QUEUE_SIZE_MAX, Status};
use crate::virtio::transport_kind::TransportKind;

/// Why a structure could be reached neither by a mapping nor through configuration space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum ModernError {
    /// The platform could not map it.
    #[display("{_0}")]
    Map(MapError),
    /// It has no address or must not be mapped, and there is no window to it.
    #[display("{_0} is not mapped, and the platform has no way to it through configuration space")]
    NotMapped(#[error(not(source))] StructureLocation),
    /// A mapping is smaller than requested.
    #[display("{place} was mapped with {length} bytes only")]
    Short {
        /// The structure requested.
        place: StructureLocation,
        /// Bytes mapped.
        length: usize,
    },
}

/// A modern virtio-pci device's structures, mapped.
#[derive(Debug)]
pub(in crate::virtio) struct Modern<R> {
    address: DeviceAddress,
    common: R,
    notify: R,
    /// The doorbells' offset in their BAR, which is itself aligned: 32-bit kicks must be aligned in the BAR.
    notify_offset: u32,
    multiplier: u32,
    /// The accepted features. Some change the format of a kick.
    accepted: Features,
    /// Until the line's handler takes it.
    isr: Option<R>,
    device: Option<R>,
    shared_memory: Vec<SharedMemory>,
}

impl<R: Registers + Send + Sync + 'static> Modern<R> {
    /// Maps the structures, without accessing the device. Those that cannot be mapped are reached through configuration
    /// space, if possible.
    ///
    /// # Errors
    /// When one of them cannot be reached; none is mapped then.
    pub(in crate::virtio) fn new<P>(platform: &mut P, capabilities: Capabilities) -> Result<Self, ModernError>
    where
        P: Platform<Registers = R>,
    {
        let mut mapped = Mapped { platform, access: capabilities.pci_access, registers: [const { None }; 4] };
        for (slot, place) in capabilities.places().enumerate() {
            mapped.map(slot, place)?;
        }
        let [Some(common), Some(notify), Some(isr), device] = mapped.take() else {
            unreachable!("three structures were mapped");
        };
        Ok(Self {
            address: capabilities.common.function.into(),
            common,
            notify,
            notify_offset: capabilities.notify.place.offset,
            multiplier: capabilities.notify.multiplier,
            accepted: Features::empty(),
            isr: Some(isr),
            device,
            shared_memory: capabilities.shared_memory,
        })
    }

    fn select(&mut self, queue: QueueIndex) {
        self.common.write16(offset_of!(CommonConfig, queue_select), queue.number());
    }

    /// Writes a vector register and checks that the device took it (4.1.5.1.2).
    fn set_vector(&mut self, register: usize, vector: Option<MsixVector>) -> Result<(), TransportError> {
        let wanted = vector.map_or(NO_VECTOR, MsixVector::number);
        self.common.write16(register, wanted);
        let read = self.common.read16(register);
        match vector {
            Some(vector) if read != wanted => Err(TransportError::VectorRefused { device: self.address, vector, read }),
            _ => Ok(()),
        }
    }

    /// The doorbell of the selected queue, checked to lie among the doorbells (4.1.4.4, 4.1.5.2).
    fn doorbell(&self, queue: QueueIndex) -> Result<Doorbell, TransportError> {
        let length = self.notify.len();
        let offset =
            u64::from(self.common.read16(offset_of!(CommonConfig, queue_notify_off))) * u64::from(self.multiplier);
        let width = if self.accepted.contains(Features::NOTIFICATION_DATA) { 4 } else { 2 };
        let number = if self.accepted.contains(Features::NOTIF_CONFIG_DATA) {
            self.common.read16(offset_of!(CommonConfig, queue_notif_config_data))
        } else {
            queue.number()
        };
        let end = |start: usize| start.checked_add(width).filter(|end| *end <= length);
        let aligned = |start: usize| start % width == 0 && self.notify_offset % width as u32 == 0;
        match usize::try_from(offset) {
            Ok(offset) if end(offset).is_some() && aligned(offset) => Ok(Doorbell { offset, number }),
            _ => Err(TransportError::Doorbell { device: self.address, queue, offset, length }),
        }
    }
}

/// Structures mapped so far; unmapped again if a later one fails.
struct Mapped<'p, P: Platform> {
    platform: &'p mut P,
    access: Option<Capability>,
    registers: [Option<P::Registers>; 4],
}

impl<P: Platform> Mapped<'_, P> {
    fn map(&mut self, slot: usize, place: StructureLocation) -> Result<(), ModernError> {
        let registers = self.reach(place)?;
        let length = registers.len();
        self.registers[slot] = Some(registers);
        if u32::try_from(length).is_ok_and(|length| length < place.length) {
            return Err(ModernError::Short { place, length });
        }
        Ok(())
    }

    fn reach(&mut self, place: StructureLocation) -> Result<P::Registers, ModernError> {
        let refusal = match place.window.map(|window| self.platform.map(window)) {
            Some(Ok(registers)) => return Ok(registers),
            Some(Err(error)) => ModernError::Map(error),
            None => ModernError::NotMapped(place),
        };
        let access = self
            .access
            .map(|access| ConfigWindow::new(access, place.bar, place.offset, place.length))
            .ok_or(refusal)?;
        let registers = self.platform.map_through_config(access).ok_or(refusal)?;
        log::info!("{access}");
        Ok(registers)
    }

    fn take(mut self) -> [Option<P::Registers>; 4] {
        core::mem::take(&mut self.registers)
    }
}

impl<P: Platform> Drop for Mapped<'_, P> {
    fn drop(&mut self) {
        for registers in self.registers.iter_mut().filter_map(Option::take) {
            self.platform.unmap(registers);
        }
    }
}

/// The operations of [`super::Transport`].
impl<R: Registers + Send + Sync + 'static> Modern<R> {
    pub(super) fn kind(&self) -> TransportKind {
        TransportKind::Modern
    }

    pub(super) const fn address(&self) -> DeviceAddress {
        self.address
    }

    pub(super) fn features(&mut self) -> Features {
        let mut words = [0; 2];
        for (select, word) in (0..).zip(&mut words) {
            self.common.write32(offset_of!(CommonConfig, device_feature_select), select);
            *word = self.common.read32(offset_of!(CommonConfig, device_feature));
        }
        // A feature with its own register counts as offered only if the structure has the register.
        let missing = [
            (Features::NOTIF_CONFIG_DATA, offset_of!(CommonConfig, queue_notif_config_data)),
            (Features::RING_RESET, offset_of!(CommonConfig, queue_reset)),
        ]
        .into_iter()
        .filter(|(_, register)| self.common.len() < register + 2)
        .fold(Features::empty(), |missing, (feature, _)| missing | feature);
        Features::from(words).difference(missing)
    }

    pub(super) fn set_features(&mut self, features: Features) {
        self.accepted = features;
        for (select, word) in (0..).zip(<[u32; 2]>::from(features)) {
            self.common.write32(offset_of!(CommonConfig, driver_feature_select), select);
            self.common.write32(offset_of!(CommonConfig, driver_feature), word);
        }
    }

    pub(super) fn status(&self) -> Result<Status, TransportError> {
        match self.common.read8(offset_of!(CommonConfig, device_status)) {
            ALL_ONES => Err(TransportError::Gone(self.address)),
            status => Ok(Status::from_bits_retain(status)),
        }
    }

    pub(super) fn set_status(&mut self, status: Status) {
        self.common.write8(offset_of!(CommonConfig, device_status), status.bits());
    }

    pub(super) fn generation(&self) -> Option<u32> {
        Some(self.common.read8(offset_of!(CommonConfig, config_generation)).into())
    }

    /// The device configuration, if there is one.
    pub(super) const fn config(&self) -> Option<&R> {
        self.device.as_ref()
    }

    pub(super) const fn config_mut(&mut self) -> Option<&mut R> {
        self.device.as_mut()
    }

    pub(super) fn queue_count(&self) -> u16 {
        self.common.read16(offset_of!(CommonConfig, num_queues))
    }

    pub(super) fn queue_size(&mut self, queue: QueueIndex) -> Result<u16, TransportError> {
        self.select(queue);
        let size = self.common.read16(offset_of!(CommonConfig, queue_size));
        if size > QUEUE_SIZE_MAX {
            self.status()?;
            return Err(TransportError::QueueSize { device: self.address, queue, size });
        }
        Ok(size)
    }

    pub(super) fn set_config_vector(&mut self, vector: Option<MsixVector>) -> Result<(), TransportError> {
        self.set_vector(offset_of!(CommonConfig, config_msix_vector), vector)
    }

    pub(super) fn set_queue_vector(
        &mut self,
        queue: QueueIndex,
        vector: Option<MsixVector>,
    ) -> Result<(), TransportError> {
        self.select(queue);
        self.set_vector(offset_of!(CommonConfig, queue_msix_vector), vector)
    }

    pub(super) fn enable_queue(
        &mut self,
        queue: QueueIndex,
        size: u16,
        addresses: QueueAddresses,
    ) -> Result<Doorbell, TransportError> {
        let device = self.address;
        let most = self.queue_size(queue)?;
        if size == 0 || size > most {
            return Err(TransportError::QueueSize { device, queue, size });
        }
        let enabled = self.common.read16(offset_of!(CommonConfig, queue_enable));
        if enabled != 0 {
            return Err(TransportError::QueueEnable { device, queue, enabled });
        }
        let doorbell = self.doorbell(queue)?;
        // Written even if the register already reads so: after a queue reset, some devices report the maximum size but
        // use the previous one.
        self.common.write16(offset_of!(CommonConfig, queue_size), size);
        self.common.write64(offset_of!(CommonConfig, queue_desc), addresses.descriptors);
        self.common.write64(offset_of!(CommonConfig, queue_driver), addresses.driver);
        self.common.write64(offset_of!(CommonConfig, queue_device), addresses.device);
        self.common.write16(offset_of!(CommonConfig, queue_enable), 1);
        Ok(doorbell)
    }

    pub(super) fn start_queue_reset(&mut self, queue: QueueIndex) -> Result<(), TransportError> {
        expect_queue_reset(self.accepted, self.address, queue)?;
        self.select(queue);
        self.common.write16(offset_of!(CommonConfig, queue_reset), 1);
        Ok(())
    }

    pub(super) fn queue_reset_state(&mut self, queue: QueueIndex) -> Result<QueueResetState, TransportError> {
        expect_queue_reset(self.accepted, self.address, queue)?;
        self.select(queue);
        let reset = self.common.read16(offset_of!(CommonConfig, queue_reset));
        let enabled = self.common.read16(offset_of!(CommonConfig, queue_enable));
        if reset == u16::MAX || enabled == u16::MAX {
            // They may be the registers' values, or the device may be gone.
            self.status()?;
        }
        Ok(QueueResetState { reset, enabled })
    }

    #[inline]
    pub(super) fn notify(&mut self, doorbell: Doorbell, kick: Kick) {
        if self.accepted.contains(Features::NOTIFICATION_DATA) {
            let value = u32::from(kick.progress) << 16 | u32::from(doorbell.number);
            self.notify.write32(doorbell.offset, value);
        } else {
            self.notify.write16(doorbell.offset, doorbell.number);
        }
    }

    /// The handler of its interrupt line, which takes the ISR byte's registers; `None` if they have been taken already.
    pub(super) fn line_handler(&mut self, events: &'static Events, queues: u32) -> Option<Handler<R>> {
        Some(Handler::noting(intx_interrupt, events, queues, Some(self.isr.take()?)))
    }

    pub(super) fn shared_memory(&self, id: u8) -> Option<RegisterWindow> {
        self.shared_memory.iter().find(|region| region.id == id).map(|region| region.window)
    }

    pub(super) fn release<P: Platform<Registers = R>>(self, platform: &mut P) {
        platform.unmap(self.common);
        platform.unmap(self.notify);
        if let Some(device) = self.device {
            platform.unmap(device);
        }
        if let Some(isr) = self.isr {
            platform.unmap(isr);
        }
    }
}

#[cfg(test)]
mod tests;
