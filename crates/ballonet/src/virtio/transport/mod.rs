//! The operations of a virtio transport: one enum over all transports, so that a driver need not know which one it has.
//!
//! The choice is made at run time; each operation costs a match, which for a kick is one well-predicted branch. To add
//! a transport, add a file here, a variant of [`AnyTransport`], and a way to open it (`super::handle`).
//!
//! The operations by the names in Linux (`virtio_config_ops`). One that a transport lacks fails or finds nothing there:
//!
//! | operation | transports | here |
//! |---|---|---|
//! | `get` | all | [`Transport::read_config`] |
//! | `set` | all | [`Transport::write_config`] |
//! | `generation` | modern, MMIO version 2 | [`Transport::generation`] |
//! | `get_status` | all | [`Transport::status`] |
//! | `set_status` | all | [`Transport::set_status`] |
//! | `reset` | all | [`super::Device::new`] at first, [`super::Device::quiesce`] at last |
//! | `find_vqs` | all | [`super::interrupt::find_vqs`] |
//! | `del_vqs` | all | [`super::Interrupts::release`]; memory is [`super::Virtqueue::release`]'s |
//! | `synchronize_cbs` | all | [`super::Interrupts::synchronize`] |
//! | `get_features` | all | [`Transport::features`] |
//! | `finalize_features` | all | [`Transport::set_features`], confirmed by [`super::Device::negotiate`] |
//! | `bus_name` | all | [`Transport::address`] |
//! | `set_vq_affinity` | all | [`super::Interrupts::set_queue_affinity`] |
//! | `get_vq_affinity` | all | [`super::Interrupts::queue_affinity`] |
//! | `get_shm_region` | modern, MMIO version 2 | [`super::Device::shared_memory`] |
//! | `disable_vq_and_reset` | modern, MMIO version 2 | [`super::Device::reset_queue`] |
//! | `enable_vq_after_reset` | modern, MMIO version 2 | [`super::Device::enable_queue_again`] |

use derive_more::From;

#[cfg(test)]
use super::fake::FakeTransport;
use super::queue::{Kick, QueueAddresses, QueueIndex};
use super::spec::{self, Features, Status};
use super::transport_kind::TransportKind;
use crate::bus::{DeviceAddress, Events, Handler, RegisterWindow, Registers};
use crate::pci::MsixVector;
use crate::platform::Platform;

mod config_field;
mod error;
mod legacy;
mod mmio;
mod modern;

pub use config_field::ConfigField;
pub use error::TransportError;
pub use legacy::LegacyError;
pub(super) use legacy::{Legacy, LegacyPorts};
pub(super) use mmio::Mmio;
pub use mmio::{MmioDevice, MmioError, MmioIdentity};
pub(super) use modern::Modern;
pub use modern::ModernError;

/// The most attempts to read a configuration field that keeps changing.
const CONFIG_ATTEMPTS: u32 = 64;

/// The value read if no device responds.
const ALL_ONES: u8 = 0xff;

/// Where and with what value an enabled queue is kicked; computed once, so that a kick is one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doorbell {
    /// Checked byte offset in the transport's doorbell structure.
    pub(super) offset: usize,
    /// The 16 bits that identify the queue: its index, or the device's choice.
    pub(super) number: u16,
}

/// Fails unless `RING_RESET` is negotiated.
fn expect_queue_reset(accepted: Features, device: DeviceAddress, queue: QueueIndex) -> Result<(), TransportError> {
    if accepted.contains(Features::RING_RESET) { Ok(()) } else { Err(TransportError::NoQueueReset { device, queue }) }
}

/// The registers that show the progress of a queue's reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueResetState {
    /// `queue_reset`: 1 during the reset.
    pub(crate) reset: u16,
    /// `queue_enable`: 1 while the queue is in use.
    pub(crate) enabled: u16,
}

impl QueueResetState {
    /// Whether the reset is complete: both read 0 (4.1.4.3.2).
    pub(super) const fn is_done(self) -> bool {
        self.reset == 0 && self.enabled == 0
    }
}

/// A device's registers, over one of the transports.
///
/// Each operation is a single step; [`super::Device`] knows their order, so the steps of starting and kicking a queue
/// are not public.
#[derive(Debug)]
pub struct Transport<R>(pub(super) AnyTransport<R>);

/// One of the transports.
#[derive(Debug, From)]
pub(super) enum AnyTransport<R> {
    /// Virtio over PCI, version 1 and later.
    Modern(Modern<R>),
    /// Virtio over PCI before version 1.
    Legacy(Legacy<R>),
    /// Virtio over MMIO, of either version.
    Mmio(Mmio<R>),
    /// For unit tests of the status sequence.
    #[cfg(test)]
    Fake(FakeTransport),
}

