//! Virtio: the specification's words, the transports, virtqueues, and the ladder of interrupt modes.
//!
//! A driver opens its device ([`Setup::open`]), makes queues ([`Virtqueue`]), which own what is in flight, and runs it
//! ([`Running`]). Below that a [`Transport`] is taken through the states of [`Device`].
//!
//! What a device writes is hostile input everywhere: it is read once, checked against what the driver itself knows,
//! and a lie ends in a named error.

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
