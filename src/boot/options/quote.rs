//! The user's words in messages: printable, and of bounded length.

use core::fmt;

/// Shows bytes that the user typed: escaped, between backquotes, and cut if they are long.
pub(super) struct Quoted<'a>(pub(super) &'a [u8]);

impl Quoted<'_> {
    /// Bytes shown of a long word.
    const LONGEST: usize = 64;
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get(..Self::LONGEST) {
            Some(beginning) if beginning.len() < self.0.len() => write!(f, "`{}...`", beginning.escape_ascii()),
            _ => write!(f, "`{}`", self.0.escape_ascii()),
        }
    }
}
