//! A virtio-balloon driver over virtio-pci and virtio-mmio, from configuration space up.
//!
//! It performs no I/O of its own: it reaches the world only through the traits of [`platform`] and
//! [`pci::ConfigSpace`], so the whole driver runs on a host against a device model. Dependencies run one way: `balloon
//! -> virtio -> pci`.

#![cfg_attr(not(test), no_std)]
#![cfg_attr(not(feature = "raw"), forbid(unsafe_code))]
#![cfg_attr(feature = "raw", deny(unsafe_code))]
#![warn(unreachable_pub)]
// The library builds with `rust-version`; its tests may use newer features.
#![cfg_attr(not(test), deny(clippy::incompatible_msrv))]

extern crate alloc;

pub mod balloon;
mod bus;
pub mod hotplug;
pub mod memory;
pub mod pci;
pub mod platform;
#[cfg(feature = "raw")]
#[allow(unsafe_code)]
pub mod raw;
pub mod rng;
pub mod virtio;

/// The README: its example must compile.
#[cfg(all(doctest, feature = "raw"))]
#[doc = include_str!("../README.md")]
struct FrontPage;
