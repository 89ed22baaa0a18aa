//! Up to 64 frames that are allocated together and freed together.

use core::ptr::NonNull;

use crate::memory::{FrameRun, Pfn};

/// The most frames of a chunk.
pub(super) const MOST: u32 = u64::BITS;

/// Frames that were allocated together. Each is ballooned, used by the driver, or idle.
#[derive(Debug)]
pub(super) struct Chunk {
    start: u32,
    count: u32,
    pointer: NonNull<u8>,
    ballooned: u64,
    used: u64,
}

// SAFETY: the pointer is only kept for the kernel, which gets it back with the frames.
unsafe impl Send for Chunk {}

/// The bits of `count` frames from `first` on.
const fn bits(first: u32, count: u32) -> u64 {
    if count == 0 { 0 } else { (u64::MAX >> (MOST - count)) << first }
}

/// The first run of set bits, at most `most`.
fn first_run(set: u64, most: u32) -> Option<(u32, u32)> {
    if set == 0 || most == 0 {
        return None;
    }
    let first = set.trailing_zeros();
    Some((first, (set >> first).trailing_ones().min(most)))
}

impl Chunk {
    /// A chunk of idle frames, 1 to [`MOST`].
    pub(super) const fn new(start: u32, count: u32, pointer: NonNull<u8>) -> Self {
        Self { start, count, pointer, ballooned: 0, used: 0 }
    }

    /// The number of its first frame.
    pub(super) const fn start(&self) -> u32 {
        self.start
    }

    /// Number of frames.
    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// Its virtual address.
    pub(super) const fn pointer(&self) -> NonNull<u8> {
        self.pointer
    }

    /// Number of idle frames.
    pub(super) const fn idle(&self) -> u32 {
        self.count - (self.ballooned | self.used).count_ones()
    }

    /// Whether any frame is ballooned.
    pub(super) const fn has_ballooned(&self) -> bool {
        self.ballooned != 0
    }

    fn run(&self, (first, count): (u32, u32)) -> Option<FrameRun> {
        FrameRun::new(Pfn(self.start + first), count)
    }

    /// Takes idle frames; idle -> used.
    pub(super) fn take_idle(&mut self, most: u32) -> Option<FrameRun> {
        let run = first_run(bits(0, self.count) & !(self.ballooned | self.used), most)?;
        self.used |= bits(run.0, run.1);
        self.run(run)
    }

    /// Takes ballooned frames; ballooned -> used.
    pub(super) fn take_ballooned(&mut self, most: u32) -> Option<FrameRun> {
        let run = first_run(self.ballooned, most)?;
        self.used |= bits(run.0, run.1);
        self.ballooned &= !bits(run.0, run.1);
        self.run(run)
    }

    /// The frames of `run` in this chunk, and the rest of `run` behind it.
    fn part(&self, run: FrameRun) -> (u64, Option<FrameRun>) {
        let first = run.start().0 - self.start;
        let (part, rest) = run.split(self.count - first);
        (bits(first, part.count()), rest)
    }

    /// Used frames become ballooned. `run` begins in this chunk; returns the rest behind it.
    pub(super) fn confirm(&mut self, run: FrameRun) -> Option<FrameRun> {
        let (part, rest) = self.part(run);
        self.ballooned |= part & self.used;
        self.used &= !part;
        rest
    }

    /// Used frames become idle. `run` begins in this chunk; returns the rest behind it.
    pub(super) fn release(&mut self, run: FrameRun) -> Option<FrameRun> {
        let (part, rest) = self.part(run);
        self.used &= !part;
        rest
    }
}
