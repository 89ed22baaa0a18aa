//! Frames for the first page tables, before there is an allocator: taken upwards from the end of the kernel image.

use x86_64::PhysAddr as CpuAddr;
use x86_64::structures::paging::{FrameAllocator, PhysFrame, Size4KiB};

use ballonet::memory::{FRAME_SIZE, PhysAddr, PhysRange};

/// How much the entry code maps one to one.
const MAPPED: u64 = 4 << 30;

/// Takes frames in order from usable memory above `start`, skipping the loader's data.
pub(crate) struct BootFrames<U, R> {
    usable: U,
    reserved: R,
    start: u64,
    next: u64,
}

impl<U, R> BootFrames<U, R>
where
    U: Iterator<Item = PhysRange> + Clone,
    R: Iterator<Item = PhysRange> + Clone,
{
    /// Frames from `start` on, a frame boundary. `usable` is sorted.
    pub(crate) fn new(start: u64, usable: U, reserved: R) -> Self {
        Self { usable, reserved, start, next: start }
    }

    /// Everything between the first frame taken and the last. Reserve it.
    pub(crate) fn taken(&self) -> Option<PhysRange> {
        PhysRange::new(PhysAddr::new(self.start)?, self.next - self.start)
    }

    /// Whether the frame at `address` is usable, mapped and not reserved.
    fn is_vacant(&self, address: u64) -> bool {
        let end = address + FRAME_SIZE;
        let overlaps = |range: PhysRange| range.start().as_u64() < end && address < range.end();
        self.usable.clone().any(|range| range.start().as_u64() <= address && end <= range.end())
            && !self.reserved.clone().any(overlaps)
    }
}

// SAFETY: each frame is handed out once, is usable by the memory map, and lies outside the reserved ranges.
unsafe impl<U, R> FrameAllocator<Size4KiB> for BootFrames<U, R>
where
    U: Iterator<Item = PhysRange> + Clone,
    R: Iterator<Item = PhysRange> + Clone,
{
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        while self.next + FRAME_SIZE <= MAPPED {
            let address = self.next;
            self.next += FRAME_SIZE;
            if self.is_vacant(address) {
                return Some(PhysFrame::containing_address(CpuAddr::new(address)));
            }
        }
        None
    }
}
