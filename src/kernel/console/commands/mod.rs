//! The commands, one file per subject. Each function takes the arguments, and returns `None` if it does not accept
//! them.

pub(super) mod balloon;
pub(super) mod cpus;
pub(super) mod devices;
pub(super) mod faults;
pub(super) mod machine;
pub(super) mod memory;
pub(super) mod programs;
pub(super) mod random;
pub(super) mod resources;
