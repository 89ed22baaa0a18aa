//! A PCI function: its address and identity, read once, and its command register, changed without side effects.

use super::capability::{Capabilities, Capability, CapabilityError};
use super::header::{ClassCode, HeaderLayout, Subsystem};
use super::register::{
    CLASS_REVISION, COMMAND, Command, HEADER_TYPE, INTERRUPT_LINE, STATUS, SUBSYSTEM_VENDOR_ID, Status, VENDOR_ID,
};
use super::{Bdf, ConfigSpace, InterruptPin};

/// A function that responds, with the constant parts of its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Function {
    /// Its address.
    pub bdf: Bdf,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Class code.
    pub(crate) class: ClassCode,
    /// Layout of the header.
    pub(crate) layout: HeaderLayout,
    /// Whether its device claims more functions than 0.
    pub(crate) multifunction: bool,
    /// Subsystem IDs, if the header has them.
    pub subsystem: Option<Subsystem>,
    /// The interrupt pin it uses, if any.
    pub interrupt_pin: Option<InterruptPin>,
}

impl Function {
    /// Reads the header at `bdf`; `None` if no function responds or its bus is unreachable.
    pub fn probe<C: ConfigSpace>(config: &C, bdf: Bdf) -> Option<Self> {
        if config.size(bdf.segment(), bdf.bus()) == 0 {
            return None;
        }
        let ids = config.read32(bdf, VENDOR_ID);
        let (vendor, device) = (ids as u16, (ids >> 16) as u16);
        // All ones means no function; some bridges answer zeros.
        if vendor == 0xFFFF || ids == 0 {
            return None;
        }
        let class_revision = config.read32(bdf, CLASS_REVISION);
        let header_type = config.read8(bdf, HEADER_TYPE);
        let layout = HeaderLayout::from_register(header_type);
        let [_line, interrupt_pin] = config.read16(bdf, INTERRUPT_LINE).to_le_bytes();
        let subsystem = (layout == HeaderLayout::Endpoint).then(|| {
            let ids = config.read32(bdf, SUBSYSTEM_VENDOR_ID);
            Subsystem { vendor: ids as u16, device: (ids >> 16) as u16 }
        });
        Some(Self {
            bdf,
            vendor,
            device,
            revision: class_revision as u8,
            class: ClassCode::from_register(class_revision),
            layout,
            multifunction: header_type & 0x80 != 0,
            subsystem,
            interrupt_pin: InterruptPin::from_register(interrupt_pin),
        })
    }

    /// Whether there is a bus behind it.
    pub const fn is_bridge(&self) -> bool {
        matches!(self.layout, HeaderLayout::Bridge)
    }

    /// Whether it still responds: a removed function reads as all ones.
    pub(crate) fn is_present<C: ConfigSpace>(&self, config: &C) -> bool {
        config.read16(self.bdf, VENDOR_ID) == self.vendor
    }

    /// Reads the command register.
    pub fn command<C: ConfigSpace>(&self, config: &C) -> Command {
        Command::from_bits_retain(config.read16(self.bdf, COMMAND))
    }

    /// Reads the status register.
    pub fn status<C: ConfigSpace>(&self, config: &C) -> Status {
        Status::from_bits_retain(config.read16(self.bdf, STATUS))
    }

    /// Writes only the command register: writing back the status register in the upper half of the dword would clear
    /// its error bits.
    pub fn set_command<C: ConfigSpace>(&self, config: &mut C, command: Command) {
        config.write16(self.bdf, COMMAND, command.bits());
    }

    /// Sets `bits` in the command register and returns its old value.
    pub fn enable<C: ConfigSpace>(&self, config: &mut C, bits: Command) -> Command {
        self.update_command(config, |command| command | bits)
    }

    /// Clears `bits` in the command register and returns its old value.
    pub fn disable<C: ConfigSpace>(&self, config: &mut C, bits: Command) -> Command {
        self.update_command(config, |command| command - bits)
    }

    /// Enables or disables INTx; returns the old value of the command register.
    pub fn set_intx<C: ConfigSpace>(&self, config: &mut C, asserted: bool) -> Command {
        if asserted { self.disable(config, Command::INTX_DISABLE) } else { self.enable(config, Command::INTX_DISABLE) }
    }

    /// Writes the command register if `change` changes it, and returns its old value.
    fn update_command<C: ConfigSpace>(&self, config: &mut C, change: impl FnOnce(Command) -> Command) -> Command {
        let before = self.command(config);
        let after = change(before);
        if after != before {
            self.set_command(config, after);
        }
        before
    }

    /// The capability list in its own order. An error ends it.
    pub fn capabilities<'c, C: ConfigSpace>(&self, config: &'c C) -> Capabilities<'c, C> {
        Capabilities::new(config, self)
    }

    /// The first capability with `id`, or `None` if there is none.
    ///
    /// # Errors
    /// When the list breaks off before the capability.
    pub fn capability<C: ConfigSpace>(&self, config: &C, id: u8) -> Result<Option<Capability>, CapabilityError> {
        self.capabilities(config).find(|item| item.as_ref().map_or(true, |capability| capability.id == id)).transpose()
    }
}

#[cfg(test)]
mod tests;
