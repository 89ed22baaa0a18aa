//! Simulated memory, and the shapes that it can have.

use ballonet::memory::{FRAME_SIZE, Footprint, Frames, PageFrames, PhysAddr, PhysRange, ReportFrames};
use zerocopy::IntoBytes;

const GIB: u64 = 1 << 30;
const MIB2: u64 = 2 << 20;

/// The sizes of memory: names and bytes.
pub(crate) const SIZES: [(&str, u64); 4] =
    [("1 GiB", GIB), ("64 GiB", 64 * GIB), ("1 TiB", 1024 * GIB), ("16 TiB", 16 * 1024 * GIB)];

/// Which part of memory is used or reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// All free, none reported.
    Free,
    /// All used but 2 MiB at the end that the search reaches last.
    Full,
    /// One frame of each 2 MiB is used, except in every 64th.
    Fragmented,
    /// All free, and all but 2 MiB reported.
    Reported,
}

impl Shape {
    pub(crate) const ALL: [Self; 4] = [Self::Free, Self::Full, Self::Fragmented, Self::Reported];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Full => "full but 2 MiB",
            Self::Fragmented => "fragmented",
            Self::Reported => "reported but 2 MiB",
        }
    }
}

/// Memory of a given size, without holes.
pub(crate) struct Memory {
    usable: PhysRange,
    records: Vec<u64>,
}

/// Bytes of the allocator's records for the given bytes of memory.
pub(crate) fn records(bytes: u64) -> u64 {
    Footprint::of([range(0, bytes)]).bytes() as u64
}

fn range(start: u64, bytes: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start).unwrap(), bytes).unwrap()
}

impl Memory {
    pub(crate) fn new(bytes: u64) -> Self {
        let words = records(bytes).div_ceil(8) as usize;
        Self { usable: range(0, bytes), records: vec![0; words] }
    }

    /// The allocator, with memory in this shape.
    pub(crate) fn frames_in(&mut self, shape: Shape) -> Frames<'_> {
        // A frame of each region but one in 64.
        let strewn = (0..self.usable.bytes() / MIB2).filter(|region| shape == Shape::Fragmented && region % 64 != 63);
        let reserved = strewn.map(|region| range(region * MIB2, FRAME_SIZE));
        let mut frames = Frames::new(self.records.as_mut_slice().as_mut_bytes(), [self.usable], reserved).unwrap();
        match shape {
            Shape::Free | Shape::Fragmented => {}
            Shape::Full => {
                let last = std::iter::from_fn(|| frames.take_free(512)).last().unwrap();
                frames.free(last).unwrap();
            }
            Shape::Reported => {
                while let Some(run) = frames.take_unreported(512 * 16, 0) {
                    frames.release_reported(run);
                }
                let run = frames.allocate(512, 512).unwrap();
                frames.free(run).unwrap();
            }
        }
        frames
    }
}
