//! Time: the clock, its source and rate, and the timer.

pub(crate) mod calibration;
mod choice;
pub(crate) mod clock;
mod hypervisor;
mod measurement;
mod paravirtual;
mod reference;
pub(crate) mod timer;
pub(crate) mod tsc;

/// In a second.
const NANOSECONDS: u64 = 1_000_000_000;
