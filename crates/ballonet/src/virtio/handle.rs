//! How a driver finds its device, initially and after each reset.

use derive_more::From;

use super::transport::MmioDevice;
use crate::bus::{Bdf, DeviceAddress};
use crate::pci::Function;
use crate::platform::Platform;

/// Identifies a device, so that a driver can open it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, From)]
#[non_exhaustive]
pub enum DeviceHandle {
    /// A PCI function.
    Pci(Bdf),
    /// A device at a fixed memory address.
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
