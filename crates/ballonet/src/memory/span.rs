//! Where memory is: ranges of the address space in which every 2 MiB region has usable memory.
//!
//! Each region of a span has a record; other regions have none, so a gap costs nothing, however wide. Spans are never
//! joined across a gap: a span takes 12 bytes, less than the record of an empty region. A region with too little
//! usable memory to be worth a record counts as a gap, so that the records take at most 1/2048 of the managed memory,
//! whatever the map. A real memory map has fewer than ten spans, so a binary search of three or four steps finds a
//! frame's region.
#![forbid(unsafe_code)]

use core::ops::Range;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Pfn;
use super::frame_set::{FrameSet, REGION_FRAMES};
use super::range::{Ranges, usable_frames};
use super::region::{Region, region_number};

const PER_REGION: u64 = REGION_FRAMES as u64;

/// A region with fewer usable frames than this is left out: in the worst case it needs a span and a word of the
/// bitmap for itself.
const WORTH_A_RECORD: u64 = ((size_of::<Region>() + size_of::<Span>() + size_of::<u64>()) * 2048).div_ceil(4096) as u64;

/// A sequence of adjacent regions that all have usable memory. Plain data: the caller lends memory for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Span {
    /// The number of its first region: the address divided by 2 MiB.
    number: u32,
    /// How many regions.
    regions: u32,
    /// The index of its first region's record.
    index: u32,
}

impl Span {
    /// The indices of its regions' records.
    pub(super) fn indices(&self) -> Range<usize> {
        self.index as usize..self.index as usize + self.regions as usize
    }

    /// The number of the region whose record is at `index`, which is in the span.
    pub(super) fn number_at(&self, index: usize) -> u32 {
        self.number + (index as u32 - self.index)
    }

    /// The record indices of its regions with numbers `within` a range; empty if there are none.
    pub(super) fn indices_within(&self, within: Range<u64>) -> Range<usize> {
        let numbers = self.numbers();
        let clamp = |number: u64| number.clamp(u64::from(numbers.start), u64::from(numbers.end)) as u32;
        let index = |number: u64| (clamp(number) - self.number + self.index) as usize;
        index(within.start)..index(within.end)
    }

    fn numbers(&self) -> Range<u32> {
        self.number..self.number + self.regions
    }
}

/// The spans of a memory map, ascending.
pub(super) fn spans(usable: Ranges<'_>) -> impl Iterator<Item = Span> {
    let mut stretches = dense_regions(usable).peekable();
    let mut index = 0;
    core::iter::from_fn(move || {
        let mut numbers = stretches.next()?;
        while let Some(next) = stretches.next_if(|next| next.start == numbers.end) {
            numbers.end = next.end;
        }
        let span = Span { number: numbers.start, regions: numbers.end - numbers.start, index };
        index += span.regions;
        Some(span)
    })
}

/// The numbers of the regions worth a record, ascending, in ranges that may touch.
fn dense_regions(usable: Ranges<'_>) -> impl Iterator<Item = Range<u32>> {
    let mut pieces = usable_frames(usable).flat_map(by_region).filter(|(_, frames)| *frames > 0).peekable();
    core::iter::from_fn(move || {
        let (numbers, mut frames) = pieces.next()?;
        while let Some((_, more)) = pieces.next_if(|(next, _)| *next == numbers) {
            frames += more;
        }
        Some((numbers, frames))
    })
    .filter(|(_, frames)| *frames >= WORTH_A_RECORD)
    .map(|(numbers, _)| numbers.start as u32..numbers.end as u32)
}

/// Splits a range of frames into a partial region, whole regions and another partial region, each with its number of
/// frames per region. The last two may be empty.
fn by_region(frames: Range<u64>) -> [(Range<u64>, u64); 3] {
    let (first, last) = (frames.start / PER_REGION, frames.end / PER_REGION);
    let head = frames.end.min((first + 1) * PER_REGION) - frames.start;
    let tail = if last > first { frames.end % PER_REGION } else { 0 };
    let middle = first + 1..last.max(first + 1);
    let in_middle = if middle.is_empty() { 0 } else { PER_REGION };
    [(first..first + 1, head), (middle, in_middle), (last..last + 1, tail)]
}

/// The record index of the region with `frame`; `None` if there is no memory.
pub(super) fn find(spans: &[Span], frame: Pfn) -> Option<usize> {
    let number = region_number(frame);
    let after = spans.partition_point(|span| span.number <= number);
    let span = &spans[after.checked_sub(1)?];
    span.numbers().contains(&number).then(|| (span.index + (number - span.number)) as usize)
}

