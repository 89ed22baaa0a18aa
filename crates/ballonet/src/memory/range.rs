//! Ranges of physical memory as firmware and loaders give them: in any order, overlapping, cut anywhere. They are
//! turned into sorted, disjoint whole frames without extra storage: each step scans all ranges again, which costs
//! less than sorting for the few hundred ranges that a memory map can have.
#![forbid(unsafe_code)]

use core::fmt;
use core::ops::Range;

use derive_more::{Display, Error};

use super::address::{FRAME_SIZE, PhysAddr};

/// Frame numbers end here: 2^32, for frames below 16 TiB.
pub(super) const FRAME_NUMBERS: u64 = 1 << 32;

/// A range of physical addresses: at least one byte, and all of it below 2^52.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PhysRange {
    start: u64,
    end: u64,
}

/// Why a start and a length do not form a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Display, Error)]
pub enum BadRange {
    /// The range is empty.
    #[display("it is empty")]
    Empty,
    /// The range exceeds the highest physical address, 2^52 - 1, or wraps around.
    #[display("it passes the highest physical address")]
    TooHigh,
}

impl PhysRange {
    /// The `bytes` bytes from `start`, or `None` if there are none or they exceed the highest physical address.
    pub const fn new(start: PhysAddr, bytes: u64) -> Option<Self> {
        match Self::parse(start.as_u64(), bytes) {
            Ok(range) => Some(range),
            Err(_) => None,
        }
    }

    /// The same from raw numbers, as in firmware's memory map.
    ///
    /// # Errors
    /// When the range is empty or exceeds the highest physical address.
    pub const fn parse(start: u64, bytes: u64) -> Result<Self, BadRange> {
        if bytes == 0 {
            return Err(BadRange::Empty);
        }
        match start.checked_add(bytes) {
            Some(end) if end <= PhysAddr::MAX.as_u64() + 1 => Ok(Self { start, end }),
            _ => Err(BadRange::TooHigh),
        }
    }

    /// The first byte's address.
    pub const fn start(self) -> PhysAddr {
        valid(self.start)
    }

    /// The address after the last byte. A number, since it may be 2^52, which is not a valid address.
    pub const fn end(self) -> u64 {
        self.end
    }

    /// Size in bytes, at least 1.
    pub const fn bytes(self) -> u64 {
        self.end - self.start
    }

    /// Whether `address` is in the range.
    pub const fn contains(self, address: PhysAddr) -> bool {
        self.start <= address.as_u64() && address.as_u64() < self.end
    }

    /// Whether the ranges have a byte in common.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The part below `limit`, if there is any.
    pub const fn below(self, limit: u64) -> Option<Self> {
        let end = if self.end < limit { self.end } else { limit };
        if self.start < end { Some(Self { start: self.start, end }) } else { None }
    }

    /// The numbers of the frames entirely inside it, possibly none. Not limited to 16 TiB yet.
    pub(super) const fn frames_within(self) -> Range<u64> {
        self.start.div_ceil(FRAME_SIZE)..self.end / FRAME_SIZE
    }

    /// The numbers of the frames that it touches. Not limited to 16 TiB yet.
    pub(super) const fn frames_touched(self) -> Range<u64> {
        self.start / FRAME_SIZE..self.end.div_ceil(FRAME_SIZE)
    }
}

/// An address known to be valid because it belongs to a range.
const fn valid(address: u64) -> PhysAddr {
    match PhysAddr::new(address) {
        Some(address) => address,
        None => unreachable!(),
    }
}

impl fmt::Display for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.start, self.end - 1)
    }
}

impl fmt::Debug for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Ranges in any order: gives each of them to a function, as often as it is called. No type parameter: callers chain
/// iterators, and all that follows would be compiled for each kind of chain.
pub(super) type Ranges<'a> = &'a dyn Fn(&mut dyn FnMut(PhysRange));

/// The ranges of an iterator as [`Ranges`].
pub(super) fn lend(ranges: impl IntoIterator<Item = PhysRange, IntoIter: Clone>) -> impl Fn(&mut dyn FnMut(PhysRange)) {
    let ranges = ranges.into_iter();
    move |take| ranges.clone().for_each(take)
}

/// The union of ranges, ascending; adjacent ranges are joined.
#[derive(Clone)]
struct Union<'a> {
    ranges: Ranges<'a>,
    /// The end of the last result.
    from: u64,
}

impl Iterator for Union<'_> {
    type Item = PhysRange;

    fn next(&mut self) -> Option<PhysRange> {
        // A range that starts before the end of the last result was part of it.
        let mut least: Option<u64> = None;
        (self.ranges)(&mut |PhysRange { start, .. }| {
            if start >= self.from && least.is_none_or(|least| start < least) {
                least = Some(start);
            }
        });
        let start = least?;
        let (mut end, mut reached) = (start, start);
        loop {
            (self.ranges)(&mut |range| {
                if range.start <= end {
                    reached = reached.max(range.end);
                }
            });
            if reached == end {
                break;
            }
            end = reached;
        }
        self.from = end;
        Some(PhysRange { start, end })
    }
}

