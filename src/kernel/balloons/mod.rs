//! The balloons of the machine.
//!
//! `set` holds them all; `served` is one of them and decides when it is polled; `size_reports` follows its size, and
//! `notices` has the lines and events of single moments. `options` makes the driver's options of the command line's.

mod notices;
mod options;
mod served;
mod set;
mod size_reports;

pub(crate) use notices::unknown_name;
pub(crate) use options::driver_options;
pub(crate) use served::Action;
pub(crate) use set::Balloons;
