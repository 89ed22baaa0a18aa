//! What can be wrong with ACPI tables without keeping the kernel from going on.

use alloc::vec::Vec;

use derive_more::Display;

use super::{Signature, TableError};

/// Something that was skipped or corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub enum Problem {
    /// A table cannot be used.
    #[display("ACPI: {signature} at {address:#x} is skipped: {error}")]
    Table {
        /// Its signature, of blanks if not even that could be read.
        signature: Signature,
        /// Where it is said to be.
        address: u64,
        /// Why.
        error: TableError,
    },
    /// Neither the XSDT nor the RSDT can be used, so there are no tables.
    #[display("ACPI: there is no usable XSDT or RSDT, so no table is known")]
    NoRoot,
    /// The size of the root table is no whole number of entries.
    #[display("ACPI: {signature} ends with {excess} bytes that are no entry")]
    RootRemainder {
        /// XSDT or RSDT.
        signature: Signature,
        /// Bytes left over.
        excess: usize,
    },
    /// The root table has more entries than are read.
    #[display("ACPI: {signature} has {count} entries: only the first {considered} are read")]
    TooManyTables {
        /// XSDT or RSDT.
        signature: Signature,
        /// Entries there are.
        count: usize,
        /// Entries that are read.
        considered: usize,
    },
    /// An entry of a table was skipped.
    #[display("ACPI: {_0}")]
    Entry(EntryFlaw),
}

/// An entry of a table that cannot be used.
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

/// The flaw of an entry of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub enum Flaw {
    /// Its length is less than an entry's own head, so that the next one cannot be found.
    #[display("has a length of {_0}: the rest of the table is skipped")]
    NoLength(u8),
    /// It reaches past the end of the table.
    #[display("is cut off by the end of the table")]
    CutOff,
    /// It is shorter than its type is.
    #[display("of type {kind} is too short ({length} bytes) and skipped")]
    TooShort {
        /// Its type.
        kind: u8,
        /// Its length in bytes.
        length: usize,
    },
    /// The address in it, or the range that it makes, cannot be.
    #[display("has the impossible address {_0:#x} and is skipped")]
    Address(u64),
    /// Interrupts from this number on would pass the highest number there is.
    #[display("has interrupts from {_0:#x} on, which cannot be, and is skipped")]
    Interrupts(u32),
    /// It names no bus: the first is above the last.
    #[display("has buses {first} to {last}, which are none, and is skipped")]
    NoBus {
        /// The first bus.
        first: u8,
        /// The last bus.
        last: u8,
    },
}

impl EntryFlaw {
    /// Flaws of a table that are kept: enough to see the cause.
    const MOST: usize = 16;

    /// Adds it to the flaws of a table.
    pub(super) fn note(self, flaws: &mut Vec<Self>) {
        if flaws.len() < Self::MOST {
            flaws.push(self);
        }
    }
}
