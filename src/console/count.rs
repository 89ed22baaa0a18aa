//! Counts of things, in English: `1 CPU`, `2 CPUs`, `1 entry`, `0 entries`.

use core::fmt;

/// A number and its noun in the singular.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count<'a>(u64, &'a str);

/// A number of things, each a `noun`. Of several words, the last one gets the plural.
pub(crate) fn count(number: impl TryInto<u64>, noun: &str) -> Count<'_> {
    // Callers pass counts: none is negative or beyond 64 bits.
    Count(number.try_into().unwrap_or(u64::MAX), noun)
}

impl fmt::Display for Count<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number, noun) = *self;
        if number == 1 {
            return write!(f, "1 {noun}");
        }
        let vowel_before_y = |stem: &str| stem.ends_with(['a', 'e', 'i', 'o', 'u']);
        match noun.strip_suffix('y') {
            Some(stem) if !vowel_before_y(stem) => write!(f, "{number} {stem}ies"),
            _ if noun.ends_with(['s', 'x']) || noun.ends_with("ch") => write!(f, "{number} {noun}es"),
            _ => write!(f, "{number} {noun}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn one_is_singular_and_all_else_plural() {
        let text = |number: u64, noun| count(number, noun).to_string();
        assert_eq!([0, 1, 2].map(|number| text(number, "CPU")), ["0 CPUs", "1 CPU", "2 CPUs"]);
        assert_eq!([1, 5].map(|number| text(number, "entry")), ["1 entry", "5 entries"]);
        assert_eq!([1, 5].map(|number| text(number, "DMA region")), ["1 DMA region", "5 DMA regions"]);
        assert_eq!([text(2, "key"), text(2, "match"), text(0, "bus")], ["2 keys", "2 matches", "0 buses"]);
        assert_eq!(count(usize::MAX, "frame").to_string(), format!("{} frames", usize::MAX));
    }
}
