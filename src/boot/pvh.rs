//! PVH, Xen's boot protocol, which QEMU, Cloud Hypervisor and Firecracker use: the start-info parser.
//!
//! The kernel is entered at the address in its ELF note, in 32-bit protected mode without paging, with the physical
//! address of the start info in `ebx` (Xen, docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h).

use derive_more::{Display, Error};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{
    AreaKind, BootInfo, CommandLine, LoaderAreas, MemoryMap, Note, PhysRange, PhysicalMemory, Region, RegionKind,
    Unreadable,
};
use ballonet::memory::PhysAddr;

/// The type of the ELF note, owner "Xen", that makes a kernel bootable by PVH. Its descriptor is the physical entry
/// address.
#[doc(alias = "XEN_ELFNOTE_PHYS32_ENTRY")]
pub const NOTE_TYPE_PHYS32_ENTRY: u32 = 18;

/// The start info's magic number: "xEn3", with the top bit of the E set.
#[doc(alias = "XEN_HVM_START_MAGIC_VALUE")]
pub const START_MAGIC: u32 = 0x336e_c578;

/// The most entries of the memory map that are read, whatever count is claimed: far beyond any real map, and quick to
/// walk.
pub(crate) const MAX_ENTRIES: u32 = 4096;

/// Modules that are noted as areas to keep.
pub(crate) const MAX_MODULES: u32 = 8;

// The start info, the memory map, the command line and the module list are areas too.
const _: () = assert!(MAX_MODULES as usize + 4 <= LoaderAreas::CAPACITY);

/// The start info as of version 0.
#[doc(alias = "hvm_start_info")]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StartInfo {
    magic: U32,
    version: U32,
    flags: U32,
    module_count: U32,
    module_list: U64,
    command_line: U64,
    rsdp: U64,
}

/// What version 1 appends.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct MapPointer {
    address: U64,
    count: U32,
    reserved: U32,
}

/// An entry of the memory map.
#[doc(alias = "hvm_memmap_table_entry")]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct MapEntry {
    start: U64,
    length: U64,
    kind: U32,
    reserved: U32,
}

/// An entry of the module list.
#[doc(alias = "hvm_modlist_entry")]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ModuleEntry {
    start: U64,
    length: U64,
    command_line: U64,
    reserved: U64,
}

/// Why there is no start info.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum PvhError {
    /// It is not in memory that can be read.
    #[display("no PVH start info: {_0}")]
    Unreadable(Unreadable),
    /// It does not begin with [`START_MAGIC`].
    #[display("no PVH start info: its magic number is {_0:#x}")]
    Magic(#[error(not(source))] u32),
}

/// Reads the start info at `address`. Version 0 has no memory map; versions above 1 are read as version 1, which
/// they extend. Skipped parts are reported.
///
/// # Errors
/// When there is no start info at `address`.
pub fn parse(
    memory: &impl PhysicalMemory,
    address: PhysAddr,
    report: &mut dyn FnMut(Note),
) -> Result<BootInfo, PvhError> {
    let start: StartInfo = memory.read_value(address.as_u64()).map_err(PvhError::Unreadable)?;
    if start.magic.get() != START_MAGIC {
        return Err(PvhError::Magic(start.magic.get()));
    }
    let mut info = BootInfo::empty("PVH");
    let mut size = size_of::<StartInfo>() as u64;
    if start.version.get() >= 1 {
        let pointer = memory.read_value(address.as_u64().saturating_add(size)).map_err(PvhError::Unreadable)?;
        size += size_of::<MapPointer>() as u64;
        read_map(memory, pointer, &mut info, report);
    } else {
        report(Note::NoMemoryMap);
    }
    info.areas.keep(AreaKind::StartInfo, address.as_u64(), size);
    if start.command_line.get() != 0 {
        info.command_line = CommandLine::read(memory, start.command_line.get(), u64::MAX, report);
        let length = info.command_line.as_bytes().len() as u64 + 1;
        info.areas.keep(AreaKind::CommandLine, start.command_line.get(), length);
    }
    info.set_rsdp(start.rsdp.get(), report);
    read_modules(memory, start, &mut info, report);
    Ok(info)
}

fn read_map(memory: &impl PhysicalMemory, pointer: MapPointer, info: &mut BootInfo, report: &mut dyn FnMut(Note)) {
    let (start, claimed) = (pointer.address.get(), pointer.count.get());
    if start == 0 || claimed == 0 {
        return report(Note::NoMemoryMap);
    }
    let count = claimed.min(MAX_ENTRIES);
    if count < claimed {
        report(Note::TooManyEntries { count: claimed, considered: MAX_ENTRIES });
    }
    let readable = check_entries(memory, start, count, report);
    let entries = (0..readable).filter_map(|index| {
        let entry: MapEntry = read_entry(memory, start, index).ok()?;
        let range = PhysRange::parse(entry.start.get(), entry.length.get()).ok()?;
        Some(Region { range, kind: RegionKind::from_e820(entry.kind.get()) })
    });
    info.memory_map = MemoryMap::from_entries(&entries, report);
    info.areas.keep(AreaKind::MemoryMap, start, u64::from(readable) * size_of::<MapEntry>() as u64);
}

/// Reports every invalid entry, once, and returns how many entries can be read.
fn check_entries(memory: &impl PhysicalMemory, start: u64, count: u32, report: &mut dyn FnMut(Note)) -> u32 {
    for index in 0..count {
        let entry: MapEntry = match read_entry(memory, start, index) {
            Ok(entry) => entry,
            Err(error) => {
                report(Note::EntryUnreadable { index, error });
                return index;
            }
        };
        let (start, length) = (entry.start.get(), entry.length.get());
        // qboot counts one entry too many, all zeros.
        if entry.as_bytes().iter().all(|&byte| byte == 0) {
            continue;
        }
        if let Err(reason) = PhysRange::parse(start, length) {
            report(Note::BadEntry { index, start, length, reason });
        }
    }
    count
}

fn read_modules(memory: &impl PhysicalMemory, start: StartInfo, info: &mut BootInfo, report: &mut dyn FnMut(Note)) {
    let (list, claimed) = (start.module_list.get(), start.module_count.get());
    let count = claimed.min(MAX_MODULES);
    if count < claimed {
        report(Note::TooManyModules { count: claimed, kept: MAX_MODULES });
    }
    info.areas.keep(AreaKind::ModuleList, list, u64::from(count) * size_of::<ModuleEntry>() as u64);
    for index in 0..count {
        let module: ModuleEntry = match read_entry(memory, list, index) {
            Ok(module) => module,
            Err(error) => return report(Note::ModuleUnreadable { index, error }),
        };
        let (start, length) = (module.start.get(), module.length.get());
        match PhysRange::parse(start, length) {
            Ok(_) => info.areas.keep(AreaKind::Module(index), start, length),
            Err(_) => report(Note::BadModule { index, start, length }),
        }
    }
}

/// Entry number `index` of a table of `T` that begins at `start`.
fn read_entry<T: FromBytes + IntoBytes>(memory: &impl PhysicalMemory, start: u64, index: u32) -> Result<T, Unreadable> {
    let length = size_of::<T>();
    let offset = u64::from(index) * length as u64;
    let address = start.checked_add(offset).ok_or(Unreadable { address: start, length })?;
    memory.read_value(address)
}

#[cfg(test)]
mod tests;
