//! A chart made of characters: one column per sample, the newest at the right.
//!
//! A column shows the host's memory for the guest: the lower part is used by the guest, the upper part is idle. A
//! line shows the size that the balloon leaves the guest. The chart is readable without colours, and in ASCII.

use crate::model::{Figure, Sample};

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
    let host = sample.host().map_or(0, rows);
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
