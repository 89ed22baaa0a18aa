//! The program's errors.

use std::error::Error;
use std::io;

/// Any error, or a sentence that names the bad value.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// The result of a step.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Prefixes an error with its subject.
pub(crate) trait Context<T> {
    /// `what: error`.
    fn of(self, what: impl std::fmt::Display) -> Outcome<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn of(self, what: impl std::fmt::Display) -> Outcome<T> {
        self.map_err(|error| format!("{what}: {error}").into())
    }
}
