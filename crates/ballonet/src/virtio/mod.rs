//! Virtio: the specification's words, the transports over PCI, virtqueues, and the ladder of interrupt modes.
//!
//! A driver finds its device's structures ([`Capabilities`]), makes a [`Transport`] of them, and takes it through the
//! states of [`Device`]. Queues ([`Queue`]) own what is in flight; [`find_vqs`] gives them interrupts.
//!
//! What a device writes is hostile input everywhere: it is read once, checked against what the driver itself knows,
//! and a lie ends in a named error.

#![forbid(unsafe_code)]

mod any;
pub mod barrier;
mod bring_up;
mod capability;
mod config_window;
mod device;
mod events;
mod extent;
#[cfg(test)]
pub(crate) mod fake;
mod ids;
mod indirect;
mod interface;
mod interrupt;
mod legacy;
pub mod listing;
mod modern;
mod negotiation;
mod packed;
mod queue;
mod quiesced;
mod ring;
mod shadow;
pub mod spec;
mod split;
mod transport;
mod virtqueue;

pub use any::AnyTransport;
pub use bring_up::{BringUpError, Connected, DeviceOptions, Parts, PlatformTransport, QueueSetup, Running, Setup};
pub use capability::{Capabilities, CapabilityError, Notification, Place, SharedMemory, VendorData};
pub use config_window::ConfigWindow;
pub use device::{Acknowledged, Device, DriverFound, DriverOk, Failure, FeaturesOk, Reset};
pub use events::{Events, Pending, config_changed, intx_interrupt, shared_vring_interrupt, vring_interrupt};
pub use interface::{Interface, InterfaceError};
pub use interrupt::{InterruptError, InterruptMode, Interrupts, QueueName, find_vqs};
pub use legacy::{Legacy, LegacyError, LegacyPorts};
pub use modern::{Modern, ModernError};
pub use negotiation::{NegotiationError, Wanted};
pub use packed::{PackedLayout, PackedQueue};
pub use queue::{Chain, Completion, Kick, Queue, QueueError, QueueOptions, Refusal, Rejected, Segment, UsedLength};
pub use quiesced::{QueueQuiesced, Quiesced, Stopped};
pub use split::{Alignment, Layout, SplitQueue};
pub use transport::{Doorbell, QueueAddresses, QueueIndex, QueueResetState, Transport, TransportError, TransportKind};
pub use virtqueue::{RingFormat, RingLayout, Virtqueue};
