//! From a found device to a running one, and back: the initialization sequence (virtio 1.4, 3.1.1), once for every
//! driver and transport.
//!
//! [`Setup::open`] takes a device through reset and feature negotiation; [`Setup::connect`] has the driver make its
//! queues ([`Setup::add_queue`]), and gives them interrupts and doorbells; [`Connected::run`] sets `DRIVER_OK`;
//! [`Running::stop`] resets the device and releases everything it was lent. A failing step undoes the earlier ones: it
//! restores vectors, mappings and the command register, and sets `FAILED`.

mod error;
mod interface;
mod open;
mod options;
mod parts;
mod running;
mod setup;

pub use error::BringUpError;
pub use interface::InterfaceError;
pub use options::DeviceOptions;
pub use parts::Parts;
pub use running::{Connected, Running};
pub use setup::{QueueSetup, Setup};
