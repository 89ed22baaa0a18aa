//! Native PCI Express hot-plug: slots whose cards come and go while the machine runs (PCIe 5.0, 6.7).
//!
//! `Sequence` is the state machine, without I/O: what was seen goes in, and what the slot is to show and what is to be
//! done come out. `Controller` is a sequence with its port's registers. A [`Slot`] is a controller with the interrupts by
//! which the port asks to be looked at. Its owner brings the devices up and down: [`crate::pci::Tree::rescan`] and
//! [`crate::pci::Tree::remove_behind`].
//!
//! The port's registers are device data like any other: events that cannot be cleared, commands that are never done,
//! presence that flaps and ports that are gone end in a [`SlotError`], and every wait has an end.

mod controller;
mod interrupt;
mod sequence;
mod slot;

pub use controller::{SlotError, SlotReport};
pub use interrupt::SlotMode;
pub use sequence::{SlotFault, Stage, Task, Timing};
pub use slot::{Slot, SlotState};
