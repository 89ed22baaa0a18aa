//! The option `work=KIND:SIZE`: a program that allocates memory and verifies what it wrote there.

use core::fmt;

use derive_more::{Display, Error};

use super::quote::Quoted;
use super::size::{SizeError, Whole, parse_size};

/// What a program does with memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkKind {
    /// Allocates and frees all of it in turns.
    Sawtooth,
    /// Allocates it and keeps it.
    Steady,
    /// Allocates and frees random pieces.
    Churn,
    /// Allocates it once, verifies its contents, frees it, and ends.
    Verify,
}

impl WorkKind {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Sawtooth, Self::Steady, Self::Churn, Self::Verify];

    /// The word for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Sawtooth => "sawtooth",
            Self::Steady => "steady",
            Self::Churn => "churn",
            Self::Verify => "verify",
        }
    }
}

/// A program to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WorkChoice {
    /// What it does.
    pub(crate) kind: WorkKind,
    /// Bytes of memory that it uses; never 0.
    pub(crate) size: u64,
}

impl fmt::Display for WorkChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.word(), Whole(self.size))
    }
}

/// The programs, as they are typed.
pub(super) const VALID: &str = "sawtooth:SIZE, steady:SIZE, churn:SIZE, verify:SIZE";

/// Why a text does not name a program and its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum WorkError<'a> {
    /// There is no such program, or no size.
    #[display("invalid program {}; valid: {VALID}", Quoted(_0.as_bytes()))]
    NoProgram(#[error(not(source))] &'a str),
    /// Its size is invalid.
    #[display("{}: {error}; valid: {VALID}", Quoted(text.as_bytes()))]
    Size {
        /// The text.
        text: &'a str,
        /// The error in the size.
        #[error(not(source))]
        error: SizeError<'a>,
    },
    /// Its size is 0.
    #[display("{} would use no memory; valid: {VALID}", Quoted(_0.as_bytes()))]
    NoMemory(#[error(not(source))] &'a str),
}

impl WorkChoice {
    /// Reads `KIND:SIZE`.
    ///
    /// # Errors
    /// When the kind is unknown, or the size is invalid or 0.
    pub(crate) fn parse(text: &str) -> Result<Self, WorkError<'_>> {
        let (kind, size) = text.split_once(':').ok_or(WorkError::NoProgram(text))?;
        let kind = WorkKind::ALL.into_iter().find(|known| known.word() == kind).ok_or(WorkError::NoProgram(text))?;
        match parse_size(size) {
            Ok(0) => Err(WorkError::NoMemory(text)),
            Ok(size) => Ok(Self { kind, size }),
            Err(error) => Err(WorkError::Size { text, error }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_with_a_size() {
        for kind in WorkKind::ALL {
            let text = format!("{}:512M", kind.word());
            let choice = WorkChoice { kind, size: 512 << 20 };
            assert_eq!((WorkChoice::parse(&text), choice.to_string()), (Ok(choice), text.clone()));
        }
    }

    #[test]
    fn all_but_a_kind_and_a_size_is_refused() {
        for text in
            ["", ":", "sawtooth", "sawtooth:", "sawtooth:0", ":1M", "saw:1M", "steady:1X", "steady:1M:1M", "STEADY:1M"]
        {
            assert_eq!(WorkChoice::parse(text).ok(), None, "{text}");
        }
    }
}
