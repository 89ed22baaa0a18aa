//! The balloons of the machine.
//!
//! `set` holds them all; `served` is one of them and decides when it is polled; `progress` follows its size and reports it, and
//! `notices` has the lines and events of single moments. `options` makes the driver's options of the command line's.

mod notices;
mod options;
mod progress;
mod served;
mod set;

pub(crate) use notices::unknown_name;
pub(crate) use options::driver_options;
pub(crate) use served::Action;
pub(crate) use set::Balloons;
