//! The `ballonet` balloon driver for kernels that have `virtio-drivers`' traits: [`HalPlatform`] is its platform, over
//! [`Hal`](virtio_drivers::Hal) and
//! [`ConfigurationAccess`](virtio_drivers::transport::pci::bus::ConfigurationAccess).
//!
//! [`TransportPlatform`] is for a kernel that has only a [`Transport`](virtio_drivers::transport::Transport) to its
//! balloon.
//!
//! The driver is polled: those traits have no interrupts. [`HalFrames`] gives it memory by
//! [`Hal::dma_alloc`](virtio_drivers::Hal::dma_alloc); a kernel with a page frame allocator passes that instead.

#![no_std]
#![cfg_attr(not(test), deny(clippy::incompatible_msrv))]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod config;
mod frames;
mod platform;
mod transport;
mod transport_platform;

pub use config::HalConfig;
pub use frames::HalFrames;
pub use platform::HalPlatform;
pub use transport::TransportRegisters;
pub use transport_platform::{NoPci, TransportPlatform};
