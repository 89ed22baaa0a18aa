//! The kernel image: the bounds of its read-only data, text and writable data.
//!
//! It runs at its linked virtual addresses, and is in physical memory where the loader put it.

use core::ops::Range;

/// Virtual minus physical address of an image at its linked physical address, 2 MiB.
#[doc(hidden)]
pub const OFFSET: u64 = 0xFFFF_FFFF_8000_0000;

/// The image in memory. All bounds are virtual addresses, aligned to 4 KiB.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// First byte of the image, and of its read-only data.
    pub start: u64,
    /// First byte of the text; the read-only data ends here.
    pub text_start: u64,
    /// First byte of the writable data; the text ends here.
    pub text_end: u64,
    /// First byte after the image.
    pub end: u64,
    /// Virtual minus physical address.
    pub offset: u64,
}

impl Image {
    /// Constants and relocated read-only data.
    pub(crate) const fn rodata(&self) -> Range<u64> {
        self.start..self.text_start
    }

    /// Code.
    pub(crate) const fn text(&self) -> Range<u64> {
        self.text_start..self.text_end
    }

    /// Variables and stacks.
    pub(crate) const fn data(&self) -> Range<u64> {
        self.text_end..self.end
    }

    /// All of it.
    #[cfg(feature = "test-image")]
    pub(crate) const fn all(&self) -> Range<u64> {
        self.start..self.end
    }

    /// The physical address of one of its virtual addresses.
    pub(crate) const fn physical(&self, address: u64) -> u64 {
        address.wrapping_sub(self.offset)
    }

    /// Its physical addresses.
    pub(crate) const fn place(&self) -> Range<u64> {
        self.physical(self.start)..self.physical(self.end)
    }
}
