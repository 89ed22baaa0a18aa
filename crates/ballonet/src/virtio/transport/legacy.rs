//! The legacy virtio-pci transport (virtio 1.4, 4.1.4.10): registers in I/O ports, at fixed offsets in the first BAR.
//!
//! Differences from the modern one: 32 feature bits, no `FEATURES_OK`, no configuration generation; the device dictates
//! a queue's size; a queue is one block, given by its frame number; and the device configuration moves by four bytes
//! when MSI-X is turned on, to make room for the vectors.
//!
//! Rings and buffers are in the CPU's byte order (2.7.3); the driver supports only little-endian CPUs here.

use derive_more::{Display, Error};

use super::{ALL_ONES, Doorbell, QueueResetState, TransportError};
use crate::bus::{DeviceAddress, Events, Handler, RegisterWindow, Registers};
use crate::pci::{BarError, Bars, Bdf, Function, MsixVector, WindowError};
use crate::platform::{MapError, Platform};
use crate::virtio::events::intx_interrupt;
use crate::virtio::queue::{Kick, QueueAddresses, QueueIndex};
use crate::virtio::spec::{Features, NO_VECTOR, QUEUE_SIZE_MAX, Status, legacy};
use crate::virtio::transport_kind::TransportKind;

/// The BAR that holds the registers (4.1.4.10).
const BAR: u8 = 0;

/// The most bytes of the BAR that are mapped: no device has more registers.
const REGISTERS_LIMIT: u64 = 256;

/// PCI device IDs of functions that may have a legacy interface (4.1.2.3).
const DEVICES: core::ops::RangeInclusive<u16> = 0x1000..=0x103f;

/// Why a function cannot be driven by its legacy interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum LegacyError {
    /// The function's IDs are not those of a device with one.
    #[display("{function} has no legacy interface: device {device:#06x} revision {revision}")]
    NotLegacy {
        /// The function.
        function: Bdf,
        /// Its device ID.
        device: u16,
        /// Its revision.
        revision: u8,
    },
    /// The first BAR is not implemented or invalid.
    #[display("the legacy interface needs BAR0: {_0}")]
    Bar(BarError),
    /// The first BAR is in memory.
    #[display("the legacy interface needs I/O ports, and BAR0 of {_0} is in memory")]
    NotPorts(#[error(not(source))] Bdf),
    /// The first BAR is too small, or has no address: there are machines without ports for PCI.
    #[display("the legacy interface needs I/O ports: {_0}")]
    Window(WindowError),
    /// The platform could not map the ports.
    #[display("{_0}")]
    Map(MapError),
    /// A mapping is smaller than requested.
    #[display("{window} was mapped with {length} bytes only")]
    Short {
        /// The window requested.
        window: RegisterWindow,
        /// Bytes mapped.
        length: usize,
    },
    /// The CPU is big-endian, so the rings would be too.
    #[display("{_0}: legacy rings are in the CPU's byte order, and the driver's are little-endian")]
    ByteOrder(#[error(not(source))] Bdf),
}

/// Where the registers of a legacy interface are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::virtio) struct LegacyPorts {
    function: Bdf,
    window: RegisterWindow,
    isr: RegisterWindow,
}

impl LegacyPorts {
    /// The registers of `function`, whose BARs are `bars`.
    ///
    /// # Errors
    /// When the function has no legacy interface, or it cannot be reached.
    pub(in crate::virtio) fn find(function: &Function, bars: &Bars) -> Result<Self, LegacyError> {
        let (bdf, device, revision) = (function.bdf, function.device, function.revision);
        if !DEVICES.contains(&device) || revision != legacy::REVISION {
            return Err(LegacyError::NotLegacy { function: bdf, device, revision });
        }
        if cfg!(target_endian = "big") {
            return Err(LegacyError::ByteOrder(bdf));
        }
        let bar = bars.get(BAR).map_err(LegacyError::Bar)?;
        if !bar.is_io() {
            return Err(LegacyError::NotPorts(bdf));
        }
        // The header is longest with MSI-X. The driver checks the length of the configuration behind it.
        let length = bar.size.clamp(legacy::DEVICE_CONFIG_MSIX as u64, REGISTERS_LIMIT);
        let window = bar.window(0, length).map_err(LegacyError::Window)?;
        let isr = bar.window(legacy::ISR as u64, 1).map_err(LegacyError::Window)?;
        Ok(Self { function: bdf, window, isr })
    }

    /// The function that has them.
    pub(in crate::virtio) const fn function(&self) -> Bdf {
        self.function
    }
}

/// A legacy virtio-pci device's registers, mapped.
#[derive(Debug)]
pub(in crate::virtio) struct Legacy<R> {
    address: DeviceAddress,
    registers: R,
    /// Until the line's handler takes it.
    isr: Option<R>,
    /// Whether MSI-X is on: then the vectors exist, and the configuration follows them.
    msix: bool,
}

