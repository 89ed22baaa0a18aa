//! What every virtio transport can do: one table of operations, under which a driver does not see which it has.
//!
//! By the names that C drivers know them by; those for one transport alone are refused, or find nothing, on the other:
//!
//! | operation | transports | here |
//! |---|---|---|
//! | `get` | both | [`Transport::read_config32`], and for 8 and 16 bits |
//! | `set` | both | [`Transport::write_config32`], and for 8 and 16 bits |
//! | `generation` | modern | [`Transport::generation`] |
//! | `get_status` | both | [`Transport::status`] |
//! | `set_status` | both | [`Transport::set_status`] |
//! | `reset` | both | [`super::Device::new`] at first, [`super::Device::quiesce`] at last |
//! | `find_vqs` | both | [`super::find_vqs`] |
//! | `del_vqs` | both | [`super::Interrupts::release`]; memory is [`super::Virtqueue::release`]'s |
//! | `synchronize_cbs` | both | [`super::Interrupts::synchronize`] |
//! | `get_features` | both | [`Transport::features`] |
//! | `finalize_features` | both | [`Transport::set_features`], confirmed by [`super::Device::negotiate`] |
//! | `bus_name` | both | [`Transport::function`] |
//! | `set_vq_affinity` | both | [`super::Interrupts::set_queue_affinity`] |
//! | `get_vq_affinity` | both | [`super::Interrupts::queue_affinity`] |
//! | `get_shm_region` | modern | [`Transport::shared_memory`] |
//! | `disable_vq_and_reset` | modern | [`super::Device::reset_queue`] |
//! | `enable_vq_after_reset` | modern | [`super::Device::enable_queue_again`] |

use alloc::sync::Arc;
use core::fmt;

use derive_more::{Display, Error};

use super::device::DriverOk;
use super::queue::Kick;
use super::spec::{Features, Status};
use crate::pci::{BarWindow, Bdf, MsixVector};
use crate::platform::{Platform, Registers};

/// How often a configuration read is tried again because the configuration changed under it.
const CONFIG_ATTEMPTS: u32 = 64;

/// The transports there are over PCI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportKind {
    /// Version 1 of the specification and later: structures found by capabilities, `FEATURES_OK`, 64 feature bits.
    Modern,
    /// Before version 1: I/O ports in the first BAR, 32 feature bits, rings of one size and layout.
    Legacy,
}

impl TransportKind {
    /// The word for it on a command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Modern => "modern",
            Self::Legacy => "legacy",
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// The number of a queue: 0 to 30, as many as [`super::Events`] can tell apart and more than a balloon has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Display)]
pub struct QueueIndex(u16);

impl QueueIndex {
    /// The first queue, which every device has.
    pub const FIRST: Self = Self(0);

    /// The queue with this number; `None` above 30.
    pub const fn new(number: u16) -> Option<Self> {
        if number <= 30 { Some(Self(number)) } else { None }
    }

    /// The number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// This queue in a mask of queues.
    pub const fn bit(self) -> u32 {
        1 << self.0
    }
}

/// Where a queue's three areas are, as the device addresses memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueAddresses {
    /// The descriptor table, or the descriptor ring of a packed queue.
    #[doc(alias = "queue_desc")]
    pub descriptors: u64,
    /// What the driver writes: the available ring, or its event suppression structure.
    #[doc(alias = "queue_driver")]
    pub driver: u64,
    /// What the device writes: the used ring, or its event suppression structure.
    #[doc(alias = "queue_device")]
    pub device: u64,
}

/// Where and with what an enabled queue is kicked; worked out once, so that a kick is one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doorbell {
    /// In bytes from the start of the transport's doorbells. Checked against them.
    pub(super) offset: usize,
    /// The 16 bits that name the queue: its index, or what the device chose.
    pub(super) number: u16,
}

/// How far the reset of a queue is: its registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueResetState {
    /// `queue_reset`: 1 during the reset.
    pub reset: u16,
    /// `queue_enable`: 1 while the queue is in use.
    pub enabled: u16,
}

impl QueueResetState {
    /// Whether the reset has happened: both read 0 (4.1.4.3.2).
    pub const fn is_done(self) -> bool {
        self.reset == 0 && self.enabled == 0
    }
}

