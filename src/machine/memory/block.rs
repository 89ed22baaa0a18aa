//! Memory for a program's own use, straight from the page frames.

use ballonet::memory::{FrameRun, REGION_FRAMES};

use crate::machine::memory::frames;

/// Contiguous frames that this value owns, as words. Dropping it gives them back.
#[derive(Debug)]
pub(crate) struct Block {
    run: FrameRun,
}

impl Block {
    /// The longest free run of contiguous frames, up to `most` and a region; `None` when no frame is free.
    /// Memory is reclaimed before the run would come out of the kernel's reserve.
    pub(crate) fn allocate(most: u32) -> Option<Self> {
        let most = u64::from(most.clamp(1, REGION_FRAMES));
        frames::make_room(most);
        frames::allocate_up_to(most).map(|run| Self { run })
    }

    /// Which frames.
    pub(crate) fn run(&self) -> FrameRun {
        self.run
    }

    /// The contents. New frames hold anything.
    pub(crate) fn words(&self) -> &[u64] {
        let start = self.run.address() as *const u64;
        // SAFETY: the frames are this value's alone until it is dropped, mapped one to one, and any bits are a `u64`.
        unsafe { core::slice::from_raw_parts(start, (self.run.bytes() / 8) as usize) }
    }

    /// The contents, to be written.
    pub(crate) fn words_mut(&mut self) -> &mut [u64] {
        let start = self.run.address() as *mut u64;
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(start, (self.run.bytes() / 8) as usize) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Err(error) = frames::free(self.run) {
            ::log::error!("block: {error}");
        }
    }
}
