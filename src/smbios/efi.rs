//! Finds the entry point through UEFI's system table, which lists firmware's tables (UEFI 2.10, 4.3 and 4.6).

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::EntryPoint;
use crate::boot::{EfiSystemTable, PhysicalMemory};

const SIGNATURE: [u8; 8] = *b"IBI SYST";

/// `SMBIOS3_TABLE_GUID` and `SMBIOS_TABLE_GUID`.
const NEW: [u8; 16] = [0x44, 0x15, 0xfd, 0xf2, 0x94, 0x97, 0x2c, 0x4a, 0x99, 0x2e, 0xe5, 0xbb, 0xcf, 0x20, 0xe3, 0x94];
const OLD: [u8; 16] = [0x31, 0x2d, 0x9d, 0xeb, 0x88, 0x2d, 0xd3, 0x11, 0x9a, 0x16, 0x00, 0x90, 0x27, 0x3f, 0xc1, 0x4d];

/// The most entries to read, whatever the table claims. Real tables have some twenty.
const MOST: u64 = 256;

/// The end of 64-bit firmware's system table: number of entries, and their address.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Tables64 {
    count: U64,
    address: U64,
}

/// The same for 32-bit firmware.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Tables32 {
    count: U32,
    address: U32,
}

/// Their offset in the system table.
const OFFSET_64: u64 = 104;
const OFFSET_32: u64 = 64;

impl EntryPoint {
    /// The entry point that UEFI lists, the newer form first.
    pub(crate) fn by_efi(memory: &impl PhysicalMemory, table: EfiSystemTable) -> Option<Self> {
        let start = table.address;
        if memory.read_value::<[u8; 8]>(start).ok()? != SIGNATURE {
            return None;
        }
        let (count, address, size) = if table.wide {
            let tables: Tables64 = memory.read_value(start.checked_add(OFFSET_64)?).ok()?;
            (tables.count.get(), tables.address.get(), 24)
        } else {
            let tables: Tables32 = memory.read_value(start.checked_add(OFFSET_32)?).ok()?;
            (tables.count.get().into(), tables.address.get().into(), 20)
        };
        let of = |guid: [u8; 16]| {
            let entries = (0..count.min(MOST)).filter_map(|index| address.checked_add(index * size));
            let mut found = entries.filter(|entry| memory.read_value::<[u8; 16]>(*entry) == Ok(guid));
            let pointer = found.next()?.checked_add(16)?;
            if table.wide {
                memory.read_value::<U64>(pointer).ok().map(U64::get)
            } else {
                memory.read_value::<U32>(pointer).ok().map(|address| address.get().into())
            }
        };
        [NEW, OLD].into_iter().filter_map(of).find_map(|address| Self::read(memory, address))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::boot::MemoryImage;
    use crate::smbios::tests::{entry_32, entry_64};
    use ballonet::memory::PhysAddr;

    const BASE: u64 = 0x1000;

    /// A system table, its configuration tables behind it, and both entry points behind those.
    fn firmware(wide: bool, guids: &[[u8; 16]]) -> Vec<u8> {
        let mut bytes = vec![0; 0x1000];
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        put(0, &SIGNATURE);
        put(0x800, &entry_32(0x5000, 64));
        put(0x900, &entry_64(0x6000, 64));
        let number = |value: u64| value.to_le_bytes()[..if wide { 8 } else { 4 }].to_vec();
        let counted = [number(guids.len() as u64), number(BASE + 0x400)].concat();
        put(if wide { 104 } else { 64 }, &counted);
        for (index, guid) in guids.iter().enumerate() {
            let address = if *guid == NEW { 0x900 } else { 0x800 };
            let entry = [guid.to_vec(), number(BASE + address)].concat();
            put(0x400 + index * entry.len(), &entry);
        }
        bytes
    }

    fn found(bytes: &[u8], wide: bool) -> Option<u64> {
        let memory = MemoryImage::new(PhysAddr::new(BASE).unwrap(), bytes);
        EntryPoint::by_efi(&memory, EfiSystemTable { address: BASE, wide }).map(|entry| entry.table)
    }

    #[test]
    fn the_newer_entry_point_is_taken_first_by_either_width() {
        for wide in [true, false] {
            assert_eq!(found(&firmware(wide, &[[7; 16], OLD, NEW]), wide), Some(0x6000));
            assert_eq!(found(&firmware(wide, &[[7; 16], OLD]), wide), Some(0x5000));
            assert_eq!(found(&firmware(wide, &[[7; 16]]), wide), None);
            assert_eq!(found(&firmware(wide, &[]), wide), None);
            assert_eq!(found(&firmware(wide, &[OLD])[1..], wide), None);
        }
    }

    proptest! {
        /// Whatever the table claims, the search ends.
        #[test]
        fn any_claims_end(wide: bool, count: u64, address: u64) {
            let mut bytes = firmware(wide, &[OLD]);
            let at = if wide { 104 } else { 64 };
            bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
            bytes[at + 8..at + 16].copy_from_slice(&address.to_le_bytes());
            found(&bytes, wide);
        }
    }
}
