//! Memory shared with devices: page frames, reached through their one-to-one mapping. There is no IOMMU in use, so a
//! device's addresses are the physical ones.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use ballonet::memory::{FRAME_SIZE, FrameRun, Pfn, PhysAddr};
use ballonet::platform::DmaMemory;
use ballonet::raw::RawMemory;

use crate::machine::memory::frames;

/// Allocated regions.
static REGIONS: AtomicUsize = AtomicUsize::new(0);

/// The number of allocated regions.
pub(crate) fn regions() -> usize {
    REGIONS.load(Ordering::Relaxed)
}

/// How many frames `bytes` need, at least one.
fn frames_for(bytes: usize) -> Option<u32> {
    u32::try_from((bytes as u64).div_ceil(FRAME_SIZE).max(1)).ok()
}

/// At least `size` bytes, zeroed, in whole frames, aligned to `align` bytes (a power of two); `None` without such
/// memory.
pub(crate) fn allocate(size: usize, align: usize) -> Option<RawMemory> {
    let run = frames::allocate(frames_for(size)?, frames_for(align)?).ok()?;
    let address = run.start().start().as_u64();
    let start = NonNull::new(address as *mut u8)?;
    REGIONS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the frames were just allocated, and stay so until `free`; usable memory is mapped one to one.
    Some(unsafe { RawMemory::new(start, address, run.bytes() as usize) })
}

/// Frees memory from [`allocate`].
#[allow(clippy::needless_pass_by_value, reason = "it consumes the only handle to the memory")]
pub(crate) fn free(memory: RawMemory) {
    REGIONS.fetch_sub(1, Ordering::Relaxed);
    let start = PhysAddr::new(memory.device_address()).and_then(Pfn::containing);
    let run = start.zip(frames_for(memory.len())).and_then(|(start, count)| FrameRun::new(start, count));
    match run.map(frames::free) {
        Some(Ok(())) => {}
        Some(Err(error)) => log::error!("DMA memory: {error}"),
        None => log::error!("DMA memory: no frames at {:#x}", memory.device_address()),
    }
}
