//! The option `work=KIND:SIZE`: a program that uses memory, to see what becomes of it.

use derive_more::{Display, Error};

use super::{SizeError, parse_size};

/// What a program does with memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkKind {
    /// Takes it all, gives it all back, and again.
    Sawtooth,
    /// Takes it and keeps it.
    Steady,
    /// Takes and gives back pieces at random.
    Churn,
    /// Takes it once, looks whether it keeps what is written to it, gives it back, and ends.
    Verify,
}

impl WorkKind {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Sawtooth, Self::Steady, Self::Churn, Self::Verify];

    /// The word for it.
    pub const fn word(self) -> &'static str {
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
pub struct WorkChoice {
    /// What it does.
    pub kind: WorkKind,
    /// With how many bytes; never 0.
    pub size: u64,
}

/// Why a text is no program to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub(crate) enum WorkError<'a> {
    /// It names none.
    #[display("`{_0}` is no program: sawtooth:SIZE, steady:SIZE, churn:SIZE or verify:SIZE")]
    NoProgram(#[error(not(source))] &'a str),
    /// Its size is none.
    #[display("`{text}`: {error}")]
    Size {
        /// The text.
        text: &'a str,
        /// What is wrong with the size.
        #[error(not(source))]
        error: SizeError<'a>,
    },
    /// Its size is 0.
    #[display("`{_0}` would use no memory")]
    NoMemory(#[error(not(source))] &'a str),
}

impl WorkChoice {
    /// Reads `KIND:SIZE`.
    ///
    /// # Errors
    /// When the kind is not known, or the size is none, or 0.
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
            assert_eq!(WorkChoice::parse(&text), Ok(WorkChoice { kind, size: 512 << 20 }));
        }
    }

    #[test]
    fn what_is_not_a_kind_and_a_size_is_refused() {
        for text in
            ["", ":", "sawtooth", "sawtooth:", "sawtooth:0", ":1M", "saw:1M", "steady:1X", "steady:1M:1M", "STEADY:1M"]
        {
            assert_eq!(WorkChoice::parse(text).ok(), None, "{text}");
        }
    }
}
