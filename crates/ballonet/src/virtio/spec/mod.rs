//! Definitions of the virtio specification: bits, offsets and numbers, and the types that hold them. Nothing else.
//!
//! Section numbers are those of VIRTIO 1.4. Multi-byte values on the wire are little-endian.

mod device_type;
mod features;
pub mod mmio;
mod packed;
mod pci;
mod ring;
mod status;

pub use device_type::DeviceType;
pub(crate) use device_type::VENDOR;
pub use features::Features;
pub use packed::*;
pub use pci::*;
pub use ring::*;
pub use status::Status;
