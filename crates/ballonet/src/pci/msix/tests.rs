//! The table is programmed in an order that sends no accidental message, and is restored.

use super::*;
use crate::pci::fake::{FakeConfig, FakeFunction};
use crate::pci::{Bdf, Status};

/// A window of plain 32-bit registers. As an MSI-X table it panics if a message of an unmasked entry changes.
#[derive(Debug, Clone)]
struct FakeRegisters {
    words: Vec<u32>,
    is_table: bool,
    /// Every write: offset and value.
    log: Vec<(usize, u32)>,
}

impl FakeRegisters {
    /// `size` bytes of zeros.
    fn new(size: usize) -> Self {
        Self { words: vec![0; size / 4], is_table: false, log: Vec::new() }
    }

    /// An MSI-X table after reset, with messages that identify their positions.
    fn table(entries: usize) -> Self {
        let words = (0..entries as u32).flat_map(|entry| [entry << 4, entry, entry, 1]).collect();
        Self { words, is_table: true, log: Vec::new() }
    }

    /// The register at `offset`, to change it behind the driver's back.
    fn word(&mut self, offset: usize) -> &mut u32 {
        &mut self.words[offset / 4]
    }
}

impl Registers for FakeRegisters {
    fn len(&self) -> usize {
        self.words.len() * 4
    }

    fn read8(&self, offset: usize) -> u8 {
        panic!("8-bit read at {offset:#x}")
    }

    fn read16(&self, offset: usize) -> u16 {
        panic!("16-bit read at {offset:#x}")
    }

    fn read32(&self, offset: usize) -> u32 {
        assert!(offset.is_multiple_of(4));
        self.words[offset / 4]
    }

    fn write8(&mut self, offset: usize, value: u8) {
        panic!("8-bit write of {value:#x} at {offset:#x}")
    }

    fn write16(&mut self, offset: usize, value: u16) {
        panic!("16-bit write of {value:#x} at {offset:#x}")
    }

    fn write32(&mut self, offset: usize, value: u32) {
        assert!(offset.is_multiple_of(4));
        let masked = self.words[offset / 16 * 4..].get(3).is_none_or(|control| control & 1 != 0);
        assert!(!self.is_table || offset % 16 == 12 || masked, "entry at {offset:#x} changed while it may send");
        self.log.push((offset, value));
        self.words[offset / 4] = value;
    }
}

/// A function with MSI-X in BAR 1, decoding on; message control, table and pending registers as given.
fn with(control: u16, table: u32, pending: u32) -> FakeFunction {
    let mut body = [0; 10];
    body[..2].copy_from_slice(&control.to_le_bytes());
    body[2..6].copy_from_slice(&table.to_le_bytes());
    body[6..].copy_from_slice(&pending.to_le_bytes());
    FakeFunction::new(0x1AF4, 0x1045, 0)
        .memory32(1, 0xFE00_0000, 0x1000)
        .io(2, 0xC000, 0x100)
        .memory32(3, 0, 0x1000)
        .memory32(4, 0xFE10_0000, 0x1_0000)
        .capability(0x40, 0x11, &body)
        .writable(0x40, 0xC000_0000)
        .command(Command::MEMORY)
        .status(Status::WRITE_ONE_TO_CLEAR)
}

fn find(fake: FakeFunction) -> (FakeConfig, Bdf, Result<Option<Msix>, MsixError>) {
    let (mut config, bdf) = FakeConfig::with(fake);
    let function = Function::probe(&config, bdf).unwrap();
    let bars = Bars::size(&mut config, &function);
    let found = Msix::find(&config, &function, &bars);
    (config, bdf, found)
}

/// A function with three entries, and its MSI-X.
fn three() -> (FakeConfig, Bdf, Msix) {
    let (config, bdf, found) = find(with(2, 1, 0x801));
    (config, bdf, found.unwrap().unwrap())
}

fn vector(number: u16) -> MsixVector {
    MsixVector::new(number).unwrap()
}

const MESSAGE: MsiMessage = MsiMessage { address: 0x1_FEE0_1000, data: 0x41 };

