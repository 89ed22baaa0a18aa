//! A tester of virtio-balloon devices, for people who write virtual machine monitors.
//!
//! Each [`Check`] of [`CHAPTERS`] tests one requirement of the specification (virtio 1.4) on a *device*, by registers and by
//! rings that it writes itself, and [`run()`] reports the outcome of each. Together they take every path that the device offers:
//! each feature alone, all together and all but one; queues of every size and at every place; every interrupt mode;
//! resets in every state.
//!
//! *Hostile* checks break the rules for drivers instead, and ask whether device and VMM survive that. They run only if they are
//! selected, and after each the device must recover: it is reset, serves a request on every queue, and wrote nowhere it must not.
//!
//! Every wait is bounded ([`Patience`]). A device that stalls fails the check by name and is reset; one that cannot be
//! reset, or is gone, ends the run, and [`Summary::ended`] says why.
//!
//! The tester uses the library's words for the balloon, virtio and PCI, but not its driver.

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

pub use check::{Check, Outcome, Severity, Tier};
pub use checks::{CHAPTERS, Chapter, checks};
pub use run::{Observer, Patience, Summary, run};
pub use select::Selection;
pub use similar::similar;
