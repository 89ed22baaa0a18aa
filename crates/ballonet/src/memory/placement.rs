//! Finds a place for the allocator's records before there is an allocator.
#![forbid(unsafe_code)]

use core::ops::Range;

use super::address::{FRAME_SIZE, PhysAddr};
use super::frame_set::REGION_FRAMES;
use super::range::{PhysRange, Ranges, lend, union, usable_frames};

/// Picks whole frames for `bytes` bytes in `usable` memory, outside every `reserved` range and below the address
/// `limit`. `None` if there is no such place.
///
/// Of all places it takes the one that leaves the most 2 MiB regions whole, and of these the highest, to keep low
/// memory free.
pub fn place<U, R>(bytes: u64, limit: u64, usable: U, reserved: R) -> Option<PhysRange>
where
    U: IntoIterator<Item = PhysRange, IntoIter: Clone>,
    R: IntoIterator<Item = PhysRange, IntoIter: Clone>,
{
    place_in(bytes, limit, &lend(usable), &lend(reserved))
}

fn place_in(bytes: u64, limit: u64, usable: Ranges<'_>, reserved: Ranges<'_>) -> Option<PhysRange> {
    let needed = bytes.div_ceil(FRAME_SIZE).max(1);
    let start = vacant_frames(usable, reserved, limit / FRAME_SIZE)
        .filter(|vacant| vacant.end - vacant.start >= needed)
        .flat_map(|vacant| {
            // In a vacancy with whole regions, one of the ends is as good as any other place.
            [vacant.start, vacant.end - needed].map(|start| (regions_spoiled(&vacant, start..start + needed), start))
        })
        .min_by_key(|(spoiled, start)| (*spoiled, core::cmp::Reverse(*start)))?
        .1;
    PhysRange::new(PhysAddr::new(start * FRAME_SIZE)?, needed * FRAME_SIZE)
}

/// Number of whole regions of `vacant` that `taken` breaks.
fn regions_spoiled(vacant: &Range<u64>, taken: Range<u64>) -> u64 {
    let size = u64::from(REGION_FRAMES);
    let whole = vacant.start.div_ceil(size)..vacant.end / size;
    let first = whole.start.max(taken.start / size);
    whole.end.min(taken.end.div_ceil(size)).saturating_sub(first)
}

/// The usable frames below `limit` outside all reservations.
fn vacant_frames<'a>(usable: Ranges<'a>, reserved: Ranges<'a>, limit: u64) -> impl Iterator<Item = Range<u64>> {
    usable_frames(usable).flat_map(move |frames| {
        let end = frames.end.min(limit);
        let mut from = frames.start;
        // One more vacancy reaches from the last reservation to the end.
        let beyond = core::iter::once(end..u64::MAX);
        let reservations = union(reserved).map(PhysRange::frames_touched).chain(beyond);
        reservations.filter_map(move |reservation| {
            let vacant = from..reservation.start.min(end);
            from = from.max(reservation.end);
            (!vacant.is_empty()).then_some(vacant)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn range(start: u64, end: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(start).unwrap(), end - start).unwrap()
    }

    #[test]
    fn the_partial_region_at_the_end_of_memory_is_preferred() {
        let usable = [range(0, 0x9fc00), range(MIB, 0x7ffe_0000), range(1 << 32, 5 << 30)];
        let kernel = [range(0, 0x1000), range(16 * MIB, 17 * MIB)];
        assert_eq!(place(100 << 10, 1 << 32, usable, kernel), Some(range(0x7ffe_0000 - (100 << 10), 0x7ffe_0000)));
    }

    #[test]
    fn few_whole_regions_are_spoiled_when_some_must_be() {
        let usable = [range(MIB, 64 * MIB), range(100 * MIB, 200 * MIB)];
        // 3 MiB in the first range break one region besides its odd first MiB; elsewhere they break two.
        assert_eq!(place(3 * MIB, u64::MAX, usable, []), Some(range(MIB, 4 * MIB)));
    }

    #[test]
    fn nothing_is_placed_where_it_does_not_fit() {
        let usable = [range(0, 16 * MIB)];
        assert_eq!(place(17 * MIB, u64::MAX, usable, []), None);
        assert_eq!(place(9 * MIB, u64::MAX, usable, [range(8 * MIB, 8 * MIB + 1)]), None);
        assert_eq!(place(9 * MIB, 8 * MIB, usable, []), None);
        assert_eq!(place(1, u64::MAX, [], []), None);
    }

    proptest! {
        #[test]
        fn a_place_is_usable_unreserved_and_below_the_limit(
            usable in prop::collection::vec((0..64u64, 1..32u64), 1..5),
            reserved in prop::collection::vec((0..400_000u64, 1..40_000u64), 0..8),
            frames in 1..3000u64,
            limit in 0..100u64,
        ) {
            let usable: Vec<_> = usable.iter().map(|(at, size)| range(at * MIB, (at + size) * MIB)).collect();
            let reserved: Vec<_> = reserved.iter().map(|(at, size)| range(at * 256, (at + size) * 256)).collect();
            let vacant = |frame: u64| {
                usable.iter().any(|range| range.frames_within().contains(&frame))
                    && !reserved.iter().any(|range| range.frames_touched().contains(&frame))
                    && frame < limit * MIB / FRAME_SIZE
            };
            match place(frames * FRAME_SIZE, limit * MIB, usable.iter().copied(), reserved.iter().copied()) {
                Some(place) => {
                    prop_assert_eq!(place.bytes(), frames * FRAME_SIZE);
                    prop_assert!(place.frames_within().all(vacant));
                }
                None => {
                    let mut in_a_row = 0;
                    for frame in 0..100 * MIB / FRAME_SIZE {
                        in_a_row = if vacant(frame) { in_a_row + 1 } else { 0 };
                        prop_assert!(in_a_row < frames);
                    }
                }
            }
        }
    }
}
