//! Which transports there are.

use core::fmt;

/// The transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportKind {
    /// Version 1 of the specification and later: structures found by capabilities, `FEATURES_OK`, 64 feature bits.
    Modern,
    /// Before version 1: I/O ports in the first BAR, 32 feature bits, rings of one size and layout.
    Legacy,
}

impl TransportKind {
    /// The word for it on a command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Modern => "modern",
            Self::Legacy => "legacy",
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
