//! A multiboot2 loader as a fuzz input: tags of any kind and size, in any order.

use arbitrary::Arbitrary;
use ballonet_kernel::boot::{BootInfo, Framebuffer, MemoryImage, multiboot2};

use crate::boot_info::{BASE, ENTRIES_READ, address, check_info, check_map};

/// Larger boot information is refused.
const BYTES_READ: usize = 1 << 20;

/// What the loader leaves in memory.
#[derive(Debug, Arbitrary)]
pub struct Loader<'a> {
    /// The total size in the header, if not the true one.
    size: Option<u32>,
    tags: Vec<Tag<'a>>,
    /// Bytes cut off at the end.
    cut: u16,
}

/// A tag.
#[derive(Debug, Arbitrary)]
struct Tag<'a> {
    kind: u8,
    /// The size in the tag, if not the true one.
    size: Option<u32>,
    contents: Contents<'a>,
}

/// The contents of a tag.
#[derive(Debug, Arbitrary)]
enum Contents<'a> {
    Bytes(&'a [u8]),
    /// A memory map: entry size, and entries of start, length and kind.
    Map(u8, Vec<(u64, u64, u8)>),
    /// An EFI memory map: entries of kind, start and pages.
    Efi(u8, Vec<(u8, u64, u64)>),
    Framebuffer {
        address: u64,
        pitch: u16,
        width: u16,
        height: u16,
        depth: u8,
        kind: u8,
        channels: [u8; 6],
    },
}

/// Parses everything and checks the results.
pub fn run(loader: &Loader<'_>) {
    let image = loader.image();
    let memory = MemoryImage::new(address(BASE), &image);
    let mut notes = 0_usize;
    let parsed = multiboot2::parse(&memory, address(BASE), &mut |note| {
        notes += 1;
        assert!(!note.to_string().is_empty());
    });
    let info = match parsed {
        Ok(info) => info,
        Err(error) => {
            let whole = loader.size.is_none() && image.len() >= 16;
            assert!(!whole || image.len() > BYTES_READ, "{error}");
            return;
        }
    };
    assert!(notes <= 3 * 2 * ENTRIES_READ + loader.tags.len() + 32, "{notes} notes");
    check_map(&info.memory_map);
    check_info(&info);
    assert!(info.framebuffer.as_ref().is_none_or(Framebuffer::is_sound));
    check_within_tags(loader, &info);
}

/// If tags give their true size, nothing past them is read.
fn check_within_tags(loader: &Loader<'_>, info: &BootInfo) {
    if loader.size.is_some() || loader.tags.iter().any(|tag| tag.size.is_some()) {
        return;
    }
    let largest = |kinds: &[u8]| {
        let of_kind = loader.tags.iter().filter(|tag| kinds.contains(&tag.kind));
        of_kind.map(|tag| tag.contents.bytes().len()).max().unwrap_or(0)
    };
    assert!(info.command_line.as_bytes().len() <= largest(&[1]));
    assert!(info.rsdp.is_none_or(|range| (20..=largest(&[14, 15]) as u64).contains(&range.bytes())));
}

impl Loader<'_> {
    fn image(&self) -> Vec<u8> {
        let mut image = vec![0; 8];
        for tag in &self.tags {
            let contents = tag.contents.bytes();
            image.extend(u32::from(tag.kind).to_le_bytes());
            image.extend(tag.size.unwrap_or(contents.len() as u32 + 8).to_le_bytes());
            image.extend(contents);
            image.resize(image.len().next_multiple_of(8), 0);
        }
        image.extend([0, 0, 0, 0, 8, 0, 0, 0]);
        let size = self.size.unwrap_or(image.len() as u32);
        image[..4].copy_from_slice(&size.to_le_bytes());
        image.truncate(image.len() - usize::from(self.cut) % image.len());
        image
    }
}

impl Contents<'_> {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.to_vec(),
            Self::Map(size, entries) => table(
                *size,
                entries.iter().map(|(start, length, kind)| {
                    [start.to_le_bytes(), length.to_le_bytes(), u64::from(*kind).to_le_bytes()].concat()
                }),
            ),
            Self::Efi(size, entries) => table(
                *size,
                entries
                    .iter()
                    .map(|(kind, start, pages)| [u64::from(*kind), *start, 0, *pages].map(u64::to_le_bytes).concat()),
            ),
            Self::Framebuffer { address, pitch, width, height, depth, kind, channels } => {
                let mut bytes = address.to_le_bytes().to_vec();
                for extent in [pitch, width, height] {
                    bytes.extend(u32::from(*extent).to_le_bytes());
                }
                bytes.extend([*depth, *kind, 0, 0]);
                bytes.extend(channels);
                bytes
            }
        }
    }
}

/// A table: entries of `size` bytes each, cut or padded, behind the entry size.
fn table(size: u8, entries: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut bytes = [u32::from(size), 1].map(u32::to_le_bytes).concat();
    for mut entry in entries {
        entry.resize(size.into(), 0);
        bytes.extend(entry);
    }
    bytes
}
