//! Page frames over [`Hal::dma_alloc`](virtio_drivers::Hal::dma_alloc).

use ballonet::memory::{FRAME_SIZE, FrameRun, PageFrames};
use ballonet::raw::DmaFrames;
use virtio_drivers::{Hal, PAGE_SIZE};

use super::platform::Parts;

const _: () = assert!(PAGE_SIZE as u64 == FRAME_SIZE);

/// Page frames that the kernel allocates as DMA memory: [`DmaFrames`] of a [`Hal`].
///
/// Addresses of the `Hal` must be guest-physical: there is no IOMMU.
#[derive(Debug)]
pub struct HalFrames<H>(DmaFrames<Parts<H, ()>>);

impl<H: Hal> HalFrames<H> {
    /// Takes at most `limit` frames of 4 KiB. If [`Hal::dma_alloc`] panics when memory runs out, the kernel must have
    /// more than that.
    pub const fn new(limit: u32) -> Self {
        // Nothing here asks for the time.
        Self(DmaFrames::new(Parts::new((), || 0), limit))
    }
}

impl<H: Hal> PageFrames for HalFrames<H> {
    fn take_free(&mut self, most: u32) -> Option<FrameRun> {
        self.0.take_free(most)
    }

    fn confirm_ballooned(&mut self, run: FrameRun) {
        self.0.confirm_ballooned(run);
    }

    fn take_ballooned(&mut self, most: u32) -> Option<FrameRun> {
        self.0.take_ballooned(most)
    }

    fn release(&mut self, run: FrameRun) {
        self.0.release(run);
    }
}
