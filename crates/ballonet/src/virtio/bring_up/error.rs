//! Why a device cannot be started.

use derive_more::{Display, Error, From};

use super::interface::InterfaceError;
use crate::bus::{Bdf, DeviceAddress, DmaExhausted, OutOfMemory};
use crate::virtio::interrupt::InterruptError;
use crate::virtio::negotiation::NegotiationError;
use crate::virtio::transport::{MmioError, TransportError};

/// Why a device cannot be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error, From)]
pub enum BringUpError {
    /// There is no PCI function.
    #[display("there is no function at {_0}")]
    NoFunction(#[error(not(source))] Bdf),
    /// The function is not a device for this driver.
    #[display("{function} is not a device for this driver: vendor {vendor:#06x}, device {device:#06x}")]
    WrongDevice {
        /// The function.
        function: Bdf,
        /// Its vendor ID.
        vendor: u16,
        /// Its device ID.
        device: u16,
    },
    /// The MMIO device has a type other than the driver's.
    #[display("{device} is virtio device type {number}, not this driver's")]
    WrongType {
        /// The device.
        device: DeviceAddress,
        /// Its type.
        number: u32,
    },
    /// Its MMIO window holds no usable virtio device.
    #[display("{_0}")]
    #[from]
    Mmio(MmioError),
    /// It has no usable virtio interface.
    #[display("{_0}")]
    #[from]
    Interface(InterfaceError),
    /// Its registers misbehave.
    #[display("{_0}")]
    #[from]
    Transport(TransportError),
    /// Driver and device do not agree on features.
    #[display("{_0}")]
    #[from]
    Negotiation(NegotiationError),
    /// The interrupt mode that the caller forces is not available.
    #[display("{_0}")]
    #[from]
    Interrupt(InterruptError),
    /// There is no memory for queues and buffers.
    #[display("{_0}")]
    #[from(OutOfMemory, DmaExhausted)]
    Memory(OutOfMemory),
}
