//! The machine under the ballonet kernel, and the parsers of what it is handed.
//!
//! Everything outside `machine` is portable: bytes in, values out. `machine` implements the traits of
//! [`ballonet::platform`] for an x86-64 PC.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod acpi;
pub mod boot;
pub mod console;
#[cfg(feature = "machine")]
pub mod machine;
#[cfg(feature = "screen")]
pub mod screen;
pub mod smbios;
