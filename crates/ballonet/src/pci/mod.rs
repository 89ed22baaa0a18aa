//! PCI: configuration access, the bus walk, BARs, capabilities, MSI-X and MSI, hot-plug slots.
//!
//! Everything here works on a [`ConfigSpace`] and on values. Data that firmware and devices put into configuration
//! space is not trusted: wrong links, sizes and numbers end in errors that name the function.

#![forbid(unsafe_code)]

mod assign;
mod bar;
pub(crate) mod bridge;
mod bus;
pub mod capability;
mod config;
mod config_window;
pub(crate) mod express;
#[cfg(test)]
pub(crate) mod fake;
mod function;
pub(crate) mod header;
mod host;
pub mod listing;
mod msi;
mod msix;
pub mod names;
mod plan;
mod range;
pub mod register;
mod sizing;
mod survey;
mod tree;
mod walk;

pub use crate::bus::{Bdf, InterruptPin};
pub use assign::{AssignError, Assignment};
pub use bar::{Bar, BarError, WindowError};
pub use bridge::{BridgeError, Space};
pub use bus::BusRange;
pub use capability::{Capabilities, Capability, CapabilityError};
pub use config::ConfigSpace;
pub use config_window::ConfigWindow;
pub(crate) use express::Express;
pub use function::Function;
pub(crate) use header::ClassCode;
pub use header::{BusNumbers, Subsystem};
pub use host::HostWindows;
pub(crate) use msi::{EnabledMsi, Msi};
pub use msix::{Msix, MsixError, MsixTable, MsixVector};
pub use range::AddressRange;
pub use register::{Command, Status};
pub use sizing::Bars;
pub use tree::{Node, Tree};
