//! Tables as VMMs and BIOSes write them, and damaged ones.

use super::*;
use crate::acpi::{Polarity, Trigger};
use crate::boot::MemoryImage;

const BASE: u64 = 0x9_FC00;

fn processor(id: u8, flags: u8) -> Vec<u8> {
    let mut entry = vec![PROCESSOR, id, 0x14, flags];
    entry.resize(PROCESSOR_SIZE, 0);
    entry
}

fn bus(id: u8, name: &[u8; 6]) -> Vec<u8> {
    [&[BUS, id][..], name].concat()
}

fn io_apic(id: u8, flags: u8, address: u32) -> Vec<u8> {
    [&[IO_APIC, id, 0x11, flags][..], &address.to_le_bytes()].concat()
}

fn interrupt(kind: u8, flags: u8, bus: u8, irq: u8, io_apic: u8, input: u8) -> Vec<u8> {
    vec![IO_INTERRUPT, kind, flags, 0, bus, irq, io_apic, input]
}

/// As in libkrun and Firecracker: pointer and table in the last KiB of base memory.
fn entries() -> Vec<Vec<u8>> {
    let mut all = vec![processor(0, 3), processor(1, 1), processor(2, 0), bus(0, b"ISA   "), bus(1, b"PCI   ")];
    all.push(io_apic(2, 1, 0xFEC0_0000));
    all.push(io_apic(3, 0, 0xFEC1_0000));
    all.push(io_apic(4, 1, 0xFEC2_0000));
    all.extend((1..16).map(|irq| interrupt(VECTORED, 0, 0, irq, 2, irq)));
    all.push(interrupt(VECTORED, 0, 0, 0, 2, 2));
    all.push(interrupt(VECTORED, 0b1111, 0, 9, 4, 3));
    all.push(interrupt(VECTORED, 0b1111, 1, 12, 2, 16));
    all.push(vec![LOCAL_INTERRUPT, 3, 0, 0, 0, 0, 0xFF, 0]);
    all.push(vec![LOCAL_INTERRUPT, NMI, 0, 0, 0, 0, 0xFF, 1]);
    all
}

fn image(entries: &[Vec<u8>]) -> Vec<u8> {
    let body = entries.concat();
    let mut table = b"PCMP".to_vec();
    table.extend((body.len() as u16 + HEADER_SIZE as u16).to_le_bytes());
    table.extend([4, 0]);
    table.resize(34, b' ');
    table.extend((entries.len() as u16).to_le_bytes());
    table.extend(0xFEE0_0000u32.to_le_bytes());
    table.extend([0; 4]);
    table.extend(body);
    table[7] = 0u8.wrapping_sub(sum(&table));
    let mut pointer = b"_MP_".to_vec();
    pointer.extend((BASE as u32 + 16).to_le_bytes());
    pointer.extend([1, 4, 0, 0, 0, 0, 0, 0]);
    pointer[10] = 0u8.wrapping_sub(sum(&pointer));
    [pointer, table].concat()
}

fn read(bytes: &[u8]) -> Option<Result<Madt, MpTableError>> {
    super::read(&MemoryImage::new(PhysAddr::new(BASE).unwrap(), bytes))
}

#[test]
fn processors_io_apics_and_the_wiring_of_isa_are_read() {
    let madt = read(&image(&entries())).unwrap().unwrap();
    let ids: Vec<_> = madt.processors.iter().map(|processor| processor.apic_id).collect();
    assert_eq!(ids, [0, 1], "one that is disabled is not there");
    let bases: Vec<_> = madt.io_apics.iter().map(|it| (it.id, it.address.as_u64(), it.gsi_base)).collect();
    assert_eq!(bases, [(2, 0xFEC0_0000, 0), (4, 0xFEC2_0000, 24)]);
    let wired =
        |irq| (madt.isa_irq(irq).gsi, madt.isa_irq(irq).signalling.polarity, madt.isa_irq(irq).signalling.trigger);
    assert_eq!(wired(0), (2, Polarity::ActiveHigh, Trigger::Edge));
    assert_eq!(wired(9), (9, Polarity::ActiveHigh, Trigger::Edge), "the first holds");
    assert_eq!(wired(12), (12, Polarity::ActiveHigh, Trigger::Edge), "not that of PCI");
    let nmis: Vec<_> = madt.local_nmis.iter().map(|nmi| (nmi.target, nmi.lint)).collect();
    assert_eq!(nmis, [(NmiTarget::All, 1)]);
    assert_eq!(madt.local_apic_address.as_u64(), 0xFEE0_0000);
}

#[test]
fn flags_and_other_io_apics_are_kept() {
    let entries = [
        bus(7, b"ISA   "),
        io_apic(0, 1, 0xFEC0_0000),
        io_apic(1, 1, 0xFEC1_0000),
        interrupt(VECTORED, 0b1111, 7, 5, 1, 3),
    ];
    let madt = read(&image(&entries)).unwrap().unwrap();
    let route = madt.isa_irq(5);
    assert_eq!(
        (route.gsi, route.signalling.polarity, route.signalling.trigger),
        (27, Polarity::ActiveLow, Trigger::Level)
    );
}

#[test]
fn damaged_tables_are_named() {
    let sound = image(&entries());
    let with = |at: usize, value: u8| {
        let mut bytes = sound.clone();
        bytes[at] = value;
        read(&bytes)
    };
    assert!(matches!(with(16, b'Q'), Some(Err(MpTableError::Signature([b'Q', ..])))));
    assert!(matches!(with(16 + 30, 1), Some(Err(MpTableError::Checksum(_)))));
    assert!(matches!(with(16 + 5, 0xFF), Some(Err(MpTableError::Unreadable(_)))));
    assert_eq!(with(0, b'X'), None, "no pointer");
    assert_eq!(with(4, 0), None, "the pointer's checksum");
    let mut short = sound.clone();
    short[20..22].copy_from_slice(&43u16.to_le_bytes());
    assert!(matches!(read(&short), Some(Err(MpTableError::Length(43)))));
    let mut default = sound.clone();
    (default[10], default[11]) = (default[10].wrapping_sub(5), 5);
    assert!(matches!(read(&default), Some(Err(MpTableError::Default(5)))));
}

#[test]
fn every_truncation_and_unknown_entries_are_survived() {
    let bytes = image(&entries());
    for length in 0..bytes.len() {
        assert!(!matches!(read(&bytes[..length]), Some(Ok(_))), "at {length}");
    }
    let entries = [processor(0, 1), vec![9; 8], processor(1, 1)];
    assert_eq!(read(&image(&entries)).unwrap().unwrap().processors.len(), 1);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_survived(noise: Vec<u8>) {
        let _ = Found::read(&noise);
        let _ = read(&noise);
    }
}
