//! The tester of devices, tested: sound devices pass, and each bug is found by the check that is meant for it.

#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "modules of a test program")]
#![allow(clippy::unwrap_used, reason = "a test may")]
#![allow(clippy::std_instead_of_core, clippy::alloc_instead_of_core, reason = "this program has a standard library")]

mod bugs;
mod host;
mod hostile;
mod hot_plug;
mod obstacles;
mod others;
mod own;
mod run;
mod sound;
mod structures;
mod vmms;
