//! SMBIOS: the firmware's description of the machine and of itself (DMTF DSP0134, version 3.7).
//!
//! Firmware may be wrong: each length is checked against the available bytes, each walk ends after a fixed number of
//! steps, and text is cut to a printable length.

#![forbid(unsafe_code)]

mod efi;
mod entry_point;
mod structure;

use alloc::string::String;
use alloc::vec;

use derive_more::{Display, Error};

pub(crate) use entry_point::EntryPoint;
use structure::{Structure, Structures};

use crate::boot::{EfiSystemTable, PhysicalMemory, Unreadable};
use ballonet::memory::PhysAddr;

/// The most bytes of the table to read. Real tables have 2 to 20 KiB.
pub(crate) const MAX_TABLE: u32 = 64 << 10;

/// Why SMBIOS gives no names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub(crate) enum SmbiosError {
    /// The table is not in readable memory.
    #[display("SMBIOS: the table: {_0}")]
    Unreadable(Unreadable),
    /// The table's address is not a physical address.
    #[display("SMBIOS: the table's address {_0:#x} is not a physical address")]
    Address(#[error(not(source))] u64),
    /// No structure names the firmware, the system or the board.
    #[display("SMBIOS: no structure names firmware, system or board")]
    Nameless,
}

/// A product as its maker named it. Text that the maker left out is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Product {
    /// The maker.
    pub manufacturer: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The firmware.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Firmware {
    /// The author.
    pub vendor: String,
    /// Its version.
    pub version: String,
    /// Release date.
    pub date: String,
}

/// The contents of SMBIOS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Smbios {
    /// The version of SMBIOS.
    pub version: (u8, u8),
    /// Structure type 0.
    pub firmware: Firmware,
    /// Structure type 1.
    pub system: Product,
    /// Structure type 2.
    pub board: Product,
}

impl Smbios {
    /// Finds the entry point, through UEFI's system table if there is one, otherwise in the BIOS area, and reads the
    /// table. `None` if there is no entry point.
    pub(crate) fn find(memory: &impl PhysicalMemory, efi: Option<EfiSystemTable>) -> Option<Result<Self, SmbiosError>> {
        let named = efi.and_then(|table| EntryPoint::by_efi(memory, table));
        let entry = named.or_else(|| EntryPoint::search(memory))?;
        Some(Self::read(memory, &entry))
    }

    /// Reads the table at `entry`.
    ///
    /// # Errors
    /// When the table is unreadable or names nothing.
    pub(crate) fn read(memory: &impl PhysicalMemory, entry: &EntryPoint) -> Result<Self, SmbiosError> {
        let address = PhysAddr::new(entry.table).ok_or(SmbiosError::Address(entry.table))?;
        let mut table = vec![0; entry.length.min(MAX_TABLE) as usize];
        memory.read(address, &mut table).map_err(SmbiosError::Unreadable)?;
        let mut found = Self::parse(&table).ok_or(SmbiosError::Nameless)?;
        found.version = entry.version;
        Ok(found)
    }

    /// Parses the structures in `table`; `None` if they name nothing. The first of each type counts.
    pub(crate) fn parse(table: &[u8]) -> Option<Self> {
        let mut found = Self::default();
        let (mut firmware, mut system, mut board) = (false, false, false);
        for structure in Structures::of(table) {
            match structure.kind() {
                0 if !core::mem::replace(&mut firmware, true) => {
                    let [vendor, version, date] = [4, 5, 8].map(|at| structure.text(at));
                    found.firmware = Firmware { vendor, version, date };
                }
                1 if !core::mem::replace(&mut system, true) => found.system = product(&structure),
                2 if !core::mem::replace(&mut board, true) => found.board = product(&structure),
                _ => {}
            }
        }
        (firmware || system || board).then_some(found)
    }
}

/// System and board have the same three strings at the same offsets (7.2, 7.3).
fn product(structure: &Structure<'_>) -> Product {
    let [manufacturer, name, version] = [4, 5, 6].map(|at| structure.text(at));
    Product { manufacturer, name, version }
}

/// `LENOVO 20L5CTO1WW ThinkPad T480`
impl core::fmt::Display for Product {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        join(f, [&self.manufacturer, &self.name, &self.version], " ")
    }
}

/// `SeaBIOS, 1.16.2, 04/01/2014`
impl core::fmt::Display for Firmware {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        join(f, [&self.vendor, &self.version, &self.date], ", ")
    }
}

/// Writes the texts that are not empty.
fn join(f: &mut core::fmt::Formatter<'_>, texts: [&String; 3], separator: &str) -> core::fmt::Result {
    let mut texts = texts.into_iter().filter(|text| !text.is_empty());
    if let Some(first) = texts.next() {
        f.write_str(first)?;
    }
    texts.try_for_each(|text| write!(f, "{separator}{text}"))
}

#[cfg(test)]
mod tests;
