//! The entry point, which locates the table (DSP0134, 5.2).

use alloc::vec;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::boot::PhysicalMemory;
use ballonet::memory::PhysAddr;

/// The entry point of version 2.1 and later.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw32 {
    anchor: [u8; 4],
    checksum: u8,
    length: u8,
    major: u8,
    minor: u8,
    largest: U16,
    revision: u8,
    formatted: [u8; 5],
    intermediate_anchor: [u8; 5],
    intermediate_checksum: u8,
    table_length: U16,
    table: U32,
    count: U16,
    bcd_revision: u8,
}

/// The entry point of version 3.0 and later.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw64 {
    anchor: [u8; 5],
    checksum: u8,
    length: u8,
    major: u8,
    minor: u8,
    documentation: u8,
    revision: u8,
    reserved: u8,
    largest: U32,
    table: U64,
}

/// Where BIOSes put the entry point, 16-byte aligned.
const AREA: core::ops::Range<u64> = 0xf_0000..0x10_0000;
const PAGE: usize = 4096;

/// The location of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryPoint {
    /// The version of SMBIOS.
    pub version: (u8, u8),
    /// The table's physical address, as firmware gives it.
    pub table: u64,
    /// Its maximum size in bytes.
    pub length: u32,
}

impl EntryPoint {
    /// The entry point at `address`, of either form, if it is valid.
    pub(crate) fn read(memory: &impl PhysicalMemory, address: u64) -> Option<Self> {
        let anchor: [u8; 5] = memory.read_value(address).ok()?;
        match &anchor {
            b"_SM3_" => Self::of_64(&memory.read_value(address).ok()?),
            [b'_', b'S', b'M', b'_', _] => Self::of_32(&memory.read_value(address).ok()?),
            _ => None,
        }
    }

    /// Searches the BIOS area. Prefers the newer form.
    pub(crate) fn search(memory: &impl PhysicalMemory) -> Option<Self> {
        let mut old = None;
        // Page by page: each read may map memory.
        let mut page = vec![0; PAGE];
        for start in AREA.step_by(PAGE) {
            let readable = PhysAddr::new(start).is_some_and(|start| memory.read(start, &mut page).is_ok());
            let anchors = page.chunks(16).zip((start..).step_by(16)).filter(|_| readable);
            for (bytes, address) in anchors {
                if bytes.starts_with(b"_SM3")
                    && let Some(entry) = Self::read(memory, address)
                {
                    return Some(entry);
                }
                if bytes.starts_with(b"_SM_") && old.is_none() {
                    old = Self::read(memory, address);
                }
            }
        }
        old
    }

    fn of_32(raw: &Raw32) -> Option<Self> {
        // Version 2.1 of the specification gives the wrong length 0x1E, and some firmware uses it.
        let length = usize::from(raw.length);
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        let sound = (0x1e..=size_of::<Raw32>()).contains(&length)
            && sum(raw.as_bytes().get(..length)?) == 0
            && raw.intermediate_anchor == *b"_DMI_"
            && sum(raw.as_bytes().get(0x10..0x1f)?) == 0;
        sound.then(|| Self {
            version: (raw.major, raw.minor),
            table: raw.table.get().into(),
            length: raw.table_length.get().into(),
        })
    }

    fn of_64(raw: &Raw64) -> Option<Self> {
        let sound = usize::from(raw.length) == size_of::<Raw64>()
            && raw.as_bytes().iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0;
        sound.then(|| Self { version: (raw.major, raw.minor), table: raw.table.get(), length: raw.largest.get() })
    }
}
