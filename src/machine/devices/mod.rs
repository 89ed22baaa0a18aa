//! Registers of devices: windows onto them, and PCI configuration space.

pub(crate) mod config_paths;
pub(crate) mod config_space;
pub(crate) mod mmio;
