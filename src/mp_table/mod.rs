//! The MP configuration table: processors, IOAPICs and interrupt routing on machines without ACPI (Intel
//! `MultiProcessor` Specification 1.4).
//!
//! Its contents are translated into a MADT, which the machine layer reads. Firmware's bytes are not trusted: work and
//! memory are bounded whatever they say.

#![forbid(unsafe_code)]

use alloc::vec;
use alloc::vec::Vec;

use derive_more::{Display, Error};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::acpi::{Interrupts, IoApic, LocalNmi, Madt, NmiTarget, Processor, ProcessorState, SourceOverride};
use crate::boot::{PhysicalMemory, Unreadable};
use ballonet::memory::{PhysAddr, PhysRange};

/// The pointer to the table (4.1).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPointer {
    signature: [u8; 4],
    table: U32,
    /// In units of 16 bytes.
    length: u8,
    revision: u8,
    checksum: u8,
    /// Not 0: no table, but one of the default configurations.
    default: u8,
    features: [u8; 4],
}

/// The table's header (4.2).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    signature: [u8; 4],
    length: U16,
    revision: u8,
    checksum: u8,
    oem: [u8; 8],
    product: [u8; 12],
    oem_table: U32,
    oem_table_size: U16,
    entries: U16,
    local_apic: U32,
    extended_length: U16,
    extended_checksum: u8,
    reserved: u8,
}

const POINTER: [u8; 4] = *b"_MP_";
const HEADER: [u8; 4] = *b"PCMP";
const HEADER_SIZE: usize = size_of::<RawHeader>();

/// Where the pointer may be besides the extended BIOS data area: the last KiB of base memory, and the BIOS (4).
const AREAS: [(u64, u64); 2] = [(639 << 10, 1 << 10), (0xF_0000, 0x1_0000)];

/// Entry types (4.3), and entry sizes in bytes.
const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const IO_APIC: u8 = 2;
const IO_INTERRUPT: u8 = 3;
const LOCAL_INTERRUPT: u8 = 4;
const PROCESSOR_SIZE: usize = 20;
const ENTRY_SIZE: usize = 8;

/// Interrupt types (4.3.4).
const VECTORED: u8 = 0;
const NMI: u8 = 1;

/// Flag of a processor or IOAPIC: it is usable.
const ENABLED: u8 = 1;
/// The second feature byte: the 8259s are connected (PIC mode).
const PIC_MODE: u8 = 0x80;
/// Target of a local interrupt: every local APIC.
const EVERY_LOCAL_APIC: u8 = 0xFF;

/// Inputs of an IOAPIC. The table does not give them; the 82093AA and its emulations have these.
const INPUTS: u32 = 24;

