//! From the root pointer to every table, in valid and damaged firmware.

use proptest::prelude::*;

use super::fake::{Firmware, gas, rsdp_long, rsdp_short, seal, table};
use super::*;
use crate::boot::Unreadable;

const RSDP: u64 = Firmware::BASE;
const RSDT: u64 = Firmware::BASE + 0x100;
const XSDT: u64 = Firmware::BASE + 0x1000;
const FADT: u64 = Firmware::BASE + 0x2000;
const MADT: u64 = Firmware::BASE + 0x2200;
const MCFG: u64 = Firmware::BASE + 0x2400;
const HPET: u64 = Firmware::BASE + 0x2600;
const DSDT: u64 = Firmware::BASE + 0x3000;
const SSDT: u64 = Firmware::BASE + 0x4000;

fn fadt_table(dsdt: u64) -> Vec<u8> {
    let mut body = [0; 80];
    body[4..8].copy_from_slice(&u32::try_from(dsdt).unwrap().to_le_bytes());
    table(Signature::FADT, 1, &body)
}

fn madt_table(processor: u8) -> Vec<u8> {
    table(Signature::MADT, 1, &[0, 0, 0xe0, 0xfe, 1, 0, 0, 0, 0, 8, processor, processor, 1, 0, 0, 0])
}

fn mcfg_table() -> Vec<u8> {
    let entry = [&[0; 8][..], &0xb000_0000u64.to_le_bytes(), &[0, 0, 0, 255, 0, 0, 0, 0]].concat();
    table(Signature::MCFG, 1, &entry)
}

fn hpet_table() -> Vec<u8> {
    let body = [&[0x01, 0xa2, 0x86, 0x80][..], &gas(0, 0, 0, 0xfed0_0000), &[0, 0x80, 0, 0]].concat();
    table(Signature::HPET, 1, &body)
}

fn dsdt_table() -> Vec<u8> {
    table(Signature::DSDT, 1, b"\x08_S5_\x12\x06\x04\x0a\x05\x00\x00\x00")
}

fn rsdt(addresses: &[u64]) -> Vec<u8> {
    let body: Vec<u8> = addresses.iter().flat_map(|&address| u32::try_from(address).unwrap().to_le_bytes()).collect();
    table(Signature::RSDT, 1, &body)
}

fn xsdt(addresses: &[u64]) -> Vec<u8> {
    let body: Vec<u8> = addresses.iter().flat_map(|address| address.to_le_bytes()).collect();
    table(Signature::XSDT, 1, &body)
}

/// Firmware with both root tables and every table that the kernel reads, all valid.
fn firmware() -> Firmware {
    let mut firmware = Firmware::new();
    let tables = [FADT, MADT, MCFG, HPET];
    firmware.place(RSDP, &rsdp_long(u32::try_from(RSDT).unwrap(), XSDT));
    firmware.place(RSDT, &rsdt(&tables));
    firmware.place(XSDT, &xsdt(&tables));
    firmware.place(FADT, &fadt_table(DSDT));
    firmware.place(MADT, &madt_table(0));
    firmware.place(MCFG, &mcfg_table());
    firmware.place(HPET, &hpet_table());
    firmware.place(DSDT, &dsdt_table());
    firmware
}

fn read(firmware: &Firmware) -> Acpi {
    Acpi::read(&firmware.memory(), PhysAddr::new(RSDP).unwrap()).unwrap()
}

#[test]
fn every_table_is_found_and_read() {
    let acpi = read(&firmware());
    assert_eq!(acpi.problems, []);
    assert_eq!(acpi.tables.root, Some(Signature::XSDT));
    let found: Vec<_> = acpi.tables.list.iter().map(|table| (table.signature(), table.address, table.state)).collect();
    let good = TableState::Good;
    assert_eq!(
        found,
        [
            (Signature::FADT, FADT, good),
            (Signature::MADT, MADT, good),
            (Signature::MCFG, MCFG, good),
            (Signature::HPET, HPET, good),
            (Signature::DSDT, DSDT, good),
        ]
    );
    assert!(acpi.fadt.is_some() && acpi.hpet.is_some());
    assert_eq!(acpi.madt.unwrap().processors.len(), 1);
    assert_eq!(acpi.mcfg.unwrap().regions.len(), 1);
    assert_eq!(acpi.soft_off, Some(SleepType { a: 5, b: 0 }));
}

