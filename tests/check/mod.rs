//! The tester of devices, tested: sound devices pass, and each bug is found by the check that is meant for it.

mod bugs;
mod obstacles;
mod own;
mod run;
mod sound;
mod structures;
mod vmms;
