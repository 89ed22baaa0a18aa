//! Ranges and sets of bus numbers.

use super::ConfigSpace;

/// The buses of a segment behind a host bridge: from its root bus to the highest reachable one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusRange {
    segment: u16,
    first: u8,
    last: u8,
}

impl BusRange {
    /// All 256 buses of segment 0: those that the configuration ports reach.
    pub const SEGMENT_0: Self = Self { segment: 0, first: 0, last: 255 };

    /// The buses `first` to `last` of `segment`, as in an MCFG entry; `None` if `last` is below `first`.
    pub const fn new(segment: u16, first: u8, last: u8) -> Option<Self> {
        if first <= last { Some(Self { segment, first, last }) } else { None }
    }

    /// The segment group.
    pub(crate) const fn segment(self) -> u16 {
        self.segment
    }

    /// The root bus.
    pub(crate) const fn first(self) -> u8 {
        self.first
    }

    /// The highest bus number.
    pub(crate) const fn last(self) -> u8 {
        self.last
    }

    /// Whether its configuration space is reachable.
    pub(super) fn is_reachable<C: ConfigSpace>(self, config: &C) -> bool {
        config.size(self.segment, self.first) != 0
    }
}

/// A set of bus numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct BusSet([u128; 2]);

impl BusSet {
    /// Adds the numbers from `first` to `last`.
    pub(super) fn insert(&mut self, first: u8, last: u8) {
        for bus in first..=last {
            let [low, high] = &mut self.0;
            *if bus < 128 { low } else { high } |= 1 << (bus % 128);
        }
    }

    /// Adds all numbers of `other`.
    pub(super) fn merge(&mut self, other: Self) {
        let ([low, high], [other_low, other_high]) = (&mut self.0, other.0);
        *low |= other_low;
        *high |= other_high;
    }

    /// Whether the set contains this number.
    pub(super) const fn contains(self, bus: u8) -> bool {
        let [low, high] = self.0;
        (if bus < 128 { low } else { high }) >> (bus % 128) & 1 != 0
    }

    /// Whether the set contains any number from `first` to `last`.
    pub(super) fn overlaps(self, first: u8, last: u8) -> bool {
        (first..=last).any(|bus| self.contains(bus))
    }

    /// The highest number in the set.
    pub(super) fn highest(self) -> Option<u8> {
        (0..=u8::MAX).rev().find(|bus| self.contains(*bus))
    }

    /// The longest run of numbers from `first` to `last` that are not in the set, as room for a bridge and everything
    /// behind it. The lowest of equals.
    pub(super) fn longest_gap(self, first: u8, last: u8) -> Option<(u8, u8)> {
        let mut best: Option<(u8, u8)> = None;
        let mut start = None;
        for bus in first..=last {
            if self.contains(bus) {
                start = None;
                continue;
            }
            let from = *start.get_or_insert(bus);
            if best.is_none_or(|(low, high)| high - low < bus - from) {
                best = Some((from, bus));
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_the_first_of_the_longest() {
        let mut set = BusSet::default();
        assert_eq!(set.longest_gap(0, 255), Some((0, 255)));
        set.insert(0, 0);
        set.insert(0x80, 0x80);
        assert_eq!(set.longest_gap(0, 255), Some((1, 0x7F)));
        set.insert(1, 1);
        assert_eq!(set.longest_gap(0, 255), Some((0x81, 255)));
        assert_eq!(set.longest_gap(0, 0x7F), Some((2, 0x7F)));
        set.insert(0, 255);
        assert_eq!(set.longest_gap(0, 255), None);
        assert_eq!(set.highest(), Some(255));
    }

    #[test]
    fn bus_numbers_above_127_are_distinct_from_those_below() {
        let mut set = BusSet::default();
        set.insert(127, 128);
        assert!(set.contains(127) && set.contains(128) && !set.contains(0) && !set.contains(255));
        assert!(set.overlaps(0, 127) && set.overlaps(128, 255) && !set.overlaps(129, 255));
    }

    #[test]
    fn a_range_that_ends_before_it_starts_is_none() {
        assert_eq!(BusRange::new(0, 5, 4), None);
        assert!(BusRange::new(1, 5, 5).is_some());
    }
}