/// The union of `ranges`, ascending; adjacent ranges are joined.
pub(super) fn union(ranges: Ranges<'_>) -> impl Iterator<Item = PhysRange> + Clone {
    Union { ranges, from: 0 }
}

/// The frame numbers that the `usable` ranges together contain, ascending, disjoint, below 2^32.
pub(super) fn usable_frames(usable: Ranges<'_>) -> impl Iterator<Item = Range<u64>> + Clone {
    union(usable)
        .map(PhysRange::frames_within)
        .map(|frames| frames.start..frames.end.min(FRAME_NUMBERS))
        .filter(|frames| !frames.is_empty())
}

/// Number of usable frames without a frame number, since they are at or above 16 TiB.
pub(super) fn frames_beyond(usable: Ranges<'_>) -> u64 {
    let beyond = |frames: Range<u64>| frames.end.saturating_sub(frames.start.max(FRAME_NUMBERS));
    union(usable).map(|range| beyond(range.frames_within())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, bytes: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(start).unwrap(), bytes).unwrap()
    }

    /// The first and last numbers of the usable frames.
    fn frames(ranges: &[PhysRange]) -> Vec<(u64, u64)> {
        usable_frames(&lend(ranges.iter().copied())).map(|frames| (frames.start, frames.end - 1)).collect()
    }

    #[test]
    fn a_limit_cuts_a_range_and_leaves_none_that_is_empty() {
        let range = PhysRange::parse(0x1000, 0x2000).unwrap();
        assert_eq!(range.below(u64::MAX), Some(range));
        assert_eq!(range.below(0x3000), Some(range));
        assert_eq!(range.below(0x1001), PhysRange::parse(0x1000, 1).ok());
        assert_eq!((range.below(0x1000), range.below(0)), (None, None));
        let all = PhysRange::parse(0, 1 << 52).unwrap();
        assert_eq!(all.below(1 << 46).map(PhysRange::bytes), Some(1 << 46));
    }

    #[test]
    fn ranges_are_valid_by_construction() {
        assert_eq!(PhysRange::parse(0x1000, 0), Err(BadRange::Empty));
        assert_eq!(PhysRange::parse(0x1000, u64::MAX), Err(BadRange::TooHigh));
        assert_eq!(PhysRange::parse(u64::MAX, 1), Err(BadRange::TooHigh));
        assert_eq!(PhysRange::new(PhysAddr::MAX, 2), None);
        let all = PhysRange::parse(0, 1 << 52).unwrap();
        assert_eq!((all.end(), all.bytes()), (1 << 52, 1 << 52));
    }

    #[test]
    fn neighbours_do_not_overlap() {
        let (low, high) = (range(0x1000, 0x1000), range(0x2000, 0x1000));
        assert!(!low.overlaps(high) && !high.overlaps(low));
        assert!(low.overlaps(range(0x1fff, 2)));
        let last = PhysAddr::new(low.end() - 1).unwrap();
        assert!(low.contains(last) && !low.contains(high.start()) && !high.contains(last));
    }

    #[test]
    fn a_frame_cut_by_two_adjacent_ranges_is_usable() {
        let ranges = [range(0x1800, 0x1800), range(0, 0x1800)];
        assert_eq!(frames(&ranges), [(0, 2)]);
    }

    #[test]
    fn partial_frames_at_the_edges_are_not_usable() {
        let ranges = [range(0x1001, 0x2fff), range(0x9000, 0xfff)];
        assert_eq!(frames(&ranges), [(2, 3)]);
    }

    #[test]
    fn frames_from_16_tib_on_are_left_out_and_counted() {
        let ranges = [range((16 << 40) - 0x2000, 0x5000), range(20 << 40, 0x4000)];
        assert_eq!(frames(&ranges), [(FRAME_NUMBERS - 2, FRAME_NUMBERS - 1)]);
        assert_eq!(frames_beyond(&lend(ranges)), 3 + 4);
    }

    proptest! {
        #[test]
        fn the_union_is_sorted_apart_and_holds_the_same_addresses(parts in prop::collection::vec((0..200u64, 1..40u64), 0..12)) {
            let ranges: Vec<_> = parts.iter().map(|(start, bytes)| range(*start, *bytes)).collect();
            let joined: Vec<_> = union(&lend(ranges.iter().copied())).collect();
            prop_assert!(joined.windows(2).all(|pair| pair[0].end < pair[1].start));
            let holds = |ranges: &[PhysRange], at| ranges.iter().any(|range| range.start <= at && at < range.end);
            for at in 0..250 {
                prop_assert_eq!(holds(&ranges, at), holds(&joined, at));
            }
        }
    }
}
