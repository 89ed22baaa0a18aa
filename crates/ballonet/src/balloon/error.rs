//! A balloon's errors.

use derive_more::{Display, Error, From};

use super::queue_numbers::MissingQueue;
use crate::pci::Bdf;
use crate::platform::{DeviceAddress, DmaExhausted, OutOfMemory};
use crate::virtio::{
    BringUpError, InterfaceError, InterruptError, MmioError, NegotiationError, QueueError, RingFormat, TransportError,
};

/// Why a balloon cannot be driven, or no longer can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error, From)]
#[non_exhaustive]
pub enum BalloonError {
    /// There is no PCI function.
    #[display("there is no function at {_0}")]
    NoFunction(#[error(not(source))] Bdf),
    /// The function is something else.
    #[display("{function} is {vendor:04x}:{device:04x}, not a balloon")]
    NotABalloon {
        /// The function.
        function: Bdf,
        /// Its vendor ID.
        vendor: u16,
        /// Its device ID.
        device: u16,
    },
    /// The device on MMIO is something else.
    #[display("{device} is virtio device type {number}, not a balloon")]
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
    /// Driver and device did not agree on features.
    #[display("{_0}")]
    #[from]
    Negotiation(NegotiationError),
    /// The requested queue format is not available.
    #[display("{device} does not offer {format} rings")]
    RingFormat {
        /// The device.
        device: DeviceAddress,
        /// The format.
        format: RingFormat,
    },
    /// The requested interrupt mode is not available.
    #[display("{_0}")]
    #[from]
    Interrupt(InterruptError),
    /// The device configuration lacks the target or the size.
    #[display("{device}: a device configuration of {length} bytes, 8 needed")]
    ShortConfig {
        /// The device.
        device: DeviceAddress,
        /// Its length in bytes.
        length: usize,
    },
    /// The device lacks a queue.
    #[display("{_0}")]
    #[from]
    MissingQueue(MissingQueue),
    /// There is no memory for queues and requests.
    #[display("{_0}")]
    #[from(OutOfMemory, DmaExhausted)]
    Memory(OutOfMemory),
    /// The device broke the rules of a queue.
    #[display("{queue} queue: {error}")]
    Queue {
        /// The queue.
        queue: &'static str,
        /// How.
        error: QueueError,
    },
    /// The device asks for a reset.
    #[display("{_0} needs a reset")]
    NeedsReset(#[error(not(source))] DeviceAddress),
    /// The device needed more resets than allowed.
    #[display("{device} needs a reset again, after {resets} in {window_ms} ms")]
    ResetsInVain {
        /// The device.
        device: DeviceAddress,
        /// Successful resets before.
        resets: u32,
        /// The time for which they count, in milliseconds.
        window_ms: u64,
    },
    /// The device is frozen, and the call needs a running one.
    #[display("{_0} is frozen")]
    Frozen(#[error(not(source))] DeviceAddress),
    /// The device lost its state: something else reset it, or cut its power.
    #[display("{device} was reset behind the driver's back: device status {status:#04x}")]
    Forgotten {
        /// The device.
        device: DeviceAddress,
        /// Its status, without `DRIVER_OK`.
        status: u8,
    },
}

impl From<BringUpError> for BalloonError {
    fn from(error: BringUpError) -> Self {
        match error {
            BringUpError::NoFunction(function) => Self::NoFunction(function),
            BringUpError::WrongDevice { function, vendor, device } => Self::NotABalloon { function, vendor, device },
            BringUpError::WrongType { device, number } => Self::WrongType { device, number },
            BringUpError::Mmio(error) => error.into(),
            BringUpError::Interface(error) => error.into(),
            BringUpError::Transport(error) => error.into(),
            BringUpError::Negotiation(error) => error.into(),
            BringUpError::Interrupt(error) => error.into(),
            BringUpError::Memory(error) => error.into(),
        }
    }
}

impl BalloonError {
    /// Names the queue of a [`QueueError`].
    pub(super) fn queue(queue: &'static str) -> impl Fn(QueueError) -> Self {
        move |error| Self::Queue { queue, error }
    }
}
