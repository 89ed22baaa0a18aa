//! From the loader's hand to a machine that drivers can use.

pub(crate) mod bring_up;
pub(crate) mod bzimage;
mod dimms;
pub(crate) mod entry;
pub(crate) mod firmware;
pub(crate) mod identity;
pub(crate) mod image;
pub(crate) mod linux_entry;
pub(crate) mod memory_functions;
pub(crate) mod refusal;

pub use bring_up::Entry;
pub(crate) use bring_up::Machine;
