//! Virtio: the specification's definitions, transports, virtqueues, and the ladder of interrupt modes.
//!
//! A driver opens its device ([`Setup::open`]), creates queues ([`Virtqueue`]), which own the buffers in flight, and
//! runs it ([`Running`]). Below that, [`Device`] takes a [`Transport`] through the status sequence.
//!
//! Everything that a device writes is hostile input: it is read once and checked against the driver's own records, and
//! a lie ends in an error that names it.

#![forbid(unsafe_code)]

mod attachment;
pub mod barrier;
mod bring_up;
mod capability;
mod device;
mod events;
#[cfg(test)]
pub(crate) mod fake;
mod handle;
mod interrupt;
pub mod listing;
mod negotiation;
mod queue;
pub mod spec;
mod transport;
mod transport_kind;

pub use bring_up::{BringUpError, Connected, DeviceOptions, InterfaceError, Parts, QueueSetup, Running, Setup};
pub use capability::CapabilityError;
pub use device::{Device, DriverOk, FeaturesOk};
pub use events::Pending;
pub use handle::DeviceHandle;
pub use interrupt::{InterruptError, InterruptMode, Interrupts};
pub use negotiation::NegotiationError;
pub use queue::{
    Chain, Completion, Kick, QueueAddresses, QueueError, QueueIndex, QueueOptions, QueueQuiesced, Quiesced, Refusal,
    Rejected, RingFormat, RingLayout, Segment, Stopped, UsedLength, Virtqueue,
};
pub use transport::{
    ConfigField, Doorbell, LegacyError, MmioDevice, MmioError, MmioIdentity, ModernError, Transport, TransportError,
};
pub use transport_kind::TransportKind;

pub use crate::bus::Events;
