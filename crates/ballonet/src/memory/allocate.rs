//! Allocation: finds the run of free frames that fragments the remaining memory least.
//!
//! - Up to 512 frames come from one region of the highest zone that has one; there, from the region whose largest
//!   block is the smallest that surely fits. So whole regions are broken last, and low memory is kept. This takes
//!   constant time.
//! - Only if no block surely fits, the search covers regions that may hold the run across block boundaries: those whose
//!   largest block is at least a quarter of the size.
//! - More than 512 frames come from adjacent wholly free regions. The search reads one bit per region (1 MiB for 16
//!   TiB); the allocation itself visits each region of the run.
#![forbid(unsafe_code)]

use super::FrameRun;
use super::error::AllocateError;
use super::frame_set::{FrameSet, REGION_FRAMES};
use super::frames::Frames;
use super::list::{End, Zone};
use super::range::FRAME_NUMBERS;
use super::region::{Family, FrameState};
use super::span::parts;

/// Number of frames and alignment in frames: both at least 1, the alignment a power of two.
#[derive(Clone, Copy)]
struct Request {
    frames: u32,
    align: u32,
}

impl Request {
    fn new(frames: u32, align: u32) -> Result<Self, AllocateError> {
        let valid = frames > 0 && align.is_power_of_two();
        if valid { Ok(Self { frames, align }) } else { Err(AllocateError::Malformed { frames, align }) }
    }

    /// Whether it fits into one region.
    fn fits_region(self) -> bool {
        self.frames <= REGION_FRAMES && self.align <= REGION_FRAMES
    }

    /// The order of a block that is sure to hold it, if it fits into a region.
    fn sure_order(self) -> u32 {
        self.frames.max(self.align).next_power_of_two().ilog2()
    }

    /// The order of the aligned block that every run of this length contains: 2^(k+1) - 1 frames always contain an
    /// aligned block of 2^k.
    fn least_order(self) -> u32 {
        (self.frames + 1).ilog2() - 1
    }

    /// The first position in `free` where it fits.
    fn fits_at(self, free: FrameSet) -> Option<u32> {
        (free.starts_of_runs(self.frames) & FrameSet::aligned(self.align)).first()
    }
}

impl Frames<'_> {
    /// Allocates `frames` contiguous frames; free -> used. The first frame's number is a multiple of `align`, a power
    /// of two.
    ///
    /// Up to 512 frames with an alignment of up to 512 lie in one 2 MiB region; this takes constant time while there
    /// is a free block of the next power of two. Longer runs start at a region's boundary and cost a search over one
    /// bit per region.
    ///
    /// # Errors
    /// [`AllocateError::Exhausted`] when there is no such run, [`AllocateError::Malformed`] when no frames are asked
    /// for or the alignment is not a power of two.
    pub fn allocate(&mut self, frames: u32, align: u32) -> Result<FrameRun, AllocateError> {
        let request = Request::new(frames, align)?;
        let run = if request.fits_region() {
            self.find_in_lists(request).or_else(|| self.search_lists(request))
        } else {
            self.find_regions(request)
        };
        self.take(request, run)
    }

    /// Marks the run found as used, or fails without one.
    fn take(&mut self, request: Request, found: Option<FrameRun>) -> Result<FrameRun, AllocateError> {
        let Some(run) = found else {
            self.history.failures += 1;
            let free = self.totals[FrameState::Free as usize];
            return Err(AllocateError::Exhausted { frames: request.frames, align: request.align, free });
        };
        let start = u64::from(run.start().0);
        let spans = self.spans;
        for part in parts(spans, start..start + u64::from(run.count())) {
            self.regions[part.index].set_touched();
            self.shift(part.index, part.frames(), FrameState::Free, FrameState::Used, End::Front);
        }
        self.history.allocations += 1;
        Ok(run)
    }

    /// A block of at most 2^`order` frames for a magazine, from the zone of single frames: the longest in regions
    /// that are already broken, otherwise from a whole region. In constant time.
    pub(super) fn find_for_magazine(&self, order: u32) -> Option<FrameRun> {
        let lists = &self.lists[Family::Free as usize];
        let zone = Zone::HIGHEST_FIRST.into_iter().find(|zone| lists.smallest(*zone, 0).is_some())?;
        let broken = |index: &usize| self.regions[*index].count(FrameState::Free) < REGION_FRAMES;
        let in_broken = |order| Some((order, lists.smallest(zone, order).filter(broken)?));
        let found = (0..=order).rev().find_map(in_broken);
        let (order, index) = found.or_else(|| Some((order, lists.smallest(zone, order)?)))?;
        self.find_in_region(Request { frames: 1 << order, align: 1 << order }, index)
    }

    /// A run in a region that surely has one.
    fn find_in_lists(&self, request: Request) -> Option<FrameRun> {
        let lists = &self.lists[Family::Free as usize];
        let index = Zone::HIGHEST_FIRST.iter().find_map(|zone| lists.smallest(*zone, request.sure_order()))?;
        self.find_in_region(request, index)
    }

    /// A run in a region that may have one, across block alignment.
    fn search_lists(&self, request: Request) -> Option<FrameRun> {
        let lists = &self.lists[Family::Free as usize];
        let orders = request.least_order()..request.sure_order();
        let candidates = Zone::HIGHEST_FIRST
            .into_iter()
            .flat_map(|zone| orders.clone().flat_map(move |order| lists.walk(&self.regions, zone, order)));
        candidates.into_iter().find_map(|index| self.find_in_region(request, index))
    }

    /// A run in a region.
    fn find_in_region(&self, request: Request, index: usize) -> Option<FrameRun> {
        let region = &self.regions[index];
        if region.count(FrameState::Free) < request.frames {
            return None;
        }
        let position = request.fits_at(region.frames(FrameState::Free))?;
        Some(region.run(position, request.frames))
    }

    /// A run of wholly free regions: above 4 GiB if possible, otherwise above 16 MiB.
    fn find_regions(&self, request: Request) -> Option<FrameRun> {
        let count = request.frames.div_ceil(REGION_FRAMES) as usize;
        let align = request.align.div_ceil(REGION_FRAMES) as usize;
        let limit = FRAME_NUMBERS / u64::from(REGION_FRAMES);
        if count > self.wholly_free.count() {
            return None;
        }
        Zone::HIGHEST_FIRST.into_iter().find_map(|zone| {
            let within = u64::from(zone.first_region())..limit;
            let index = self.spans.iter().rev().find_map(|span| {
                let indices = span.indices_within(within.clone());
                let offset = span.number_at(indices.start) as usize - indices.start;
                self.wholly_free.find(indices, count, align, offset)
            })?;
            FrameRun::new(self.regions[index].run(0, 1).start(), request.frames)
        })
    }
}
