//! MSI-X: the capability, and the table of messages that a function can send (PCI 3.0, 6.8.2).
//!
//! Types enforce the order. [`Msix`] is a capability whose table and pending bits were checked against their BARs.
//! Enabling it, with every entry and the whole function masked, gives an [`MsixTable`]; entries are programmed while
//! masked, and unmasked one by one. [`MsixTable::disable`] restores everything as found.

use alloc::vec::Vec;

use derive_more::{Display, Error};

use super::bar::{BarError, WindowError};
use super::capability::{Capability, CapabilityError, id};
use super::range::AddressRange;
use super::{Bars, Command, ConfigSpace, Function};
use crate::bus::{MsiMessage, OutOfMemory, RegisterWindow, Registers, heap};

/// Message control, 16 bits, from the capability's start.
const CONTROL: usize = 2;
/// Table offset and the index of its BAR, 32 bits.
const TABLE: usize = 4;
/// Offset of the pending bits and the index of their BAR, 32 bits.
const PENDING: usize = 8;

/// Message control: the number of entries minus one. Eleven bits, so up to 2048 entries.
#[doc(alias = "PCI_MSIX_FLAGS_QSIZE")]
const CONTROL_SIZE: u16 = 0x7FF;
/// Message control: all entries are masked.
#[doc(alias = "PCI_MSIX_FLAGS_MASKALL")]
const CONTROL_MASK: u16 = 1 << 14;
/// Message control: MSI-X is on, and INTx is off.
#[doc(alias = "PCI_MSIX_FLAGS_ENABLE")]
const CONTROL_ENABLE: u16 = 1 << 15;

/// Size of a table entry in bytes.
#[doc(alias = "PCI_MSIX_ENTRY_SIZE")]
const ENTRY: usize = 16;
/// Offset of vector control in an entry; the message's address is at 0 and its data at 8.
#[doc(alias = "PCI_MSIX_ENTRY_VECTOR_CTRL")]
const VECTOR_CONTROL: usize = 12;
/// Vector control: this entry is masked.
#[doc(alias = "PCI_MSIX_ENTRY_CTRL_MASKBIT")]
const ENTRY_MASK: u32 = 1;

/// The number of an MSI-X table entry: 0 to 0x7FF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Display)]
pub struct MsixVector(u16);

impl MsixVector {
    /// The entry with this number, or `None` for numbers that no table has (such as 0xFFFF, virtio's `NO_VECTOR`).
    pub const fn new(number: u16) -> Option<Self> {
        if number <= CONTROL_SIZE { Some(Self(number)) } else { None }
    }

    /// The number.
    pub(crate) const fn number(self) -> u16 {
        self.0
    }

    /// Offset of the entry in the table.
    const fn entry(self) -> usize {
        self.0 as usize * ENTRY
    }
}

/// Why a function's MSI-X is unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum MsixError {
    /// The capability, or the list before it, is broken.
    #[display("{_0}")]
    Capability(CapabilityError),
    /// The table's BAR is unusable.
    #[display("MSI-X table: {_0}")]
    TableBar(BarError),
    /// The table is not inside its BAR, or the BAR has no address.
    #[display("MSI-X table: {_0}")]
    TableWindow(WindowError),
    /// The BAR of the pending bits is unusable.
    #[display("MSI-X pending bits: {_0}")]
    PendingBar(BarError),
    /// The pending bits are not inside their BAR, or the BAR has no address.
    #[display("MSI-X pending bits: {_0}")]
    PendingWindow(WindowError),
    /// The table must be in memory.
    #[display("MSI-X structure in I/O space: {_0}")]
    InPorts(#[error(not(source))] RegisterWindow),
    /// Table and pending bits overlap.
    #[display("MSI-X table {table} and pending bits {pending} overlap")]
    Overlap {
        /// The table.
        table: RegisterWindow,
        /// The pending bits.
        pending: RegisterWindow,
    },
    /// The table has no such entry.
    #[display("MSI-X entry {vector} of a table of {entries}")]
    NoEntry {
        /// The requested entry.
        vector: MsixVector,
        /// Number of entries.
        entries: u16,
    },
}

/// A usable MSI-X capability: its structures are in memory BARs and do not overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Msix {
    function: Function,
    /// Offset of message control in configuration space.
    control: u16,
    /// Number of table entries, 1 to 2048.
    pub entries: u16,
    /// The table's window, to be mapped.
    pub table: RegisterWindow,
    /// The pending bits' window, to be mapped.
    pub pending: RegisterWindow,
}

