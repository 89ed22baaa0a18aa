//! The kernel image in memory: where its read-only data, its text and its writable data lie.

use core::ops::Range;

/// Where the linker put the image. Physical and virtual addresses are the same; all bounds are on 4 KiB pages.
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
}

impl Image {
    /// Constants and relocated read-only data.
    pub const fn rodata(&self) -> Range<u64> {
        self.start..self.text_start
    }

    /// Code.
    pub const fn text(&self) -> Range<u64> {
        self.text_start..self.text_end
    }

    /// Variables and stacks.
    pub const fn data(&self) -> Range<u64> {
        self.text_end..self.end
    }

    /// All of it.
    pub const fn all(&self) -> Range<u64> {
        self.start..self.end
    }
}
