//! Memory shared with devices: page frames, reached through their one-to-one mapping.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use ballonet::memory::{FRAME_SIZE, FrameRun};
use ballonet::platform::DmaMemory;

use crate::machine::memory::frames;

/// Whole frames of memory that a device may read and write. There is no IOMMU in use, so the device's addresses are the
/// physical ones.
#[derive(Debug)]
pub(crate) struct DmaRegion {
    run: FrameRun,
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the region is memory that this value alone reaches, on any CPU.
unsafe impl Send for DmaRegion {}

/// Regions that are given out.
static REGIONS: AtomicUsize = AtomicUsize::new(0);

/// How many regions are given out.
pub(crate) fn regions() -> usize {
    REGIONS.load(Ordering::Relaxed)
}

impl DmaRegion {
    /// At least `size` bytes, zeroed, aligned to `align` bytes (a power of two); `None` without such memory.
    pub(crate) fn allocate(size: usize, align: usize) -> Option<Self> {
        let count = u32::try_from((size as u64).div_ceil(FRAME_SIZE).max(1)).ok()?;
        let align = u32::try_from((align as u64).div_ceil(FRAME_SIZE).max(1)).ok()?;
        let run = frames::allocate(count, align).ok()?;
        let start = NonNull::new(run.start().start().as_u64() as *mut u8)?;
        // SAFETY: the frames were just allocated, and usable memory is mapped one to one.
        unsafe { start.write_bytes(0, run.bytes() as usize) };
        REGIONS.fetch_add(1, Ordering::Relaxed);
        Some(Self { run, start, length: run.bytes() as usize })
    }

    /// Gives the memory back.
    pub(crate) fn free(self) {
        REGIONS.fetch_sub(1, Ordering::Relaxed);
        if let Err(error) = frames::free(self.run) {
            log::error!("DMA memory: {error}");
        }
    }

    #[inline]
    fn at<T>(&self, offset: usize) -> NonNull<T> {
        if !offset.is_multiple_of(size_of::<T>()) || offset >= self.length {
            beyond(size_of::<T>(), offset, self.length);
        }
        // SAFETY: in bounds by the check: the length is that of whole frames, so what begins inside of it and is aligned
        // ends inside of it.
        unsafe { self.start.add(offset).cast() }
    }

    #[inline]
    fn bytes(&self, offset: usize, length: usize) -> NonNull<u8> {
        assert!(
            offset.checked_add(length).is_some_and(|end| end <= self.length),
            "access of {length} bytes at {offset:#x} in {:#x} bytes of DMA memory",
            self.length
        );
        // SAFETY: in bounds by the assertion.
        unsafe { self.start.add(offset) }
    }
}

/// Apart from where memory is accessed, so that those places hold nothing but the check.
#[cold]
#[inline(never)]
#[track_caller]
fn beyond(size: usize, offset: usize, length: usize) -> ! {
    panic!("access of {size} bytes at {offset:#x} in {length:#x} bytes of DMA memory");
}

macro_rules! access {
    ($load:ident, $store:ident, $type:ty) => {
        #[inline]
        fn $load(&self, offset: usize) -> $type {
            // SAFETY: `at` checks bounds and alignment. Volatile, since the device may write meanwhile; an aligned access
            // of at most 64 bits is single-copy atomic (SDM vol. 3, 9.1.1).
            unsafe { self.at::<$type>(offset).read_volatile() }
        }

        #[inline]
        fn $store(&mut self, offset: usize, value: $type) {
            // SAFETY: as for the load.
            unsafe { self.at::<$type>(offset).write_volatile(value) }
        }
    };
}

impl DmaMemory for DmaRegion {
    fn device_address(&self) -> u64 {
        self.run.start().start().as_u64()
    }

    fn len(&self) -> usize {
        self.length
    }

    access!(load16, store16, u16);
    access!(load32, store32, u32);
    access!(load64, store64, u64);

    fn write_bytes(&mut self, offset: usize, bytes: &[u8]) {
        let place = self.bytes(offset, bytes.len());
        // SAFETY: in bounds; `bytes` is Rust's memory and the region is not, so they do not overlap.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), place.as_ptr(), bytes.len()) };
    }

    fn read_bytes(&self, offset: usize, bytes: &mut [u8]) {
        let place = self.bytes(offset, bytes.len());
        // SAFETY: in bounds; no overlap. A device that writes meanwhile changes only the values.
        unsafe { core::ptr::copy_nonoverlapping(place.as_ptr(), bytes.as_mut_ptr(), bytes.len()) };
    }
}