impl Msix {
    /// Reads the capability of `function`, whose BARs are `bars`; `None` if it has none.
    ///
    /// # Errors
    /// When the capability list is broken, or the structures are in unusable places.
    pub fn find<C: ConfigSpace>(config: &C, function: &Function, bars: &Bars) -> Result<Option<Self>, MsixError> {
        match function.capability(config, id::MSI_X) {
            Ok(Some(capability)) => Self::read(config, function, capability, bars).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(MsixError::Capability(error)),
        }
    }

    fn read<C: ConfigSpace>(
        config: &C,
        function: &Function,
        capability: Capability,
        bars: &Bars,
    ) -> Result<Self, MsixError> {
        let control = capability.read16(config, CONTROL).map_err(MsixError::Capability)?;
        let table = capability.read32(config, TABLE).map_err(MsixError::Capability)?;
        let pending = capability.read32(config, PENDING).map_err(MsixError::Capability)?;
        let entries = (control & CONTROL_SIZE) + 1;

        let (bar, offset) = locate(table);
        let bar = bars.get(bar).map_err(MsixError::TableBar)?;
        let table = bar.window(offset, u64::from(entries) * ENTRY as u64).map_err(MsixError::TableWindow)?;
        let (bar, offset) = locate(pending);
        let bar = bars.get(bar).map_err(MsixError::PendingBar)?;
        // Pending bits come in words of 64.
        let pending = bar.window(offset, u64::from(entries).div_ceil(64) * 8).map_err(MsixError::PendingWindow)?;

        if let Some(window) = [table, pending].into_iter().find(|window| window.io) {
            return Err(MsixError::InPorts(window));
        }
        let range = |window: RegisterWindow| AddressRange::new(window.address, window.length);
        if table.bar == pending.bar && range(table).zip(range(pending)).is_some_and(|(a, b)| a.overlaps(b)) {
            return Err(MsixError::Overlap { table, pending });
        }
        Ok(Self { function: *function, control: capability.offset + CONTROL as u16, entries, table, pending })
    }

    /// Turns MSI-X on, and INTx off, with all entries and the function masked. `table` and `pending` are
    /// [`Msix::table`] and [`Msix::pending`], mapped; memory decoding is on.
    ///
    /// # Errors
    /// When there is no memory to save the table's contents. Nothing has changed then; the two windows are returned.
    pub fn enable<C: ConfigSpace, R: Registers>(
        self,
        config: &mut C,
        table: R,
        pending: R,
    ) -> Result<MsixTable<R>, (OutOfMemory, [R; 2])> {
        let found = match heap::vector(self.entries.into()) {
            Ok(found) => found,
            Err(error) => return Err((error, [table, pending])),
        };
        let control = config.read16(self.function.bdf, self.control);
        // The function mask first: the table may hold anything, and enabling must not send it.
        self.set_control(config, control | CONTROL_MASK);
        self.set_control(config, control | CONTROL_MASK | CONTROL_ENABLE);
        let command = self.function.set_intx(config, false);
        let mut table = MsixTable { msix: self, table, pending, control, command, found };
        for vector in table.vectors() {
            let entry = table.read_entry(vector);
            table.found.push(entry);
        }
        for vector in table.vectors() {
            table.set_mask(vector, true);
        }
        table.flush();
        Ok(table)
    }

    /// Writes message control.
    fn set_control<C: ConfigSpace>(&self, config: &mut C, control: u16) {
        config.write16(self.function.bdf, self.control, control);
    }
}

/// The BAR index and the offset in a table or pending register.
const fn locate(register: u32) -> (u8, u64) {
    (register as u8 & 0x7, (register & !0x7) as u64)
}

/// A table entry as registers: address low, address high, data, vector control.
type Entry = [u32; 4];

/// The table of a function with MSI-X on. Call [`MsixTable::disable`] to end that; dropping this value leaves MSI-X
/// on.
#[derive(Debug)]
#[must_use = "MSI-X stays on until it is disabled"]
pub struct MsixTable<R> {
    msix: Msix,
    table: R,
    pending: R,
    /// Message control as found.
    control: u16,
    /// The command register as found; only its INTx bit matters.
    command: Command,
    /// The table as found.
    found: Vec<Entry>,
}

