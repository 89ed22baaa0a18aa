//! The console: commands from the serial line and the keyboard, and the line that is being typed.
//!
//! `session` has the line and the command in progress; `table` declares the commands and finds the one typed; `commands` runs
//! them, a file for each subject; `job` is a command that takes long.

mod command;
mod commands;
mod job;
mod session;
mod table;

pub(in crate::kernel) use command::{Context, Outcome};
pub(in crate::kernel) use session::Console;
pub use table::commands;

use crate::machine::power;

/// Switches off or starts again.
pub(in crate::kernel) fn end(outcome: Outcome) -> ! {
    match outcome {
        Outcome::Reboot => power::reboot(),
        Outcome::Done | Outcome::PowerOff => power::exit(power::ExitStatus::Success),
    }
}
