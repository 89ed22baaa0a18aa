//! A tester of virtio devices, mainly balloons, for authors of virtual machine monitors.
//!
//! Each [`Check`] of [`CHAPTERS`] tests one requirement of the specification (virtio 1.4) on a *device*, with registers
//! and rings that it writes itself, and [`run()`] reports the outcome of each. Together they exercise every path that
//! the device offers: each feature alone, all together and all but one; queues of every size and at every alignment;
//! every interrupt mode; resets in every state.
//!
//! *Hostile* checks break the rules for drivers instead, and test whether device and VMM survive that. They run only if
//! they are selected. After each the device must recover: it is reset, must serve a request on every queue, and must
//! have written only where it may.
//!
//! Every wait is bounded ([`Patience`]). A device that stalls fails the check by name and is reset; one that cannot be
//! reset, or is gone, ends the run, and [`Summary::ended`] says why.
//!
//! A device is driven over modern PCI, by the legacy interface, or over MMIO, of either version. The tester makes
//! requests of balloons, entropy, block, console and network devices; of any other type it tests registers and queues.
//!
//! The tester uses the library's words for the balloon, virtio and PCI, but not its driver.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![warn(unreachable_pub)]

extern crate alloc;

pub mod bench;

mod arena;
mod check;
mod checks;
mod device;
mod host;
mod memory;
mod patience;
mod platform;
mod ring;
mod run;
mod select;
mod similar;
mod subject;
mod verdict;

pub use check::Check;
pub use checks::{CHAPTERS, Chapter, checks};
pub use host::HostAction;
pub use memory::MemoryEnds;
pub use patience::Patience;
pub use run::{Observer, Summary, run};
pub use select::Selection;
pub use similar::similar;
pub use subject::{Identity, Subject, identify};
pub use verdict::{Outcome, Severity, Tier};
