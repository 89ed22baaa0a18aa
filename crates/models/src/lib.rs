//! A machine on the host in which the whole driver runs, from PCI config space up, against device models.
//!
//! [`Machine`] is the guest: RAM, DMA memory, page frames, interrupt vectors and lines, virtual time. A [`Balloon`] is
//! a virtio-pci balloon that follows the specification to the letter and writes down every misstep of the driver, with
//! the clause it breaks; [`Behaviour`] gives it the habits of a real VMM or the malice of a hostile one, or makes an entropy
//! device of it ([`Behaviour::entropy`]).
//! The device side of split rings is rust-vmm's `virtio-queue`, so both ends of the protocol have different authors;
//! that of packed rings is a model of our own.

#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "test code: the types' own comments say what they are")]
#![allow(clippy::unwrap_used, reason = "a test may")]
#![allow(clippy::std_instead_of_core, clippy::alloc_instead_of_core, reason = "this program has a standard library")]

mod balloon;
pub mod behaviour;
pub mod bug;
pub mod bus;
mod common_config;
mod config_space;
mod entropy;
pub mod frames;
pub mod hints;
mod interrupts;
pub mod layout;
mod legacy;
pub mod machine;
mod msix;
mod packed;
pub mod pages;
mod platform;
pub mod queue;
pub mod quirks;
pub mod ram;
pub mod requests;
mod schedule;
pub mod vmm;

pub use balloon::Balloon;
pub use behaviour::{Behaviour, Costs, Handling, Lie, feature};
pub use bug::Bug;
pub use bus::{Bus, Misstep};
pub use entropy::Entropy;
pub use hints::Hints;
pub use layout::{Bar, Capability, Layout, Region, Structure};
pub use machine::{Allocated, Machine};
pub use packed::PackedRing;
pub use pages::take_reported;
pub use platform::ModelPlatform;
pub use queue::{Descriptor, Purpose, QueueModel, Request};
pub use quirks::{Chains, Quirks, RegisterQuirks, Resets};
pub use ram::{HostSide, Ram};
pub use schedule::Schedule;
