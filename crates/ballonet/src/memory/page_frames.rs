//! What a balloon needs of a kernel's page frame allocator: four methods and two optional parts.
//!
//! A frame is free, used, ballooned or reserved. Frames in flight in either direction are *used*, by the driver.
//! Inflating is [`PageFrames::take_free`], the request, [`PageFrames::confirm_ballooned`]; deflating is
//! [`PageFrames::take_ballooned`], the request, [`PageFrames::release`]. Counts are in 4 KiB frames.

use super::{FrameRun, IdleRun};

/// Page frames that a driver may give to the host and take back.
pub trait PageFrames {
    /// Takes one contiguous run of at most `most` free frames; free -> used. A single frame is always right: longer runs
    /// only save calls, and are not worth a long search.
    ///
    /// `None` when nothing is free above the kernel's own reserve, or when there is no room to record that the host has
    /// the run: [`PageFrames::confirm_ballooned`] cannot fail.
    fn take_free(&mut self, most: u32) -> Option<FrameRun>;

    /// Records that the host has `run`; used -> ballooned.
    fn confirm_ballooned(&mut self, run: FrameRun);

    /// Picks a run of at most `most` ballooned frames to request back from the host; ballooned -> used.
    fn take_ballooned(&mut self, most: u32) -> Option<FrameRun>;

    /// Returns frames to the kernel; used -> free.
    fn release(&mut self, run: FrameRun);

    /// The address at which the device accesses reported and hinted frames (`ACCESS_PLATFORM`); by default the
    /// physical one. Frame numbers in inflate and deflate requests are always physical, by the definition of the
    /// balloon.
    fn device_address(&self, run: FrameRun) -> u64 {
        run.address()
    }

    /// The allocator's tracking of free memory, for free page reporting. By default there is none: nothing is
    /// reported, and hinting takes what [`PageFrames::take_free`] gives.
    fn reporting(&mut self) -> Option<&mut dyn ReportFrames> {
        None
    }

    /// Access to the contents of frames. By default there is none: `PAGE_POISON` is not accepted, the driver keeps
    /// hinted frames until the host is done, and requests have one descriptor.
    fn contents(&mut self) -> Option<&mut dyn FrameContents> {
        None
    }
}

/// An allocator that tracks which free memory was reported to the host (virtio 1.4, 5.5.6.7).
pub trait ReportFrames: PageFrames {
    /// Takes free memory that was not reported, to report it: a run of at most `most` frames, as large and aligned as
    /// hosts prefer, that has been free for at least `age` calls of [`ReportFrames::age`]; free -> used.
    fn take_unreported(&mut self, most: u32, age: u32) -> Option<FrameRun>;

    /// Frames that [`ReportFrames::take_unreported`] could give, whatever their age.
    fn unreported(&self) -> u64;

    /// Lets free memory age by one.
    fn age(&mut self);

    /// Returns reported frames; used -> free. Their contents are undefined, and they must not be reported again until
    /// they have been used.
    fn release_reported(&mut self, run: FrameRun) {
        self.release(run);
    }

    /// Takes free memory that the host may back, to report it before it is inflated: a run of at most `most` frames,
    /// large and aligned, memory used before first; free -> used. `None` if only the kernel's own reserve is left.
    fn take_backed(&mut self, _most: u32) -> Option<FrameRun> {
        None
    }

    /// Takes free memory with contents that do not matter, so that a migration need not copy it (5.5.6.5): a run of
    /// at most `most` frames that leaves `keep` frames free beside the kernel's own reserve; free -> used. It is
    /// returned by [`ReportFrames::release_reported`] or [`PageFrames::release`].
    fn take_idle(&mut self, most: u32, _keep: u64) -> Option<IdleRun> {
        self.take_free(most).map(IdleRun::unreported)
    }
}

/// A kernel that can write and read frames held by the driver.
pub trait FrameContents {
    /// Fills each frame of `run` with `byte`.
    fn fill(&mut self, run: FrameRun, byte: u8);

    /// Writes a mark into each frame of `run`, to show later whether the host discarded the contents. Returns whether
    /// it wrote one; the default does not.
    fn mark(&mut self, _run: FrameRun) -> bool {
        false
    }

    /// Number of frames of `run` that still hold the mark of [`FrameContents::mark`].
    fn marks(&self, _run: FrameRun) -> u32 {
        0
    }
}

/// Returns reported frames to an allocator that may not track them.
pub(crate) fn release_reported(frames: &mut impl PageFrames, run: FrameRun) {
    match frames.reporting() {
        Some(books) => books.release_reported(run),
        None => frames.release(run),
    }
}

/// Takes idle memory, by default what a balloon could take.
pub(crate) fn take_idle(frames: &mut impl PageFrames, most: u32, keep: u64) -> Option<IdleRun> {
    match frames.reporting() {
        Some(books) => books.take_idle(most, keep),
        None => frames.take_free(most).map(IdleRun::unreported),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Pfn;

    /// An allocator with only the four methods.
    struct Minimal(Option<FrameRun>);

    impl PageFrames for Minimal {
        fn take_free(&mut self, most: u32) -> Option<FrameRun> {
            self.0.take().map(|run| run.split(most).0)
        }
        fn confirm_ballooned(&mut self, _run: FrameRun) {}
        fn take_ballooned(&mut self, _most: u32) -> Option<FrameRun> {
            None
        }
        fn release(&mut self, run: FrameRun) {
            self.0 = Some(run);
        }
    }

    #[test]
    fn an_allocator_without_tracking_hints_what_a_balloon_could_take() {
        let run = FrameRun::new(Pfn(512), 1024).unwrap();
        let mut minimal = Minimal(Some(run));
        let idle = take_idle(&mut minimal, 600, 10).unwrap();
        assert_eq!((idle.run.count(), idle.reported, take_idle(&mut minimal, 600, 10)), (600, false, None));
        release_reported(&mut minimal, run);
        assert_eq!(minimal.0, Some(run));
        assert!(minimal.contents().is_none());
    }
}
