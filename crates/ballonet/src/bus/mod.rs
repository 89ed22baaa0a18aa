//! The ground floor: addresses of devices and their registers, access to registers and shared memory, interrupts.
//!
//! Plain values and traits without policy, which [`crate::pci`] and [`crate::platform`] both build on; they re-export what
//! belongs to their interface.

mod address;
mod dma;
mod interrupt;
mod registers;

pub use address::{Bdf, DeviceAddress, InterruptPin};
pub use dma::{DmaExhausted, DmaMemory};
pub use interrupt::{Handled, Handler, InterruptLine, MsiMessage, Polarity, Trigger, Vector, WiredInterrupt};
pub use registers::{RegisterWindow, Registers};
