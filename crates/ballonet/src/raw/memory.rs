//! Memory shared with a device, by the pair of its virtual and its device address.

use core::ptr::NonNull;

use crate::platform::DmaMemory;

/// Memory that a device may read and write. Dropping the value does not free it: its creator does.
#[derive(Debug)]
pub struct RawMemory {
    start: NonNull<u8>,
    device: u64,
    length: usize,
}

// SAFETY: only this value accesses the memory, on whichever CPU.
unsafe impl Send for RawMemory {}

impl RawMemory {
    /// Memory at `start` for the CPU and at `device` for the device. Zeroes it.
    ///
    /// # Safety
    /// As long as the value lives, `length` bytes from `start` on are mapped, readable and writable, coherent with the
    /// device, aligned to 8 bytes, and used only by this value and the device; the device reaches all of them from the
    /// address `device` on.
    pub unsafe fn new(start: NonNull<u8>, device: u64, length: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe { start.write_bytes(0, length) };
        Self { start, device, length }
    }

    /// Its address for the CPU.
    pub const fn pointer(&self) -> NonNull<u8> {
        self.start
    }

    #[inline]
    fn at<T>(&self, offset: usize) -> NonNull<T> {
        super::check(size_of::<T>(), offset, self.length);
        // SAFETY: in bounds by the check.
        unsafe { self.start.add(offset).cast() }
    }

    #[inline]
    fn bytes(&self, offset: usize, length: usize) -> NonNull<u8> {
        if self.length.checked_sub(offset).is_none_or(|left| left < length) {
            super::beyond(length, offset, self.length);
        }
        // SAFETY: in bounds by the check.
        unsafe { self.start.add(offset) }
    }
}

macro_rules! access {
    ($load:ident, $store:ident, $type:ty) => {
        #[inline]
        fn $load(&self, offset: usize) -> $type {
            // SAFETY: `at` checks bounds and alignment. Volatile, since the device may write meanwhile. An aligned
            // access as wide as a register is single-copy atomic; wider ones are used only while the device does not
            // write there.
            unsafe { self.at::<$type>(offset).read_volatile() }
        }

        #[inline]
        fn $store(&mut self, offset: usize, value: $type) {
            // SAFETY: as for the load.
            unsafe { self.at::<$type>(offset).write_volatile(value) }
        }
    };
}

impl DmaMemory for RawMemory {
    fn device_address(&self) -> u64 {
        self.device
    }

    fn len(&self) -> usize {
        self.length
    }

    access!(load16, store16, u16);
    access!(load32, store32, u32);
    access!(load64, store64, u64);

    fn write_bytes(&mut self, offset: usize, bytes: &[u8]) {
        let place = self.bytes(offset, bytes.len());
        // SAFETY: in bounds; `bytes` is Rust's memory and this is not, so they do not overlap.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), place.as_ptr(), bytes.len()) };
    }

    fn read_bytes(&self, offset: usize, bytes: &mut [u8]) {
        let place = self.bytes(offset, bytes.len());
        // SAFETY: in bounds; no overlap. A device that writes meanwhile can change what is read, not where.
        unsafe { core::ptr::copy_nonoverlapping(place.as_ptr(), bytes.as_mut_ptr(), bytes.len()) };
    }
}
