//! A chart made of characters: one column per sample, the newest at the right.
//!
//! A column shows the host's memory for the guest: the lower part is used by the guest, the upper part is idle. A
//! line shows the size that the balloon leaves the guest. Letters below it mark events. The chart is readable without
//! colours, and in ASCII.

use std::collections::VecDeque;

use crate::model::{Figure, Mark, Sample};

/// The content of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    /// Nothing.
    Empty,
    /// Memory that the guest uses.
    Used,
    /// Host memory that the guest does not use.
    Idle,
    /// The size that the balloon leaves the guest.
    Size,
}

impl Cell {
    /// The cell's character.
    pub(crate) const fn letter(self, ascii: bool) -> char {
        match (self, ascii) {
            (Self::Empty, _) => ' ',
            (Self::Used, false) => '█',
            (Self::Idle, false) => '░',
            (Self::Size, false) => '─',
            (Self::Used, true) => '#',
            (Self::Idle, true) => ':',
            (Self::Size, true) => '-',
        }
    }
}

/// Letters of events by kind, the most important first.
const LETTERS: [(char, &[&str]); 8] = [
    ('!', &["ended", "silent", "failed", "panic"]),
    ('F', &["refused"]),
    ('O', &["reclaim"]),
    ('R', &["reset"]),
    ('M', &["migration"]),
    ('T', &["target"]),
    ('h', &["hint"]),
    ('r', &["report"]),
];

/// The letter of an event.
pub(crate) fn letter(mark: &Mark) -> char {
    LETTERS.iter().find(|(_, kinds)| kinds.contains(&mark.kind.as_str())).map_or('*', |(letter, _)| *letter)
}

/// The letters below a chart, one per sample, the newest sample and its events last: each event is at the first sample
/// after it, and the most important one is shown.
pub(crate) fn letters(samples: &[&Sample], marks: &VecDeque<Mark>) -> String {
    let rank = |letter: &char| LETTERS.iter().position(|(known, _)| known == letter).unwrap_or(LETTERS.len());
    let between = |before: f64, until: f64| {
        let marks = marks.iter().filter(|mark| before < mark.at && mark.at <= until);
        marks.map(letter).min_by_key(rank).unwrap_or(' ')
    };
    let first = samples.first().map(|_| ' ');
    first.into_iter().chain(samples.windows(2).map(|pair| between(pair[0].at, pair[1].at))).collect()
}

/// Memory in use by the guest: as the console of a ballonet kernel reports it, otherwise by its statistics (all of
/// one moment).
pub(crate) fn used(sample: &Sample) -> Option<u64> {
    let by_statistics = || sample.get(Figure::StatTotal)?.checked_sub(sample.available()?);
    sample.get(Figure::Used).or_else(by_statistics)
}

/// The largest value that the chart must show.
pub(crate) fn scale<'a>(samples: impl Iterator<Item = &'a Sample>) -> u64 {
    let most = |sample: &Sample| sample.host().max(sample.get(Figure::Size)).unwrap_or_default();
    samples.map(most).max().unwrap_or_default().max(1)
}

/// A column of `height` cells, from the top, where the full height is `scale` bytes.
pub(crate) fn column(sample: &Sample, scale: u64, height: u16) -> Vec<Cell> {
    // Rounds to the nearest cell.
    let rows = |bytes: u64| (((bytes as f64 / scale as f64) * f64::from(height)).round() as u16).min(height);
    // A little is not nothing.
    let host = sample.host().map_or(0, |bytes| rows(bytes).max(u16::from(bytes > 0)).min(height));
    let used = used(sample).map_or(host, rows).min(host);
    let size = sample.get(Figure::Actual).map(rows);
    let cell = |row: u16| {
        if size == Some(row + 1) && row >= host {
            Cell::Size
        } else if row < used {
            Cell::Used
        } else if row < host {
            Cell::Idle
        } else {
            Cell::Empty
        }
    };
    (0..height).rev().map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Cell::{Empty, Idle, Size, Used};

    fn sample(figures: &[(Figure, u64)]) -> Sample {
        let mut sample = Sample::new(0.0);
        for (figure, value) in figures {
            sample.set(*figure, Some(*value));
        }
        sample
    }

    #[test]
    fn a_column_is_used_idle_and_size() {
        let figures = [(Figure::Ram, 60), (Figure::Used, 20), (Figure::Actual, 80), (Figure::Size, 100)];
        let sample = sample(&figures);
        assert_eq!(scale([&sample].into_iter()), 100);
        assert_eq!(column(&sample, 100, 5), [Empty, Size, Idle, Idle, Used]);
    }

    #[test]
    fn a_little_memory_has_a_cell() {
        let sample = sample(&[(Figure::Ram, 1), (Figure::Used, 0), (Figure::Size, 100)]);
        assert_eq!(column(&sample, 100, 3), [Empty, Empty, Idle]);
    }

    #[test]
    fn events_are_below_the_first_sample_after_them() {
        let samples: Vec<_> = (0..5).map(|second| Sample::new(f64::from(second))).collect();
        let mark = |at, kind| Mark::new(at, kind, "");
        let marks = VecDeque::from([
            mark(0.0, "target"),
            mark(0.5, "target"),
            mark(1.2, "report"),
            mark(1.3, "reclaim"),
            mark(1.4, "target"),
            mark(3.0, "work"),
            mark(9.0, "ended"),
        ]);
        assert_eq!(letters(&samples.iter().collect::<Vec<_>>(), &marks), " TO* ");
        assert_eq!(letters(&[], &marks), "");
    }

    #[test]
    fn without_the_guests_figures_all_is_used() {
        let sample = sample(&[(Figure::Rss, 50), (Figure::Size, 100)]);
        assert_eq!(column(&sample, 100, 4), [Empty, Empty, Used, Used]);
    }

    #[test]
    fn statistics_also_give_the_use() {
        let statistics = sample(&[(Figure::StatTotal, 100), (Figure::StatFree, 30), (Figure::StatAvailable, 40)]);
        assert_eq!(used(&statistics), Some(60));
        assert_eq!(used(&sample(&[(Figure::StatTotal, 100), (Figure::StatFree, 30)])), Some(70));
        assert_eq!(used(&sample(&[(Figure::StatTotal, 10), (Figure::StatFree, 30)])), None, "more free than there is");
    }

    #[test]
    fn unknown_figures_are_not_shown() {
        let sample = Sample::new(0.0);
        assert_eq!(column(&sample, scale([&sample].into_iter()), 3), [Empty; 3]);
    }
}
