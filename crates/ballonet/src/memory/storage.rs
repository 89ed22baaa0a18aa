//! Memory for the allocator's records: how much a memory map needs, and how the lent memory is divided.
//!
//! The allocator cannot allocate, since the heap is built on it. The kernel computes a [`Footprint`], finds a place
//! for it with [`place`](super::place), and lends the bytes to [`Frames::new`](super::Frames::new).
#![forbid(unsafe_code)]

use derive_more::{Display, Error};
use zerocopy::FromBytes;

use super::range::{PhysRange, Ranges, frames_beyond, lend};
use super::region::Region;
use super::span::{Span, spans};

const BITMAP_WORD: usize = u64::BITS as usize;

/// The size of the allocator's records for a memory map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footprint {
    /// 2 MiB regions that hold usable memory.
    pub regions: usize,
    /// Number of spans of adjacent regions.
    pub spans: usize,
    /// Frames at or above 16 TiB, which cannot be managed.
    pub beyond: u64,
}

impl Footprint {
    /// Alignment of the storage, in bytes.
    pub const ALIGN: usize = align_of::<Region>();

    /// The footprint for the `usable` ranges of a memory map.
    pub fn of<I>(usable: I) -> Self
    where
        I: IntoIterator<Item = PhysRange, IntoIter: Clone>,
    {
        Self::over(&lend(usable))
    }

    pub(super) fn over(usable: Ranges<'_>) -> Self {
        let empty = Self { regions: 0, spans: 0, beyond: frames_beyond(usable) };
        spans(usable).fold(empty, |sum, span| Self {
            regions: sum.regions + span.indices().len(),
            spans: sum.spans + 1,
            ..sum
        })
    }

    /// Words of the bitmap with a bit per region.
    pub(crate) const fn bitmap_words(&self) -> usize {
        self.regions.div_ceil(BITMAP_WORD)
    }

    /// Size of the storage in bytes: at most 1/2048 of the managed memory, whatever the map.
    pub const fn bytes(&self) -> usize {
        self.regions * size_of::<Region>() + self.bitmap_words() * size_of::<u64>() + self.spans * size_of::<Span>()
    }
}

/// The storage lent is too small or misaligned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Display, Error)]
#[display("the frame allocator's records need {needed} bytes aligned to {align}, not {given} bytes at {address:#x}")]
pub struct StorageError {
    /// Bytes needed.
    pub needed: usize,
    /// Alignment needed, in bytes.
    pub align: usize,
    /// Bytes given.
    pub given: usize,
    /// Their address.
    pub address: usize,
}

/// The lent memory, divided among the records. Its contents do not matter.
#[derive(Debug)]
pub(super) struct Storage<'a> {
    pub(super) regions: &'a mut [Region],
    pub(super) wholly_free: &'a mut [u64],
    pub(super) spans: &'a mut [Span],
}

impl<'a> Storage<'a> {
    /// Divides `bytes`, which must be aligned to [`Footprint::ALIGN`] and at least [`Footprint::bytes`] long.
    ///
    /// # Errors
    /// When the bytes are too few or misaligned.
    pub(super) fn new(bytes: &'a mut [u8], footprint: &Footprint) -> Result<Self, StorageError> {
        let error = StorageError {
            needed: footprint.bytes(),
            align: Footprint::ALIGN,
            given: bytes.len(),
            address: bytes.as_ptr().addr(),
        };
        let (regions, rest) = <[Region]>::mut_from_prefix_with_elems(bytes, footprint.regions).map_err(|_| error)?;
        let (wholly_free, rest) =
            <[u64]>::mut_from_prefix_with_elems(rest, footprint.bitmap_words()).map_err(|_| error)?;
        let (spans, _) = <[Span]>::mut_from_prefix_with_elems(rest, footprint.spans).map_err(|_| error)?;
        Ok(Self { regions, wholly_free, spans })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{FRAME_SIZE, Frames, PhysAddr};
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    fn footprint(ranges: &[(u64, u64)]) -> Footprint {
        Footprint::of(
            ranges.iter().map(|(start, end)| PhysRange::new(PhysAddr::new(*start).unwrap(), end - start).unwrap()),
        )
    }

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    const TIB: u64 = 1 << 40;

    /// Bytes of memory that a map's records describe.
    fn managed(ranges: &[(u64, u64)]) -> u64 {
        let footprint = footprint(ranges);
        let mut storage = vec![0u64; footprint.bytes().div_ceil(8)];
        let usable =
            ranges.iter().map(|(start, end)| PhysRange::new(PhysAddr::new(*start).unwrap(), end - start).unwrap());
        Frames::new(storage.as_mut_slice().as_mut_bytes(), usable, []).unwrap().counts().total * FRAME_SIZE
    }

    #[test]
    fn records_stay_under_a_2048th_of_memory_on_common_maps() {
        let maps = [
            vec![(0, 0x9fc00), (MIB, 16 * MIB)],
            vec![(0, 0x9fc00), (MIB, GIB)],
            vec![(0, 0x9fc00), (MIB, 2 * GIB), (4 * GIB, 22 * GIB)],
            (0..16).map(|tib| (tib * TIB, tib * TIB + 64 * MIB)).collect(),
        ];
        for map in maps {
            let memory: u64 = map.iter().map(|(start, end)| end - start).sum();
            assert!(memory - managed(&map) < 8192, "all but partial frames is managed");
            assert!(footprint(&map).bytes() as u64 * 2048 <= managed(&map));
        }
        let full = footprint(&[(0, 16 * TIB)]);
        assert_eq!(full.regions, 8 << 20);
        assert!(full.bytes() as u64 * 2048 * 6 <= 16 * TIB);
    }

    proptest! {
        #[test]
        fn records_stay_under_a_2048th_of_the_memory_managed_whatever_the_map(
            holes in prop::collection::vec((1..3 * MIB, 1..5 * MIB), 1..300),
        ) {
            let mut at = 0;
            let map: Vec<_> = holes.into_iter().map(|(memory, hole)| {
                let range = (at, at + memory);
                at += memory + hole;
                range
            }).collect();
            prop_assert!(footprint(&map).bytes() as u64 * 2048 <= managed(&map));
        }
    }

    #[test]
    fn a_gap_costs_a_span_and_nothing_else() {
        let near = footprint(&[(0, GIB), (4 * GIB, 5 * GIB)]);
        let far = footprint(&[(0, GIB), (15 * TIB, 15 * TIB + GIB)]);
        assert_eq!(near, far);
        assert_eq!((near.regions, near.spans), (1024, 2));
    }

    #[test]
    fn storage_too_small_or_misaligned_is_refused() {
        let needed = footprint(&[(0, 16 * MIB)]);
        let mut words = vec![0u64; needed.bytes().div_ceil(8) + 1];
        let bytes = words.as_mut_slice().as_mut_bytes();
        assert!(Storage::new(&mut bytes[..needed.bytes() - 1], &needed).is_err());
        let error = Storage::new(&mut bytes[1..], &needed).unwrap_err();
        assert_eq!((error.needed, error.align), (needed.bytes(), 8));
        let storage = Storage::new(bytes, &needed).unwrap();
        assert_eq!((storage.regions.len(), storage.wholly_free.len(), storage.spans.len()), (8, 1, 1));
    }
}
