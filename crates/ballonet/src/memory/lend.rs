//! Lending frames to the host: frames that the balloon takes and returns.
//!
//! Frames in flight in either direction are *used*, by the driver. Inflating is `take_free`, the request, then
//! `confirm_ballooned`; deflating is `take_ballooned`, the request, then `release`.
#![forbid(unsafe_code)]

use super::FrameRun;
use super::error::{FrameError, Operation};
use super::frame_set::{FrameSet, REGION_FRAMES};
use super::frames::Frames;
use super::idle::IdleRun;
use super::list::{End, Zone};
use super::page_frames::{PageFrames, ReportFrames};
use super::region::{Family, FrameState, Link};

impl Frames<'_> {
    /// Number of frames that `Frames::take_free` leaves free.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Sets the number of frames that `Frames::take_free` leaves free.
    pub fn set_floor(&mut self, frames: u64) {
        self.floor = frames;
    }

    /// Takes free frames for the balloon; free -> used. Returns one contiguous run of at most `most` frames within a
    /// region, in constant time.
    ///
    /// If `most` is less than a region, a region that was started is finished first. Then come whole regions: first
    /// those used before, since inflating them frees host memory, last those reported to the host. Then come the
    /// largest remaining blocks, and memory below 16 MiB last of all. `None` if no more than the floor is free.
    pub(crate) fn take_free(&mut self, most: u32) -> Option<FrameRun> {
        let most = u64::from(most.min(REGION_FRAMES)).min(self.spare()) as u32;
        self.take_longest(Family::Free, most, &[&[Zone::High, Zone::Dma32], &[Zone::Isa]])
    }

    /// Free frames above the floor.
    pub(super) fn spare(&self) -> u64 {
        self.totals[FrameState::Free as usize].saturating_sub(self.floor)
    }

    /// Records that the host has a run from [`Frames::take_free`]; used -> ballooned.
    ///
    /// # Errors
    /// When a frame of `run` is not used. Then nothing changes.
    pub(crate) fn confirm_ballooned(&mut self, run: FrameRun) -> Result<(), FrameError> {
        self.shift_run(Operation::ConfirmBallooned, run, FrameState::Used, FrameState::Ballooned, End::Front)
    }

    /// Takes ballooned frames to request them back; ballooned -> used. Returns one contiguous run of at most `most`
    /// frames within a region, in constant time.
    ///
    /// If `most` is less than a region, a region that was started is finished first. Then comes the lowest zone,
    /// since low memory is scarce, whole regions first. `None` if nothing is ballooned.
    pub(crate) fn take_ballooned(&mut self, most: u32) -> Option<FrameRun> {
        let most = most.min(REGION_FRAMES);
        self.take_longest(Family::Ballooned, most, &[&[Zone::Isa], &[Zone::Dma32, Zone::High]])
    }

    /// Returns frames from the balloon to the kernel; used -> free. They are reused last, because the host may have
    /// discarded them.
    ///
    /// # Errors
    /// When a frame of `run` is not used. Then nothing changes.
    pub(crate) fn release(&mut self, run: FrameRun) -> Result<(), FrameError> {
        self.shift_run(Operation::Release, run, FrameState::Used, FrameState::Free, End::Back)
    }

    /// Makes the longest run of at most `most` frames used: from the region that was started, otherwise from the one
    /// with the largest block in the first group of zones that has any.
    fn take_longest(&mut self, family: Family, most: u32, groups: &[&[Zone]]) -> Option<FrameRun> {
        if most == 0 {
            return None;
        }
        let begun = self.opened[family as usize].index().filter(|_| most < REGION_FRAMES);
        let begun = begun.filter(|index| self.regions[*index].place(family).order().is_some());
        let lists = &self.lists[family as usize];
        let index = begun.or_else(|| groups.iter().find_map(|zones| lists.largest(zones)))?;
        let region = &self.regions[index];
        let (position, length) = region.frames(family.state()).longest_run()?;
        let run = region.run(position, length.min(most));
        let taken = FrameSet::range(position, run.count());
        self.shift(index, taken, family.state(), FrameState::Used, End::Front);
        self.opened[family as usize] = Link::to(index);
        Some(run)
    }
}

/// The driver's view. A misuse is a bug of the driver: it is logged and counted in
/// [`History::refusals`](super::History::refusals); the frames stay as they were.
impl PageFrames for Frames<'_> {
    fn take_free(&mut self, most: u32) -> Option<FrameRun> {
        Frames::take_free(self, most)
    }

    fn confirm_ballooned(&mut self, run: FrameRun) {
        log_refusal(Frames::confirm_ballooned(self, run));
    }

    fn take_ballooned(&mut self, most: u32) -> Option<FrameRun> {
        Frames::take_ballooned(self, most)
    }

    fn release(&mut self, run: FrameRun) {
        log_refusal(Frames::release(self, run));
    }

    fn reporting(&mut self) -> Option<&mut dyn ReportFrames> {
        Some(self)
    }
}

impl ReportFrames for Frames<'_> {
    fn take_unreported(&mut self, most: u32, age: u32) -> Option<FrameRun> {
        Frames::take_unreported(self, most, age)
    }

    fn release_reported(&mut self, run: FrameRun) {
        log_refusal(Frames::release_reported(self, run));
    }

    fn unreported(&self) -> u64 {
        Frames::unreported(self)
    }

    fn take_backed(&mut self, most: u32) -> Option<FrameRun> {
        Frames::take_backed(self, most)
    }

    fn age(&mut self) {
        self.tick();
    }

    fn take_idle(&mut self, most: u32, keep: u64) -> Option<IdleRun> {
        Frames::take_idle(self, most, keep)
    }
}

fn log_refusal(result: Result<(), FrameError>) {
    if let Err(error) = result {
        log::error!("{error}");
    }
}
