//! Tab: completes the line.

use alloc::string::String;
use alloc::vec::Vec;

/// The usage of a command.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Its name.
    pub name: &'static str,
    /// Its arguments: lower-case words are literal, capitals are placeholders; `|` separates forms, brackets mark
    /// optional parts.
    pub arguments: &'static str,
    /// What it does.
    pub about: &'static str,
}

/// The completions of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Completion {
    /// Nothing matches.
    Nothing,
    /// This text completes it.
    Insert(String),
    /// These words can follow.
    Choices(Vec<String>),
}

/// Completes the text left of the cursor. `words_for` lists the words for a placeholder.
pub(crate) fn complete(left: &str, usages: &[Usage], words_for: impl Fn(&str) -> Vec<String>) -> Completion {
    let (before, begun) = left.rsplit_once(' ').unwrap_or(("", left));
    let typed: Vec<&str> = before.split_ascii_whitespace().collect();
    let mut words: Vec<String> = match typed.split_first() {
        None => usages.iter().map(|usage| String::from(usage.name)).collect(),
        Some((command, arguments)) => {
            let forms =
                usages.iter().filter(|usage| usage.name == *command).flat_map(|usage| usage.arguments.split('|'));
            let next = forms.filter_map(|form| next_word(form, arguments));
            next.flat_map(|word| if is_placeholder(word) { words_for(word) } else { [String::from(word)].into() })
                .collect()
        }
    };
    words.retain(|word| word.starts_with(begun));
    // Equals cannot be told apart; a stable sort would be more code.
    words.sort_unstable();
    words.dedup();
    let [first, others @ ..] = words.as_slice() else { return Completion::Nothing };
    let common = others.iter().fold(first.as_str(), |common, word| common_start(common, word));
    let end = if others.is_empty() { " " } else { "" };
    match common.get(begun.len()..) {
        Some(rest) if !rest.is_empty() || !end.is_empty() => Completion::Insert(alloc::format!("{rest}{end}")),
        _ => Completion::Choices(words),
    }
}

/// The word that follows the given arguments in a form, if they match it.
fn next_word<'f>(form: &'f str, arguments: &[&str]) -> Option<&'f str> {
    let mut words = form.split_ascii_whitespace().map(|word| word.trim_matches(['[', ']']));
    for argument in arguments {
        let word = words.next()?;
        if word != *argument && !is_placeholder(word) {
            return None;
        }
    }
    words.next()
}

fn is_placeholder(word: &str) -> bool {
    word.starts_with(|letter: char| letter.is_ascii_uppercase())
}

fn common_start<'a>(one: &'a str, other: &str) -> &'a str {
    let length = one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count();
    one.get(..length).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const USAGES: [Usage; 6] = [
        usage("help", "[COMMAND]"),
        usage("mem", "[map]"),
        usage("mem", "hold SIZE | verify | release"),
        usage("reset", "[NAME]"),
        usage("reset-queue", "QUEUE [NAME]"),
        usage("fault", "page | panic [CPU] | power SLOT"),
    ];

    const fn usage(name: &'static str, arguments: &'static str) -> Usage {
        Usage { name, arguments, about: "" }
    }

    fn of(left: &str) -> Completion {
        complete(left, &USAGES, |word| match word {
            "COMMAND" => USAGES.iter().map(|usage| String::from(usage.name)).collect(),
            "QUEUE" => vec!["inflate".into(), "deflate".into()],
            "NAME" => vec!["virtio0".into(), "virtio1".into()],
            _ => Vec::new(),
        })
    }

    fn insert(text: &str) -> Completion {
        Completion::Insert(text.into())
    }

    fn choices(words: &[&str]) -> Completion {
        Completion::Choices(words.iter().map(|word| String::from(*word)).collect())
    }

    #[test]
    fn commands_are_completed_as_far_as_they_agree() {
        assert_eq!(of("he"), insert("lp "));
        assert_eq!(of("r"), insert("eset"));
        assert_eq!(of("reset"), choices(&["reset", "reset-queue"]));
        assert_eq!(of("reset-"), insert("queue "));
        assert_eq!(of("x"), Completion::Nothing);
        assert_eq!(of(""), choices(&["fault", "help", "mem", "reset", "reset-queue"]));
    }

    #[test]
    fn arguments_are_completed_by_the_forms_of_their_command() {
        assert_eq!(of("mem "), choices(&["hold", "map", "release", "verify"]));
        assert_eq!(of("mem h"), insert("old "));
        assert_eq!(of("mem hold "), Completion::Nothing);
        assert_eq!(of("fault p"), choices(&["page", "panic", "power"]));
        assert_eq!(of("frobnicate "), Completion::Nothing);
    }

    #[test]
    fn words_in_capitals_stand_for_others() {
        assert_eq!(of("help  m"), insert("em "));
        assert_eq!(of("reset-queue i"), insert("nflate "));
        assert_eq!(of("reset-queue inflate "), insert("virtio"));
        assert_eq!(of("reset-queue inflate virtio0 "), Completion::Nothing);
    }

    proptest::proptest! {
        #[test]
        fn what_is_inserted_can_be_typed(left: String) {
            if let Completion::Insert(text) = of(&left) {
                proptest::prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            }
        }
    }
}