impl<R: Registers> MsixTable<R> {
    /// Number of entries: 1 to 2048.
    pub(crate) const fn entries(&self) -> u16 {
        self.msix.entries
    }

    /// The numbers of all entries.
    pub(crate) fn vectors(&self) -> impl ExactSizeIterator<Item = MsixVector> + use<R> {
        (0..self.msix.entries).map(MsixVector)
    }

    /// Sets an entry's message and leaves the entry masked.
    ///
    /// # Errors
    /// When the table has no such entry.
    pub fn program(&mut self, vector: MsixVector, message: MsiMessage) -> Result<(), MsixError> {
        self.check(vector)?;
        // From an unmasked entry, the function may send a half-written message.
        self.set_mask(vector, true);
        self.flush();
        let entry = vector.entry();
        self.table.write32(entry, message.address as u32);
        self.table.write32(entry + 4, (message.address >> 32) as u32);
        self.table.write32(entry + 8, message.data);
        self.flush();
        Ok(())
    }

    /// Unmasks an entry; a pending message is sent at once.
    ///
    /// # Errors
    /// When the table has no such entry.
    pub fn unmask(&mut self, vector: MsixVector) -> Result<(), MsixError> {
        self.check(vector)?;
        self.set_mask(vector, false);
        self.flush();
        Ok(())
    }

    /// Whether a masked entry has a pending message.
    ///
    /// # Errors
    /// When the table has no such entry.
    pub fn is_pending(&self, vector: MsixVector) -> Result<bool, MsixError> {
        self.check(vector)?;
        let bits = self.pending.read32(usize::from(vector.0 / 32) * 4);
        Ok(bits >> (vector.0 % 32) & 1 != 0)
    }

    /// Masks the whole function, or leaves masking to the entries again. [`Msix::enable`] leaves it masked.
    pub fn set_function_mask<C: ConfigSpace>(&mut self, config: &mut C, masked: bool) {
        let control = self.control | CONTROL_ENABLE;
        self.msix.set_control(config, if masked { control | CONTROL_MASK } else { control & !CONTROL_MASK });
    }

    /// Turns MSI-X off and restores the table, message control and the command register's INTx bit as found. Returns
    /// the windows of the table and the pending bits, to be unmapped.
    pub fn disable<C: ConfigSpace>(mut self, config: &mut C) -> (R, R) {
        self.set_function_mask(config, true);
        for (vector, entry) in self.vectors().zip(core::mem::take(&mut self.found)) {
            self.restore_entry(vector, entry);
        }
        self.flush();
        // Off first and still masked, so that restored entries are not sent meanwhile.
        self.msix.set_control(config, (self.control | CONTROL_MASK) & !CONTROL_ENABLE);
        self.msix.set_control(config, self.control);
        self.msix.function.set_intx(config, !self.command.contains(Command::INTX_DISABLE));
        (self.table, self.pending)
    }

    fn check(&self, vector: MsixVector) -> Result<(), MsixError> {
        let entries = self.entries();
        if vector.0 < entries { Ok(()) } else { Err(MsixError::NoEntry { vector, entries }) }
    }

    fn read_entry(&self, vector: MsixVector) -> Entry {
        core::array::from_fn(|word| self.table.read32(vector.entry() + 4 * word))
    }

    /// Restores an entry, masked until it is complete.
    fn restore_entry(&mut self, vector: MsixVector, found: Entry) {
        let now = self.read_entry(vector);
        let [address_low, address_high, data, control] = found;
        if now == found {
            return;
        }
        if now[..3] != found[..3] {
            self.set_mask(vector, true);
            self.table.write32(vector.entry(), address_low);
            self.table.write32(vector.entry() + 4, address_high);
            self.table.write32(vector.entry() + 8, data);
        }
        self.table.write32(vector.entry() + VECTOR_CONTROL, control);
    }

    /// Sets or clears an entry's mask bit; preserves the reserved bits beside it, as required.
    fn set_mask(&mut self, vector: MsixVector, masked: bool) {
        let register = vector.entry() + VECTOR_CONTROL;
        let before = self.table.read32(register);
        let after = if masked { before | ENTRY_MASK } else { before & !ENTRY_MASK };
        if after != before {
            self.table.write32(register, after);
        }
    }

    /// Writes to memory are posted; a read from the same device flushes them.
    fn flush(&self) {
        let _ = self.table.read32(VECTOR_CONTROL);
    }
}

#[cfg(test)]
mod tests;
