use proptest::prelude::*;

use super::*;
use crate::boot::MemoryImage;

/// A structure: its type, its formatted area behind the header, and its strings.
fn structure(kind: u8, formatted: &[u8], strings: &[&str]) -> Vec<u8> {
    let mut bytes = vec![kind, (4 + formatted.len()) as u8, kind, 0];
    bytes.extend(formatted);
    for text in strings {
        bytes.extend(text.bytes().chain([0]));
    }
    bytes.extend(if strings.is_empty() { &[0, 0][..] } else { &[0] });
    bytes
}

fn table() -> Vec<u8> {
    [
        structure(0, &[1, 2, 0, 0xe0, 3, 0], &["SeaBIOS", "1.16.2", "04/01/2014"]),
        structure(4, &[0; 20], &[]),
        structure(1, &[1, 2, 3, 0], &["LENOVO", "20L5CTO1WW", "ThinkPad T480"]),
        structure(2, &[1, 2, 3], &["LENOVO", "Default string", "  "]),
        structure(127, &[], &[]),
        structure(1, &[1, 1, 1, 0], &["behind the end"]),
    ]
    .concat()
}

fn seal(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg();
}

pub(super) fn entry_32(table: u32, length: u16) -> Vec<u8> {
    let mut bytes = b"_SM_\0\x1f\x02\x08\0\0\0\0\0\0\0\0_DMI_\0".to_vec();
    bytes.extend(length.to_le_bytes());
    bytes.extend(table.to_le_bytes());
    bytes.extend([6, 0, 0x28]);
    seal(&mut bytes[0x10..], 5);
    seal(&mut bytes, 4);
    bytes
}

pub(super) fn entry_64(table: u64, length: u32) -> Vec<u8> {
    let mut bytes = b"_SM3_\0\x18\x03\x02\0\x01\0".to_vec();
    bytes.extend(length.to_le_bytes());
    bytes.extend(table.to_le_bytes());
    seal(&mut bytes, 5);
    bytes
}

/// A BIOS area with these parts at these offsets.
fn bios(parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 0x1_0000];
    for (at, part) in parts {
        bytes[*at..*at + part.len()].copy_from_slice(part);
    }
    bytes
}

fn image(bytes: &[u8]) -> MemoryImage<'_> {
    MemoryImage::new(PhysAddr::new(0xf_0000).unwrap(), bytes)
}

#[test]
fn firmware_system_and_board_are_named() {
    let found = Smbios::parse(&table()).unwrap();
    assert_eq!(found.firmware.to_string(), "SeaBIOS, 1.16.2, 04/01/2014");
    assert_eq!(found.system.to_string(), "LENOVO 20L5CTO1WW ThinkPad T480");
    // Placeholders are not shown.
    assert_eq!(found.board.to_string(), "LENOVO");
}

#[test]
fn either_entry_point_leads_to_the_table_and_the_newer_one_is_preferred() {
    let table = table();
    let (old, new) = (entry_32(0xf_8000, table.len() as u16), entry_64(0xf_8000, 0x1000));
    let bytes = bios(&[(0x10, &old), (0x8000, &table)]);
    let entry = EntryPoint::search(&image(&bytes)).unwrap();
    assert_eq!((entry.version, entry.table), ((2, 8), 0xf_8000));
    assert_eq!(Smbios::read(&image(&bytes), &entry).unwrap().firmware.vendor, "SeaBIOS");
    let bytes = bios(&[(0x10, &old), (0x40, &new), (0x8000, &table)]);
    let entry = EntryPoint::search(&image(&bytes)).unwrap();
    assert_eq!((entry.version, entry.length), ((3, 2), 0x1000));
    assert_eq!(Smbios::read(&image(&bytes), &entry).unwrap().version, (3, 2));
}

#[test]
fn a_damaged_entry_point_is_passed_over() {
    for good in [entry_32(0xf_8000, 64), entry_64(0xf_8000, 64)] {
        assert!(EntryPoint::search(&image(&bios(&[(0x20, &good)]))).is_some());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(EntryPoint::search(&image(&bios(&[(0x20, &bad)]))), None, "byte {at}");
        }
        // Not at a multiple of 16.
        assert_eq!(EntryPoint::search(&image(&bios(&[(0x28, &good)]))), None);
    }
    assert_eq!(EntryPoint::search(&image(&[])), None);
}

#[test]
fn a_table_that_is_not_there_is_an_error_with_the_address() {
    let bytes = bios(&[]);
    let mut entry = EntryPoint { version: (3, 0), table: 0xf_f000, length: u32::MAX };
    let unreadable = Unreadable { address: 0xf_f000, length: MAX_TABLE as usize };
    assert_eq!(Smbios::read(&image(&bytes), &entry), Err(SmbiosError::Unreadable(unreadable)));
    entry.table = u64::MAX;
    assert_eq!(Smbios::read(&image(&bytes), &entry), Err(SmbiosError::Address(u64::MAX)));
    (entry.table, entry.length) = (0xf_0000, 64);
    assert_eq!(Smbios::read(&image(&bytes), &entry), Err(SmbiosError::Nameless));
}

#[test]
fn a_structure_that_is_cut_off_ends_the_table() {
    let whole = structure(1, &[1, 2, 3, 0], &["a", "b", "c"]);
    for length in 0..whole.len() {
        assert_eq!(Smbios::parse(&whole[..length]), None, "{length} bytes");
    }
    // A length below the header's, and string numbers that lead nowhere.
    assert_eq!(Smbios::parse(&[1, 3, 0, 0, 0, 0, 0]), None);
    let found = Smbios::parse(&structure(1, &[9, 255, 0, 0], &["a"])).unwrap();
    assert_eq!(found.system, Product::default());
    assert_eq!(Smbios::parse(&structure(1, &[], &["a"])).unwrap().system, Product::default());
}

#[test]
fn text_is_short_and_can_be_shown() {
    let long = "x".repeat(300);
    let found = Smbios::parse(&structure(1, &[1, 2, 0, 0], &[&long, "a\u{1b}[2J\u{e9}"])).unwrap();
    assert_eq!(found.system.manufacturer.len(), 64);
    assert_eq!(found.system.name, "a?[2J??");
}

proptest! {
    #[test]
    fn any_bytes_are_a_table(bytes: Vec<u8>) {
        if let Some(found) = Smbios::parse(&bytes) {
            prop_assert!(found.to_owned().system.to_string().is_ascii());
        }
    }

    /// Valid headers with arbitrary contents.
    #[test]
    fn any_structures_are_a_table(parts in prop::collection::vec((0..4u8, prop::collection::vec(any::<u8>(), 0..20)), 0..20)) {
        let table: Vec<u8> = parts.iter().flat_map(|(kind, rest)| structure(*kind, rest, &["a", "b"])).collect();
        let _ = Smbios::parse(&table);
    }

    #[test]
    fn any_bytes_are_an_entry_point_or_none(bytes: [u8; 32], new: bool) {
        let mut bytes = bytes;
        bytes[..5].copy_from_slice(if new { b"_SM3_" } else { b"_SM_\0" });
        let _ = EntryPoint::read(&image(&bytes), 0xf_0000);
    }
}
