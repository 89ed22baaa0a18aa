//! The page frame allocator, as drivers see it.

use ballonet::memory::{FrameContents, FrameRun, IdleRun, PageFrames, ReportFrames};

use super::{frames, marks};

/// The page frame allocator, as drivers see it.
pub(crate) struct MachineFrames;

impl PageFrames for MachineFrames {
    fn take_free(&mut self, most: u32) -> Option<FrameRun> {
        frames::take(|frames| frames.take_free(most))
    }

    fn confirm_ballooned(&mut self, run: FrameRun) {
        frames::with(|frames| PageFrames::confirm_ballooned(frames, run));
    }

    fn take_ballooned(&mut self, most: u32) -> Option<FrameRun> {
        frames::with(|frames| frames.take_ballooned(most))
    }

    fn release(&mut self, run: FrameRun) {
        frames::with(|frames| PageFrames::release(frames, run));
    }

    fn reporting(&mut self) -> Option<&mut dyn ReportFrames> {
        Some(self)
    }

    fn contents(&mut self) -> Option<&mut dyn FrameContents> {
        Some(self)
    }
}

impl ReportFrames for MachineFrames {
    fn take_unreported(&mut self, most: u32, age: u32) -> Option<FrameRun> {
        frames::take(|frames| frames.take_unreported(most, age))
    }

    fn unreported(&self) -> u64 {
        // A frame in a magazine keeps its region from being reported.
        frames::drain();
        frames::with(|frames| frames.unreported())
    }

    fn age(&mut self) {
        frames::with(ReportFrames::age);
    }

    fn release_reported(&mut self, run: FrameRun) {
        frames::with(|frames| ReportFrames::release_reported(frames, run));
    }

    fn take_backed(&mut self, most: u32) -> Option<FrameRun> {
        frames::take(|frames| frames.take_backed(most))
    }

    fn take_idle(&mut self, most: u32, keep: u64) -> Option<IdleRun> {
        frames::take(|frames| frames.take_idle(most, keep))
    }
}

impl FrameContents for MachineFrames {
    fn fill(&mut self, run: FrameRun, byte: u8) {
        // SAFETY: a driver fills frames that it has taken and not returned.
        unsafe { frames::fill(run, byte) };
    }

    fn mark(&mut self, run: FrameRun) -> bool {
        marks::write(run)
    }

    fn marks(&self, run: FrameRun) -> u32 {
        marks::count(run)
    }
}
