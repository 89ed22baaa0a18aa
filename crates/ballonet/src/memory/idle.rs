//! Idle memory: free regions that a migration need not copy, and what the host knows about them.
#![forbid(unsafe_code)]

use super::FrameRun;
use super::frame_set::REPORTED;
use super::frames::Frames;
use super::region::FrameState;
use super::report::UNKNOWN;

/// Free memory taken for hinting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleRun {
    /// The frames.
    pub run: FrameRun,
    /// Whether all of it was reported to the host, which may then have discarded it.
    pub reported: bool,
}

impl IdleRun {
    /// Frames that were not reported to the host.
    pub(crate) const fn unreported(run: FrameRun) -> Self {
        Self { run, reported: false }
    }
}

impl Frames<'_> {
    /// Takes free memory to hint to the host that its contents do not matter; free -> used. Returns a run of whole
    /// regions with at most `most` frames that leaves `keep` frames free beside the floor. The memory that has been
    /// free for longest comes first, reported memory last.
    ///
    /// `None` if there is no such region. Takes a step per region of the run and a binary search over the spans.
    pub(crate) fn take_idle(&mut self, most: u32, keep: u64) -> Option<IdleRun> {
        let kept = self.floor.saturating_add(keep);
        let spare = self.totals[FrameState::Free as usize].saturating_sub(kept);
        let most = u64::from(most).min(spare) as u32;
        let unreported = self.take_oldest(&UNKNOWN, most, 0).map(IdleRun::unreported);
        unreported.or_else(|| self.take_oldest(&[REPORTED], most, 0).map(|run| IdleRun { run, reported: true }))
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;
    use crate::memory::FrameError;
    use crate::memory::{Footprint, PhysAddr, PhysRange};

    const MIB: u64 = 1 << 20;

    /// Returns idle memory that was not written: its reported state stays valid.
    fn release(frames: &mut Frames<'_>, idle: IdleRun) -> Result<(), FrameError> {
        if idle.reported { frames.release_reported(idle.run) } else { frames.release(idle.run) }
    }

    /// Runs `test` on an allocator over these ranges, in MiB.
    fn with(map: &[(u64, u64)], test: impl FnOnce(&mut Frames<'_>)) {
        let range = |(start, end)| PhysRange::new(PhysAddr::new(start * MIB).unwrap(), (end - start) * MIB).unwrap();
        let usable: Vec<_> = map.iter().copied().map(range).collect();
        let mut storage = vec![0u64; Footprint::of(usable.iter().copied()).bytes().div_ceil(8)];
        let mut frames = Frames::new(storage.as_mut_slice().as_mut_bytes(), usable.iter().copied(), []).unwrap();
        test(&mut frames);
        frames.check().unwrap();
    }

    #[test]
    fn reported_memory_is_taken_last_and_is_still_reported_when_returned() {
        with(&[(16, 32)], |frames| {
            let reported = frames.take_unreported(4 * 512, 0).unwrap();
            frames.release_reported(reported).unwrap();
            let first = frames.take_idle(u32::MAX, 0).unwrap();
            assert_eq!((first.run.count(), first.reported), (4 * 512, false));
            let second = frames.take_idle(u32::MAX, 0).unwrap();
            assert_eq!(second, IdleRun { run: reported, reported: true });
            assert_eq!((frames.take_idle(u32::MAX, 0), frames.counts().reported_regions), (None, 0));
            release(frames, second).unwrap();
            release(frames, first).unwrap();
            assert_eq!((frames.counts().reported_regions, frames.unreported()), (4, 4 * 512));
        });
    }

    #[test]
    fn the_floor_and_the_frames_to_keep_stay_free() {
        with(&[(16, 48)], |frames| {
            frames.set_floor(512);
            let taken: u32 =
                core::iter::from_fn(|| frames.take_idle(3 * 512 + 7, 1024)).map(|idle| idle.run.count()).sum();
            assert_eq!((taken, frames.counts().free), (13 * 512, 3 * 512));
            assert_eq!(frames.take_idle(u32::MAX, u64::MAX), None);
        });
    }

    #[test]
    fn a_partly_used_region_is_not_idle() {
        with(&[(16, 20)], |frames| {
            frames.allocate(1, 1).unwrap();
            let idle = frames.take_idle(u32::MAX, 0).unwrap();
            assert_eq!((idle.run.count(), frames.take_idle(u32::MAX, 0)), (512, None));
            assert!(release(frames, idle).is_ok() && release(frames, idle).is_err());
        });
    }
}
