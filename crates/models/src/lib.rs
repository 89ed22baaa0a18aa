//! A machine on the host in which the whole driver runs, from PCI config space up, against device models.
//!
//! [`Machine`] is the guest: RAM, DMA memory, page frames, interrupt vectors and lines, virtual time. A [`Balloon`] is
//! a virtio-pci balloon that strictly follows the specification and records every misstep of the driver with the clause
//! that it breaks. [`Behaviour`] gives it the quirks of a real VMM, makes it hostile, or turns it into an entropy,
//! block, console or network device ([`Behaviour::entropy`], [`Behaviour::block`], ...). The device side of split rings
//! is rust-vmm's `virtio-queue`, so both ends of the protocol have different authors; packed rings have a model of our
//! own.

#![forbid(unsafe_code)]
#![warn(unreachable_pub)]
#![allow(missing_docs, reason = "test code: the types' own comments say what they are")]
#![allow(clippy::unwrap_used, reason = "a test may")]
#![allow(clippy::std_instead_of_core, clippy::alloc_instead_of_core, reason = "this program has a standard library")]

mod behaviour;
mod bug;
mod device;
pub mod feature;
mod machine;
mod queue;
mod vmm;
mod world;

pub use behaviour::{
    ActualWrites, Bar, Behaviour, Capability, Chains, Costs, Discards, Entropy, Handling, Harm, Layout, Long,
    MmioRegisters, Numbering, Other, Quirks, Region, RegisterLie, RegisterQuirks, Resets, Schedule, Structure,
    Weakness,
};
pub use bug::Bug;
pub use device::{Balloon, Hints, take_reported};
pub use machine::{Allocated, Frames, Machine, ModelPlatform};
pub use queue::{Descriptor, Lie, PackedRing, Purpose, QueueModel, Request};
pub use world::{Bus, HostSide, Misstep, Ram};