#[test]
fn a_listing_has_a_row_a_table() {
    let acpi = read(&firmware());
    let row = acpi.tables.find(Signature::MADT).unwrap().to_string();
    assert_eq!(row, "APIC 0x0000102200      52 bytes rev 1   BOCHS  BXPC     ok");
}

#[test]
fn without_an_xsdt_the_rsdt_serves() {
    let mut firmware = firmware();
    firmware.place(RSDP, &rsdp_short(u32::try_from(RSDT).unwrap()));
    let acpi = read(&firmware);
    assert_eq!((acpi.tables.root, acpi.problems.len()), (Some(Signature::RSDT), 0));
    assert!(acpi.madt.is_some());
}

#[test]
fn a_bad_xsdt_is_named_and_the_rsdt_serves() {
    let mut firmware = firmware();
    firmware.at(XSDT)[10] ^= 1;
    let acpi = read(&firmware);
    assert_eq!(acpi.tables.root, Some(Signature::RSDT));
    assert!(acpi.madt.is_some());
    let [Problem::Table { signature: Signature::XSDT, address: XSDT, error: TableError::Checksum(_) }] =
        acpi.problems[..]
    else {
        panic!("{:?}", acpi.problems)
    };
}

#[test]
fn without_any_root_table_there_are_no_tables() {
    let mut firmware = firmware();
    firmware.at(XSDT)[10] ^= 1;
    firmware.at(RSDT)[0] = b'X';
    let acpi = read(&firmware);
    assert_eq!((acpi.tables.root, acpi.tables.list.len()), (None, 0));
    assert_eq!(acpi.problems.len(), 3);
    assert_eq!(acpi.problems[2], Problem::NoRoot);
    assert_eq!(acpi.problems[2].to_string(), "ACPI: there is no usable XSDT or RSDT, so no table is known");
}

#[test]
fn each_bad_table_is_named_and_the_rest_go_on() {
    let tables = [FADT, MADT, MCFG, HPET, DSDT];
    for bad in tables {
        let mut firmware = firmware();
        firmware.at(bad)[9] ^= 1;
        let acpi = read(&firmware);
        assert!(
            matches!(acpi.problems[..], [Problem::Table { address, error: TableError::Checksum(_), .. }] if address == bad)
        );
        let there = [acpi.fadt.is_some(), acpi.madt.is_some(), acpi.mcfg.is_some(), acpi.hpet.is_some()];
        assert_eq!(there, [bad != FADT, bad != MADT, bad != MCFG, bad != HPET]);
        assert_eq!(acpi.soft_off.is_some(), bad != FADT && bad != DSDT);
    }
}

#[test]
fn pointers_to_nowhere_are_named() {
    let mut firmware = firmware();
    firmware.place(XSDT, &xsdt(&[u64::MAX, 0, MADT, 0x10, FADT]));
    let acpi = read(&firmware);
    let unreadable = |address| Problem::Table {
        signature: Text(*b"    "),
        address,
        error: TableError::Unreadable(Unreadable { address, length: 36 }),
    };
    assert_eq!(acpi.problems, [unreadable(u64::MAX), unreadable(0x10)]);
    assert_eq!(
        acpi.problems[1].to_string(),
        "ACPI:  at 0x10 is skipped: 36 bytes at physical address 0x10 cannot be read"
    );
    assert!(acpi.madt.is_some() && acpi.fadt.is_some());
}

#[test]
fn of_two_tables_the_first_that_is_good_is_used() {
    let second = SSDT;
    let mut firmware = firmware();
    firmware.place(XSDT, &xsdt(&[MADT, second, MADT]));
    firmware.place(second, &madt_table(1));
    let apic_id = |acpi: &Acpi| acpi.madt.as_ref().unwrap().processors[0].apic_id;
    let acpi = read(&firmware);
    let states: Vec<_> = acpi.tables.list.iter().map(|table| table.state).collect();
    assert_eq!((apic_id(&acpi), states), (0, vec![TableState::Good, TableState::Duplicate]));
    firmware.at(MADT)[40] ^= 1;
    assert_eq!(apic_id(&read(&firmware)), 1);
}

