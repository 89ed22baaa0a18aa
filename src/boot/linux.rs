//! The Linux boot protocol: the parser of the zero page (`boot_params`).
//!
//! The kernel is entered with the physical address of the zero page in `esi` or `rsi` (Linux,
//! Documentation/arch/x86/boot.rst and zero-page.rst; `struct boot_params` in `asm/bootparam.h`). crosvm, Dragonball,
//! StratoVirt and Firecracker start an ELF image so; GRUB's `linux` and QEMU a bzImage.

use derive_more::{Display, Error};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{
    AreaKind, BootInfo, Channel, CommandLine, EfiSystemTable, Framebuffer, MemoryMap, Note, PhysRange, PhysicalMemory,
    PixelFormat, Region, RegionKind, Unreadable,
};
use ballonet::memory::PhysAddr;

/// The entry code's name for this protocol: the setup header's magic number, `HdrS`.
pub const MAGIC: u32 = 0x5372_6448;

/// Entries that the zero page has room for.
#[doc(alias = "E820_MAX_ENTRIES_ZEROPAGE")]
pub(crate) const MAX_ENTRIES: u8 = 128;

/// The zero page's size in bytes.
pub(crate) const ZERO_PAGE: u64 = 4096;

/// The fields of `screen_info` (`include/uapi/linux/screen_info.h`) that describe a framebuffer.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ScreenInfo {
    _text: [u8; 0x0F],
    /// `orig_video_isVGA`: the kind of screen.
    kind: u8,
    _text_points: U16,
    width: U16,
    height: U16,
    depth: U16,
    base: U32,
    _size: U32,
    _commands: U32,
    pitch: U16,
    /// Width and position of red, green, blue and the reserved bits.
    channels: [[u8; 2]; 4],
    _vesa: [u8; 8],
    capabilities: U32,
    high_base: U32,
    _rest: [u8; 2],
}

/// Kinds of screens with a linear framebuffer: by VESA, and by UEFI.
#[doc(alias = "VIDEO_TYPE_VLFB")]
const VESA: u8 = 0x23;
#[doc(alias = "VIDEO_TYPE_EFI")]
const EFI: u8 = 0x70;
/// The framebuffer's address has 64 bits.
#[doc(alias = "VIDEO_CAPABILITY_64BIT_BASE")]
const WIDE_BASE: u32 = 1 << 1;

/// `efi_info`, the part in use: the system table, if the signature says that there is one.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct EfiInfo {
    signature: [u8; 4],
    table: U32,
    _map: [u8; 16],
    table_high: U32,
    _map_high: U32,
}

/// The zero page up to the memory map.
#[doc(alias = "boot_params")]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ZeroPage {
    screen: ScreenInfo,
    _firmware: [u8; 0x30],
    rsdp: U64,
    _disks: [u8; 0x48],
    ramdisk_high: U32,
    ramdisk_size_high: U32,
    command_line_high: U32,
    _edid: [u8; 0xF4],
    efi: EfiInfo,
    _memory: [u8; 8],
    entries: u8,
    _boot: [u8; 8],
    header: SetupHeader,
}

/// The setup header, from offset 0x1F1, up to the command line.
#[doc(alias = "setup_header")]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SetupHeader {
    _real_mode: [u8; 0x11],
    magic: U32,
    _version: [u8; 0x12],
    ramdisk: U32,
    ramdisk_size: U32,
    _heap: [u8; 8],
    command_line: U32,
}

/// An entry of the memory map.
#[doc(alias = "boot_e820_entry")]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct MapEntry {
    start: U64,
    length: U64,
    kind: U32,
}

/// Where the memory map is in the zero page.
const MAP: u64 = 0x2D0;

const _: () = {
    assert!(size_of::<ScreenInfo>() == 0x40);
    assert!(core::mem::offset_of!(ScreenInfo, capabilities) == 0x36);
    assert!(core::mem::offset_of!(ZeroPage, rsdp) == 0x70);
    assert!(core::mem::offset_of!(ZeroPage, command_line_high) == 0xC8);
    assert!(core::mem::offset_of!(ZeroPage, efi) == 0x1C0);
    assert!(core::mem::offset_of!(ZeroPage, entries) == 0x1E8);
    assert!(core::mem::offset_of!(ZeroPage, header) == 0x1F1);
    assert!(core::mem::offset_of!(SetupHeader, magic) == 0x202 - 0x1F1);
    assert!(core::mem::offset_of!(SetupHeader, ramdisk) == 0x218 - 0x1F1);
    assert!(core::mem::offset_of!(SetupHeader, command_line) == 0x228 - 0x1F1);
    assert!(MAP + MAX_ENTRIES as u64 * size_of::<MapEntry>() as u64 <= ZERO_PAGE);
};

/// Why there is no zero page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum LinuxError {
    /// It is not in memory that can be read.
    #[display("no zero page of Linux: {_0}")]
    Unreadable(Unreadable),
    /// Its setup header does not have the magic number [`MAGIC`].
    #[display("no zero page of Linux: its header's magic number is {_0:#x}")]
    Magic(#[error(not(source))] u32),
}

