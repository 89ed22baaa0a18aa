//! Page frames over [`Hal::dma_alloc`].

use alloc::vec::Vec;
use core::marker::PhantomData;

use ballonet::memory::{FRAME_SIZE, FrameRun, PageFrames, Pfn, PhysAddr};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE};

use super::chunk::{self, Chunk};

const _: () = assert!(PAGE_SIZE as u64 == FRAME_SIZE);

/// Page frames that the kernel allocates as DMA memory, up to 256 KiB at a time.
///
/// Frames allocated together are freed together, as [`Hal::dma_dealloc`] requires: up to 252 KiB stay allocated beside
/// the ballooned frames when the balloon shrinks step by step. The records take 40 bytes of heap per allocation; when
/// the heap is full, no more frames are taken.
///
/// Addresses of the `Hal` must be guest-physical: there is no IOMMU.
#[derive(Debug)]
pub struct HalFrames<H> {
    /// In order of their addresses.
    chunks: Vec<Chunk>,
    /// Frames in them.
    held: u32,
    limit: u32,
    hal: PhantomData<fn() -> H>,
}

impl<H: Hal> HalFrames<H> {
    /// Takes at most `limit` frames of 4 KiB. If [`Hal::dma_alloc`] panics when memory runs out, the kernel must have
    /// more than that.
    pub const fn new(limit: u32) -> Self {
        Self { chunks: Vec::new(), held: 0, limit, hal: PhantomData }
    }

    /// Frames allocated at present.
    pub const fn held(&self) -> u32 {
        self.held
    }

    /// The index of the chunk that `frame` is in.
    fn find(&self, frame: Pfn) -> Option<usize> {
        let index = self.chunks.partition_point(|chunk| chunk.start() <= frame.0).checked_sub(1)?;
        let chunk = &self.chunks[index];
        (frame.0 - chunk.start() < chunk.count()).then_some(index)
    }

    /// Allocates a chunk of at most `most` frames, and returns its index.
    fn allocate(&mut self, most: u32) -> Option<usize> {
        let mut count = most.min(chunk::MOST).min(self.limit - self.held);
        self.chunks.try_reserve(1).ok()?;
        while count > 0 {
            let (address, pointer) = H::dma_alloc(count as usize, BufferDirection::Both);
            let start = PhysAddr::new(address).filter(|_| address != 0).and_then(Pfn::containing);
            if let Some(start) = start {
                let index = self.chunks.partition_point(|chunk| chunk.start() < start.0);
                self.chunks.insert(index, Chunk::new(start.0, count, pointer));
                self.held += count;
                return Some(index);
            }
            if address != 0 {
                // SAFETY: just allocated. The frame numbers do not fit the balloon's 32 bits.
                unsafe { H::dma_dealloc(address, pointer, count as usize) };
                return None;
            }
            count /= 2;
        }
        None
    }

    /// Frees a chunk.
    fn deallocate(&mut self, index: usize) {
        let chunk = self.chunks.remove(index);
        self.held -= chunk.count();
        let address = Pfn(chunk.start()).start().as_u64();
        // SAFETY: it was allocated by these values, and none of its frames is ballooned or in use.
        let status = unsafe { H::dma_dealloc(address, chunk.pointer(), chunk.count() as usize) };
        if status != 0 {
            log::error!("page frames at {address:#x}: releasing them failed with error {status}");
        }
    }

    /// Applies `action` to the chunks that `run` touches.
    fn each(&mut self, run: FrameRun, action: fn(&mut Chunk, FrameRun) -> Option<FrameRun>) {
        let mut left = Some(run);
        while let Some(run) = left {
            let Some(index) = self.find(run.start()) else {
                log::error!("frame {:#x} was never taken", run.start().0);
                return;
            };
            left = action(&mut self.chunks[index], run);
            if self.chunks[index].is_idle() {
                self.deallocate(index);
            }
        }
    }
}

impl<H: Hal> PageFrames for HalFrames<H> {
    fn take_free(&mut self, most: u32) -> Option<FrameRun> {
        if let Some(run) = self.chunks.iter_mut().find_map(|chunk| chunk.take_idle(most)) {
            return Some(run);
        }
        let index = self.allocate(most)?;
        self.chunks[index].take_idle(most)
    }

    fn confirm_ballooned(&mut self, run: FrameRun) {
        self.each(run, Chunk::confirm);
    }

    fn take_ballooned(&mut self, most: u32) -> Option<FrameRun> {
        self.chunks.iter_mut().rev().find_map(|chunk| chunk.take_ballooned(most))
    }

    fn release(&mut self, run: FrameRun) {
        self.each(run, Chunk::release);
    }
}

#[cfg(test)]
mod tests;
