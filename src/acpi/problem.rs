//! Problems of ACPI tables that do not stop the kernel.

use alloc::vec::Vec;

use derive_more::Display;

use super::{Signature, TableError};

/// Something that was skipped or corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub enum Problem {
    /// A table is unusable.
    #[display("ACPI: {signature} at {address:#x} is skipped: {error}")]
    Table {
        /// Its signature; blanks if that could not be read.
        signature: Signature,
        /// Its address, according to firmware.
        address: u64,
        /// Why.
        error: TableError,
    },
    /// Neither the XSDT nor the RSDT is usable, so there are no tables.
    #[display("ACPI: there is no usable XSDT or RSDT, so no table is known")]
    NoRoot,
    /// The root table's size is not a multiple of an entry's.
    #[display("ACPI: {signature} ends with {excess} bytes that are not an entry")]
    RootRemainder {
        /// XSDT or RSDT.
        signature: Signature,
        /// Bytes left over.
        excess: usize,
    },
    /// The root table has too many entries; the rest are not read.
    #[display("ACPI: {signature} has {count} entries: only the first {considered} are read")]
    TooManyTables {
        /// XSDT or RSDT.
        signature: Signature,
        /// Number of entries.
        count: usize,
        /// Number of entries read.
        considered: usize,
    },
    /// An entry of a table was skipped.
    #[display("ACPI: {_0}")]
    Entry(EntryFlaw),
}

/// An unusable entry of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
#[display("{table} entry at offset {offset} {flaw}")]
pub struct EntryFlaw {
    /// Which table.
    pub table: Signature,
    /// Offset of the entry from the start of the table, in bytes.
    pub offset: usize,
    /// The flaw.
    pub flaw: Flaw,
}

/// What is wrong with an entry of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub enum Flaw {
    /// Its length is less than an entry's header, so the next entry cannot be found.
    #[display("has a length of {_0}: the rest of the table is skipped")]
    NoLength(u8),
    /// It reaches past the end of the table.
    #[display("is cut off by the end of the table")]
    CutOff,
    /// It is shorter than its type requires.
    #[display("of type {kind} is too short ({length} bytes) and skipped")]
    TooShort {
        /// Its type.
        kind: u8,
        /// Its length in bytes.
        length: usize,
    },
    /// Its address, or the range from there, is invalid.
    #[display("has the impossible address {_0:#x} and is skipped")]
    Address(u64),
    /// Interrupts from this number on would exceed the highest number.
    #[display("has interrupts from {_0:#x} on, beyond the highest number, and is skipped")]
    Interrupts(u32),
    /// It covers no bus: the first is above the last.
    #[display("has the invalid buses {first} to {last} and is skipped")]
    NoBus {
        /// The first bus.
        first: u8,
        /// The last bus.
        last: u8,
    },
}

impl EntryFlaw {
    /// Flaws kept per table: enough to see the cause.
    const MOST: usize = 16;

    /// Adds this to the flaws of a table.
    pub(super) fn note(self, flaws: &mut Vec<Self>) {
        if flaws.len() < Self::MOST {
            flaws.push(self);
        }
    }
}
