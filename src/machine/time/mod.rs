//! Time: the clock, how its rate is found, and the timer.

pub(crate) mod calibration;
pub(crate) mod clock;
mod measurement;
mod reference;
pub(crate) mod timer;
pub(crate) mod tsc;
