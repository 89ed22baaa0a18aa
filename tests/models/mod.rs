//! A machine on the host in which the whole driver runs, from PCI config space up, against device models.
//!
//! [`Machine`] is the guest: RAM, DMA memory, page frames, interrupt vectors and lines, virtual time. A [`Balloon`] is
//! a virtio-pci balloon that follows the specification to the letter and writes down every misstep of the driver, with
//! the clause it breaks; [`Behaviour`] gives it the habits of a real VMM or the malice of a hostile one.
//! The device side of split rings is rust-vmm's `virtio-queue`, so both ends of the protocol have different authors;
//! that of packed rings is a model of our own.

mod balloon;
mod behaviour;
mod bug;
mod bus;
mod common_config;
mod config_space;
mod frames;
mod hints;
mod interrupts;
mod layout;
mod legacy;
mod machine;
mod msix;
mod packed;
mod pages;
mod platform;
mod queue;
mod quirks;
mod ram;
mod requests;
mod schedule;
mod vmm;

pub use balloon::Balloon;
pub use behaviour::{Behaviour, Costs, Handling, Lie, feature};
pub use bug::Bug;
pub use bus::{Bus, Misstep};
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
