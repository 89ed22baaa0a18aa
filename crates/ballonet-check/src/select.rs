//! Which checks are to run: names and beginnings of names, separated by commas.

use alloc::vec::Vec;

use super::CHECKS;
use super::similar;

/// Names that are offered for one that there is not.
const MOST_ALIKE: usize = 6;

/// A choice of checks. `reset*,inflate-completes` takes these; `*,-ring-indices-wrap` all but one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    chosen: Vec<bool>,
}

impl Default for Selection {
    /// All of them.
    fn default() -> Self {
        Self { chosen: CHECKS.iter().map(|_| true).collect() }
    }
}

impl Selection {
    /// The checks that `list` names: each item a name, or its beginning and `*`, with `-` before it to leave checks out
    /// that items to its left took. A list that begins with `-` starts from all. `unknown` is called with each item that
    /// names no check.
    pub fn parse<'l>(list: &'l str, mut unknown: impl FnMut(&'l str)) -> Self {
        let mut selection = Self::default();
        if !list.starts_with('-') {
            selection.chosen.fill(false);
        }
        for item in list.split(',').filter(|item| !item.is_empty()) {
            let (pattern, take) = item.strip_prefix('-').map_or((item, true), |pattern| (pattern, false));
            let mut found = false;
            for (check, chosen) in CHECKS.iter().zip(&mut selection.chosen) {
                if matches(pattern, check.name) {
                    (found, *chosen) = (true, take);
                }
            }
            if !found {
                unknown(item);
            }
        }
        selection
    }

    /// The names that an unknown `item` may stand for: those that share the most of its words, or the one that it is a slip of.
    /// Never more than a few.
    pub fn alike(item: &str) -> Vec<&'static str> {
        let words = || item.split(['-', '*']).filter(|word| !word.is_empty());
        let shared = |name: &str| words().filter(|word| name.contains(word)).count();
        let names = || CHECKS.iter().map(|check| check.name);
        match names().map(shared).max() {
            Some(most @ 1..) => names().filter(|name| shared(name) == most).take(MOST_ALIKE).collect(),
            _ => similar(item.trim_matches(['-', '*']), names()).into_iter().collect(),
        }
    }

    /// How many checks there are in it.
    pub fn len(&self) -> usize {
        self.chosen.iter().filter(|chosen| **chosen).count()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the check at this place of the table is in it.
    pub(super) fn holds(&self, place: usize) -> bool {
        self.chosen.get(place).is_some_and(|chosen| *chosen)
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> (Vec<&'static str>, Vec<&str>) {
        let mut unknown = Vec::new();
        let selection = Selection::parse(list, |item| unknown.push(item));
        let names = CHECKS.iter().enumerate().filter(|(place, _)| selection.holds(*place));
        (names.map(|(_, check)| check.name).collect(), unknown)
    }

    #[test]
    fn names_and_beginnings_of_names_choose() {
        assert_eq!(parse("inflate-completes"), (vec!["inflate-completes"], vec![]));
        let (names, unknown) = parse("isr-*,inflate-completes");
        assert!(names.len() > 2 && names.iter().all(|n| n.starts_with("isr-") || *n == "inflate-completes"));
        assert_eq!(unknown, Vec::<&str>::new());
        assert_eq!(parse("*").0.len(), CHECKS.len());
        assert_eq!(parse("").0.len(), 0);
    }

    #[test]
    fn a_minus_leaves_checks_out() {
        assert_eq!(parse("-ring-indices-wrap").0.len(), CHECKS.len() - 1);
        assert!(parse("isr-*,-isr-*").0.is_empty());
        assert_eq!(parse("isr-*,-isr-is-cleared-by-reading").0.len() + 1, parse("isr-*").0.len());
    }

    #[test]
    fn what_was_meant_is_guessed_by_its_words() {
        assert_eq!(Selection::alike("reset-clear-status"), ["reset-clears-status"]);
        assert_eq!(Selection::alike("-inflate-complete*"), ["inflate-completes"]);
        let alike = Selection::alike("isr");
        assert!(alike.len() > 2 && alike.iter().all(|name| name.contains("isr")), "{alike:?}");
        assert_eq!(Selection::alike("rset-clers-sttus"), ["reset-clears-status"]);
    }

    /// A hundred names would push everything else out of sight.
    #[test]
    fn few_names_are_offered_whatever_was_written() {
        assert_eq!(Selection::alike("nonsense"), Vec::<&str>::new());
        assert_eq!(Selection::alike("-*"), Vec::<&str>::new());
        for item in ["e", "-", "is", "reset*", "a-e-i-o-u"] {
            assert!(Selection::alike(item).len() <= MOST_ALIKE, "{item}");
        }
    }

    #[test]
    fn what_names_no_check_is_told() {
        assert_eq!(parse("inflate-completes,nonsense,x*").1, ["nonsense", "x*"]);
    }
}
