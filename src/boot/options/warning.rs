//! Invalid words on the command line, described so that the user can correct them.

use core::fmt;

use ballonet::balloon::wire::FEATURES;
use ballonet_check::similar;

use super::form::ValueError;
use super::quote::Quoted;
use super::table::Key;

/// An invalid word of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warning<'a> {
    /// The word has no `=`.
    NotAnOption(&'a [u8]),
    /// There is no such key.
    UnknownKey(&'a [u8]),
    /// The value, or an item in it, is not valid.
    InvalidValue {
        /// The key.
        key: Key,
        /// The error.
        error: ValueError<'a>,
    },
    /// The key was given before.
    Repeated(Key),
}

/// The valid words, separated by commas: the one that was probably meant first.
struct Valid<'w, I> {
    words: I,
    typed: &'w [u8],
    /// The valid values that are not words.
    others: &'static str,
}

impl<I: Iterator<Item = &'static str> + Clone> fmt::Display for Valid<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let typed = core::str::from_utf8(self.typed).unwrap_or_default();
        let meant = similar(typed, self.words.clone());
        let rest = self.words.clone().filter(|word| Some(*word) != meant);
        let others = Some(self.others).filter(|others| !others.is_empty());
        for (place, word) in meant.into_iter().chain(rest).chain(others).enumerate() {
            write!(f, "{}{word}", if place == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

fn keys(typed: &[u8]) -> impl fmt::Display {
    Valid { words: Key::ALL.iter().map(|key| key.word()), typed, others: "" }
}

impl fmt::Display for Warning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotAnOption(word) => write!(f, "{} is not `key=value`; valid keys: {}", Quoted(word), keys(word)),
            Self::UnknownKey(key) => write!(f, "unknown option {}; valid: {}", Quoted(key), keys(key)),
            Self::InvalidValue { key, error } => write_invalid(key, error, f),
            Self::Repeated(key) => write!(f, "option `{key}` is given several times; the last valid value holds"),
        }
    }
}

fn write_invalid(key: Key, error: ValueError<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match error {
        ValueError::Invalid(value) => {
            let valid = key.valid();
            let valid = Valid { words: valid.choices(), typed: value, others: valid.others() };
            write!(f, "option `{key}`: invalid value {}; valid: {valid}", Quoted(value))
        }
        ValueError::Size(error) => write!(f, "option `{key}`: {error}"),
        ValueError::Work(error) => write!(f, "option `{key}`: {error}"),
        ValueError::Mmio(error) => write!(f, "option `{key}`: {error}"),
        ValueError::Feature(item) => {
            let typed = item.strip_prefix(b"-").unwrap_or(item);
            let valid = Valid { words: FEATURES.iter().map(|(name, _)| *name), typed, others: "" };
            write!(f, "option `{key}`: invalid item {}; valid: `-` and one of {valid}", Quoted(item))
        }
    }
}
