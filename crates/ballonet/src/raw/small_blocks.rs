//! Small blocks of DMA memory: several share a frame, for kernels that allocate whole frames.
//!
//! A frame goes back to the kernel once all its blocks have been released; a released block is not reused before that.

use core::ptr::NonNull;

use super::Kernel;

/// Bytes of a frame, and its alignment.
const FRAME: usize = 4096;
/// The largest block that shares a frame, in bytes, and the strictest alignment.
const LARGEST: usize = FRAME / 2;
/// The most frames that are shared at the same time.
const FRAMES: usize = 4;

/// A frame that blocks are cut from.
#[derive(Debug)]
struct Frame {
    start: NonNull<u8>,
    device: u64,
    /// Bytes ever allocated.
    cut: usize,
    /// Blocks not yet released.
    blocks: u32,
}

// SAFETY: the pointer is only kept for the kernel, which gets it back with the frame, and for the blocks.
unsafe impl Send for Frame {}

impl Frame {
    /// Cuts off a block, if there is room for it.
    fn cut(&mut self, size: usize, align: usize) -> Option<(NonNull<u8>, u64)> {
        let offset = self.cut.next_multiple_of(align);
        let end = offset.checked_add(size).filter(|end| *end <= FRAME)?;
        self.cut = end;
        self.blocks += 1;
        // SAFETY: it stays in the frame.
        Some((unsafe { self.start.add(offset) }, self.device + offset as u64))
    }
}

/// The frames that are shared now.
#[derive(Debug)]
pub(super) struct SmallBlocks([Option<Frame>; FRAMES]);

impl SmallBlocks {
    /// None.
    pub(super) const fn new() -> Self {
        Self([const { None }; FRAMES])
    }

    /// Allocates `size` bytes, aligned to the power of two `align`: in a shared frame if they fit there, else from the
    /// kernel.
    pub(super) fn allocate<K: Kernel>(
        &mut self,
        kernel: &mut K,
        size: usize,
        align: usize,
    ) -> Option<(NonNull<u8>, u64)> {
        if (1..=LARGEST).contains(&size) && align <= LARGEST {
            if let Some(block) = self.share(kernel, size, align) {
                return Some(block);
            }
        }
        kernel.allocate_dma(size, align)
    }

    /// Cuts a block from an existing frame, or else from a new one.
    fn share<K: Kernel>(&mut self, kernel: &mut K, size: usize, align: usize) -> Option<(NonNull<u8>, u64)> {
        if let Some(block) = self.0.iter_mut().flatten().find_map(|frame| frame.cut(size, align)) {
            return Some(block);
        }
        let place = self.0.iter_mut().find(|place| place.is_none())?;
        let (start, device) = kernel.allocate_dma(FRAME, FRAME)?;
        place.insert(Frame { start, device, cut: 0, blocks: 0 }).cut(size, align)
    }

    /// Releases what [`SmallBlocks::allocate`] gave for this `size`.
    pub(super) fn release<K: Kernel>(&mut self, kernel: &mut K, start: NonNull<u8>, device: u64, size: usize) {
        let holds = |frame: &Frame| device.checked_sub(frame.device).is_some_and(|offset| offset < FRAME as u64);
        let Some(place) = self.0.iter_mut().find(|place| place.as_ref().is_some_and(holds)) else {
            kernel.release_dma(start, device, size);
            return;
        };
        if let Some(frame) = place {
            frame.blocks -= 1;
            if frame.blocks == 0 {
                kernel.release_dma(frame.start, frame.device, FRAME);
                *place = None;
            }
        }
    }
}
