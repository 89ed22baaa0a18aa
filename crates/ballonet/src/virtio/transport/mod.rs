//! The operations of a virtio transport, by one enum under which a driver does not see which transport it has.
//!
//! Which one it is shows only at run time; each operation costs a match, which for a kick is one branch that always
//! goes the same way. A transport is a file here, an arm of [`AnyTransport`], and a way to open it (`super::handle`).
//!
//! By the names that C drivers know; operations of one transport alone are refused, or find nothing, on the others:
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

/// How often a configuration read is tried again because the configuration changed under it.
const CONFIG_ATTEMPTS: u32 = 64;

/// A register's answer when no device gives one.
const ALL_ONES: u8 = 0xff;

/// Where and with what an enabled queue is kicked; worked out once, so that a kick is one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doorbell {
    /// In bytes from the start of the transport's doorbells. Checked against them.
    pub(super) offset: usize,
    /// The 16 bits that name the queue: its index, or what the device chose.
    pub(super) number: u16,
}

/// Fails unless single queues can be reset: `RING_RESET` is accepted.
fn expect_queue_reset(accepted: Features, device: DeviceAddress, queue: QueueIndex) -> Result<(), TransportError> {
    if accepted.contains(Features::RING_RESET) { Ok(()) } else { Err(TransportError::NoQueueReset { device, queue }) }
}

/// How far the reset of a queue is: its registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueResetState {
    /// `queue_reset`: 1 during the reset.
    pub(crate) reset: u16,
    /// `queue_enable`: 1 while the queue is in use.
    pub(crate) enabled: u16,
}

impl QueueResetState {
    /// Whether the reset has happened: both read 0 (4.1.4.3.2).
    pub(super) const fn is_done(self) -> bool {
        self.reset == 0 && self.enabled == 0
    }
}

/// A device's registers, by one of the transports.
///
/// An operation is a single step; [`super::Device`] knows their order, so the steps of starting and kicking a queue are
/// not public.
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
    /// What unit tests of the status sequence look into.
    #[cfg(test)]
    Fake(FakeTransport),
}

/// Carries an operation out on the transport that it is.
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
    /// Which transport it is.
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

    /// Tells the device which features are accepted.
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

    /// Writes the device status. An empty one resets the device, which takes its time.
    pub(super) fn set_status(&mut self, status: Status) {
        each!(&mut self.0, transport => transport.set_status(status));
    }

    /// Counts changes of the device configuration; `None` where the transport has no such counter.
    #[doc(alias = "config_generation")]
    fn generation(&self) -> Option<u32> {
        each!(&self.0, transport => transport.generation())
    }

    /// Size of the device configuration in bytes, or of the room for it if the transport does not report the size; 0 if
    /// there is none.
    pub(crate) fn config_len(&self) -> usize {
        self.config().map_or(0, |(registers, start)| registers.len().saturating_sub(start))
    }

    /// The window that holds the device configuration, and where in it that begins.
    fn config(&self) -> Option<(&R, usize)> {
        match &self.0 {
            AnyTransport::Modern(modern) => modern.config().map(|registers| (registers, 0)),
            AnyTransport::Legacy(legacy) => Some((legacy.registers(), legacy.config_start())),
            AnyTransport::Mmio(mmio) => Some((mmio.registers(), spec::mmio::CONFIG)),
            #[cfg(test)]
            AnyTransport::Fake(_) => None,
        }
    }

    /// The same, to write.
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

    /// How many queues the device has at most, as far as the transport can tell.
    pub(crate) fn queue_count(&self) -> u16 {
        each!(&self.0, transport => transport.queue_count())
    }

    /// The largest size that a queue can have; 0 if there is no such queue.
    ///
    /// # Errors
    /// When the device is gone, or says more than 32768.
    pub(super) fn queue_size(&mut self, queue: QueueIndex) -> Result<u16, TransportError> {
        each!(&mut self.0, transport => transport.queue_size(queue))
    }

    /// Tells a legacy device's registers that MSI-X is on or off: the vectors are there only then, and the
    /// configuration moves behind them.
    pub(super) fn set_msix(&mut self, on: bool) {
        if let AnyTransport::Legacy(legacy) = &mut self.0 {
            legacy.set_msix(on);
        }
    }

    /// Has configuration changes raise `vector`, or none.
    ///
    /// # Errors
    /// When the device does not take the vector.
    pub(super) fn set_config_vector(&mut self, vector: Option<MsixVector>) -> Result<(), TransportError> {
        each!(&mut self.0, transport => transport.set_config_vector(vector))
    }

    /// Has a queue that is not in use yet raise `vector`, or none.
    ///
    /// # Errors
    /// When the device does not take the vector.
    pub(super) fn set_queue_vector(
        &mut self,
        queue: QueueIndex,
        vector: Option<MsixVector>,
    ) -> Result<(), TransportError> {
        each!(&mut self.0, transport => transport.set_queue_vector(queue, vector))
    }

    /// Puts a queue to use, for the first time or after its reset. Its vector has been set.
    ///
    /// # Errors
    /// When the device has no such queue or doorbell, or does not take the size.
    pub(super) fn enable_queue(
        &mut self,
        queue: QueueIndex,
        size: u16,
        addresses: QueueAddresses,
    ) -> Result<Doorbell, TransportError> {
        each!(&mut self.0, transport => transport.enable_queue(queue, size, addresses))
    }

    /// Starts the reset of one queue; [`Transport::queue_reset_state`] says when it is over.
    ///
    /// # Errors
    /// When the transport cannot do that.
    pub(super) fn start_queue_reset(&mut self, queue: QueueIndex) -> Result<(), TransportError> {
        each!(&mut self.0, transport => transport.start_queue_reset(queue))
    }

    /// How far the reset of a queue is.
    ///
    /// # Errors
    /// When the device is gone, or the transport cannot reset a queue.
    pub(super) fn queue_reset_state(&mut self, queue: QueueIndex) -> Result<QueueResetState, TransportError> {
        each!(&mut self.0, transport => transport.queue_reset_state(queue))
    }

    /// Kicks a queue of a device that runs.
    #[doc(alias = "vp_notify")]
    #[inline]
    pub(super) fn notify(&mut self, doorbell: Doorbell, kick: Kick) {
        each!(&mut self.0, transport => transport.notify(doorbell, kick));
    }

    /// A handler for the device's interrupt line: it asks the device why, acknowledges, and notes that in `events`;
    /// used buffers by the bits `queues`. It takes the registers that it needs: there is one.
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

    /// Ends all mappings. Nothing of the device is touched.
    pub(super) fn release<P: Platform<Registers = R>>(self, platform: &mut P) {
        each!(self.0, transport => transport.release(platform));
    }

    /// Reads a field of the device configuration, of 8, 16 or 32 bits.
    ///
    /// # Errors
    /// When there is no such field, it does not hold still, or the device is gone.
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

    /// The registers that hold a field of the device configuration, and where in them it is.
    fn field_mut(&mut self, offset: usize, width: usize) -> Result<(&mut R, usize), TransportError> {
        let error = self.no_field(offset, width);
        if !self.has_field(offset, width) {
            return Err(error);
        }
        self.config_mut().map(|(registers, start)| (registers, start + offset)).ok_or(error)
    }

    /// Reads a field until the generation is the same before and after (2.5.1), or without one, until it holds still
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
                // A byte has no parts that could be of different times.
                None => width == 1 || T::read(registers, at) == value,
            };
            if stable {
                if value == T::ALL_ONES {
                    // It may be the value, or the bus's answer for nobody.
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