fn message(table: &MsixTable<FakeRegisters>, vector: MsixVector) -> MsiMessage {
    let [low, high, data, _] = table.read_entry(vector);
    MsiMessage { address: u64::from(high) << 32 | u64::from(low), data }
}

fn is_masked(table: &MsixTable<FakeRegisters>, vector: MsixVector) -> bool {
    table.read_entry(vector)[3] & ENTRY_MASK != 0
}

#[test]
fn a_function_without_the_capability_has_no_msix() {
    let (_config, _, found) = find(FakeFunction::new(0x1AF4, 0x1045, 0));
    assert_eq!(found, Ok(None));
}

#[test]
fn table_size_has_eleven_bits() {
    for (field, entries) in [(0, 1), (1, 2), (0x3FF, 0x400), (0x400, 0x401), (0x7FF, 0x800)] {
        let (_config, _, found) = find(with(field, 4, 0x8004));
        let msix = found.unwrap().unwrap();
        assert_eq!(msix.entries, entries);
        assert_eq!(msix.table.length, u64::from(entries) * 16);
        assert_eq!(msix.pending.length, u64::from(entries.div_ceil(64)) * 8);
    }
    assert_eq!(MsixVector::new(0x7FF).map(MsixVector::number), Some(0x7FF));
    assert_eq!(MsixVector::new(0x800), None);
    assert_eq!(MsixVector::new(0xFFFF), None);
}

#[test]
fn structures_are_found_where_the_capability_says() {
    let (_config, _, msix) = three();
    assert_eq!((msix.table.bar, msix.table.address), (Some(1), 0xFE00_0000));
    assert_eq!((msix.pending.bar, msix.pending.address), (Some(1), 0xFE00_0800));
}

#[test]
fn structures_that_cannot_be_used_are_named() {
    let error = |table, pending| find(with(2, table, pending)).2.unwrap_err();
    assert!(matches!(error(0xFD9, 0x801), MsixError::TableWindow(WindowError::Outside { .. })));
    assert!(matches!(error(0xFFFF_FFF9, 0x801), MsixError::TableWindow(WindowError::Outside { .. })));
    assert!(matches!(error(1, 0x1001), MsixError::PendingWindow(WindowError::Outside { .. })));
    assert!(matches!(error(6, 0x801), MsixError::TableBar(BarError::NoSuchRegister { bar: 6, .. })));
    assert!(matches!(error(1, 7), MsixError::PendingBar(BarError::NoSuchRegister { bar: 7, .. })));
    assert!(matches!(error(0, 0x801), MsixError::TableBar(BarError::Unimplemented { .. })));
    assert!(matches!(error(3, 0x801), MsixError::TableWindow(WindowError::Unassigned { bar: 3, .. })));
    assert!(matches!(error(2, 0x801), MsixError::InPorts(_)));
    assert!(matches!(error(1, 0x29), MsixError::Overlap { .. }));
    let touching = find(with(2, 0x801, 0x7F9)).2;
    assert!(touching.is_ok(), "pending bits right before the table");
}

#[test]
fn a_capability_at_the_very_end_is_cut_off() {
    let fake = FakeFunction::new(0x1AF4, 0x1045, 0).capability(0xFC, 0x11, &[2, 0]);
    assert!(matches!(find(fake).2, Err(MsixError::Capability(CapabilityError::Truncated { .. }))));
}

#[test]
fn enabling_masks_the_function_and_all_entries_and_turns_intx_off() {
    let (mut config, bdf, msix) = three();
    let mut registers = FakeRegisters::table(3);
    *registers.word(0x1C) = 0xAB00_0000;
    let table = msix.enable(&mut config, registers, FakeRegisters::new(8)).unwrap();
    assert_eq!(config.read16(bdf, 0x42), 0xC002);
    assert!(table.vectors().all(|vector| is_masked(&table, vector)));
    assert_eq!(table.table.read32(0x1C), 0xAB00_0001, "reserved bits are kept");
    assert!(config.read16(bdf, 4) & Command::INTX_DISABLE.bits() != 0);
    let _ = table.disable(&mut config);
}

