//! Page frames over [`Kernel::allocate_dma`].

use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;

use super::chunk::{self, Chunk};
use super::{BalloonKernel, Kernel, RawRegisters};
use crate::balloon::Statistics;
use crate::memory::{FRAME_SIZE, FrameRun, PageFrames, Pfn};
use crate::platform::{Handler, Vector, VectorError};

/// A kernel whose page frames come from [`Kernel::allocate_dma`], up to 256 KiB at a time: for a kernel with an
/// allocator of its own that need not know of balloons.
///
/// Frames allocated together are released together: up to 252 KiB stay allocated beside the ballooned frames when the
/// balloon shrinks step by step. The records take 40 bytes of heap per allocation, in one block that doubles as it
/// grows; when there is no such block, no more frames are taken. Free pages are not reported.
///
/// Device addresses must be guest-physical: there is no IOMMU.
#[derive(Debug)]
pub struct DmaFrames<K> {
    /// The kernel's functions.
    pub kernel: K,
    /// In order of their addresses.
    chunks: Vec<Chunk>,
    /// Frames in them.
    held: u32,
    /// Those of them that are neither ballooned nor used.
    idle: u32,
    /// No chunk from this index on has ballooned frames.
    end: usize,
    limit: u32,
    /// The most frames of the next allocation.
    most: u32,
}

impl<K: Kernel> DmaFrames<K> {
    /// Takes at most `limit` frames of 4 KiB; the kernel keeps the rest.
    pub const fn new(kernel: K, limit: u32) -> Self {
        Self { kernel, chunks: Vec::new(), held: 0, idle: 0, end: 0, limit, most: chunk::MOST }
    }

    /// The index of the chunk that `frame` is in.
    fn find(&self, frame: Pfn) -> Option<usize> {
        let index = self.chunks.partition_point(|chunk| chunk.start() <= frame.0).checked_sub(1)?;
        let chunk = &self.chunks[index];
        (frame.0 - chunk.start() < chunk.count()).then_some(index)
    }

    /// Allocates a chunk of at most `most` frames, and returns its index. Where memory is fragmented, what was too much
    /// is not tried again before memory has been released: an allocator may search all of it in vain.
    fn allocate(&mut self, most: u32) -> Option<usize> {
        self.chunks.try_reserve(1).ok()?;
        let mut count = most.min(self.most).min(self.limit - self.held);
        while count > 0 {
            if let Some((pointer, address)) = self.kernel.allocate_dma(bytes(count), FRAME_SIZE as usize) {
                return self.insert(pointer, address, count);
            }
            count /= 2;
            self.most = count;
        }
        self.most = chunk::MOST;
        None
    }

    fn insert(&mut self, pointer: NonNull<u8>, address: u64, count: u32) -> Option<usize> {
        let Some(run) = FrameRun::at(address, count) else {
            // Not a frame's address, or beyond the balloon's 32-bit frame numbers.
            self.kernel.release_dma(pointer, address, bytes(count));
            return None;
        };
        let start = run.start().0;
        let index = self.chunks.partition_point(|chunk| chunk.start() < start);
        self.chunks.insert(index, Chunk::new(start, count, pointer));
        self.end += usize::from(index < self.end);
        self.held += count;
        self.idle += count;
        Some(index)
    }

    /// Releases a chunk.
    fn deallocate(&mut self, index: usize) {
        let chunk = self.chunks.remove(index);
        self.end -= usize::from(index < self.end);
        self.most = chunk::MOST;
        self.held -= chunk.count();
        self.idle -= chunk.count();
        self.kernel.release_dma(chunk.pointer(), Pfn(chunk.start()).start().as_u64(), bytes(chunk.count()));
    }

    /// Applies `action` to the chunks that `run` touches.
    fn each(&mut self, run: FrameRun, action: fn(&mut Chunk, FrameRun) -> Option<FrameRun>) {
        let mut left = Some(run);
        while let Some(run) = left {
            let Some(index) = self.find(run.start()) else {
                log::error!("frame {:#x} was never taken", run.start().0);
                return;
            };
            let chunk = &mut self.chunks[index];
            let before = chunk.idle();
            left = action(chunk, run);
            let after = chunk.idle();
            if chunk.has_ballooned() {
                self.end = self.end.max(index + 1);
            }
            self.idle = self.idle - before + after;
            if after == chunk.count() {
                self.deallocate(index);
            }
        }
    }
}

/// Bytes of `count` frames.
const fn bytes(count: u32) -> usize {
    count as usize * FRAME_SIZE as usize
}

impl<K: Kernel> PageFrames for DmaFrames<K> {
    fn take_free(&mut self, most: u32) -> Option<FrameRun> {
        let run = match self.idle {
            0 => {
                let index = self.allocate(most)?;
                self.chunks[index].take_idle(most)
            }
            _ => self.chunks.iter_mut().find_map(|chunk| chunk.take_idle(most)),
        }?;
        self.idle -= run.count();
        Some(run)
    }

    fn confirm_ballooned(&mut self, run: FrameRun) {
        self.each(run, Chunk::confirm);
    }

    fn take_ballooned(&mut self, most: u32) -> Option<FrameRun> {
        // Chunks in flight are not searched again for each that is taken.
        while let Some(chunk) = self.chunks[..self.end].last_mut() {
            if let Some(run) = chunk.take_ballooned(most) {
                return Some(run);
            }
            self.end -= 1;
        }
        None
    }

    fn release(&mut self, run: FrameRun) {
        self.each(run, Chunk::release);
    }
}

// SAFETY: each promise is the kernel's own.
unsafe impl<K: Kernel> Kernel for DmaFrames<K> {
    fn map(&mut self, address: u64, length: usize) -> Option<NonNull<u8>> {
        self.kernel.map(address, length)
    }

    fn unmap(&mut self, start: NonNull<u8>, length: usize) {
        self.kernel.unmap(start, length);
    }

    fn allocate_dma(&mut self, size: usize, align: usize) -> Option<(NonNull<u8>, u64)> {
        self.kernel.allocate_dma(size, align)
    }

    fn release_dma(&mut self, start: NonNull<u8>, device: u64, size: usize) {
        self.kernel.release_dma(start, device, size);
    }

    fn allocate_vector(
        &mut self,
        name: fmt::Arguments<'_>,
        handler: Handler<RawRegisters>,
    ) -> Result<Vector, VectorError> {
        self.kernel.allocate_vector(name, handler)
    }

    fn release_vector(&mut self, vector: Vector) {
        self.kernel.release_vector(vector);
    }

    fn now(&self) -> u64 {
        self.kernel.now()
    }

    fn statistics(&self) -> Statistics {
        self.kernel.statistics()
    }
}

impl<K: Kernel> BalloonKernel for DmaFrames<K> {
    type Frames = Self;

    fn frames(&mut self) -> &mut Self {
        self
    }
}

#[cfg(test)]
mod tests;
