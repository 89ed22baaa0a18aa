//! The console: commands from the serial line and the keyboard, and the input line.
//!
//! `session` has the input line and the command in progress. `table` declares the commands and finds the typed one;
//! `commands` runs them, one file per subject; `job` is a long command.

mod command;
mod commands;
mod job;
mod session;
mod table;

pub(in crate::kernel) use command::{Context, Outcome};
pub(in crate::kernel) use session::Console;
pub use table::commands;

use crate::machine::power;

/// Powers off or reboots.
pub(in crate::kernel) fn end(outcome: Outcome) -> ! {
    match outcome {
        Outcome::Reboot => power::reboot(),
        Outcome::Done | Outcome::PowerOff => power::exit(power::ExitStatus::Success),
    }
}
