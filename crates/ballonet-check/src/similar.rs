//! Which of some names a misspelt word may mean.

/// Longest text that is compared: the work grows with its square.
const LONGEST: usize = 64;

/// Single-letter edits between two texts (Levenshtein distance). Nothing is allocated: a kernel may have no heap yet.
fn distance(one: &str, other: &str) -> usize {
    let other = &other.as_bytes()[..other.len().min(LONGEST)];
    let mut row: [usize; LONGEST + 1] = core::array::from_fn(|column| column);
    let mut next = row;
    for (line, letter) in one.bytes().take(LONGEST).enumerate() {
        next[0] = line + 1;
        for (column, against) in other.iter().enumerate() {
            let changed = row[column] + usize::from(letter != *against);
            next[column + 1] = changed.min(row[column + 1] + 1).min(next[column] + 1);
        }
        core::mem::swap(&mut row, &mut next);
    }
    row[other.len()]
}

/// The name that `word` probably misspells: at most a third of its letters differ, and no other name is as close.
pub fn similar<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let most = word.len().div_ceil(3).min(LONGEST);
    let mut best: Option<(usize, &str)> = None;
    let mut tied = false;
    for name in names {
        let distance = distance(word, name);
        match best {
            Some((least, known)) if distance > least || name == known => {}
            Some((least, _)) if distance == least => tied = true,
            _ => (best, tied) = (Some((distance, name)), false),
        }
    }
    best.filter(|(distance, _)| *distance <= most && !tied).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 6] = ["help", "mem", "mem", "report", "reset", "reboot"];

    #[test]
    fn a_slip_finds_its_name_and_nonsense_none() {
        let of = |word| similar(word, NAMES.into_iter());
        assert_eq!(of("hlep"), Some("help"));
        assert_eq!(of("rebot"), Some("reboot"));
        assert_eq!(of("memm"), Some("mem"));
        assert_eq!(of("frobnicate"), None);
        assert_eq!(of(""), None);
        // As near to `report` as to `reboot`.
        assert_eq!(of("repoot"), None);
    }

    #[test]
    fn distances_are_those_of_the_textbook() {
        for (one, other, expected) in [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("same", "same", 0)] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
    }
}
