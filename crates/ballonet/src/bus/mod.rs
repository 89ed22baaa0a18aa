//! The lowest layer: addresses of devices and their registers, access to registers and shared memory, interrupts.
//!
//! Plain values and traits without policy, which [`crate::pci`] and [`crate::platform`] both build on; they re-export
//! what belongs to their interface.

mod address;
mod dma;
mod events;
pub(crate) mod heap;
mod interrupt;
mod lease;
mod name;
mod registers;
pub(crate) mod sort;

pub use address::{Bdf, DeviceAddress, InterruptPin};
pub use dma::{DmaExhausted, DmaMemory, OutOfMemory};
pub(crate) use events::Cause;
pub use events::Events;
pub(crate) use interrupt::Note;
pub use interrupt::{Handled, Handler, InterruptLine, MsiMessage, Polarity, Trigger, Vector, WiredInterrupt};
pub(crate) use lease::EventsLease;
pub use name::DeviceName;
pub use registers::{RegisterWindow, Registers};
