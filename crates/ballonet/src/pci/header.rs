//! Fields of a configuration header: class code, layout, bus numbers.

use core::fmt;

use super::register::BUS_NUMBERS;
use super::{Bdf, ConfigSpace};

/// The kind of a function (PCI 3.0, 6.2.1 and appendix D).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ClassCode {
    /// Base class.
    pub base: u8,
    /// Sub-class.
    pub sub: u8,
    /// Programming interface.
    pub interface: u8,
}

impl ClassCode {
    /// From the dword with the class code above the revision.
    pub(super) const fn from_register(class_revision: u32) -> Self {
        let [_, interface, sub, base] = class_revision.to_le_bytes();
        Self { base, sub, interface }
    }

    /// Whether this is a host bridge, the entry to the bus itself.
    #[doc(alias = "PCI_CLASS_BRIDGE_HOST")]
    pub(crate) const fn is_host_bridge(self) -> bool {
        self.base == 0x06 && self.sub == 0x00
    }
}

impl fmt::Display for ClassCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}", self.base, self.sub)
    }
}

/// The layout of a header (PCI 3.0, 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum HeaderLayout {
    /// Type 0: an ordinary function.
    #[doc(alias = "PCI_HEADER_TYPE_NORMAL")]
    Endpoint,
    /// Type 1: a PCI-to-PCI bridge.
    #[doc(alias = "PCI_HEADER_TYPE_BRIDGE")]
    Bridge,
    /// Type 2: a CardBus bridge.
    #[doc(alias = "PCI_HEADER_TYPE_CARDBUS")]
    CardBus,
    /// A type outside the specifications.
    Unknown(u8),
}

impl HeaderLayout {
    /// From the header type register; its bit 7 is not part of the layout.
    pub(super) const fn from_register(header_type: u8) -> Self {
        match header_type & 0x7F {
            0 => Self::Endpoint,
            1 => Self::Bridge,
            2 => Self::CardBus,
            other => Self::Unknown(other),
        }
    }

    /// Number of base address registers in the header.
    pub(crate) const fn bar_count(self) -> u8 {
        match self {
            Self::Endpoint => 6,
            Self::Bridge => 2,
            Self::CardBus => 1,
            Self::Unknown(_) => 0,
        }
    }
}

/// The maker of the board or virtual device; type 0 headers only (PCI 3.0, 6.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subsystem {
    /// Subsystem vendor ID.
    pub vendor: u16,
    /// Subsystem ID.
    pub device: u16,
}

/// The buses that a bridge connects (PCI-to-PCI Bridge 1.2, 3.2.5.2 to 3.2.5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BusNumbers {
    /// The bus of the bridge.
    pub primary: u8,
    /// The bus directly behind it.
    pub secondary: u8,
    /// The highest bus number anywhere behind it.
    pub subordinate: u8,
}

impl BusNumbers {
    /// Reads them from a bridge.
    pub(crate) fn read<C: ConfigSpace>(config: &C, bridge: Bdf) -> Self {
        let [primary, secondary, subordinate, _] = config.read32(bridge, BUS_NUMBERS).to_le_bytes();
        Self { primary, secondary, subordinate }
    }

    /// Writes them to a bridge in one store, so that no half-set range is decoded.
    pub(crate) fn write<C: ConfigSpace>(self, config: &mut C, bridge: Bdf) {
        let [.., latency_timer] = config.read32(bridge, BUS_NUMBERS).to_le_bytes();
        let value = u32::from_le_bytes([self.primary, self.secondary, self.subordinate, latency_timer]);
        config.write32(bridge, BUS_NUMBERS, value);
    }
}

impl fmt::Display for BusNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { primary, secondary, subordinate } = self;
        write!(f, "primary={primary:02x}, secondary={secondary:02x}, subordinate={subordinate:02x}")
    }
}
