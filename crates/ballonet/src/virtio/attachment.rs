//! A device on its bus: what was switched on for its driver, and goes back in the end.

use super::handle::DeviceHandle;
use super::transport::{MmioDevice, Transport};
use crate::pci::{Bars, Command, Function};
use crate::platform::Platform;

/// How a device that a driver has opened is attached.
#[derive(Debug)]
pub(super) enum Attachment {
    /// It is a PCI function.
    Pci(PciAttachment),
    /// It is on MMIO, where there is nothing to switch on.
    Mmio(MmioDevice),
}

/// A PCI function that a driver has opened: it decodes, and its command register is restored in the end.
#[derive(Debug)]
pub(super) struct PciAttachment {
    pub(super) function: Function,
    pub(super) bars: Bars,
    /// The command register as it was found.
    pub(super) command: Command,
}

impl Attachment {
    /// What it takes to open the device again.
    pub(super) fn handle(&self) -> DeviceHandle {
        match self {
            Self::Pci(PciAttachment { function, .. }) => function.bdf.into(),
            Self::Mmio(device) => (*device).into(),
        }
    }

    /// Lets the device access memory and send messages, or not. On MMIO nothing but its reset stops a device.
    pub(super) fn set_bus_master<P: Platform>(&self, platform: &mut P, on: bool) {
        let Self::Pci(PciAttachment { function, .. }) = self else { return };
        if on {
            function.enable(platform.config(), Command::BUS_MASTER);
        } else {
            function.disable(platform.config(), Command::BUS_MASTER);
        }
    }

    /// Unmaps the registers and puts the device's bus back to what was found. INTx stays off: nobody serves the line. A
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
    /// Puts decoding and bus mastering back to what was found.
    pub(super) fn restore<P: Platform>(mut self, platform: &mut P, stopped: bool) {
        self.command.set(Command::BUS_MASTER, stopped && self.command.contains(Command::BUS_MASTER));
        let ours = Command::IO | Command::MEMORY | Command::BUS_MASTER;
        self.function.disable(platform.config(), ours - self.command);
        self.function.enable(platform.config(), ours & self.command);
    }
}
