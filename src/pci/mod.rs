//! PCI: configuration access, the bus walk, BARs, capabilities and MSI-X.
//!
//! Everything here works on a [`ConfigSpace`] and on values; what firmware and devices put into configuration space is
//! taken for hostile: wrong links, sizes and numbers end in errors that name the function.

#![forbid(unsafe_code)]

mod address;
mod bar;
pub mod capability;
mod config;
mod function;
mod header;
mod msix;
mod range;
pub mod register;
mod sizing;

pub use address::{Bdf, InterruptPin};
pub use bar::{Bar, BarError, BarKind, BarWindow, MemoryWidth, WindowError};
pub use capability::{Capabilities, Capability, CapabilityError, ExtendedCapabilities, ExtendedCapability};
pub use config::ConfigSpace;
pub use function::Function;
pub use header::{BusNumbers, ClassCode, HeaderLayout, Subsystem};
pub use msix::{Msix, MsixError, MsixTable, MsixVector};
pub use range::AddressRange;
pub use register::{Command, Status};
pub use sizing::Bars;
