//! The ballonet driver library: virtio-balloon over virtio-pci, from config space up.
//!
//! Everything outside `machine` is portable: it performs no I/O of its own and reaches the world only through
//! the traits of [`platform`] and [`pci::ConfigSpace`], so the whole driver runs on a host against a device model.
//! Arrows run one way: `machine -> balloon -> virtio -> pci`; nothing portable names `machine`.
//!
//! `docs/library.md` has a skeleton of a kernel that uses it.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod acpi;
pub mod balloon;
pub mod bench;
pub mod boot;
pub mod check;
pub mod console;
#[cfg(feature = "machine")]
pub mod machine;
pub mod memory;
pub mod pci;
pub mod platform;
#[cfg(feature = "screen")]
pub mod screen;
pub mod smbios;
pub mod virtio;

/// The guide for other kernels: its skeleton has to compile.
#[cfg(doctest)]
#[doc = include_str!("../docs/library.md")]
pub struct Guide;