/// What can go wrong between a driver and its device's registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum TransportError {
    /// The device's registers read as all ones: it is not there any more.
    #[display("{_0}: the device is gone")]
    Gone(#[error(not(source))] Bdf),
    /// The status did not become 0 after a reset.
    #[display("{function}: not reset after {waited_ms} ms, status {status}")]
    ResetTimeout {
        /// The function.
        function: Bdf,
        /// How long the driver waited, in milliseconds.
        waited_ms: u64,
        /// The status by then.
        status: Status,
    },
    /// A single queue cannot be reset: `RING_RESET` was not negotiated, or this is a legacy device.
    #[display("{function}: queue {queue} cannot be reset by itself")]
    NoQueueReset {
        /// The function.
        function: Bdf,
        /// The queue.
        queue: QueueIndex,
    },
    /// The registers of a queue did not become 0 after its reset.
    #[display("{function}: queue {queue} not reset after {waited_ms} ms, queue_reset {reset}, queue_enable {enabled}")]
    QueueResetTimeout {
        /// The function.
        function: Bdf,
        /// The queue.
        queue: QueueIndex,
        /// How long the driver waited, in milliseconds.
        waited_ms: u64,
        /// `queue_reset` by then.
        reset: u16,
        /// `queue_enable` by then.
        enabled: u16,
    },
    /// The configuration kept changing while it was read.
    #[display("{function}: configuration at {offset:#x} changed during each of {CONFIG_ATTEMPTS} reads")]
    ConfigUnstable {
        /// The function.
        function: Bdf,
        /// Offset of the field in bytes.
        offset: usize,
    },
    /// The device configuration has no such field.
    #[display("{function}: no {width} bytes at {offset:#x} in a device configuration of {length} bytes")]
    NoConfigField {
        /// The function.
        function: Bdf,
        /// Offset of the field in bytes.
        offset: usize,
        /// Its size in bytes.
        width: usize,
        /// Size of the device configuration in bytes.
        length: usize,
    },
    /// The device did not take a vector.
    #[display("{function}: vector {vector} refused, it reads back as {read:#06x}")]
    VectorRefused {
        /// The function.
        function: Bdf,
        /// The vector, an entry of the MSI-X table.
        vector: MsixVector,
        /// What the register held afterwards; 0xffff is the device's way to refuse.
        read: u16,
    },
    /// The queue's size makes no sense.
    #[display("{function}: queue {queue} has {size} entries")]
    QueueSize {
        /// The function.
        function: Bdf,
        /// The queue.
        queue: QueueIndex,
        /// Its size, or the size asked for.
        size: u16,
    },
    /// The queue is in use already, before anybody enabled it, or is not after it was.
    #[display("{function}: queue {queue} has queue_enable {enabled}")]
    QueueEnable {
        /// The function.
        function: Bdf,
        /// The queue.
        queue: QueueIndex,
        /// What the register holds.
        enabled: u16,
    },
    /// The queue is in use already, before anybody gave it an address.
    #[display("{function}: queue {queue} is in use already, at frame {frame:#x}")]
    QueueInUse {
        /// The function.
        function: Bdf,
        /// The queue.
        queue: QueueIndex,
        /// What its address register holds: a frame number.
        frame: u32,
    },
    /// The queue's memory is where the device cannot be told of it.
    #[display("{function}: queue {queue} at {address:#x} is misaligned or beyond what its register holds")]
    QueueAddress {
        /// The function.
        function: Bdf,
        /// The queue.
        queue: QueueIndex,
        /// Where its descriptor table is.
        address: u64,
    },
    /// The queue's doorbell lies outside of the doorbells, or not on a 16-bit boundary.
    #[display("{function}: doorbell of queue {queue} at {offset:#x}, among {length:#x} bytes")]
    Doorbell {
        /// The function.
        function: Bdf,
        /// The queue.
        queue: QueueIndex,
        /// Its doorbell's offset in bytes.
        offset: u64,
        /// Size of all doorbells in bytes.
        length: usize,
    },
}

