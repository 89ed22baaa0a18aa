//! Multiboot2, the boot protocol of GRUB: the parser of the boot information.
//!
//! The kernel is entered in 32-bit protected mode without paging, with a magic number in `eax` and the physical address
//! of the boot information in `ebx`: its size, a reserved word, and tags of a type, a size and contents, each on 8
//! bytes (Multiboot2 specification 2.0, 3.6).

use derive_more::{Display, Error};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::framebuffer::{Channel, Framebuffer, PixelFormat};
use super::{
    AreaKind, BootInfo, CommandLine, EfiSystemTable, LoaderAreas, MemoryMap, Note, PhysRange, PhysicalMemory, Region,
    RegionKind, Unreadable,
};
use ballonet::memory::PhysAddr;

/// The magic number by which the loader finds a kernel's header.
pub const HEADER_MAGIC: u32 = 0xE852_50D6;

/// What `eax` holds when a multiboot2 loader enters the kernel.
pub const MAGIC: u32 = 0x36D7_6289;

/// The most bytes of boot information accepted. A large machine's memory maps take some 20 KiB.
pub(crate) const MAX_BYTES: u32 = 1 << 20;

/// Entries of a memory map that are read, whatever its size.
pub(crate) const MAX_ENTRIES: u32 = 4096;

/// Modules that are noted as areas to keep.
pub(crate) const MAX_MODULES: u32 = 8;

// The boot information is an area too.
const _: () = assert!((MAX_MODULES as usize) < LoaderAreas::CAPACITY);

/// Tags (3.6), by type.
mod tag {
    pub(super) const END: u32 = 0;
    pub(super) const COMMAND_LINE: u32 = 1;
    pub(super) const MODULE: u32 = 3;
    pub(super) const MEMORY_MAP: u32 = 6;
    pub(super) const FRAMEBUFFER: u32 = 8;
    pub(super) const EFI32_SYSTEM_TABLE: u32 = 11;
    pub(super) const EFI64_SYSTEM_TABLE: u32 = 12;
    pub(super) const RSDP_V1: u32 = 14;
    pub(super) const RSDP_V2: u32 = 15;
    pub(super) const EFI_MEMORY_MAP: u32 = 17;
}

/// Sizes of the ACPI root pointers that tags hold a copy of: of ACPI 1.0, and since 2.0 (ACPI 6.5, 5.2.5.3).
const RSDP_V1_BYTES: u64 = 20;
const RSDP_V2_BYTES: u64 = 36;

/// The header of the boot information.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    size: U32,
    reserved: U32,
}

/// The header of each tag. The size includes it.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct TagHeader {
    kind: U32,
    size: U32,
}

/// The size of both.
const HEADER: u64 = 8;

/// The header of a memory map (3.6.8, 3.6.16).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct MapHeader {
    entry_size: U32,
    entry_version: U32,
}

/// An entry of the memory map.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct MapEntry {
    start: U64,
    length: U64,
    kind: U32,
}

/// An entry of the EFI memory map (UEFI 2.10, 7.2.3).
#[doc(alias = "EFI_MEMORY_DESCRIPTOR")]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct EfiEntry {
    kind: U32,
    padding: U32,
    start: U64,
    virtual_start: U64,
    pages: U64,
}

/// A module (3.6.6), without its name.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Module {
    start: U32,
    end: U32,
}

/// A framebuffer (3.6.12), without its colours.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct FramebufferTag {
    address: U64,
    pitch: U32,
    width: U32,
    height: U32,
    depth: u8,
    kind: u8,
    reserved: U16,
}

/// Why there is no boot information.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum Multiboot2Error {
    /// It is not in memory that can be read.
    #[display("no multiboot2 information: {_0}")]
    Unreadable(Unreadable),
    /// It claims to be smaller than its first tag, or larger than 1 MiB.
    #[display("no multiboot2 information: it claims to have {_0} bytes")]
    Size(#[error(not(source))] u32),
}

