//! The capability list, in the first 256 bytes of configuration space.
//!
//! The links are device data. The walk visits each dword at most once, stays in the area for capabilities, and ends
//! with an error when a link points elsewhere.

use derive_more::{Display, Error};

use super::header::HeaderLayout;
use super::register::{CAPABILITIES, CARDBUS_CAPABILITIES, Status};
use super::{Bdf, ConfigSpace, Function};

/// Capability IDs in use here (PCI Code and ID Assignment 1.11, 2).
pub mod id {
    /// Power management.
    #[doc(alias = "PCI_CAP_ID_PM")]
    pub(crate) const POWER_MANAGEMENT: u8 = 0x01;
    /// Message-signalled interrupts.
    #[doc(alias = "PCI_CAP_ID_MSI")]
    pub(crate) const MSI: u8 = 0x05;
    /// Vendor-specific; virtio uses it.
    #[doc(alias = "PCI_CAP_ID_VNDR")]
    pub const VENDOR: u8 = 0x09;
    /// PCI Express.
    #[doc(alias = "PCI_CAP_ID_EXP")]
    pub(crate) const PCI_EXPRESS: u8 = 0x10;
    /// MSI-X.
    #[doc(alias = "PCI_CAP_ID_MSIX")]
    pub const MSI_X: u8 = 0x11;
}

/// The end of the space that standard capabilities lie in.
const STANDARD_END: u16 = 0x100;

/// What is wrong with a capability list, or with an access to a capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum CapabilityError {
    /// A link points into the header, which holds no capabilities.
    #[display("{function}: capability link to {pointer:#x}, inside the header")]
    IntoHeader {
        /// The function.
        function: Bdf,
        /// The target of the link.
        pointer: u16,
    },
    /// A link leads back to a visited capability.
    #[display("{function}: capability list loops at {pointer:#x}")]
    Loop {
        /// The function.
        function: Bdf,
        /// The target of the link.
        pointer: u16,
    },
    /// The function no longer responds.
    #[display("{function}: gone while its capabilities were read")]
    Gone {
        /// The function.
        function: Bdf,
    },
    /// A field is beyond the end of configuration space.
    #[display("{function}: capability {id:#04x} at {offset:#x} has no room for {size} bytes at +{at:#x}")]
    Truncated {
        /// The function.
        function: Bdf,
        /// The capability's ID.
        id: u16,
        /// Where it starts.
        offset: u16,
        /// The field's offset in the capability.
        at: u16,
        /// The field's size in bytes.
        size: u16,
    },
}

/// A capability: its ID and location. Fields are at byte offsets from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capability {
    /// The function that has it.
    pub(crate) function: Bdf,
    /// Its ID, see [`id`].
    pub id: u8,
    /// Its offset in configuration space: 0x40 to 0xFC, a multiple of 4.
    pub offset: u16,
}

impl Capability {
    /// The length byte of a vendor-specific capability, its size in bytes, and the byte after it, which is the vendor's.
    /// One read gives both.
    ///
    /// # Errors
    /// When the capability would leave configuration space.
    #[doc(alias = "cap_len")]
    pub(crate) fn vendor_header<C: ConfigSpace>(&self, config: &C) -> Result<(u8, u8), CapabilityError> {
        let [length, own] = self.read16(config, 2)?.to_le_bytes();
        self.check(0, length.into())?;
        Ok((length, own))
    }

    /// Reads 8 bits at `at`.
    ///
    /// # Errors
    /// When the field would leave configuration space.
    pub fn read8<C: ConfigSpace>(&self, config: &C, at: usize) -> Result<u8, CapabilityError> {
        Ok(config.read8(self.function, self.check(at, 1)?))
    }

    /// Reads 16 bits at `at`, which is even.
    ///
    /// # Errors
    /// When the field would leave configuration space.
    pub fn read16<C: ConfigSpace>(&self, config: &C, at: usize) -> Result<u16, CapabilityError> {
        Ok(config.read16(self.function, self.check(at, 2)?))
    }

    /// Reads 32 bits at `at`, which is a multiple of 4.
    ///
    /// # Errors
    /// When the field would leave configuration space.
    pub fn read32<C: ConfigSpace>(&self, config: &C, at: usize) -> Result<u32, CapabilityError> {
        Ok(config.read32(self.function, self.check(at, 4)?))
    }

    /// Writes 8 bits at `at`.
    ///
    /// # Errors
    /// When the field would leave configuration space.
    pub fn write8<C: ConfigSpace>(&self, config: &mut C, at: usize, value: u8) -> Result<(), CapabilityError> {
        config.write8(self.function, self.check(at, 1)?, value);
        Ok(())
    }

    /// Writes 32 bits at `at`, which is a multiple of 4.
    ///
    /// # Errors
    /// When the field would leave configuration space.
    pub fn write32<C: ConfigSpace>(&self, config: &mut C, at: usize, value: u32) -> Result<(), CapabilityError> {
        config.write32(self.function, self.check(at, 4)?, value);
        Ok(())
    }

    /// The offset of a field in configuration space, after a check of its `size` bytes at `at`.
    fn check(&self, at: usize, size: u16) -> Result<u16, CapabilityError> {
        let Self { function, id, offset } = *self;
        let at = u16::try_from(at).unwrap_or(u16::MAX);
        if u32::from(offset) + u32::from(at) + u32::from(size) > STANDARD_END.into() {
            return Err(CapabilityError::Truncated { function, id: id.into(), offset, at, size });
        }
        Ok(offset + at)
    }
}

/// The capabilities of a function, in the order of its list (PCI 3.0, 6.7).
#[derive(Debug)]
pub struct Capabilities<'c, C> {
    config: &'c C,
    function: Bdf,
    next: u16,
    visited: u64,
}

impl<'c, C: ConfigSpace> Capabilities<'c, C> {
    pub(super) fn new(config: &'c C, function: &Function) -> Self {
        let register = match function.layout {
            HeaderLayout::Endpoint | HeaderLayout::Bridge => Some(CAPABILITIES),
            HeaderLayout::CardBus => Some(CARDBUS_CAPABILITIES),
            HeaderLayout::Unknown(_) => None,
        };
        // Without the status bit the pointer is undefined.
        let register = register.filter(|_| function.status(config).contains(Status::CAPABILITY_LIST));
        let next = register.map_or(0, |register| config.read8(function.bdf, register));
        Self { config, function: function.bdf, next: next.into(), visited: 0 }
    }

    fn visit(&mut self, pointer: u16) -> Result<Capability, CapabilityError> {
        let function = self.function;
        if pointer < 0x40 {
            return Err(CapabilityError::IntoHeader { function, pointer });
        }
        // One bit per dword: the list ends after at most 48 capabilities.
        let bit = 1 << (pointer / 4);
        if self.visited & bit != 0 {
            return Err(CapabilityError::Loop { function, pointer });
        }
        self.visited |= bit;
        let [id, next] = self.config.read16(function, pointer).to_le_bytes();
        if id == 0xFF && next == 0xFF {
            return Err(CapabilityError::Gone { function });
        }
        self.next = next.into();
        Ok(Capability { function, id, offset: pointer })
    }
}

impl<C: ConfigSpace> Iterator for Capabilities<'_, C> {
    type Item = Result<Capability, CapabilityError>;

    fn next(&mut self) -> Option<Self::Item> {
        // The two lowest bits are reserved and must be masked (6.7).
        let pointer = core::mem::take(&mut self.next) & 0xFC;
        (pointer != 0).then(|| self.visit(pointer))
    }
}

#[cfg(test)]
mod tests;