/// Dispatches an operation by transport.
macro_rules! each {
    ($any:expr, $transport:ident => $operation:expr) => {
        match $any {
            AnyTransport::Modern($transport) => $operation,
            AnyTransport::Legacy($transport) => $operation,
            AnyTransport::Mmio($transport) => $operation,
            #[cfg(test)]
            AnyTransport::Fake($transport) => $operation,
        }
    };
}

impl<R, T: Into<AnyTransport<R>>> From<T> for Transport<R> {
    fn from(transport: T) -> Self {
        Self(transport.into())
    }
}

impl<R: Registers + Send + Sync + 'static> Transport<R> {
    /// The kind of transport.
    pub fn kind(&self) -> TransportKind {
        each!(&self.0, transport => transport.kind())
    }

    /// The device's address.
    #[doc(alias = "bus_name")]
    pub(crate) fn address(&self) -> DeviceAddress {
        each!(&self.0, transport => transport.address())
    }

    /// The features that the device offers.
    #[doc(alias = "get_features")]
    pub(super) fn features(&mut self) -> Features {
        each!(&mut self.0, transport => transport.features())
    }

    /// Writes the accepted features.
    #[doc(alias = "finalize_features")]
    pub(super) fn set_features(&mut self, features: Features) {
        each!(&mut self.0, transport => transport.set_features(features));
    }

    /// Reads the device status.
    ///
    /// # Errors
    /// When the device is gone.
    #[doc(alias = "get_status")]
    pub(crate) fn status(&self) -> Result<Status, TransportError> {
        each!(&self.0, transport => transport.status())
    }

    /// Writes the device status. An empty one starts a reset, which may take time.
    pub(super) fn set_status(&mut self, status: Status) {
        each!(&mut self.0, transport => transport.set_status(status));
    }

    /// The counter of configuration changes; `None` if the transport has none.
    #[doc(alias = "config_generation")]
    fn generation(&self) -> Option<u32> {
        each!(&self.0, transport => transport.generation())
    }

    /// Size of the device configuration in bytes, or of the space for it if the transport does not report the size; 0
    /// if there is none.
    pub(crate) fn config_len(&self) -> usize {
        self.config().map_or(0, |(registers, start)| registers.len().saturating_sub(start))
    }

    /// The window that holds the device configuration, and its offset there.
    fn config(&self) -> Option<(&R, usize)> {
        match &self.0 {
            AnyTransport::Modern(modern) => modern.config().map(|registers| (registers, 0)),
            AnyTransport::Legacy(legacy) => Some((legacy.registers(), legacy.config_start())),
            AnyTransport::Mmio(mmio) => Some((mmio.registers(), spec::mmio::CONFIG)),
            #[cfg(test)]
            AnyTransport::Fake(_) => None,
        }
    }

    /// As [`Transport::config`], to write.
    fn config_mut(&mut self) -> Option<(&mut R, usize)> {
        match &mut self.0 {
            AnyTransport::Modern(modern) => modern.config_mut().map(|registers| (registers, 0)),
            AnyTransport::Legacy(legacy) => {
                let start = legacy.config_start();
                Some((legacy.registers_mut(), start))
            }
            AnyTransport::Mmio(mmio) => Some((mmio.registers_mut(), spec::mmio::CONFIG)),
            #[cfg(test)]
            AnyTransport::Fake(_) => None,
        }
    }

    /// The most queues that the device can have, as far as the transport can tell.
    pub(crate) fn queue_count(&self) -> u16 {
        each!(&self.0, transport => transport.queue_count())
    }

    /// The largest size that a queue can have; 0 if there is no such queue.
    ///
    /// # Errors
    /// When the device is gone, or reports more than 32768.
    pub(super) fn queue_size(&mut self, queue: QueueIndex) -> Result<u16, TransportError> {
        each!(&mut self.0, transport => transport.queue_size(queue))
    }

    /// Records that MSI-X is on or off: a legacy device has vector registers only while it is on, and its configuration
    /// moves behind them.
    pub(super) fn set_msix(&mut self, on: bool) {
        if let AnyTransport::Legacy(legacy) = &mut self.0 {
            legacy.set_msix(on);
        }
    }

    /// Sets the vector for configuration changes, or none.
    ///
    /// # Errors
    /// When the device refuses the vector.
    pub(super) fn set_config_vector(&mut self, vector: Option<MsixVector>) -> Result<(), TransportError> {
        each!(&mut self.0, transport => transport.set_config_vector(vector))
    }

    /// Sets the vector of a queue that is not enabled yet, or none.
    ///
    /// # Errors
    /// When the device refuses the vector.
    pub(super) fn set_queue_vector(
        &mut self,
        queue: QueueIndex,
        vector: Option<MsixVector>,
    ) -> Result<(), TransportError> {
        each!(&mut self.0, transport => transport.set_queue_vector(queue, vector))
    }

    /// Enables a queue, for the first time or after its reset. Its vector must be set already.
    ///
    /// # Errors
    /// When the device has no such queue or doorbell, or refuses the size.
    pub(super) fn enable_queue(
        &mut self,
        queue: QueueIndex,
        size: u16,
        addresses: QueueAddresses,
    ) -> Result<Doorbell, TransportError> {
        each!(&mut self.0, transport => transport.enable_queue(queue, size, addresses))
    }

    /// Starts the reset of one queue; [`Transport::queue_reset_state`] shows when it is complete.
    ///
    /// # Errors
    /// When the transport cannot reset a queue.
    pub(super) fn start_queue_reset(&mut self, queue: QueueIndex) -> Result<(), TransportError> {
        each!(&mut self.0, transport => transport.start_queue_reset(queue))
    }

    /// The progress of a queue's reset.
    ///
    /// # Errors
    /// When the device is gone, or the transport cannot reset a queue.
    pub(super) fn queue_reset_state(&mut self, queue: QueueIndex) -> Result<QueueResetState, TransportError> {
        each!(&mut self.0, transport => transport.queue_reset_state(queue))
    }

    /// Kicks a queue of a running device.
    #[doc(alias = "vp_notify")]
    #[inline]
    pub(super) fn notify(&mut self, doorbell: Doorbell, kick: Kick) {
        each!(&mut self.0, transport => transport.notify(doorbell, kick));
    }

    /// A handler for the device's interrupt line: it reads the cause, acknowledges it, and records it in `events`; used
    /// buffers as the bits `queues`. The handler takes the registers that it needs, so there can be only one.
    pub(super) fn line_handler(&mut self, events: &'static Events, queues: u32) -> Option<Handler<R>> {
        each!(&mut self.0, transport => transport.line_handler(events, queues))
    }

    /// The shared memory region with this number; `None` if there is none, as on every legacy device.
    pub(super) fn shared_memory(&mut self, id: u8) -> Option<RegisterWindow> {
        match &mut self.0 {
            AnyTransport::Modern(modern) => modern.shared_memory(id),
            AnyTransport::Mmio(mmio) => mmio.shared_memory(id),
            _ => None,
        }
    }

    /// Unmaps everything without accessing the device.
    pub(super) fn release<P: Platform<Registers = R>>(self, platform: &mut P) {
        each!(self.0, transport => transport.release(platform));
    }

    /// Reads a field of the device configuration, of 8, 16 or 32 bits.
    ///
    /// # Errors
    /// When there is no such field, it keeps changing, or the device is gone.
    #[doc(alias = "get")]
    pub fn read_config<T: ConfigField>(&self, offset: usize) -> Result<T, TransportError> {
        self.read_stable(offset)
    }

    /// Writes a field of the device configuration, in one store: some devices drop any other write.
    ///
    /// # Errors
    /// When there is no such field.
    #[doc(alias = "set")]
    pub(super) fn write_config<T: ConfigField>(&mut self, offset: usize, value: T) -> Result<(), TransportError> {
        let (registers, at) = self.field_mut(offset, size_of::<T>())?;
        value.write(registers, at);
        Ok(())
    }

    fn no_field(&self, offset: usize, width: usize) -> TransportError {
        TransportError::NoConfigField { device: self.address(), offset, width, length: self.config_len() }
    }

    fn has_field(&self, offset: usize, width: usize) -> bool {
        let inside = offset.checked_add(width).is_some_and(|end| end <= self.config_len());
        inside && offset % width == 0
    }

    /// The registers that hold a field of the device configuration, and its offset there.
    fn field_mut(&mut self, offset: usize, width: usize) -> Result<(&mut R, usize), TransportError> {
        let error = self.no_field(offset, width);
        if !self.has_field(offset, width) {
            return Err(error);
        }
        self.config_mut().map(|(registers, start)| (registers, start + offset)).ok_or(error)
    }

    /// Reads a field until the generation is the same before and after (2.5.1), or, without one, until two reads agree
    /// (2.5.4).
    fn read_stable<T: ConfigField>(&self, offset: usize) -> Result<T, TransportError> {
        let width = size_of::<T>();
        let field = self.config().filter(|_| self.has_field(offset, width));
        let (registers, start) = field.ok_or_else(|| self.no_field(offset, width))?;
        let at = start + offset;
        for _ in 0..CONFIG_ATTEMPTS {
            let before = self.generation();
            let value = T::read(registers, at);
            let stable = match before {
                Some(before) => self.generation() == Some(before),
                // A byte cannot be torn.
                None => width == 1 || T::read(registers, at) == value,
            };
            if stable {
                if value == T::ALL_ONES {
                    // It may be the value, or the device may be gone.
                    self.status()?;
                }
                return Ok(value);
            }
        }
        Err(TransportError::ConfigUnstable { device: self.address(), offset })
    }
}

#[cfg(test)]
mod tests;