/// The frames of a range within one region.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// The index of the region's record.
    pub(super) index: usize,
    /// The number of its first frame.
    pub(super) start: u64,
    /// Number of frames.
    pub(super) count: u32,
}

impl Part {
    /// The position of its first frame in the region.
    pub(super) fn position(&self) -> u32 {
        (self.start % PER_REGION) as u32
    }

    /// The frames.
    pub(super) fn frames(&self) -> FrameSet {
        FrameSet::range(self.position(), self.count)
    }
}

/// Splits a range of frame numbers by region, ascending. Skips frames outside all regions.
pub(super) fn parts(spans: &[Span], frames: Range<u64>) -> impl DoubleEndedIterator<Item = Part> {
    let from = spans.partition_point(|span| u64::from(span.numbers().end) * PER_REGION <= frames.start);
    let to = spans.partition_point(|span| u64::from(span.number) * PER_REGION < frames.end);
    spans.get(from..to).unwrap_or(&[]).iter().flat_map(move |span| {
        let numbers = u64::from(span.number)..u64::from(span.numbers().end);
        let first = numbers.start.max(frames.start / PER_REGION);
        let last = numbers.end.min(frames.end.div_ceil(PER_REGION));
        let frames = frames.clone();
        (first..last).map(move |number| {
            let start = frames.start.max(number * PER_REGION);
            let end = frames.end.min((number + 1) * PER_REGION);
            Part { index: (number - numbers.start) as usize + span.index as usize, start, count: (end - start) as u32 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::range::{FRAME_NUMBERS, PhysRange, lend};
    use crate::memory::{FRAME_SIZE, PhysAddr};

    fn range(start: u64, end: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(start).unwrap(), end - start).unwrap()
    }

    #[test]
    fn holes_within_a_region_do_not_split_a_span_and_wide_gaps_do() {
        let mib = 1 << 20;
        let map =
            [range(1 << 32, (1 << 32) + 2 * mib), range(0, 640 << 10), range(mib, 3 * mib), range(5 * mib, 6 * mib)];
        let found: Vec<_> = spans(&lend(map)).collect();
        assert_eq!(found, [Span { number: 0, regions: 3, index: 0 }, Span { number: 2048, regions: 1, index: 3 },]);
        let index = |address| find(&found, Pfn((address / FRAME_SIZE) as u32));
        assert_eq!([0, 6 * mib - 1, 6 * mib, 1 << 32].map(index), [Some(0), Some(2), None, Some(3)]);
        assert_eq!(index((1 << 32) + 2 * mib), None);
        assert_eq!(found[1].number_at(3), 2048);
    }

    #[test]
    fn a_region_with_too_little_memory_is_a_gap() {
        let kib = 1 << 10;
        let few = [range(0, 2048 * kib), range(2048 * kib, 2248 * kib), range(4096 * kib, 6144 * kib)];
        assert_eq!(spans(&lend(few)).count(), 2);
        // Two pieces that together are enough.
        let enough = few.into_iter().chain([range(3000 * kib, 3200 * kib)]);
        assert_eq!(spans(&lend(enough)).collect::<Vec<_>>(), [Span { number: 0, regions: 3, index: 0 }]);
    }

    #[test]
    fn a_range_is_divided_by_region_and_gaps_left_out() {
        let mib = 1 << 20;
        let found: Vec<_> = spans(&lend([range(0, 4 * mib), range(8 * mib, 10 * mib)])).collect();
        let divided =
            |frames| parts(&found, frames).map(|part| (part.index, part.start, part.count)).collect::<Vec<_>>();
        assert_eq!(divided(5..6), [(0, 5, 1)]);
        assert_eq!(divided(500..2100), [(0, 500, 12), (1, 512, 512), (2, 2048, 52)]);
        assert_eq!(divided(1024..2048), []);
        assert_eq!(divided(1500..1600), []);
        assert_eq!(divided(4000..FRAME_NUMBERS), []);
    }

    #[test]
    fn the_very_last_frame_is_found() {
        let found: Vec<_> = spans(&lend([range(15 << 40, 17 << 40)])).collect();
        assert_eq!(find(&found, Pfn(u32::MAX)), Some((1 << 19) - 1));
        assert_eq!(find(&found, Pfn(0)), None);
        assert_eq!(find(&[], Pfn(0)), None);
    }
}
