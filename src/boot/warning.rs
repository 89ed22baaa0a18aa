//! What was not understood on the command line, said so that the user can put it right.

use core::fmt;

use super::Key;
use ballonet::balloon::wire::FEATURES;

/// A word of the command line that was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warning<'a> {
    /// The word has no `=`.
    NotAnOption(&'a [u8]),
    /// No such key.
    UnknownKey(&'a [u8]),
    /// The key has no such value.
    UnknownValue {
        /// The key.
        key: Key,
        /// The value given.
        value: &'a [u8],
    },
    /// An item of `features=` is not `-` and the name of a feature.
    UnknownFeature(&'a [u8]),
    /// The key was given before.
    Repeated(Key),
}

/// Bytes of the user's, fit to be printed and not too long.
struct Shown<'a>(&'a [u8]);

impl Shown<'_> {
    const LONGEST: usize = 64;
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get(..Self::LONGEST) {
            Some(beginning) if beginning.len() < self.0.len() => write!(f, "`{}...`", beginning.escape_ascii()),
            _ => write!(f, "`{}`", self.0.escape_ascii()),
        }
    }
}

/// Words with commas between them.
struct List<I>(I);

impl<I: Iterator<Item = &'static str> + Clone> fmt::Display for List<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.clone().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{word}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Warning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = List(Key::WORDS.iter().copied());
        match *self {
            Self::NotAnOption(word) => write!(f, "{} is not `key=value`; valid keys: {keys}", Shown(word)),
            Self::UnknownKey(key) => write!(f, "there is no option {}; valid: {keys}", Shown(key)),
            Self::UnknownValue { key, value } => {
                let valid = List(key.valid_values().iter().copied());
                write!(f, "option `{key}` has no value {}; valid: {valid}", Shown(value))
            }
            Self::UnknownFeature(item) => {
                let valid = List(FEATURES.iter().map(|(name, _)| *name));
                write!(f, "option `features` has no item {}; valid: `-` and one of {valid}", Shown(item))
            }
            Self::Repeated(key) => write!(f, "option `{key}` is given several times; the last valid value holds"),
        }
    }
}