/// The operations of a transport.
///
/// They carry out single steps; their order is the business of [`super::Device`], which is why starting a queue and
/// kicking it are only to be had through that.
pub trait Transport: Sized {
    /// Windows of registers.
    type Registers: Registers + Send + Sync + 'static;

    /// Which transport it is.
    fn kind(&self) -> TransportKind;

    /// The PCI function.
    #[doc(alias = "bus_name")]
    fn function(&self) -> Bdf;

    /// The features that the device offers.
    #[doc(alias = "get_features")]
    fn features(&mut self) -> Features;

    /// Tells the device which features are accepted.
    #[doc(alias = "finalize_features")]
    fn set_features(&mut self, features: Features);

    /// Reads the device status.
    ///
    /// # Errors
    /// When the device is gone.
    #[doc(alias = "get_status")]
    fn status(&self) -> Result<Status, TransportError>;

    /// Writes the device status. An empty one resets the device, which takes its time.
    fn set_status(&mut self, status: Status);

    /// Counts changes of the device configuration; `None` where the transport has no such counter.
    #[doc(alias = "config_generation")]
    fn generation(&self) -> Option<u8>;

    /// Size of the device configuration in bytes, or of the room for it if the transport does not report the size; 0 if there is
    /// none.
    fn config_len(&self) -> usize;

    /// Reads 8 bits of device configuration, once. Panics outside of [`Transport::config_len`].
    fn config8(&self, offset: usize) -> u8;
    /// Reads 16 bits of device configuration, once. Panics outside of [`Transport::config_len`].
    fn config16(&self, offset: usize) -> u16;
    /// Reads 32 bits of device configuration, once. Panics outside of [`Transport::config_len`].
    fn config32(&self, offset: usize) -> u32;
    /// Writes 8 bits of device configuration. Panics outside of [`Transport::config_len`].
    fn set_config8(&mut self, offset: usize, value: u8);
    /// Writes 16 bits of device configuration in one store. Panics outside of [`Transport::config_len`].
    fn set_config16(&mut self, offset: usize, value: u16);
    /// Writes 32 bits of device configuration in one store. Panics outside of [`Transport::config_len`].
    fn set_config32(&mut self, offset: usize, value: u32);

    /// How many queues the device has at most, as far as the transport can tell.
    fn queue_count(&self) -> u16;

    /// The largest size that a queue can have; 0 if there is no such queue.
    ///
    /// # Errors
    /// When the device is gone, or says more than 32768.
    fn queue_size(&mut self, queue: QueueIndex) -> Result<u16, TransportError>;

    /// Says whether MSI-X is on. A legacy device's configuration moves with it, and its vectors are there only then.
    fn set_msix(&mut self, on: bool);

    /// Has configuration changes raise `vector`, or none.
    ///
    /// # Errors
    /// When the device does not take the vector.
    fn set_config_vector(&mut self, vector: Option<MsixVector>) -> Result<(), TransportError>;

    /// Has a queue that is not in use yet raise `vector`, or none.
    ///
    /// # Errors
    /// When the device does not take the vector.
    fn set_queue_vector(&mut self, queue: QueueIndex, vector: Option<MsixVector>) -> Result<(), TransportError>;

    /// Puts a queue to use, for the first time or after its reset. Its vector has been set.
    ///
    /// # Errors
    /// When the device has no such queue or doorbell, or does not take the size.
    #[doc(alias = "enable_vq_after_reset")]
    fn enable_queue(
        &mut self,
        queue: QueueIndex,
        size: u16,
        addresses: QueueAddresses,
    ) -> Result<Doorbell, TransportError>;

    /// Starts the reset of one queue; [`Transport::queue_reset_state`] tells when it is over.
    ///
    /// # Errors
    /// When the transport cannot do that, which is so by default.
    #[doc(alias = "disable_vq_and_reset")]
    fn start_queue_reset(&mut self, queue: QueueIndex) -> Result<(), TransportError> {
        Err(TransportError::NoQueueReset { function: self.function(), queue })
    }

    /// How far the reset of a queue is.
    ///
    /// # Errors
    /// When the device is gone, or the transport cannot reset a queue.
    fn queue_reset_state(&mut self, queue: QueueIndex) -> Result<QueueResetState, TransportError> {
        Err(TransportError::NoQueueReset { function: self.function(), queue })
    }

