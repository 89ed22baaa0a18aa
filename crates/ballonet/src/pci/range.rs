//! Ranges of bus addresses, and pools from which parts are taken.

use alloc::vec::Vec;
use core::fmt;

/// A range of bus addresses or port numbers; never empty. It may include the last 64-bit address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressRange {
    first: u64,
    last: u64,
}

impl AddressRange {
    /// `length` addresses from `first`; `None` if there are none or they would exceed 2^64.
    pub const fn new(first: u64, length: u64) -> Option<Self> {
        match length.checked_sub(1) {
            Some(more) => match first.checked_add(more) {
                Some(last) => Some(Self { first, last }),
                None => None,
            },
            None => None,
        }
    }

    /// From `first` to `last`, inclusive; `None` if `last` is below `first`.
    pub const fn inclusive(first: u64, last: u64) -> Option<Self> {
        if first <= last { Some(Self { first, last }) } else { None }
    }

    /// The first address.
    pub const fn first(self) -> u64 {
        self.first
    }

    /// The last address.
    pub const fn last(self) -> u64 {
        self.last
    }

    /// Whether this range includes all of `other`.
    pub(super) const fn contains(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// Whether the two have an address in common.
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The parts below and above `hole`.
    const fn without(self, hole: Self) -> [Option<Self>; 2] {
        if !self.overlaps(hole) {
            return [Some(self), None];
        }
        let below = if hole.first > self.first { Self::inclusive(self.first, hole.first - 1) } else { None };
        let above = if hole.last < self.last { Self::inclusive(hole.last + 1, self.last) } else { None };
        [below, above]
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.first, self.last)
    }
}

/// Available addresses, in order of preference.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool {
    free: Vec<AddressRange>,
}

impl Pool {
    /// A pool of `ranges`, the preferred first.
    pub(super) fn new(ranges: impl IntoIterator<Item = AddressRange>) -> Self {
        Self { free: ranges.into_iter().collect() }
    }

    /// Removes `hole`, wherever it is.
    pub(super) fn exclude(&mut self, hole: AddressRange) {
        self.free = self.free.iter().flat_map(|range| range.without(hole)).flatten().collect();
    }

    /// Takes the first `size` addresses at a multiple of `align`, a power of two.
    pub(super) fn take(&mut self, size: u64, align: u64) -> Option<AddressRange> {
        let taken = self.free.iter().find_map(|range| {
            let first = range.first.checked_next_multiple_of(align)?;
            AddressRange::new(first, size).filter(|candidate| range.contains(*candidate))
        })?;
        self.exclude(taken);
        Some(taken)
    }

    /// The largest contiguous piece left; `u64::MAX` also stands for the whole address space.
    pub(super) fn largest(&self) -> u64 {
        self.free.iter().map(|range| (range.last - range.first).saturating_add(1)).max().unwrap_or(0)
    }

    /// The remaining ranges.
    pub(super) fn into_ranges(self) -> Vec<AddressRange> {
        self.free
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(first: u64, last: u64) -> AddressRange {
        AddressRange::inclusive(first, last).unwrap()
    }

    #[test]
    fn a_range_is_not_empty_and_does_not_wrap() {
        assert_eq!(AddressRange::new(5, 0), None);
        assert_eq!(AddressRange::new(u64::MAX, 2), None);
        assert_eq!(AddressRange::new(u64::MAX, 1), Some(range(u64::MAX, u64::MAX)));
        assert_eq!(AddressRange::inclusive(6, 5), None);
    }

    #[test]
    fn a_hole_leaves_what_is_below_and_above() {
        let mut pool = Pool::new([range(10, 20)]);
        pool.exclude(range(12, 14));
        assert_eq!(pool.into_ranges(), [range(10, 11), range(15, 20)]);
        let mut pool = Pool::new([range(0, u64::MAX)]);
        pool.exclude(range(0, u64::MAX));
        assert_eq!(pool.into_ranges(), []);
    }

    #[test]
    fn take_honours_alignment_and_preference() {
        let mut pool = Pool::new([range(0x1001, 0x2FFF), range(0, 0xFFF)]);
        assert_eq!(pool.take(0x1000, 0x1000), Some(range(0x2000, 0x2FFF)));
        assert_eq!(pool.take(0x1000, 0x1000), Some(range(0, 0xFFF)));
        assert_eq!(pool.take(0x1000, 0x1000), None);
    }

    #[test]
    fn take_does_not_wrap_at_the_top() {
        let mut pool = Pool::new([range(u64::MAX - 10, u64::MAX)]);
        assert_eq!(pool.take(16, 16), None);
        assert_eq!(pool.take(u64::MAX, 1 << 63), None);
    }

    proptest! {
        #[test]
        fn taken_ranges_are_aligned_free_and_disjoint(
            base in 0..1_000_u64, length in 1..5_000_u64, wants in proptest::collection::vec(0..8_u32, 1..40),
        ) {
            let whole = AddressRange::new(base, length).unwrap();
            let mut pool = Pool::new([whole]);
            let mut given: Vec<AddressRange> = Vec::new();
            for order in wants {
                let size = 1 << order;
                if let Some(taken) = pool.take(size, size) {
                    prop_assert!(whole.contains(taken));
                    prop_assert_eq!(taken.first() % size, 0);
                    prop_assert!(given.iter().all(|other| !other.overlaps(taken)));
                    given.push(taken);
                }
            }
        }
    }
}
