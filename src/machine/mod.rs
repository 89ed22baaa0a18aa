//! The machine layer: everything that only an x86-64 PC can do, and the only place that does it.
//!
//! [`start::entry`] takes over from the loader; [`Entry::bring_up`] turns what it finds into a [`Machine`], which
//! implements the traits of [`ballonet::platform`] for the drivers. The portable layers parse; this one touches
//! hardware.

pub(crate) mod cpu;
mod devices;
mod failure;
mod interrupts;
mod lock;
mod memory;
pub(crate) mod paging;
mod platform;
pub(crate) mod power;
pub(crate) mod smp;
pub(crate) mod start;
mod terminal;
mod time;

// What the layers above use.
pub(crate) use cpu::memory_types;
pub(crate) use devices::mmio;
pub(crate) use failure::fault;
pub(crate) use interrupts::{lines, local_apic, machine_check, nmi, vectors};
pub(crate) use memory::{block, dma, frames, heap, large, reclaim};
pub(crate) use paging::tlb;
pub(crate) use power::button as power_button;
pub(crate) use smp::idle::{asleep, idle_unless, sleep};
pub(crate) use start::{Entry, Machine, identity};
pub(crate) use terminal::{keyboard, log, screen};
pub(crate) use time::{calibration, clock, timer};

// What only the test image uses.
#[cfg(feature = "test-image")]
pub(crate) use {
    cpu::{cpuid, msr, segments, stack},
    devices::config_space,
    failure::recovery,
    interrupts::{frame::TrapFrame, io_apic, traps},
};
