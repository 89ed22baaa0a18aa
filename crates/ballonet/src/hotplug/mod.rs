//! Native PCI Express hot-plug: slots whose cards are added and removed while the machine runs (PCIe 5.0, 6.7).
//!
//! `Sequence` is the state machine, without I/O: observations go in; the slot's outputs and tasks come out.
//! `Controller` is a sequence with its port's registers. A [`Slot`] is a controller with the port's interrupts, a
//! [`PolledSlot`] one without. Its owner adds and removes the devices: [`crate::pci::Tree::rescan`] and
//! [`crate::pci::Tree::remove_behind`].
//!
//! The port's registers are untrusted device data. Events that cannot be cleared, commands that never complete,
//! presence that flaps and ports that disappear end in a [`SlotError`], and every wait is bounded.

mod controller;
mod interrupt;
mod polled;
mod sequence;
mod slot;

pub use controller::{SlotError, SlotReport};
pub use interrupt::SlotMode;
pub use polled::PolledSlot;
pub use sequence::{SlotFault, Stage, Task, Timing};
pub use slot::{Slot, SlotState};