/// Reads the boot information at `address`. Skipped parts are reported.
///
/// # Errors
/// When there is no boot information at `address`.
pub fn parse(
    memory: &impl PhysicalMemory,
    address: PhysAddr,
    report: &mut dyn FnMut(Note),
) -> Result<BootInfo, Multiboot2Error> {
    let start = address.as_u64();
    let header: Header = memory.read_value(start).map_err(Multiboot2Error::Unreadable)?;
    let size = header.size.get();
    if u64::from(size) < 2 * HEADER || size > MAX_BYTES {
        return Err(Multiboot2Error::Size(size));
    }
    let mut info = BootInfo::empty("multiboot2");
    // The boot information has a copy of firmware's root pointer.
    info.areas.keep(AreaKind::StartInfo, start, u64::from(size));
    let tags = Tags { memory, next: start + HEADER, end: start + u64::from(size) };
    let (mut modules, mut maps, mut root_pointers) = (0, [None; 2], [None; 2]);
    for tag in tags.clone() {
        match tag.kind {
            tag::COMMAND_LINE => info.command_line = CommandLine::read(memory, tag.contents, tag.length, report),
            tag::MODULE => {
                read_module(memory, tag, modules, &mut info, report);
                modules += 1;
            }
            tag::MEMORY_MAP => maps[0] = Some(tag),
            tag::EFI_MEMORY_MAP => maps[1] = Some(tag),
            tag::FRAMEBUFFER => info.framebuffer = read_framebuffer(memory, tag, report),
            tag::EFI32_SYSTEM_TABLE => {
                let address = tag.read::<U32>(memory, 0).map(|address| u64::from(address.get()));
                info.efi = address.map(|address| EfiSystemTable { address, wide: false }).or(info.efi);
            }
            tag::EFI64_SYSTEM_TABLE => {
                let address = tag.read::<U64>(memory, 0).map(U64::get);
                info.efi = address.map(|address| EfiSystemTable { address, wide: true }).or(info.efi);
            }
            tag::RSDP_V1 => root_pointers[0] = read_root_pointer(tag, RSDP_V1_BYTES, report),
            tag::RSDP_V2 => root_pointers[1] = read_root_pointer(tag, RSDP_V2_BYTES, report),
            _ => {}
        }
    }
    if modules > MAX_MODULES {
        report(Note::TooManyModules { count: modules, kept: MAX_MODULES });
    }
    if let Some(broken) = tags.broken() {
        report(broken);
    }
    // Of two, the newer one counts.
    info.rsdp = root_pointers[1].or(root_pointers[0]);
    read_maps(memory, maps, &mut info, report);
    Ok(info)
}

/// A tag: its type, and where its contents are.
#[derive(Debug, Clone, Copy)]
struct Tag {
    kind: u32,
    contents: u64,
    length: u64,
}

impl Tag {
    /// A value in its contents, if they hold it.
    fn read<T: FromBytes + IntoBytes>(&self, memory: &impl PhysicalMemory, offset: u64) -> Option<T> {
        let end = offset.checked_add(size_of::<T>() as u64)?;
        if end > self.length {
            return None;
        }
        memory.read_value(self.contents + offset).ok()
    }

    /// The note on a tag that is too small for its contents.
    fn as_bad(&self) -> Note {
        Note::BadTag { address: self.contents - HEADER, kind: self.kind, size: (self.length + HEADER) as u32 }
    }
}

/// The tags, up to the end or to the first invalid one.
struct Tags<'a, M> {
    memory: &'a M,
    next: u64,
    end: u64,
}

impl<M> Clone for Tags<'_, M> {
    fn clone(&self) -> Self {
        Self { memory: self.memory, next: self.next, end: self.end }
    }
}

impl<M: PhysicalMemory> Tags<'_, M> {
    /// The next header.
    fn header(&self) -> Option<TagHeader> {
        if self.next.checked_add(HEADER)? > self.end {
            return None;
        }
        self.memory.read_value(self.next).ok()
    }

    /// The flaw of the tag at which the list ends, unless that is the end tag.
    fn broken(mut self) -> Option<Note> {
        while self.next().is_some() {}
        let header = self.header();
        let (kind, size) = header.map_or((u32::MAX, 0), |header| (header.kind.get(), header.size.get()));
        (kind != tag::END).then_some(Note::BadTag { address: self.next, kind, size })
    }
}

impl<M: PhysicalMemory> Iterator for Tags<'_, M> {
    type Item = Tag;

    fn next(&mut self) -> Option<Tag> {
        let header = self.header()?;
        let (kind, size) = (header.kind.get(), u64::from(header.size.get()));
        if kind == tag::END || size < HEADER || size > self.end - self.next {
            return None;
        }
        let contents = self.next + HEADER;
        self.next += size.next_multiple_of(8);
        Some(Tag { kind, contents, length: size - HEADER })
    }
}

/// Where a tag holds a copy of the ACPI root pointer, of `needed` bytes. A loader that found none may leave an empty
/// tag.
fn read_root_pointer(tag: Tag, needed: u64, report: &mut dyn FnMut(Note)) -> Option<PhysRange> {
    if tag.length < needed {
        report(tag.as_bad());
        return None;
    }
    PhysRange::parse(tag.contents, tag.length).ok()
}

fn read_module(memory: &impl PhysicalMemory, tag: Tag, index: u32, info: &mut BootInfo, report: &mut dyn FnMut(Note)) {
    if index >= MAX_MODULES {
        return;
    }
    let Some(module) = tag.read::<Module>(memory, 0) else {
        return report(tag.as_bad());
    };
    let (start, end) = (u64::from(module.start.get()), u64::from(module.end.get()));
    match end.checked_sub(start) {
        // An empty one takes no memory.
        Some(0) => {}
        Some(length) => info.areas.keep(AreaKind::Module(index), start, length),
        None => report(Note::BadModule { index, start, length: end.wrapping_sub(start) }),
    }
}