impl<R: Registers + Send + Sync + 'static> Legacy<R> {
    /// Maps the registers without accessing the device. MSI-X is off.
    ///
    /// # Errors
    /// When the platform cannot map them; nothing is mapped then.
    pub(in crate::virtio) fn new<P>(platform: &mut P, ports: &LegacyPorts) -> Result<Self, LegacyError>
    where
        P: Platform<Registers = R>,
    {
        let registers = map(platform, ports.window)?;
        match map(platform, ports.isr) {
            Ok(isr) => Ok(Self { address: ports.window.device, registers, isr: Some(isr), msix: false }),
            Err(error) => {
                platform.unmap(registers);
                Err(error)
            }
        }
    }

    fn select(&mut self, queue: QueueIndex) {
        self.registers.write16(legacy::QUEUE_SELECT, queue.number());
    }

    /// Where the device configuration starts.
    pub(super) const fn config_start(&self) -> usize {
        if self.msix { legacy::DEVICE_CONFIG_MSIX } else { legacy::DEVICE_CONFIG }
    }

    /// Writes a vector register and checks that the device took it. Without MSI-X its offset holds device
    /// configuration.
    fn set_vector(&mut self, register: usize, vector: Option<MsixVector>) -> Result<(), TransportError> {
        let device = self.address;
        let Some(vector) = vector else {
            if self.msix {
                self.registers.write16(register, NO_VECTOR);
            }
            return Ok(());
        };
        if !self.msix {
            return Err(TransportError::VectorRefused { device, vector, read: NO_VECTOR });
        }
        self.registers.write16(register, vector.number());
        let read = self.registers.read16(register);
        if read == vector.number() { Ok(()) } else { Err(TransportError::VectorRefused { device, vector, read }) }
    }
}

fn map<P: Platform>(platform: &mut P, window: RegisterWindow) -> Result<P::Registers, LegacyError> {
    let registers = platform.map(window).map_err(LegacyError::Map)?;
    let length = registers.len();
    if u64::try_from(length).is_ok_and(|length| length < window.length) {
        platform.unmap(registers);
        return Err(LegacyError::Short { window, length });
    }
    Ok(registers)
}

/// The operations of [`super::Transport`].
impl<R: Registers + Send + Sync + 'static> Legacy<R> {
    pub(super) fn kind(&self) -> TransportKind {
        TransportKind::Legacy
    }

    pub(super) const fn address(&self) -> DeviceAddress {
        self.address
    }

    pub(super) fn features(&mut self) -> Features {
        Features::from([self.registers.read32(legacy::DEVICE_FEATURES), 0])
    }

    pub(super) fn set_features(&mut self, features: Features) {
        let [low, _none] = features.into();
        self.registers.write32(legacy::DRIVER_FEATURES, low);
    }

    pub(super) fn status(&self) -> Result<Status, TransportError> {
        match self.registers.read8(legacy::DEVICE_STATUS) {
            ALL_ONES => Err(TransportError::Gone(self.address)),
            status => Ok(Status::from_bits_retain(status)),
        }
    }

    pub(super) fn set_status(&mut self, status: Status) {
        self.registers.write8(legacy::DEVICE_STATUS, status.bits());
    }

    pub(super) fn generation(&self) -> Option<u32> {
        None
    }

    /// All registers; the device configuration begins at [`Legacy::config_start`].
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
        let size = self.registers.read16(legacy::QUEUE_SIZE);
        if size > QUEUE_SIZE_MAX {
            self.status()?;
            return Err(TransportError::QueueSize { device: self.address, queue, size });
        }
        Ok(size)
    }

    pub(super) fn set_msix(&mut self, on: bool) {
        self.msix = on;
    }

    pub(super) fn set_config_vector(&mut self, vector: Option<MsixVector>) -> Result<(), TransportError> {
        self.set_vector(legacy::CONFIG_MSIX_VECTOR, vector)
    }

    pub(super) fn set_queue_vector(
        &mut self,
        queue: QueueIndex,
        vector: Option<MsixVector>,
    ) -> Result<(), TransportError> {
        self.select(queue);
        self.set_vector(legacy::QUEUE_MSIX_VECTOR, vector)
    }

    /// The size is the device's own, and the rings are laid out by [`crate::virtio::queue::Alignment::Legacy`]: the
    /// device computes their addresses from that of the descriptor table.
    pub(super) fn enable_queue(
        &mut self,
        queue: QueueIndex,
        size: u16,
        addresses: QueueAddresses,
    ) -> Result<Doorbell, TransportError> {
        let device = self.address;
        let fixed = self.queue_size(queue)?;
        if size == 0 || size != fixed {
            return Err(TransportError::QueueSize { device, queue, size });
        }
        let frame = self.registers.read32(legacy::QUEUE_ADDRESS);
        if frame != 0 {
            return Err(TransportError::QueueInUse { device, queue, frame });
        }
        let address = addresses.descriptors;
        let aligned = address % legacy::QUEUE_ALIGN == 0;
        match u32::try_from(address / legacy::QUEUE_ALIGN) {
            // Frame 0 would disable the queue again.
            Ok(frame @ 1..) if aligned => self.registers.write32(legacy::QUEUE_ADDRESS, frame),
            _ => return Err(TransportError::QueueAddress { device, queue, address }),
        }
        Ok(Doorbell { offset: legacy::QUEUE_NOTIFY, number: queue.number() })
    }

    pub(super) fn start_queue_reset(&mut self, queue: QueueIndex) -> Result<(), TransportError> {
        Err(TransportError::NoQueueReset { device: self.address, queue })
    }

    pub(super) fn queue_reset_state(&mut self, queue: QueueIndex) -> Result<QueueResetState, TransportError> {
        Err(TransportError::NoQueueReset { device: self.address, queue })
    }

    #[inline]
    pub(super) fn notify(&mut self, doorbell: Doorbell, _kick: Kick) {
        self.registers.write16(doorbell.offset, doorbell.number);
    }

    /// The handler of its interrupt line, which takes the ISR byte's registers; `None` if they have been taken already.
    pub(super) fn line_handler(&mut self, events: &'static Events, queues: u32) -> Option<Handler<R>> {
        Some(Handler::noting(intx_interrupt, events, queues, Some(self.isr.take()?)))
    }

    pub(super) fn release<P: Platform<Registers = R>>(self, platform: &mut P) {
        platform.unmap(self.registers);
        if let Some(isr) = self.isr {
            platform.unmap(isr);
        }
    }
}

#[cfg(test)]
mod tests;
