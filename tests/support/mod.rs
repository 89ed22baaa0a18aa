//! Shared by the tests that boot QEMU: a virtual machine controlled from the host, and helpers to state what it must
//! do.
//!
//! Every wait is bounded. A virtual machine has a deadline; each wait for a line, an answer or the end of QEMU fails
//! when it passes. On a loaded machine the deadline is later. A failure shows QEMU's command line and the last output
//! of QEMU and the kernel.

// Each test program uses only a part of this.
#![allow(dead_code, unused_imports)]

pub(crate) mod event;
pub(crate) mod failure;
pub(crate) mod image;
pub(crate) mod picture;
pub(crate) mod qemu;
pub(crate) mod qmp;
pub(crate) mod random;
pub(crate) mod runner;
pub(crate) mod script;
pub(crate) mod serial;
pub(crate) mod trace;
pub(crate) mod version;
pub(crate) mod vm;

pub(crate) use event::Event;
pub(crate) use failure::{Outcome, ensure, ensure_or_doubt};
pub(crate) use qemu::{MIB, Qemu};
pub(crate) use runner::{Completion, Failed, Trial, note};
pub(crate) use version::Version;
pub(crate) use vm::{Vm, on};
