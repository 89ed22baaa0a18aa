//! Virtqueues (virtio 1.4, 2.6): one [`Virtqueue`] over a ring of either format.

mod chain;
mod error;
mod extent;
mod format;
mod ids;
mod index;
mod indirect;
mod options;
mod packed;
mod quiesced;
mod ring;
mod shadow;
mod split;
mod virtqueue;

pub use chain::{Chain, Completion, Segment};
pub use error::{QueueError, Refusal, Rejected};
pub use format::{RingFormat, RingLayout};
pub use index::{QueueAddresses, QueueIndex};
pub use options::{Kick, QueueOptions, UsedLength};
pub use quiesced::{QueueQuiesced, Quiesced, Stopped};
pub use virtqueue::Virtqueue;
