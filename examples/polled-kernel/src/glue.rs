//! Everything that the balloon needs of the kernel.

use core::ops::Range;
use core::ptr::NonNull;

use ballonet::memory::{FRAME_SIZE, Footprint, FrameRun, Frames, PhysRange, place};
use ballonet::raw::{BalloonKernel, Kernel};

pub struct Glue(pub Frames<'static>);

impl Glue {
    /// Manages all memory at `ram` with the library's allocator. A kernel with an allocator of its own implements
    /// `PageFrames` for that instead.
    pub fn new(ram: Range<u64>) -> Self {
        let usable = [PhysRange::parse(ram.start, ram.end - ram.start).expect("it is a range")];
        let bytes = Footprint::of(usable).bytes() as u64;
        let records = place(bytes, 1 << 32, usable, []).expect("there is room for the records");
        // SAFETY: the allocator never gives out its own records.
        let storage = unsafe { machine::keep(records.start().as_u64()..records.end()) };
        Self(Frames::new(storage, usable, [records]).expect("they are large enough"))
    }
}

/// Number of frames that hold `bytes`.
fn frames(bytes: usize) -> u32 {
    (bytes as u64).div_ceil(FRAME_SIZE) as u32
}

// SAFETY: all memory handed out is mapped, and the allocator gives each frame to one owner.
unsafe impl Kernel for Glue {
    fn map(&mut self, address: u64, length: usize) -> Option<NonNull<u8>> {
        machine::mapped(address, length)
    }
    fn allocate_dma(&mut self, size: usize, align: usize) -> Option<(NonNull<u8>, u64)> {
        let address = self.0.allocate(frames(size), frames(align)).ok()?.address();
        Some((machine::mapped(address, size)?, address))
    }
    fn release_dma(&mut self, _start: NonNull<u8>, device: u64, size: usize) {
        let run = FrameRun::at(device, frames(size)).expect("it was allocated");
        self.0.free(run).expect("it was allocated");
    }
    fn now(&self) -> u64 {
        machine::nanoseconds()
    }
}

impl BalloonKernel for Glue {
    type Frames = Frames<'static>;
    fn frames(&mut self) -> &mut Frames<'static> {
        &mut self.0
    }
}
