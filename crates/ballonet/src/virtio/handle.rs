//! How a driver reaches its device, at first and again after each reset.

use derive_more::From;

use super::transport::MmioDevice;
use crate::bus::{Bdf, DeviceAddress};
use crate::pci::Function;
use crate::platform::Platform;

/// A device to be driven: a description of its transport, whoever found it.
///
/// A driver takes this and not an opened transport, because it opens its device again and again: after each reset, when
/// MSI-X is given up for the line, and to see whether the device is still there. A transport of the kernel's own needs
/// no more: it is an [`MmioDevice`] of any address for which [`Platform::map`] returns the kernel's own
/// [`Registers`](crate::platform::Registers), so that each access is a call of the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, From)]
#[non_exhaustive]
pub enum DeviceHandle {
    /// A PCI function.
    Pci(Bdf),
    /// A device at a fixed address of memory, as a device tree, ACPI or a command line names it.
    Mmio(MmioDevice),
}

impl DeviceHandle {
    /// The device's address.
    pub const fn address(self) -> DeviceAddress {
        match self {
            Self::Pci(function) => DeviceAddress::Pci(function),
            Self::Mmio(device) => device.address(),
        }
    }

    /// Whether a device is there.
    pub(crate) fn is_present<P: Platform>(self, platform: &mut P) -> bool {
        match self {
            Self::Pci(function) => Function::probe(platform.config(), function).is_some(),
            Self::Mmio(device) => device.is_present(platform),
        }
    }
}