/// Reads the zero page at `address`. Skipped parts are reported.
///
/// # Errors
/// When there is no zero page at `address`.
pub fn parse(
    memory: &impl PhysicalMemory,
    address: PhysAddr,
    report: &mut dyn FnMut(Note),
) -> Result<BootInfo, LinuxError> {
    let page: ZeroPage = memory.read_value(address.as_u64()).map_err(LinuxError::Unreadable)?;
    let magic = page.header.magic.get();
    if magic != MAGIC {
        return Err(LinuxError::Magic(magic));
    }
    let mut info = BootInfo::empty("the Linux boot protocol");
    info.areas.keep(AreaKind::StartInfo, address.as_u64(), ZERO_PAGE);
    read_map(memory, address.as_u64().saturating_add(MAP), page.entries, &mut info, report);
    let line = wide(page.header.command_line, page.command_line_high);
    if line != 0 {
        info.command_line = CommandLine::read(memory, line, u64::MAX, report);
        info.areas.keep(AreaKind::CommandLine, line, info.command_line.as_bytes().len() as u64 + 1);
    }
    keep_ramdisk(&page, &mut info, report);
    info.set_rsdp(page.rsdp.get(), report);
    info.efi = system_table(&page.efi);
    info.framebuffer = framebuffer(&page.screen, report);
    Ok(info)
}

/// A number in two halves.
fn wide(low: U32, high: U32) -> u64 {
    u64::from(high.get()) << 32 | u64::from(low.get())
}

fn read_map(memory: &impl PhysicalMemory, start: u64, claimed: u8, info: &mut BootInfo, report: &mut dyn FnMut(Note)) {
    if claimed == 0 {
        return report(Note::NoMemoryMap);
    }
    let count = claimed.min(MAX_ENTRIES);
    if count < claimed {
        report(Note::TooManyEntries { count: claimed.into(), considered: MAX_ENTRIES.into() });
    }
    let entry = |index: u8| {
        let offset = u64::from(index) * size_of::<MapEntry>() as u64;
        memory.read_value::<MapEntry>(start.saturating_add(offset))
    };
    let mut readable = 0;
    while readable < count {
        let index = readable.into();
        match entry(readable) {
            Err(error) => {
                report(Note::EntryUnreadable { index, error });
                break;
            }
            Ok(MapEntry { start, length, .. }) => {
                let (start, length) = (start.get(), length.get());
                if let Err(reason) = PhysRange::parse(start, length) {
                    report(Note::BadEntry { index, start, length, reason });
                }
            }
        }
        readable += 1;
    }
    let entries = (0..readable).filter_map(|index| {
        let entry = entry(index).ok()?;
        let range = PhysRange::parse(entry.start.get(), entry.length.get()).ok()?;
        Some(Region { range, kind: RegionKind::from_e820(entry.kind.get()) })
    });
    info.memory_map = MemoryMap::from_entries(&entries, report);
}

fn keep_ramdisk(page: &ZeroPage, info: &mut BootInfo, report: &mut dyn FnMut(Note)) {
    let start = wide(page.header.ramdisk, page.ramdisk_high);
    let length = wide(page.header.ramdisk_size, page.ramdisk_size_high);
    if start == 0 || length == 0 {
        return;
    }
    match PhysRange::parse(start, length) {
        Ok(_) => info.areas.keep(AreaKind::Module(0), start, length),
        Err(_) => report(Note::BadModule { index: 0, start, length }),
    }
}

fn system_table(efi: &EfiInfo) -> Option<EfiSystemTable> {
    let address = wide(efi.table, efi.table_high);
    let wide = match &efi.signature {
        b"EL64" => true,
        b"EL32" => false,
        _ => return None,
    };
    (address != 0).then_some(EfiSystemTable { address, wide })
}

fn framebuffer(screen: &ScreenInfo, report: &mut dyn FnMut(Note)) -> Option<Framebuffer> {
    if !matches!(screen.kind, VESA | EFI) {
        return None;
    }
    let high = if screen.capabilities.get() & WIDE_BASE == 0 { U32::new(0) } else { screen.high_base };
    let channel = |[width, position]: [u8; 2]| Channel { position, width };
    let [red, green, blue, _] = screen.channels.map(channel);
    let depth = screen.depth.get();
    let found = Framebuffer {
        address: wide(screen.base, high),
        pitch: screen.pitch.get().into(),
        width: screen.width.get().into(),
        height: screen.height.get().into(),
        depth: u8::try_from(depth).unwrap_or(u8::MAX),
        format: if depth == 8 { PixelFormat::Indexed } else { PixelFormat::Rgb([red, green, blue]) },
    };
    if !found.is_sound() {
        report(Note::BadFramebuffer(Some(found)));
        return None;
    }
    Some(found)
}

#[cfg(test)]
mod tests;