#[test]
fn soft_off_may_be_in_an_ssdt() {
    let mut firmware = firmware();
    firmware.place(XSDT, &xsdt(&[FADT, SSDT, SSDT + 0x100]));
    firmware.place(DSDT, &table(Signature::DSDT, 1, b"nothing"));
    firmware.place(SSDT, &table(Signature::SSDT, 1, b"nothing"));
    firmware.place(SSDT + 0x100, &table(Signature::SSDT, 1, b"\x08_S5_\x12\x06\x04\x01\x01\x00\x00"));
    let acpi = read(&firmware);
    assert_eq!((acpi.soft_off, acpi.tables.list.len()), (Some(SleepType { a: 1, b: 1 }), 4));
}

#[test]
fn a_dsdt_that_is_another_table_is_named() {
    let mut firmware = firmware();
    firmware.place(XSDT, &xsdt(&[FADT]));
    firmware.place(FADT, &fadt_table(MCFG));
    let error = TableError::Signature { expected: Signature::DSDT, found: Signature::MCFG };
    assert_eq!(read(&firmware).problems, [Problem::Table { signature: Signature::MCFG, address: MCFG, error }]);
}

#[test]
fn a_root_table_of_odd_length_is_read_as_far_as_it_goes() {
    let mut body = MADT.to_le_bytes().to_vec();
    body.extend([1, 2, 3]);
    let mut firmware = firmware();
    firmware.place(XSDT, &table(Signature::XSDT, 1, &body));
    let acpi = read(&firmware);
    assert!(acpi.madt.is_some());
    assert_eq!(acpi.problems, [Problem::RootRemainder { signature: Signature::XSDT, excess: 3 }]);
}

#[test]
fn a_root_table_with_too_many_entries_is_cut() {
    let mut firmware = firmware();
    firmware.place(XSDT, &table(Signature::XSDT, 1, &[0; 0x1000 - 36]));
    let mut far = vec![0; Tables::MOST];
    far.push(MADT);
    firmware.place(SSDT, &xsdt(&far));
    firmware.place(RSDP, &rsdp_long(0, SSDT));
    let acpi = read(&firmware);
    assert!(acpi.madt.is_none());
    let expected = Problem::TooManyTables { signature: Signature::XSDT, count: 513, considered: Tables::MOST };
    assert_eq!(acpi.problems, [expected]);
}

#[test]
fn flaws_of_entries_are_among_the_problems() {
    let mut firmware = firmware();
    firmware.place(MADT, &table(Signature::MADT, 1, &[0, 0, 0xe0, 0xfe, 1, 0, 0, 0, 0, 0]));
    let problems = read(&firmware).problems;
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].to_string(),
        "ACPI: APIC entry at offset 44 has a length of 0: the rest of the table is skipped"
    );
}

#[test]
fn no_root_pointer_is_an_error() {
    let firmware = firmware();
    let nowhere = PhysAddr::new(0x10).unwrap();
    assert!(matches!(Acpi::read(&firmware.memory(), nowhere), Err(RsdpError::Unreadable(_))));
    let wrong = PhysAddr::new(MADT).unwrap();
    assert!(matches!(Acpi::read(&firmware.memory(), wrong), Err(RsdpError::Signature(_))));
}

proptest! {
    /// Any damage, with checksums repaired so that the tables pass them.
    #[test]
    fn any_change_of_any_table_is_survived(
        changes in prop::collection::vec((0usize..6, 4usize..64, any::<u8>()), 1..40),
    ) {
        let mut firmware = firmware();
        let tables = [XSDT, FADT, MADT, MCFG, HPET, DSDT];
        for (which, offset, value) in changes {
            firmware.at(tables[which])[offset] = value;
        }
        for table in tables {
            let length = u32::from_le_bytes(firmware.at(table)[4..8].try_into().unwrap()) as usize;
            let room = firmware.at(table).len();
            seal(&mut firmware.at(table)[..length.clamp(36, room)], 9);
        }
        let acpi = read(&firmware);
        prop_assert!(acpi.tables.list.len() <= Tables::MOST + 1);
    }
}
