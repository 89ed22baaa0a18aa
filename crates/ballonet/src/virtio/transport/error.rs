//! Errors at a device's registers.

use derive_more::{Display, Error};

use super::CONFIG_ATTEMPTS;
use crate::bus::DeviceAddress;
use crate::pci::MsixVector;
use crate::virtio::queue::QueueIndex;
use crate::virtio::spec::Status;

/// Errors at a device's registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum TransportError {
    /// The device's registers read as all ones: it is gone.
    #[display("{_0}: the device is gone")]
    Gone(#[error(not(source))] DeviceAddress),
    /// The status did not become 0 after a reset.
    #[display("{device}: not reset after {waited_ms} ms, status {status}")]
    ResetTimeout {
        /// The device.
        device: DeviceAddress,
        /// How long the driver waited, in milliseconds.
        waited_ms: u64,
        /// The status by then.
        status: Status,
    },
    /// A register holds an invalid value.
    #[display("{device}: {register} reads {value:#x}")]
    Register {
        /// The device.
        device: DeviceAddress,
        /// The register's name in the specification.
        register: &'static str,
        /// Its value.
        value: u32,
    },
    /// A single queue cannot be reset: `RING_RESET` was not negotiated, or this is a legacy device.
    #[display("{device}: queue {queue} cannot be reset by itself")]
    NoQueueReset {
        /// The device.
        device: DeviceAddress,
        /// The queue.
        queue: QueueIndex,
    },
    /// The registers of a queue did not become 0 after its reset.
    #[display("{device}: queue {queue} not reset after {waited_ms} ms, queue_reset {reset}, queue_enable {enabled}")]
    QueueResetTimeout {
        /// The device.
        device: DeviceAddress,
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
    #[display("{device}: configuration at {offset:#x} changed during each of {CONFIG_ATTEMPTS} reads")]
    ConfigUnstable {
        /// The device.
        device: DeviceAddress,
        /// Offset of the field in bytes.
        offset: usize,
    },
    /// The device configuration has no such field.
    #[display("{device}: no {width} bytes at {offset:#x} in a device configuration of {length} bytes")]
    NoConfigField {
        /// The device.
        device: DeviceAddress,
        /// Offset of the field in bytes.
        offset: usize,
        /// Its size in bytes.
        width: usize,
        /// Size of the device configuration in bytes.
        length: usize,
    },
    /// The device refused a vector.
    #[display("{device}: vector {vector} refused, it reads back as {read:#06x}")]
    VectorRefused {
        /// The device.
        device: DeviceAddress,
        /// The vector, an entry of the MSI-X table.
        vector: MsixVector,
        /// The value read back; a refusing device returns 0xffff.
        read: u16,
    },
    /// The queue's size is 0, not a power of two where it must be, or beyond what the device or the specification
    /// allows.
    #[display("{device}: queue {queue} has {size} entries")]
    QueueSize {
        /// The device.
        device: DeviceAddress,
        /// The queue.
        queue: QueueIndex,
        /// Its size, or the size asked for.
        size: u16,
    },
    /// The queue was enabled before the driver enabled it, or is not enabled afterwards.
    #[display("{device}: queue {queue} has queue_enable {enabled}")]
    QueueEnable {
        /// The device.
        device: DeviceAddress,
        /// The queue.
        queue: QueueIndex,
        /// The register's value.
        enabled: u16,
    },
    /// The queue had an address before the driver wrote one.
    #[display("{device}: queue {queue} is in use already, at frame {frame:#x}")]
    QueueInUse {
        /// The device.
        device: DeviceAddress,
        /// The queue.
        queue: QueueIndex,
        /// Its address register's value: a frame number.
        frame: u32,
    },
    /// The queue's memory is misaligned, or beyond the range of the device's address register.
    #[display("{device}: queue {queue} at {address:#x} is misaligned or beyond the range of its register")]
    QueueAddress {
        /// The device.
        device: DeviceAddress,
        /// The queue.
        queue: QueueIndex,
        /// The address of its descriptor table.
        address: u64,
    },
    /// The queue's doorbell is outside the doorbell structure, or not on a 16-bit boundary.
    #[display("{device}: doorbell of queue {queue} at {offset:#x}, in {length:#x} bytes")]
    Doorbell {
        /// The device.
        device: DeviceAddress,
        /// The queue.
        queue: QueueIndex,
        /// Its doorbell's offset in bytes.
        offset: u64,
        /// Size of the doorbell structure in bytes.
        length: usize,
    },
}
