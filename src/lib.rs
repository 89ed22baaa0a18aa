//! The ballonet kernel, and the parsers of what firmware and loaders hand it.
//!
//! Everything outside `machine` is safe code. `acpi`, `boot`, `console`, `screen` and `smbios` are portable: bytes in,
//! values out. `machine` implements the traits of [`ballonet::platform`] for an x86-64 PC. `kernel` and `tests` run on
//! it; [`image!`] makes a bootable program of either.

#![cfg_attr(not(test), no_std)]
#![warn(unreachable_pub)]
#![cfg_attr(
    not(feature = "machine"),
    allow(dead_code, unused_imports, reason = "the kernel uses more of the parsers than fuzz targets do")
)]

extern crate alloc;

pub mod acpi;
pub mod boot;
pub mod console;
#[cfg(feature = "machine")]
pub mod image;
#[cfg(feature = "machine")]
pub mod kernel;
#[cfg(feature = "machine")]
mod machine;
mod mp_table;
#[cfg(feature = "screen")]
pub mod screen;
mod smbios;
#[cfg(feature = "test-image")]
pub mod tests;
