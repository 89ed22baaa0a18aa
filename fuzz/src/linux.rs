//! A loader of the Linux boot protocol as a fuzz input: any zero page, with a command line behind it.

use arbitrary::Arbitrary;
use ballonet_kernel::boot::{Framebuffer, MemoryImage, linux};

use crate::boot_info::{BASE, address, check_info, check_map};

/// Where the loader puts what.
#[derive(Debug, Arbitrary)]
pub struct Loader<'a> {
    magic: Option<u32>,
    /// The bytes from `screen_info` up to the number of entries.
    head: &'a [u8],
    /// The number of entries in the zero page, if not the true one.
    count: Option<u8>,
    entries: Vec<(u64, u64, u8)>,
    /// The address of the command line, if not the true one.
    command_line: Option<u32>,
    line: &'a [u8],
    ramdisk: (u32, u32),
    /// Bytes cut off at the end of memory.
    cut: u16,
}

/// Offsets of the number of entries, the map and the command line.
const COUNT: usize = 0x1E8;
const MAP: usize = 0x2D0;
const LINE: usize = 0x1000;
/// The entries that the zero page has room for (`E820_MAX_ENTRIES_ZEROPAGE`).
const ENTRIES: usize = 128;

/// Parses everything and checks the results.
pub fn run(loader: &Loader<'_>) {
    let image = loader.image();
    let memory = MemoryImage::new(address(BASE), &image);
    let mut notes = 0_usize;
    let parsed = linux::parse(&memory, address(BASE), &mut |note| {
        notes += 1;
        assert!(!note.to_string().is_empty());
    });
    let info = match parsed {
        Ok(info) => info,
        Err(error) => {
            assert!(loader.magic.is_some() || image.len() < MAP, "{error}");
            return;
        }
    };
    // Each entry causes a note if it is no range, overlaps another, or does not fit.
    assert!(notes <= 3 * ENTRIES + 8, "{notes} notes");
    check_map(&info.memory_map);
    check_info(&info);
    assert!(info.framebuffer.as_ref().is_none_or(Framebuffer::is_sound));
}

impl Loader<'_> {
    fn image(&self) -> Vec<u8> {
        let mut image = vec![0; 0x2000];
        let head = &self.head[..self.head.len().min(COUNT)];
        image[..head.len()].copy_from_slice(head);
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(COUNT, &[self.count.unwrap_or(self.entries.len() as u8)]);
        put(0x202, &self.magic.unwrap_or(linux::MAGIC).to_le_bytes());
        put(0x218, &self.ramdisk.0.to_le_bytes());
        put(0x21C, &self.ramdisk.1.to_le_bytes());
        put(0x228, &self.command_line.unwrap_or(BASE as u32 + LINE as u32).to_le_bytes());
        for (index, (start, length, kind)) in self.entries.iter().take(ENTRIES).enumerate() {
            let kind = u32::from(*kind).to_le_bytes();
            put(MAP + 20 * index, &[&start.to_le_bytes()[..], &length.to_le_bytes(), &kind].concat());
        }
        put(LINE, &self.line[..self.line.len().min(0x1000)]);
        image.truncate(image.len() - usize::from(self.cut) % image.len());
        image
    }
}