fn read_framebuffer(memory: &impl PhysicalMemory, tag: Tag, report: &mut dyn FnMut(Note)) -> Option<Framebuffer> {
    let found: Option<FramebufferTag> = tag.read(memory, 0);
    let framebuffer = found.and_then(|found| {
        let format = match found.kind {
            0 => PixelFormat::Indexed,
            1 => {
                let bytes: [u8; 6] = tag.read(memory, size_of::<FramebufferTag>() as u64)?;
                let [red, red_width, green, green_width, blue, blue_width] = bytes;
                PixelFormat::Rgb(
                    [(red, red_width), (green, green_width), (blue, blue_width)]
                        .map(|(position, width)| Channel { position, width }),
                )
            }
            2 => PixelFormat::Text,
            _ => return None,
        };
        Some(Framebuffer {
            address: found.address.get(),
            pitch: found.pitch.get(),
            width: found.width.get(),
            height: found.height.get(),
            depth: found.depth,
            format,
        })
    });
    let sound = framebuffer.filter(Framebuffer::is_sound);
    if sound.is_none() {
        report(Note::BadFramebuffer(framebuffer));
    }
    sound
}

/// Combines both maps: memory that EFI keeps is not usable, whatever the other map says.
fn read_maps(
    memory: &impl PhysicalMemory,
    [bios, efi]: [Option<Tag>; 2],
    info: &mut BootInfo,
    report: &mut dyn FnMut(Note),
) {
    let Some(bios) = bios.map(|tag| Map::<_, MapEntry>::new(memory, tag)) else {
        return report(Note::NoMemoryMap);
    };
    let efi = efi.map(|tag| Map::<_, EfiEntry>::new(memory, tag));
    bios.check(|entry| (entry.start.get(), Some(entry.length.get())), report);
    if let Some(efi) = &efi {
        efi.check(|entry| (entry.start.get(), entry.bytes()), report);
        report_unknown_kinds(efi, report);
    }
    let entries = bios.entries().filter_map(|entry| {
        let range = PhysRange::parse(entry.start.get(), entry.length.get()).ok()?;
        Some(Region { range, kind: RegionKind::from_e820(entry.kind.get()) })
    });
    let kept = efi.iter().flat_map(Map::entries).filter_map(|entry: EfiEntry| {
        let kind = RegionKind::from_efi(entry.kind.get());
        let range = PhysRange::parse(entry.start.get(), entry.bytes()?).ok()?;
        (kind != RegionKind::Usable).then_some(Region { range, kind })
    });
    // Two maps of the same memory always overlap.
    let both = efi.is_some();
    info.memory_map = MemoryMap::from_entries(&entries.chain(kept), &mut |note| {
        if !(both && matches!(note, Note::Overlap { .. })) {
            report(note);
        }
    });
}

/// Reports entries of kinds that UEFI does not define: one note for all of them.
fn report_unknown_kinds<M: PhysicalMemory>(efi: &Map<'_, M, EfiEntry>, report: &mut dyn FnMut(Note)) {
    let kinds = || efi.entries().map(|entry| entry.kind.get()).filter(|&kind| !RegionKind::is_known_to_efi(kind));
    if let Some(first) = kinds().next() {
        report(Note::UnknownEfiKinds { count: kinds().count() as u32, first });
    }
}

impl EfiEntry {
    /// Its length in bytes, if that fits 64 bits.
    fn bytes(&self) -> Option<u64> {
        self.pages.get().checked_mul(4096)
    }
}

/// A memory map's entries.
struct Map<'a, M, T> {
    memory: &'a M,
    tag: Tag,
    stride: u64,
    count: u32,
    claimed: u64,
    entry: core::marker::PhantomData<T>,
}

impl<'a, M: PhysicalMemory, T: FromBytes + IntoBytes> Map<'a, M, T> {
    fn new(memory: &'a M, tag: Tag) -> Self {
        let header: Option<MapHeader> = tag.read(memory, 0);
        let stride = header.map_or(0, |header| u64::from(header.entry_size.get()));
        // Entries smaller than the known ones cannot be read.
        let claimed = if stride < size_of::<T>() as u64 { 0 } else { (tag.length - HEADER) / stride };
        let count = claimed.min(MAX_ENTRIES.into()) as u32;
        Self { memory, tag, stride, count, claimed, entry: core::marker::PhantomData }
    }

    fn entries(&self) -> impl Iterator<Item = T> + Clone + '_ {
        (0..self.count).filter_map(|index| self.tag.read(self.memory, HEADER + u64::from(index) * self.stride))
    }

    /// Reports its flaw, once. `range` gives an entry's start and length; `None` is a length beyond 64 bits.
    fn check(&self, range: impl Fn(&T) -> (u64, Option<u64>), report: &mut dyn FnMut(Note)) {
        if self.count == 0 {
            report(if self.tag.kind == tag::MEMORY_MAP { Note::NoMemoryMap } else { self.tag.as_bad() });
        }
        if u64::from(self.count) < self.claimed {
            let count = u32::try_from(self.claimed).unwrap_or(u32::MAX);
            report(Note::TooManyEntries { count, considered: self.count });
        }
        for (entry, index) in self.entries().zip(0..) {
            let (start, length) = range(&entry);
            let length = length.unwrap_or(u64::MAX);
            if let Err(reason) = PhysRange::parse(start, length) {
                report(Note::BadEntry { index, start, length, reason });
            }
        }
    }
}

#[cfg(test)]
mod tests;
