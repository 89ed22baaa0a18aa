//! Marks in page frames, which show later whether the host has discarded their contents.

use ballonet::memory::{FrameRun, FrameState, Pfn};

use crate::machine::memory::frames;

/// A value that no frame holds by chance: neither zeros nor a fill pattern.
const MARK: u64 = 0xB0A7_5EED_0000_0000;

fn mark(frame: Pfn) -> u64 {
    MARK | u64::from(frame.0)
}

fn word(frame: Pfn) -> *mut u64 {
    frame.start().as_u64() as *mut u64
}

/// Marks each frame of `run`, which is the caller's. Returns `false`, without marking, if a frame is unused.
pub(crate) fn write(run: FrameRun) -> bool {
    let used = frames::with(|frames| run.pfns().all(|frame| frames.state(frame) == Some(FrameState::Used)));
    if used {
        for frame in run.pfns() {
            // SAFETY: the frame is in use by the caller, so it is mapped one to one and no other code has a reference
            // to it.
            unsafe { word(frame).write_volatile(mark(frame)) };
        }
    }
    used
}

/// How many frames of `run`, which is the caller's, still have their marks.
pub(crate) fn count(run: FrameRun) -> u32 {
    // SAFETY: as above; any bits are a `u64`.
    let marked = |frame: &Pfn| unsafe { word(*frame).read_volatile() } == mark(*frame);
    run.pfns().filter(marked).count() as u32
}
