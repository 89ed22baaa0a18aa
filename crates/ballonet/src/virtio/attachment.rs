//! A device on its bus: what was enabled for its driver, and is restored at the end.

use super::handle::DeviceHandle;
use super::transport::{MmioDevice, Transport};
use crate::pci::{Bars, Command, Function};
use crate::platform::Platform;

/// The bus attachment of an opened device.
#[derive(Debug)]
pub(super) enum Attachment {
    /// A PCI function.
    Pci(PciAttachment),
    /// An MMIO device, which needs nothing enabled.
    Mmio(MmioDevice),
}

/// An opened PCI function: it decodes, and its command register is restored at the end.
#[derive(Debug)]
pub(super) struct PciAttachment {
    pub(super) function: Function,
    pub(super) bars: Bars,
    /// The command register as found.
    pub(super) command: Command,
}

impl Attachment {
    /// The handle to open the device again.
    pub(super) fn handle(&self) -> DeviceHandle {
        match self {
            Self::Pci(PciAttachment { function, .. }) => function.bdf.into(),
            Self::Mmio(device) => (*device).into(),
        }
    }

    /// Enables or disables the device's memory accesses and messages. On MMIO only a reset stops a device.
    pub(super) fn set_bus_master<P: Platform>(&self, platform: &mut P, on: bool) {
        let Self::Pci(PciAttachment { function, .. }) = self else { return };
        if on {
            function.enable(platform.config(), Command::BUS_MASTER);
        } else {
            function.disable(platform.config(), Command::BUS_MASTER);
        }
    }

    /// Unmaps the registers and restores the device's bus state. INTx stays off: nothing would handle the line. A
    /// device that has not `stopped` keeps bus mastering off, even if firmware had it on.
    pub(super) fn detach<P: Platform>(self, platform: &mut P, transport: Transport<P::Registers>, stopped: bool) {
        transport.release(platform);
        match self {
            Self::Pci(pci) => pci.restore(platform, stopped),
            Self::Mmio(_) => {}
        }
    }
}

impl PciAttachment {
    /// Restores decoding and bus mastering.
    pub(super) fn restore<P: Platform>(mut self, platform: &mut P, stopped: bool) {
        self.command.set(Command::BUS_MASTER, stopped && self.command.contains(Command::BUS_MASTER));
        let ours = Command::IO | Command::MEMORY | Command::BUS_MASTER;
        self.function.disable(platform.config(), ours - self.command);
        self.function.enable(platform.config(), ours & self.command);
    }
}
