//! A tester of the device in front of it, for people who write virtual machine monitors.
//!
//! The driver asks of a device what a driver has to ask. This module asks everything else: each [`Check`] of [`CHECKS`]
//! asks one thing that the specification (virtio 1.4) wants of a *device*, by its registers and by rings that are
//! written by hand, and [`run()`] says of each whether the device does it. It takes every path that the device offers:
//! each feature alone, all together and all but each; queues of every size and at every place; every way to
//! interrupt; resets in every state.
//!
//! Every wait is bounded ([`Patience`]). A device that stalls fails the check by name and is reset; one that cannot be
//! reset, or is gone, ends the run, and [`Summary::ended`] says why.
//!
//! The arrows run from here to the balloon's words, to virtio and to PCI; the driver does not know its tester.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![warn(unreachable_pub)]

extern crate alloc;

pub mod bench;

mod check;
mod checks;
mod device;
mod platform;
mod ring;
mod run;
mod select;
mod similar;

pub use check::{Check, Outcome, Severity};
pub use checks::{CHAPTERS, Chapter, checks};
pub use run::{Patience, Summary, run};
pub use select::Selection;
pub use similar::similar;
