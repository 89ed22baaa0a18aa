//! Which checks run: names, beginnings of names and names of chapters, separated by commas.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Chapter, Check, Identity, checks, similar};
use crate::checks::by_chapter;

/// The most names that are suggested for an unknown one.
const SUGGESTIONS_MAX: usize = 6;

/// The item that stands for every hostile check.
const HOSTILE: &str = "hostile";
/// The item that stands for every check.
const ALL: &str = "all";

/// A choice of checks. `rings,reset*,inflate-completes` takes a chapter, a prefix and one check; `-ring-indices-wrap`
/// all but one; `hostile` every hostile check, and `all` those and the lawful ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// By index in [`checks()`].
    chosen: Vec<bool>,
    /// Whether checks or chapters were named in full: then those that do not apply to a device are skipped with the
    /// reason, not left out.
    named: bool,
}

impl Default for Selection {
    /// All lawful ones.
    fn default() -> Self {
        Self { chosen: checks().map(|check| !check.is_hostile()).collect(), named: false }
    }
}

impl Selection {
    /// The checks that `list` names. Each item is the name of a check or a chapter, or the beginning of a check's name
    /// and `*`; `-` before it removes checks that items to its left selected. A list that begins with `-` starts from
    /// all lawful ones. Only a beginning that says `hostile-` reaches hostile checks. `unknown` is called with each
    /// item that names no check.
    pub fn parse<'l>(list: &'l str, mut unknown: impl FnMut(&'l str)) -> Self {
        let mut selection = Self::default();
        if !list.starts_with('-') {
            selection.chosen.fill(false);
            selection.named = list.split(',').any(|item| !item.starts_with('-') && !item.ends_with('*'));
        }
        for item in list.split(',').filter(|item| !item.is_empty()) {
            let (pattern, take) = item.strip_prefix('-').map_or((item, true), |pattern| (pattern, false));
            if !selection.mark(pattern, take) {
                unknown(item);
            }
        }
        selection
    }

    /// Selects or removes the checks that a pattern names; returns whether there are any.
    fn mark(&mut self, pattern: &str, take: bool) -> bool {
        let mut found = false;
        for ((chapter, check), chosen) in by_chapter().zip(&mut self.chosen) {
            if chapter.name == pattern || matches(pattern, check) {
                (found, *chosen) = (true, take);
            }
        }
        found
    }

    /// The names that an unknown `item` may mean: those that share most of its words, or the one that it misspells.
    /// Only a few.
    pub fn alike(item: &str) -> Vec<&'static str> {
        let words = || item.split(['-', '*']).filter(|word| !word.is_empty());
        let shared = |name: &str| words().filter(|word| name.contains(word)).count();
        let meant = |check: &&Check| !check.is_hostile() || item.contains(HOSTILE);
        let names = || checks().filter(meant).map(|check| check.name);
        match names().map(shared).max() {
            Some(most @ 1..) => names().filter(|name| shared(name) == most).take(SUGGESTIONS_MAX).collect(),
            _ => similar(item.trim_matches(['-', '*']), names()).into_iter().collect(),
        }
    }

    /// The number of checks.
    pub fn len(&self) -> usize {
        self.chosen.iter().filter(|chosen| **chosen).count()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The checks that are reported for a device: those that apply to it, or all that were named; each with the reason
    /// if it does not apply.
    pub fn checks_for(&self, identity: &Identity) -> impl Iterator<Item = (&'static Check, Option<String>)> {
        self.chosen()
            .map(|(chapter, check)| (check, chapter.misfit(check, identity)))
            .filter(|(_, misfit)| self.named || misfit.is_none())
    }

    /// The checks, in the order in which they run.
    pub fn checks(&self) -> impl Iterator<Item = &'static Check> {
        self.chosen().map(|(_, check)| check)
    }

    fn chosen(&self) -> impl Iterator<Item = (&'static Chapter, &'static Check)> {
        by_chapter().zip(&self.chosen).filter(|(_, chosen)| **chosen).map(|(placed, _)| placed)
    }
}

