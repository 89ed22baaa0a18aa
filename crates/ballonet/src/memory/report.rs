//! Free page reporting: tells the host which memory is free, so that it can discard the contents.
//!
//! Reports consist of whole 2 MiB regions, as many adjacent ones at once as possible. While a report is in flight its
//! frames are *used*, by the driver. When the host is done they are free again, on lists of their own behind all
//! other free memory. As soon as a frame of a region is allocated, the region no longer counts as reported.
//!
//! Free memory ages in ticks, whose length the driver decides. The region that has been free for longest is always at
//! the end of its list, so finding the next run to report costs the same for any amount of memory.
#![forbid(unsafe_code)]

use core::ops::Range;

use super::FrameRun;
use super::error::{FrameError, Operation};
use super::frame_set::{FrameSet, REGION_FRAMES, TOUCHED, WHOLE};
use super::frames::{Frames, numbers};
use super::list::{End, Zone};
use super::region::{Family, FrameState};
use super::span::parts;

/// The orders of wholly free regions that are not reported.
pub(super) const UNKNOWN: [u32; 2] = [WHOLE, TOUCHED];

impl Frames<'_> {
    /// Frames in wholly free regions that are not reported.
    pub(crate) fn unreported(&self) -> u64 {
        (self.wholly_free.count() - self.reported) as u64 * u64::from(REGION_FRAMES)
    }

    /// Ages free memory by one tick.
    pub(crate) fn tick(&mut self) {
        self.tick = self.tick.wrapping_add(1);
    }

    /// Takes unreported free memory to report it; free -> used. Returns a run of whole regions with at most `most`
    /// frames. It starts from the region that has been free for longest, and all its regions have been free for at
    /// least `age` ticks.
    ///
    /// `None` if there is no such region or `most` is less than one. Takes a step per region of the run and a binary
    /// search over the spans.
    pub(crate) fn take_unreported(&mut self, most: u32, age: u32) -> Option<FrameRun> {
        self.take_oldest(&UNKNOWN, most, age)
    }

    /// As [`Frames::take_unreported`], from the lists of `orders`, which must be those of wholly free regions.
    pub(super) fn take_oldest(&mut self, orders: &[u32], most: u32, age: u32) -> Option<FrameRun> {
        let most = (most / REGION_FRAMES) as usize;
        let lists = &self.lists[Family::Free as usize];
        let ends =
            Zone::HIGHEST_FIRST.into_iter().flat_map(|zone| orders.iter().map(move |order| lists.back(zone, *order)));
        let due = ends.flatten().filter(|index| most > 0 && self.is_due(*index, orders, age));
        let found = due.reduce(|oldest, other| if self.age(other) > self.age(oldest) { other } else { oldest })?;
        let indices = self.around(found, most, |index| self.is_due(index, orders, age));
        self.take_regions(indices)
    }

    /// Takes free memory that the host may back, for the balloon, to report it before it is inflated; free -> used.
    /// Returns a run of adjacent whole regions with at most `most` frames, in the order of [`Frames::take_free`]:
    /// regions used before come first.
    ///
    /// `None` if there is no such region, `most` is less than one, or only the floor would be left free. Memory below
    /// 16 MiB is not taken. Costs as much as [`Frames::take_unreported`].
    pub(crate) fn take_backed(&mut self, most: u32) -> Option<FrameRun> {
        let most = (u64::from(most).min(self.spare()) / u64::from(REGION_FRAMES)) as usize;
        let lists = &self.lists[Family::Free as usize];
        let fronts = UNKNOWN.into_iter().rev().filter_map(|order| lists.first(&[Zone::High, Zone::Dma32], order));
        let found = fronts.into_iter().find(|_| most > 0)?;
        let order = self.regions[found].place(Family::Free).order();
        let indices = self.around(found, most, |index| self.regions[index].place(Family::Free).order() == order);
        self.take_regions(indices)
    }

    /// Makes adjacent whole regions used.
    fn take_regions(&mut self, indices: Range<usize>) -> Option<FrameRun> {
        let first = self.regions[indices.start].run(0, 1).start();
        let run = FrameRun::new(first, indices.len() as u32 * REGION_FRAMES)?;
        for index in indices {
            self.shift(index, FrameSet::range(0, REGION_FRAMES), FrameState::Free, FrameState::Used, End::Front);
        }
        Some(run)
    }

    /// Returns a run from [`Frames::take_unreported`] that was reported to the host; used -> free.
    ///
    /// # Errors
    /// When a frame of `run` is not used. Then nothing changes.
    pub(crate) fn release_reported(&mut self, run: FrameRun) -> Result<(), FrameError> {
        self.shift_run(Operation::Release, run, FrameState::Used, FrameState::Free, End::Back)?;
        let spans = self.spans;
        for part in parts(spans, numbers(run)) {
            // For a region that was reported only in part, or that is partly used, it is unknown what the host
            // discarded.
            if part.count == REGION_FRAMES {
                self.regions[part.index].set_reported();
                self.file(part.index, Family::Free, End::Front);
            }
        }
        Ok(())
    }

    /// Whether the region at `index` has been wholly free for at least `age` ticks, on a list of one of `orders`.
    fn is_due(&self, index: usize, orders: &[u32], age: u32) -> bool {
        let listed = self.regions[index].place(Family::Free).order().is_some_and(|order| orders.contains(&order));
        listed && self.age(index) >= age
    }

    /// For how many ticks the region at `index` has been wholly free.
    fn age(&self, index: usize) -> u32 {
        self.tick.wrapping_sub(self.regions[index].freed_in())
    }

    /// The indices of up to `most` adjacent regions around the one at `index` for which `belongs` holds.
    fn around(&self, index: usize, most: usize, belongs: impl Fn(usize) -> bool) -> Range<usize> {
        let after = self.spans.partition_point(|span| span.indices().start <= index);
        let span = self.spans[after - 1].indices();
        let (mut start, mut end) = (index, index + 1);
        while end < span.end && end - start < most && belongs(end) {
            end += 1;
        }
        while start > span.start && end - start < most && belongs(start - 1) {
            start -= 1;
        }
        start..end
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;
    use crate::memory::{Footprint, PhysAddr, PhysRange};

    const MIB: u64 = 1 << 20;

    fn range(start: u64, end: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(start).unwrap(), end - start).unwrap()
    }

    /// Runs `test` on an allocator over these ranges, in MiB.
    fn with(map: &[(u64, u64)], test: impl FnOnce(&mut Frames<'_>)) {
        let usable: Vec<_> = map.iter().map(|(start, end)| range(start * MIB, end * MIB)).collect();
        let mut storage = vec![0u64; Footprint::of(usable.iter().copied()).bytes().div_ceil(8)];
        let mut frames = Frames::new(storage.as_mut_slice().as_mut_bytes(), usable.iter().copied(), []).unwrap();
        test(&mut frames);
        frames.check().unwrap();
    }

    /// A run as its start and length in MiB.
    fn mib(run: FrameRun) -> (u64, u64) {
        (run.start().start().as_u64() / MIB, run.bytes() / MIB)
    }

    #[test]
    fn all_free_memory_is_reported_once_in_runs_of_the_requested_length() {
        with(&[(16, 64), (4096, 4106)], |frames| {
            assert_eq!(frames.unreported() * 4096, 58 * MIB);
            let taken: Vec<_> = core::iter::from_fn(|| frames.take_unreported(8 * 512 + 3, 0)).collect();
            let runs: Vec<_> = taken.iter().copied().map(mib).collect();
            assert_eq!(runs, [(4096, 10), (16, 16), (32, 16), (48, 16)]);
            assert_eq!((frames.counts().free, frames.unreported()), (0, 0));
            taken.into_iter().for_each(|run| frames.release_reported(run).unwrap());
            assert_eq!((frames.counts().reported_regions, frames.counts().free_regions), (29, 29));
            assert_eq!(frames.take_unreported(u32::MAX, 0), None);
        });
    }

    #[test]
    fn allocating_a_frame_makes_its_region_unreported_again() {
        with(&[(16, 24)], |frames| {
            let all = frames.take_unreported(u32::MAX, 0).unwrap();
            frames.release_reported(all).unwrap();
            let one = frames.allocate(1, 1).unwrap();
            assert_eq!((frames.counts().reported_regions, frames.unreported()), (3, 0));
            frames.free(one).unwrap();
            assert_eq!(frames.unreported(), 512);
            let again = frames.take_unreported(u32::MAX, 0).unwrap();
            assert_eq!(again.count(), 512);
            assert!(again.pfns().any(|pfn| pfn == one.start()));
        });
    }

    #[test]
    fn reported_memory_is_allocated_last_and_ballooned_last() {
        with(&[(16, 24)], |frames| {
            let reported = frames.take_unreported(512, 0).unwrap();
            frames.release_reported(reported).unwrap();
            let ballooned: Vec<_> = core::iter::from_fn(|| frames.take_free(512)).collect();
            assert_eq!((ballooned.len(), ballooned[3]), (4, reported));
            ballooned.into_iter().for_each(|run| frames.free(run).unwrap());
            let first = frames.take_unreported(512, 0).unwrap();
            frames.release_reported(first).unwrap();
            let allocated: Vec<_> = core::iter::from_fn(|| frames.allocate(512, 1).ok()).collect();
            assert_eq!((allocated.len(), allocated[3]), (4, first));
        });
    }

    #[test]
    fn memory_is_reported_when_it_is_old_enough_the_oldest_first() {
        with(&[(16, 32)], |frames| {
            let runs = [(); 8].map(|()| frames.allocate(512, 512).unwrap());
            frames.free(runs[3]).unwrap();
            frames.tick();
            frames.free(runs[5]).unwrap();
            assert_eq!(frames.take_unreported(u32::MAX, 2), None);
            frames.tick();
            assert_eq!(frames.take_unreported(u32::MAX, 2), Some(runs[3]));
            assert_eq!(frames.take_unreported(u32::MAX, 2), None);
            frames.tick();
            assert_eq!(frames.take_unreported(u32::MAX, 2), Some(runs[5]));
        });
    }

    #[test]
    fn a_neighbour_that_is_too_young_ends_a_run() {
        with(&[(16, 22)], |frames| {
            let runs = [(); 3].map(|()| frames.allocate(512, 512).unwrap());
            let middle = runs.into_iter().find(|run| mib(*run).0 == 18).unwrap();
            runs.into_iter().filter(|run| *run != middle).for_each(|run| frames.free(run).unwrap());
            frames.tick();
            frames.free(middle).unwrap();
            assert_eq!(frames.take_unreported(u32::MAX, 1).map(FrameRun::count), Some(512));
            assert_eq!(frames.take_unreported(u32::MAX, 1).map(FrameRun::count), Some(512));
            assert_eq!(frames.take_unreported(u32::MAX, 1), None);
        });
    }

    #[test]
    fn deflated_memory_is_due_for_reporting_at_once() {
        with(&[(16, 24)], |frames| {
            let runs: Vec<_> = core::iter::from_fn(|| frames.take_free(512)).collect();
            frames.confirm_ballooned(runs[0]).unwrap();
            assert_eq!(frames.take_ballooned(512), Some(runs[0]));
            frames.release(runs[0]).unwrap();
            assert_eq!(frames.take_unreported(u32::MAX, 1000), Some(runs[0]));
        });
    }

    #[test]
    fn used_regions_are_ballooned_before_never_used_ones_in_any_zone() {
        with(&[(16, 24), (4096, 4104)], |frames| {
            // With all high memory ballooned, a frame comes from low memory.
            let ballooned: Vec<_> = (0..4).map(|_| frames.take_free(512).unwrap()).collect();
            ballooned.iter().for_each(|run| frames.confirm_ballooned(*run).unwrap());
            let low = frames.allocate(1, 1).unwrap();
            (0..4)
                .map(|_| frames.take_ballooned(512).unwrap())
                .collect::<Vec<_>>()
                .iter()
                .for_each(|run| frames.release(*run).unwrap());
            let high = frames.allocate(600, 1).unwrap();
            frames.free(low).unwrap();
            frames.free(high).unwrap();
            let taken: Vec<_> = core::iter::from_fn(|| frames.take_free(512)).collect();
            let had = [high, low].map(|run| mib(run).0 / 2 * 2);
            assert_eq!(mib(taken[0]).0 / 4, had[0] / 4, "the highest zone comes first");
            assert_eq!((mib(taken[2]).0, taken.len()), (had[1], 8));
            assert!(taken[3..5].iter().all(|run| mib(*run).0 >= 4096), "then never used regions, the highest first");
        });
    }

    #[test]
    fn a_region_the_host_has_had_since_counts_as_never_used() {
        with(&[(16, 24)], |frames| {
            let run = frames.allocate(512, 512).unwrap();
            frames.free(run).unwrap();
            assert_eq!(frames.take_free(512), Some(run));
            frames.confirm_ballooned(run).unwrap();
            assert_eq!(frames.take_ballooned(512), Some(run));
            frames.release(run).unwrap();
            let taken: Vec<_> = core::iter::from_fn(|| frames.take_free(512)).collect();
            assert_eq!(taken.last(), Some(&run));
        });
    }

    #[test]
    fn regions_reported_before_inflating_are_adjacent_and_used_ones_come_first() {
        with(&[(0, 64)], |frames| {
            let had = frames.allocate(5 * 512, 512).unwrap();
            frames.free(had).unwrap();
            assert_eq!(frames.take_backed(511), None);
            let first = frames.take_backed(3 * 512 + 100).unwrap();
            let second = frames.take_backed(u32::MAX).unwrap();
            assert_eq!((first.count(), second.count()), (3 * 512, 2 * 512));
            assert!([first, second].iter().all(|run| run.pfns().all(|pfn| had.pfns().any(|had| had == pfn))));
            let others = frames.take_backed(u32::MAX).unwrap();
            assert_eq!(frames.take_backed(u32::MAX), None);
            assert_eq!(frames.counts().free * 4096, 16 * MIB, "the lowest memory is left");
            frames.release_reported(others).unwrap();
            assert_eq!(frames.take_backed(u32::MAX), None, "it was reported");
        });
    }

    #[test]
    fn reporting_before_inflating_leaves_the_floor() {
        with(&[(16, 64)], |frames| {
            frames.set_floor(frames.counts().free - 1100);
            assert_eq!(frames.take_backed(u32::MAX).map(FrameRun::count), Some(1024));
            assert_eq!(frames.take_backed(u32::MAX), None);
        });
    }

    #[test]
    fn a_partly_used_region_is_not_reported() {
        with(&[(16, 18)], |frames| {
            let one = frames.allocate(1, 1).unwrap();
            assert_eq!((frames.unreported(), frames.take_unreported(u32::MAX, 0)), (0, None));
            frames.free(one).unwrap();
            assert_eq!(frames.take_unreported(511, 0), None);
        });
    }

    #[test]
    fn only_used_frames_can_be_returned_as_reported() {
        with(&[(16, 24)], |frames| {
            let run = frames.take_unreported(512, 0).unwrap();
            frames.release_reported(run).unwrap();
            assert!(frames.release_reported(run).is_err());
            assert_eq!(frames.counts().reported_regions, 1);
        });
    }
}