/// Why there is no usable table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub(crate) enum MpTableError {
    /// The pointer names a default configuration instead of a table.
    #[display("the MP table is default configuration {_0}, which this kernel does not support")]
    Default(#[error(not(source))] u8),
    /// The table is not in readable memory.
    #[display("the MP table: {_0}")]
    Unreadable(Unreadable),
    /// The signature is wrong.
    #[display("the MP table begins with {_0:02x?}, not `PCMP`")]
    Signature(#[error(not(source))] [u8; 4]),
    /// Its length is less than the header's.
    #[display("the MP table's length of {_0} bytes is too small")]
    Length(#[error(not(source))] u16),
    /// Its bytes do not sum to zero.
    #[display("the MP table's checksum is off by {_0:#04x}")]
    Checksum(#[error(not(source))] u8),
}

/// The ISA routing found so far.
#[derive(Default)]
struct Found {
    processors: Vec<Processor>,
    /// The numbers of ISA buses.
    isa: Vec<u8>,
    io_apics: Vec<IoApic>,
    overrides: Vec<SourceOverride>,
    local_nmis: Vec<LocalNmi>,
}

/// Reads the MP table; `None` if there is none.
pub(crate) fn read(memory: &impl PhysicalMemory) -> Option<Result<Madt, MpTableError>> {
    let pointer = areas(memory).find_map(|area| search(memory, area))?;
    Some(follow(memory, &pointer))
}

/// Where the pointer may be, the extended BIOS data area first; the word at 0x40E is its segment.
fn areas(memory: &impl PhysicalMemory) -> impl Iterator<Item = PhysRange> {
    let segment: Option<[u8; 2]> = memory.read_value(0x40E).ok();
    let extended = segment.map(|segment| (u64::from(u16::from_le_bytes(segment)) << 4, 1 << 10));
    let all = extended.filter(|(start, _)| *start != 0).into_iter().chain(AREAS);
    all.filter_map(|(start, length)| PhysRange::parse(start, length).ok())
}

fn search(memory: &impl PhysicalMemory, area: PhysRange) -> Option<RawPointer> {
    let first = area.start().as_u64().next_multiple_of(16);
    (first..area.end()).step_by(16).find_map(|address| {
        let pointer: RawPointer = memory.read_value(address).ok()?;
        let is_it = pointer.signature == POINTER && pointer.length == 1 && sum(pointer.as_bytes()) == 0;
        is_it.then_some(pointer)
    })
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

fn follow(memory: &impl PhysicalMemory, pointer: &RawPointer) -> Result<Madt, MpTableError> {
    if pointer.default != 0 {
        return Err(MpTableError::Default(pointer.default));
    }
    let address = u64::from(pointer.table.get());
    let header: RawHeader = memory.read_value(address).map_err(MpTableError::Unreadable)?;
    if header.signature != HEADER {
        return Err(MpTableError::Signature(header.signature));
    }
    let length = header.length.get();
    if usize::from(length) < HEADER_SIZE {
        return Err(MpTableError::Length(length));
    }
    let mut bytes = vec![0; length.into()];
    let unreadable = MpTableError::Unreadable(Unreadable { address, length: length.into() });
    let start = PhysAddr::new(address).ok_or(unreadable)?;
    memory.read(start, &mut bytes).map_err(MpTableError::Unreadable)?;
    match sum(&bytes) {
        0 => {}
        off => return Err(MpTableError::Checksum(off)),
    }
    let found = Found::read(bytes.get(HEADER_SIZE..).unwrap_or(&[]));
    let local_apic = PhysAddr::new(header.local_apic.get().into()).unwrap_or_default();
    let has_8259 = pointer.features.first().is_some_and(|features| features & PIC_MODE != 0);
    Ok(found.into_madt(local_apic, has_8259))
}

impl Found {
    /// Takes every entry up to the first of unknown type: entries have no length field. The specification sorts them
    /// by type, so buses and IOAPICs come before the entries that refer to them.
    fn read(mut entries: &[u8]) -> Self {
        let mut found = Self::default();
        while let Some(&kind) = entries.first() {
            let size = if kind == PROCESSOR { PROCESSOR_SIZE } else { ENTRY_SIZE };
            let Some((entry, rest)) = entries.split_at_checked(size).filter(|_| kind <= LOCAL_INTERRUPT) else { break };
            found.take(kind, entry);
            entries = rest;
        }
        found
    }

    fn take(&mut self, kind: u8, entry: &[u8]) {
        let &[_, a, b, c, d, e, f, g, ..] = entry else { return };
        let word = u32::from_le_bytes([d, e, f, g]);
        match kind {
            PROCESSOR if c & ENABLED != 0 => {
                let id = u32::from(a);
                self.processors.push(Processor { uid: id, apic_id: id, state: ProcessorState::Enabled });
            }
            BUS if [b, c, d] == *b"ISA" => self.isa.push(a),
            IO_APIC if c & ENABLED != 0 && self.io_apics.len() < Madt::MOST_IO_APICS => {
                let gsi_base = INPUTS * self.io_apics.len() as u32;
                if let Some(address) = PhysAddr::new(word.into()).filter(|address| address.as_u64() != 0) {
                    self.io_apics.push(IoApic { id: a, address, gsi_base });
                }
            }
            // The flags are encoded as in a MADT.
            IO_INTERRUPT if a == VECTORED && self.isa.contains(&d) => self.wire(e, f, g, u16::from_le_bytes([b, c])),
            LOCAL_INTERRUPT if a == NMI => {
                let target = if f == EVERY_LOCAL_APIC { NmiTarget::All } else { NmiTarget::Uid(f.into()) };
                self.local_nmis.push(LocalNmi::new(target, g, u16::from_le_bytes([b, c])));
            }
            _ => {}
        }
    }

    /// Records an ISA interrupt's IOAPIC input. The first record counts.
    fn wire(&mut self, irq: u8, io_apic: u8, input: u8, flags: u16) {
        let ends_at = |found: &&IoApic| found.id == io_apic || io_apic == EVERY_LOCAL_APIC;
        let Some(io_apic) = self.io_apics.iter().find(ends_at) else { return };
        let gsi = io_apic.gsi_base + u32::from(input);
        if self.overrides.iter().all(|known| known.irq() != irq) {
            self.overrides.push(SourceOverride::new(irq, gsi, flags));
        }
    }

    fn into_madt(self, local_apic_address: PhysAddr, has_8259: bool) -> Madt {
        let Self { processors, io_apics, overrides, local_nmis, .. } = self;
        Madt::from_interrupts(Interrupts { local_apic_address, has_8259, processors, io_apics, overrides, local_nmis })
    }
}

#[cfg(test)]
mod tests;