fn matches(pattern: &str, check: &Check) -> bool {
    match pattern.strip_suffix('*') {
        // The names of hostile checks begin with that word, so a shorter prefix would select them only by accident.
        Some(start) => check.name.starts_with(start) && (!check.is_hostile() || start.starts_with("hostile-")),
        None => check.name == pattern || pattern == ALL || pattern == HOSTILE && check.is_hostile(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CHAPTERS;

    fn parse(list: &str) -> (Vec<&'static str>, Vec<&str>) {
        let mut unknown = Vec::new();
        let selection = Selection::parse(list, |item| unknown.push(item));
        let names = selection.checks().map(|check| check.name).collect();
        (names, unknown)
    }

    #[test]
    fn names_and_beginnings_of_names_choose() {
        assert_eq!(parse("inflate-completes"), (vec!["inflate-completes"], vec![]));
        let (names, unknown) = parse("isr-*,inflate-completes");
        assert!(names.len() > 2 && names.iter().all(|n| n.starts_with("isr-") || *n == "inflate-completes"));
        assert_eq!(unknown, Vec::<&str>::new());
        assert_eq!(parse("*").0.len(), Selection::default().len());
        assert_eq!(parse("").0.len(), 0);
    }

    #[test]
    fn hostile_checks_must_be_asked_for() {
        let hostile = checks().filter(|check| check.is_hostile()).count();
        let count = |list| parse(list).0.len();
        assert_eq!((count("hostile"), count("hostile-*")), (hostile, hostile));
        assert_eq!((count("all"), count("*"), count("ho*")), (checks().count(), checks().count() - hostile, 0));
        assert!(Selection::default().checks().all(|check| !check.is_hostile()));
        assert_eq!(count("all,-hostile"), Selection::default().len());
        assert_eq!(parse("hostile-split,nonsense").1, ["nonsense"]);
    }

    #[test]
    fn a_chapter_stands_for_its_checks() {
        for chapter in CHAPTERS {
            let names: Vec<_> = chapter.checks.iter().map(|check| check.name).collect();
            assert_eq!(parse(chapter.name), (names.clone(), vec![]));
            let (others, _) = parse(&format!("all,-{}", chapter.name));
            assert_eq!(others.len() + names.len(), checks().count());
        }
    }

    #[test]
    fn a_minus_leaves_checks_out() {
        assert_eq!(parse("-ring-indices-wrap").0.len(), Selection::default().len() - 1);
        assert!(parse("isr-*,-isr-*").0.is_empty());
        assert_eq!(parse("isr-*,-isr-is-cleared-by-reading").0.len() + 1, parse("isr-*").0.len());
    }

    #[test]
    fn an_unknown_name_is_guessed_by_its_words() {
        assert_eq!(Selection::alike("reset-clear-status")[0], "reset-clears-status");
        assert_eq!(Selection::alike("-inflate-complete*"), ["inflate-completes"]);
        let alike = Selection::alike("isr");
        assert!(alike.len() > 2 && alike.iter().all(|name| name.contains("isr")), "{alike:?}");
        assert_eq!(Selection::alike("rset-clers-sttus"), ["reset-clears-status"]);
    }

    /// A hundred names would push everything else out of sight.
    #[test]
    fn few_names_are_suggested() {
        assert_eq!(Selection::alike("nonsense"), Vec::<&str>::new());
        assert_eq!(Selection::alike("-*"), Vec::<&str>::new());
        for item in ["e", "-", "is", "reset*", "a-e-i-o-u"] {
            assert!(Selection::alike(item).len() <= SUGGESTIONS_MAX, "{item}");
        }
    }

    #[test]
    fn unknown_items_are_reported() {
        assert_eq!(parse("inflate-completes,nonsense,x*").1, ["nonsense", "x*"]);
    }
}
