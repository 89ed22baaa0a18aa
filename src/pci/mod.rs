//! PCI: configuration access, the bus walk, BARs, capabilities and MSI-X.

mod address;
mod bar;
mod config;

pub use address::{Bdf, InterruptPin};
pub use bar::BarWindow;
pub use config::ConfigSpace;
