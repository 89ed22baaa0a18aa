//! The checks of the kernel: which to run, and how to select them in few bytes of its command line.

use ballonet_check::{CHAPTERS, Chapter, Check, Selection, checks};

use crate::failure::Outcome;

/// Bytes of the kernel's command line for `checks=`. The kernel cuts a line after 2048, and some VMMs take no more.
const BUDGET: usize = 1500;

/// The checks that `list` selects, in the order in which they run; all lawful ones without a list.
pub(crate) fn select(list: Option<&str>) -> Outcome<Vec<&'static Check>> {
    let Some(list) = list else { return Ok(Selection::default().checks().collect()) };
    let mut unknown = None;
    let selection = Selection::parse(list, |item| unknown = unknown.or(Some(item)));
    if let Some(item) = unknown {
        let alike = Selection::alike(item).join(", ");
        let meant = if alike.is_empty() { String::new() } else { format!("; did you mean {alike}?") };
        return Err(format!("--checks: there is no check `{item}`{meant} (--list prints them)").into());
    }
    if selection.is_empty() {
        return Err(format!("--checks: `{list}` selects no check").into());
    }
    Ok(selection.checks().collect())
}

/// The chapter of a check.
pub(crate) fn chapter(check: &Check) -> &'static str {
    chapter_of(check).map_or("", |chapter| chapter.name)
}

/// Whether a check needs the device in a hot-plug slot.
pub(crate) fn needs_slot(check: &Check) -> bool {
    chapter_of(check).is_some_and(Chapter::needs_slot)
}

fn chapter_of(check: &Check) -> Option<&'static Chapter> {
    CHAPTERS.iter().find(|chapter| chapter.checks.iter().any(|other| other.name == check.name))
}

/// A value of `checks=` that selects the first of `wanted`, as many as fit, and how many these are.
pub(crate) fn request(wanted: &[&'static Check]) -> (String, usize) {
    if wanted.len() == checks().count() {
        return ("all".to_owned(), wanted.len());
    }
    let mut text = String::new();
    let mut count = 0;
    for chapter in CHAPTERS {
        let ours: Vec<&Check> =
            chapter.checks.iter().filter(|check| wanted.iter().any(|other| other.name == check.name)).collect();
        if ours.is_empty() {
            continue;
        }
        let left_out = chapter.checks.iter().filter(|check| ours.iter().all(|other| other.name != check.name));
        let by_chapter = left_out.fold(chapter.name.to_owned(), |text, check| text + ",-" + check.name);
        let by_name = ours.iter().map(|check| check.name).collect::<Vec<_>>().join(",");
        let shorter = if by_chapter.len() < by_name.len() { by_chapter } else { by_name };
        if text.len() + 1 + shorter.len() > BUDGET {
            // The first of a chapter may fit.
            count += ours.iter().take_while(|check| append(&mut text, check.name)).count();
            break;
        }
        append(&mut text, &shorter);
        count += ours.len();
    }
    (text, count)
}

/// Appends an item, if it fits.
fn append(text: &mut String, item: &str) -> bool {
    let comma = usize::from(!text.is_empty());
    let fits = text.len() + comma + item.len() <= BUDGET;
    if fits {
        *text += if comma == 1 { "," } else { "" };
        *text += item;
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bad_lists_are_named() {
        for (list, words) in
            [("nonsense", "`nonsense`"), ("rset-clers-sttus", "reset-clears-status"), ("isr-*,-isr-*", "selects no")]
        {
            let error = select(Some(list)).expect_err(list).to_string();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(select(None).expect("all").len(), select(Some("*")).expect("all").len());
    }

    #[test]
    fn all_checks_fit_into_one_start() {
        let all = select(None).expect("all");
        let (text, count) = request(&all);
        assert_eq!(count, all.len());
        assert!(text.len() < 200, "{text}");
        for list in ["hostile", "all"] {
            let chosen = select(Some(list)).expect(list);
            let (text, count) = request(&chosen);
            assert_eq!(count, chosen.len());
            assert!(text.len() < 400, "{text}");
        }
    }

    #[test]
    fn every_check_has_a_chapter() {
        assert!(checks().all(|check| !chapter(check).is_empty()));
    }

    proptest! {
        /// The kernel's own parser selects the checks that were wanted, in their order, from a line that fits.
        #[test]
        fn a_request_selects_what_is_wanted(chosen in proptest::collection::vec(any::<bool>(), checks().count())) {
            let mut wanted: Vec<&'static Check> =
                checks().zip(&chosen).filter(|(_, chosen)| **chosen).map(|(check, _)| check).collect();
            let names = |checks: &[&'static Check]| checks.iter().map(|check| check.name).collect::<Vec<_>>();
            while !wanted.is_empty() {
                let (text, count) = request(&wanted);
                prop_assert!(count > 0 && text.len() <= BUDGET, "{}", text);
                let mut unknown = 0;
                let selection: Vec<_> = Selection::parse(&text, |_| unknown += 1).checks().collect();
                prop_assert_eq!(unknown, 0);
                prop_assert_eq!(names(&selection), names(&wanted[..count]));
                wanted.drain(..count);
            }
        }
    }
}
