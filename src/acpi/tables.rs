//! The tables that the root table lists.

use alloc::vec::Vec;
use core::fmt;

use derive_more::Display;

use super::table::HEADER_SIZE;
use super::{Header, Problem, Rsdp, Signature, TableError};
use crate::boot::PhysicalMemory;

/// Whether a table is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub enum TableState {
    /// Length and checksum are right.
    #[display("ok")]
    Good,
    /// It is valid, but an earlier table has the same signature, of which only one is allowed.
    #[display("ignored: an earlier one is used")]
    Duplicate,
    /// It is unusable.
    #[display("BAD: {_0}")]
    Bad(TableError),
}

/// A table that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableInfo {
    /// Its address: a physical address if `header` is there, otherwise firmware's raw value.
    pub address: u64,
    /// Its header, if readable.
    pub header: Option<Header>,
    /// Whether it is used.
    pub state: TableState,
}

impl TableInfo {
    /// The signature; blanks if the header could not be read.
    pub(crate) fn signature(&self) -> Signature {
        self.header.map_or(Signature::UNKNOWN, |header| header.signature)
    }
}

/// A row of a listing: signature, address, length, revision, OEM, state.
impl fmt::Display for TableInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:4} {:#012x}", self.signature(), self.address)?;
        if let Some(Header { length, revision, oem_id, oem_table_id, .. }) = self.header {
            write!(f, " {length:>7} bytes rev {revision:<3} {oem_id:6} {oem_table_id:8}")?;
        }
        write!(f, " {}", self.state)
    }
}

/// All tables in firmware's order, the DSDT last.
#[derive(Debug, Clone)]
pub struct Tables {
    /// The root table in use: XSDT or RSDT.
    pub root: Option<Signature>,
    /// Every table found, usable or not.
    pub list: Vec<TableInfo>,
}

impl Tables {
    /// The most entries of the root table to read. Servers have some 150.
    pub const MOST: usize = 512;

    /// Follows the root pointer to the XSDT, or to the RSDT if there is no usable XSDT.
    pub(super) fn read(memory: &impl PhysicalMemory, rsdp: &Rsdp, problems: &mut Vec<Problem>) -> Self {
        let mut tables = Self { root: None, list: Vec::new() };
        let roots = [(Signature::XSDT, rsdp.xsdt), (Signature::RSDT, rsdp.rsdt)];
        for (signature, address) in roots.into_iter().filter_map(|(signature, address)| Some((signature, address?))) {
            match read_root(memory, signature, address.as_u64()) {
                Ok(bytes) => {
                    tables.root = Some(signature);
                    tables.follow(memory, signature, &bytes, problems);
                    return tables;
                }
                Err(error) => problems.push(Problem::Table { signature, address: address.as_u64(), error }),
            }
        }
        problems.push(Problem::NoRoot);
        tables
    }

    /// The first usable table with this signature.
    pub(crate) fn find(&self, signature: Signature) -> Option<&TableInfo> {
        self.usable(signature).next()
    }

    /// The usable tables with this signature.
    pub(super) fn usable(&self, signature: Signature) -> impl Iterator<Item = &TableInfo> {
        self.list.iter().filter(move |table| table.state == TableState::Good && table.signature() == signature)
    }

    /// Adds every table that the root table `bytes` lists.
    fn follow(
        &mut self,
        memory: &impl PhysicalMemory,
        signature: Signature,
        bytes: &[u8],
        problems: &mut Vec<Problem>,
    ) {
        let width = if signature == Signature::XSDT { 8 } else { 4 };
        let pointers = bytes.get(HEADER_SIZE..).unwrap_or(&[]).chunks_exact(width);
        let (excess, count) = (pointers.remainder().len(), pointers.len());
        if excess > 0 {
            problems.push(Problem::RootRemainder { signature, excess });
        }
        if count > Self::MOST {
            problems.push(Problem::TooManyTables { signature, count, considered: Self::MOST });
        }
        for pointer in pointers.take(Self::MOST) {
            let address = pointer.iter().rev().fold(0, |address, &byte| address << 8 | u64::from(byte));
            // Entries of 0 are gaps.
            if address != 0 {
                self.add(memory, address, None, problems);
            }
        }
    }

    /// Adds the table at `address`, unless it is already there.
    pub(super) fn add(
        &mut self,
        memory: &impl PhysicalMemory,
        address: u64,
        expected: Option<Signature>,
        problems: &mut Vec<Problem>,
    ) {
        // This also bounds the time that a root table full of one address can cost.
        if self.list.iter().any(|table| table.address == address) {
            return;
        }
        let header = Header::read(memory, address);
        let checked = header.and_then(|header| check(memory, address, header, expected));
        let mut table = TableInfo { address, header: header.ok(), state: TableState::Good };
        match checked {
            Err(error) => {
                table.state = TableState::Bad(error);
                problems.push(Problem::Table { signature: table.signature(), address, error });
            }
            Ok(()) if is_single(table.signature()) && self.find(table.signature()).is_some() => {
                table.state = TableState::Duplicate;
            }
            Ok(()) => {}
        }
        self.list.push(table);
    }

    /// Copies the first usable table with this signature and parses it.
    pub(super) fn parse<T>(
        &self,
        memory: &impl PhysicalMemory,
        signature: Signature,
        parser: impl Fn(&[u8]) -> Result<T, TableError>,
        problems: &mut Vec<Problem>,
    ) -> Option<T> {
        let table = self.find(signature)?;
        match table.header?.copy(memory, table.address).and_then(|bytes| parser(&bytes)) {
            Ok(value) => Some(value),
            Err(error) => {
                problems.push(Problem::Table { signature, address: table.address, error });
                None
            }
        }
    }
}

fn read_root(memory: &impl PhysicalMemory, signature: Signature, address: u64) -> Result<Vec<u8>, TableError> {
    let header = Header::read(memory, address)?;
    check(memory, address, header, Some(signature))?;
    header.copy(memory, address)
}

fn check(
    memory: &impl PhysicalMemory,
    address: u64,
    header: Header,
    expected: Option<Signature>,
) -> Result<(), TableError> {
    match expected {
        Some(expected) if header.signature != expected => {
            Err(TableError::Signature { expected, found: header.signature })
        }
        _ => header.verify(memory, address),
    }
}

/// Whether a machine has only one table of this kind. SSDTs, and tables not used here, may occur several times.
fn is_single(signature: Signature) -> bool {
    [Signature::MADT, Signature::MCFG, Signature::FADT, Signature::HPET, Signature::DSDT].contains(&signature)
}
