//! Attacks through configuration space and BARs. Each attack restores what it changes.

use core::mem::offset_of;

use super::TestDevice;
use super::function_reset::Header;
use crate::platform::Mapped;
use crate::verdict::{Stop, Verdict, skip_unless};
use ballonet::pci::capability::id;
use ballonet::pci::{Capability, ConfigSpace};
use ballonet::platform::Registers;
use ballonet::virtio::spec::{CapabilityType, PciAccessCapability, PciCapability};

/// How much of a BAR is swept at most, in bytes.
const SWEEP: u64 = 0x4000;
/// The command register.
const COMMAND: u16 = 0x04;

impl TestDevice<'_> {
    pub(crate) fn config_read32(&mut self, offset: u16) -> u32 {
        let bdf = self.pci_function().function.bdf;
        self.platform.config().read32(bdf, offset)
    }

    pub(crate) fn config_write32(&mut self, offset: u16, value: u32) {
        let bdf = self.pci_function().function.bdf;
        self.platform.config().write32(bdf, offset, value);
    }

    pub(crate) fn config_write16(&mut self, offset: u16, value: u16) {
        let bdf = self.pci_function().function.bdf;
        self.platform.config().write16(bdf, offset, value);
    }

    /// Writes the command register, does something, and restores it.
    pub(crate) fn with_command(&mut self, change: fn(u16) -> u16, act: impl FnOnce(&mut Self)) {
        let command = self.config_read32(COMMAND) as u16;
        self.config_write16(COMMAND, change(command));
        act(self);
        self.config_write16(COMMAND, command);
    }

    /// Overwrites a dword of configuration space and restores it.
    pub(crate) fn overwrite_config(&mut self, offset: u16, value: u32) {
        let before = self.config_read32(offset);
        self.config_write32(offset, value);
        self.config_write32(offset, before);
    }

    /// Where a capability is; skips the check if there is none.
    pub(crate) fn capability(&mut self, id: u8, name: &str) -> Verdict<u16> {
        let function = self.pci_function().function;
        let config = self.platform.config();
        let found = function.capabilities(&config).filter_map(Result::ok).find(|found| found.id == id);
        found.map(|found| found.offset).ok_or_else(|| Stop::skipped(format_args!("there is no {name} capability")))
    }

    /// The offsets of all capabilities.
    pub(crate) fn capability_offsets(&mut self) -> alloc::vec::Vec<u16> {
        let function = self.pci_function().function;
        let config = self.platform.config();
        function.capabilities(&config).filter_map(Result::ok).map(|found| found.offset).collect()
    }

    /// Where the MSI-X capability is.
    pub(crate) fn msix_capability(&mut self) -> Verdict<u16> {
        self.capability(id::MSI_X, "MSI-X")
    }

    /// Selects bytes of a BAR in the window of configuration space and reads or writes them.
    pub(crate) fn window_access(&mut self, bar: u8, offset: u32, length: u32, write: Option<u32>) -> Verdict {
        let Some(access) = self.pci_function().access() else {
            return Err(Stop::skipped(format_args!("the device has no PCI configuration access capability")));
        };
        let config = &mut self.platform.config();
        let select = |config: &mut _, access: Capability| {
            access.write8(config, offset_of!(PciCapability, bar), bar)?;
            access.write32(config, offset_of!(PciCapability, offset), offset)?;
            access.write32(config, offset_of!(PciCapability, length), length)?;
            match write {
                Some(value) => access.write32(config, offset_of!(PciAccessCapability, pci_cfg_data), value),
                None => access.read32(config, offset_of!(PciAccessCapability, pci_cfg_data)).map(drop),
            }
        };
        let outcome = select(config, access);
        let restored = access
            .write32(config, offset_of!(PciCapability, length), 0)
            .and_then(|()| access.write8(config, offset_of!(PciCapability, bar), 0));
        outcome.and(restored).map_err(|error| Stop::trouble(format_args!("{error}")))
    }

    /// The BAR and offset of a structure.
    pub(crate) fn place_of(&self, kind: CapabilityType) -> Verdict<(u8, u32)> {
        let found = self.pci_function().structures.iter().find(|structure| structure.kind == kind);
        let none = || Stop::skipped(format_args!("there is no {kind} structure"));
        found.map(|structure| (structure.bar, structure.offset as u32)).ok_or_else(none)
    }

    /// Does something with the whole BAR in which the common structure is.
    pub(crate) fn with_bar(&mut self, act: impl FnOnce(&mut Self, &mut Mapped)) -> Verdict {
        let (index, _) = self.place_of(CapabilityType::Common)?;
        let bar = self.pci_function().bars.get(index).map_err(|error| Stop::trouble(format_args!("{error}")))?;
        skip_unless!(!bar.is_io(), "the common structure is in an I/O BAR");
        let window = bar.window(0, bar.size.min(SWEEP)).map_err(|error| Stop::trouble(format_args!("{error}")))?;
        let mut mapped = self.platform.map(window).map_err(|error| Stop::trouble(format_args!("{error}")))?;
        act(self, &mut mapped);
        self.platform.unmap(mapped);
        Ok(())
    }

    /// Does something with the MSI-X table and the pending bits, with MSI-X off.
    pub(crate) fn with_vectors(&mut self, act: impl FnOnce(&mut Self, &mut Mapped, &mut Mapped)) -> Verdict {
        let Some(msix) = self.pci_function().msix else {
            return Err(Stop::skipped(format_args!("the device has no usable MSI-X")));
        };
        let trouble = |error| Stop::trouble(format_args!("{error}"));
        let mut table = self.platform.map(msix.table).map_err(trouble)?;
        let mut pending = match self.platform.map(msix.pending) {
            Ok(pending) => pending,
            Err(error) => {
                self.platform.unmap(table);
                return Err(trouble(error));
            }
        };
        act(self, &mut table, &mut pending);
        self.platform.unmap(table);
        self.platform.unmap(pending);
        Ok(())
    }

    /// What the function needs of its header.
    pub(crate) fn header(&mut self) -> Header {
        let bdf = self.pci_function().function.bdf;
        Header::read(&self.platform.config(), bdf)
    }

    /// Writes it again.
    pub(crate) fn restore_header(&mut self, header: &Header) {
        let bdf = self.pci_function().function.bdf;
        header.restore(&mut self.platform.config(), bdf);
    }

    /// Resets the function and restores its header; `false` if it has no such reset.
    pub(super) fn reset_pci_function(&mut self) -> bool {
        self.pci.as_ref().is_some_and(|pci| pci.reset_function(self.platform))
    }

    /// Resets the function, if it has such a reset.
    pub(crate) fn reset_function(&mut self) -> Verdict {
        skip_unless!(self.reset_pci_function(), "the function has no function level reset");
        Ok(())
    }

    /// Reads a register of each width that its place allows.
    pub(crate) fn read_every_width(registers: &impl Registers, offset: usize) {
        registers.read8(offset);
        if offset.is_multiple_of(2) {
            registers.read16(offset);
        }
        if offset.is_multiple_of(4) {
            registers.read32(offset);
        }
    }
}