#[test]
fn an_entry_is_programmed_while_masked_and_then_unmasked() {
    let (mut config, bdf, msix) = three();
    let mut table = msix.enable(&mut config, FakeRegisters::table(3), FakeRegisters::new(8)).unwrap();
    table.program(vector(2), MESSAGE).unwrap();
    assert_eq!(message(&table, vector(2)), MESSAGE);
    assert!(is_masked(&table, vector(2)));
    table.unmask(vector(2)).unwrap();
    table.set_function_mask(&mut config, false);
    assert_eq!(config.read16(bdf, 0x42), 0x8002);
    assert_eq!([0, 1, 2].map(|number| is_masked(&table, vector(number))), [true, true, false]);
    // The fake panics if this does not mask first.
    table.program(vector(2), MsiMessage { data: 0x42, ..MESSAGE }).unwrap();
    assert!(is_masked(&table, vector(2)));
    table.set_function_mask(&mut config, true);
    assert_eq!(config.read16(bdf, 0x42), 0xC002);
    let _ = table.disable(&mut config);
}

#[test]
fn disabling_puts_everything_back_as_it_was_found() {
    let (mut config, bdf, msix) = three();
    let mut registers = FakeRegisters::table(3);
    *registers.word(0x0C) = 0;
    let before = registers.clone();
    let mut table = msix.enable(&mut config, registers, FakeRegisters::new(8)).unwrap();
    for vector in table.vectors() {
        table.program(vector, MESSAGE).unwrap();
        table.unmask(vector).unwrap();
    }
    table.set_function_mask(&mut config, false);
    let (after, _) = table.disable(&mut config);
    assert_eq!(after.words, before.words);
    assert_eq!(config.read16(bdf, 0x42), 2);
    assert_eq!(config.read16(bdf, 4), Command::MEMORY.bits());
}

#[test]
fn disabling_leaves_intx_off_where_it_was_off() {
    let (mut config, bdf, found) = find(with(2, 1, 0x801).command(Command::MEMORY | Command::INTX_DISABLE));
    let table = found.unwrap().unwrap().enable(&mut config, FakeRegisters::table(3), FakeRegisters::new(8)).unwrap();
    let _ = table.disable(&mut config);
    assert!(config.read16(bdf, 4) & Command::INTX_DISABLE.bits() != 0);
}

#[test]
fn entries_beyond_the_table_are_refused() {
    let (mut config, _, msix) = three();
    let mut table = msix.enable(&mut config, FakeRegisters::table(3), FakeRegisters::new(8)).unwrap();
    let refused = MsixError::NoEntry { vector: vector(3), entries: 3 };
    assert_eq!(table.program(vector(3), MESSAGE), Err(refused));
    assert_eq!(table.unmask(vector(3)), Err(refused));
    assert_eq!(table.is_pending(vector(3)), Err(refused));
    let _ = table.disable(&mut config);
}

#[test]
fn the_last_entry_of_the_largest_table_works() {
    let (mut config, _, found) = find(with(0x7FF, 4, 0x8004));
    let mut pending = FakeRegisters::new(256);
    *pending.word(0xFC) = 1 << 31;
    let mut table = found.unwrap().unwrap().enable(&mut config, FakeRegisters::table(0x800), pending).unwrap();
    table.program(vector(0x7FF), MESSAGE).unwrap();
    table.unmask(vector(0x7FF)).unwrap();
    assert_eq!(message(&table, vector(0x7FF)), MESSAGE);
    assert_eq!(table.is_pending(vector(0x7FF)), Ok(true));
    assert_eq!(table.is_pending(vector(0x7FE)), Ok(false));
    let _ = table.disable(&mut config);
}

#[test]
fn pending_bits_are_read_from_their_word() {
    let (mut config, _, found) = find(with(69, 1, 0x801));
    let mut pending = FakeRegisters::new(16);
    *pending.word(4) = 1 << 1;
    *pending.word(8) = 1 << 5;
    let table = found.unwrap().unwrap().enable(&mut config, FakeRegisters::table(70), pending).unwrap();
    let set: Vec<u16> =
        table.vectors().filter(|vector| table.is_pending(*vector).unwrap()).map(MsixVector::number).collect();
    assert_eq!(set, [33, 69]);
    let _ = table.disable(&mut config);
}