    /// Kicks a queue. Only a device that is running can be kicked, of which the state is proof.
    #[doc(alias = "notify")]
    fn ring(&mut self, running: &DriverOk, doorbell: Doorbell, kick: Kick);

    /// The ISR status byte, a window of its own. Reading it acknowledges the interrupt line.
    fn isr(&self) -> Arc<Self::Registers>;

    /// The shared memory region with this number; `None` if there is none, as on every device of the legacy kind.
    #[doc(alias = "get_shm_region")]
    fn shared_memory(&self, _id: u8) -> Option<BarWindow> {
        None
    }

    /// Ends all mappings. Nothing of the device is touched.
    fn release<P: Platform<Registers = Self::Registers>>(self, platform: &mut P);

    /// Reads an 8-bit field of the device configuration.
    ///
    /// # Errors
    /// When there is no such field, it does not hold still, or the device is gone.
    fn read_config8(&self, offset: usize) -> Result<u8, TransportError> {
        read_stable(self, offset, 1, Self::config8, u8::MAX)
    }

    /// Reads a 16-bit field of the device configuration.
    ///
    /// # Errors
    /// When there is no such field, it does not hold still, or the device is gone.
    fn read_config16(&self, offset: usize) -> Result<u16, TransportError> {
        read_stable(self, offset, 2, Self::config16, u16::MAX)
    }

    /// Reads a 32-bit field of the device configuration.
    ///
    /// # Errors
    /// When there is no such field, it does not hold still, or the device is gone.
    #[doc(alias = "get")]
    fn read_config32(&self, offset: usize) -> Result<u32, TransportError> {
        read_stable(self, offset, 4, Self::config32, u32::MAX)
    }

    /// Writes an 8-bit field of the device configuration.
    ///
    /// # Errors
    /// When there is no such field.
    fn write_config8(&mut self, offset: usize, value: u8) -> Result<(), TransportError> {
        check_field(self, offset, 1)?;
        self.set_config8(offset, value);
        Ok(())
    }

    /// Writes a 16-bit field of the device configuration, in one store.
    ///
    /// # Errors
    /// When there is no such field.
    fn write_config16(&mut self, offset: usize, value: u16) -> Result<(), TransportError> {
        check_field(self, offset, 2)?;
        self.set_config16(offset, value);
        Ok(())
    }

    /// Writes a 32-bit field of the device configuration, in one store: there are devices that drop any other.
    ///
    /// # Errors
    /// When there is no such field.
    #[doc(alias = "set")]
    fn write_config32(&mut self, offset: usize, value: u32) -> Result<(), TransportError> {
        check_field(self, offset, 4)?;
        self.set_config32(offset, value);
        Ok(())
    }
}

fn check_field<T: Transport>(transport: &T, offset: usize, width: usize) -> Result<(), TransportError> {
    let length = transport.config_len();
    let inside = offset.checked_add(width).is_some_and(|end| end <= length);
    if inside && offset.is_multiple_of(width) {
        return Ok(());
    }
    Err(TransportError::NoConfigField { function: transport.function(), offset, width, length })
}

/// Reads a field until the generation is the same before and after (2.5.1), or without one, until it holds still (2.5.4).
fn read_stable<T: Transport, V: Copy + PartialEq>(
    transport: &T,
    offset: usize,
    width: usize,
    read: impl Fn(&T, usize) -> V,
    all_ones: V,
) -> Result<V, TransportError> {
    check_field(transport, offset, width)?;
    for _ in 0..CONFIG_ATTEMPTS {
        let before = transport.generation();
        let value = read(transport, offset);
        let stable = match before {
            Some(before) => transport.generation() == Some(before),
            // What takes one byte has no parts that could be of different times.
            None => width == 1 || read(transport, offset) == value,
        };
        if stable {
            if value == all_ones {
                // It may be the value, or the bus's answer for nobody.
                transport.status()?;
            }
            return Ok(value);
        }
    }
    Err(TransportError::ConfigUnstable { function: transport.function(), offset })
}

#[cfg(test)]
mod tests;
