//! The balloons of the machine.
//!
//! `set` holds all balloons. `served` is one balloon, and decides when to poll it; `size_reports` follows its size;
//! `notices` has lines and events of single moments. `options` converts the command line's options into the driver's.

mod notices;
mod options;
mod served;
mod set;
mod size_reports;

pub(crate) use notices::unknown_name;
pub(crate) use options::driver_options;
pub(crate) use served::Action;
pub(crate) use set::Balloons;
