//! The kernel image: where its read-only data, its text and its writable data lie.
//!
//! It runs at the virtual addresses that it is linked for, and lies in physical memory where the loader put it.

use core::ops::Range;

/// Virtual minus physical address of an image that lies where it is linked to lie: at 2 MiB.
#[doc(hidden)]
pub const OFFSET: u64 = 0xFFFF_FFFF_8000_0000;

/// The image as it lies. All bounds are virtual addresses on 4 KiB pages.
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

    /// The physical addresses that it lies at.
    pub(crate) const fn place(&self) -> Range<u64> {
        self.physical(self.start)..self.physical(self.end)
    }
}
