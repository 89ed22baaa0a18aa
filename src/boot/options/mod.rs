//! The kernel's options, read from its command line: `key=value`, separated by spaces.
//!
//! [`table`](self) declares each option once: its field, form, default, key and help. The parser, the writer ([`Display`]),
//! the errors, `help options` at the console and docs/options.md follow from that declaration.
//!
//! An unknown key or value is reported with the valid ones, and the default stays, so that a typo never keeps a machine
//! from booting. Values may hold any bytes but spaces; there is no quoting.
//!
//! [`Display`]: core::fmt::Display

mod choice;
mod declare;
mod form;
mod mmio;
mod quote;
mod size;
mod table;
#[cfg(test)]
mod tests;
mod warning;
mod work;

pub(crate) use choice::{
    AccessChoice, AffinityChoice, HotplugChoice, LogFormat, Mode, PoweroffChoice, ScreenChoice, TapVersion, Terminal,
};
pub use form::Valid;
pub(crate) use form::{HostActions, MOST_CPUS, feature_names};
pub(crate) use mmio::MmioArgument;
pub use size::parse_size;
pub use table::{KernelOptions, Key};
pub use warning::Warning;
pub(crate) use work::{WorkChoice, WorkKind};

use choice::Word as _;

impl<'a> KernelOptions<'a> {
    /// Reads the options in `line`. Of a key given several times the last valid value holds.
    pub fn parse(line: &'a [u8], warn: &mut dyn FnMut(Warning<'a>)) -> Self {
        let mut options = Self::default();
        let mut seen = [false; Key::ALL.len()];
        for word in words(line) {
            let Some((key, value)) = split_once(word) else {
                warn(Warning::NotAnOption(word));
                continue;
            };
            let Some(key) = Key::named(key) else {
                warn(Warning::UnknownKey(key));
                continue;
            };
            if core::mem::replace(&mut seen[key as usize], true) && !key.repeats() {
                warn(Warning::Repeated(key));
            }
            options.set(key, value, &mut |error| warn(Warning::InvalidValue { key, error }));
        }
        options
    }

    /// The invalid word in `line` that ends the run, if a warning would go unread: in a mode that ends by itself, and
    /// if the misspelt word may be the mode.
    pub(crate) fn refusal(line: &'a [u8]) -> Option<Warning<'a>> {
        let (mut first, mut of_mode) = (None, None);
        let options = Self::parse(line, &mut |warning| match warning {
            Warning::Repeated(_) => {}
            warning if hides_mode(line, warning) => of_mode = of_mode.or(Some(warning)),
            warning => first = first.or(Some(warning)),
        });
        of_mode.or(first.filter(|_| options.mode != Mode::Serve))
    }
}

/// Whether the invalid word is a mode that ends by itself, or may be meant as one.
fn hides_mode(line: &[u8], warning: Warning<'_>) -> bool {
    match warning {
        // `mode`, `check`, `--bench`, `mode:check`.
        Warning::NotAnOption(word) => word
            .split(|byte| !byte.is_ascii_alphanumeric())
            .any(|part| part == Key::mode.word().as_bytes() || ends_by_itself(part)),
        Warning::UnknownKey(key) => {
            let mut options = words(line).filter_map(split_once);
            options.any(|(other, value)| other == key && ends_by_itself(value))
        }
        Warning::InvalidValue { key, .. } => key == Key::mode,
        Warning::Repeated(_) => false,
    }
}

/// Whether a word is a mode that ends by itself.
fn ends_by_itself(word: &[u8]) -> bool {
    Mode::from_word(word).is_some_and(|mode| mode != Mode::Serve)
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn split_once(word: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut halves = word.splitn(2, |&byte| byte == b'=');
    Some((halves.next()?, halves.next()?))
}
