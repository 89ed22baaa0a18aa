//! How a driver reaches its device, initially and after each reset.

use derive_more::From;

use super::transport::MmioDevice;
use crate::bus::{Bdf, DeviceAddress};
use crate::pci::Function;
use crate::platform::Platform;

/// Identifies a device by the description of its transport, so that a driver can open it.
///
/// A driver takes this and not an open transport, because it opens its device repeatedly: after each reset, when MSI-X is
/// given up for the line, and to check whether the device is still there. A transport of the kernel's own needs no more:
/// it is an [`MmioDevice`] of any address for which [`Platform::map`] returns the kernel's own
/// [`Registers`](crate::platform::Registers), so that each access is a call of the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, From)]
#[non_exhaustive]
pub enum DeviceHandle {
    /// A PCI function.
    Pci(Bdf),
    /// A device at a fixed memory address, as a device tree, ACPI or a command line names it.
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
