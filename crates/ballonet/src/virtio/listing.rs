//! Describes virtio capabilities in a PCI listing (virtio 1.4, 4.1.4).
//!
//! It reads only their fields, but not the data register of the PCI configuration access capability: reading that would
//! make the device perform an access.

use core::mem::offset_of;

use core::fmt;

use super::spec::{CapabilityType, NotifyCapability, PciCapability, SharedMemoryCapability, VENDOR, VendorCapability};
use crate::pci::{self, Capability, ConfigSpace, Function};

/// PCI device IDs of virtio devices, transitional and modern (4.1.2).
const DEVICES: core::ops::RangeInclusive<u16> = 0x1000..=0x107f;

/// Writes which virtio structure a vendor-specific capability of `function` describes, and its location; nothing for a
/// function that is not a virtio device. For [`crate::pci::listing::Details`].
///
/// # Errors
/// When writing to `f` fails.
pub fn describe<C: ConfigSpace>(
    config: &C,
    function: &Function,
    capability: &Capability,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    if function.vendor != VENDOR || !DEVICES.contains(&function.device) {
        return Ok(());
    }
    match Description::read(config, capability) {
        Ok(description) => write!(f, ": virtio {description}"),
        Err(_) => f.write_str(": virtio, cut off"),
    }
}

/// The contents of a capability, usable or not.
enum Description {
    /// A structure in a BAR.
    Structure { kind: CapabilityType, bar: u8, offset: u64, length: u64 },
    /// The doorbells.
    Notify { bar: u8, offset: u64, length: u64, multiplier: u32 },
    /// A shared memory region.
    SharedMemory { id: u8, bar: u8, offset: u64, length: u64 },
    /// The window to BARs.
    PciAccess,
    /// Data of a vendor.
    Vendor { vendor: u16 },
    /// A type unknown to this driver.
    Unknown { number: u8 },
}

impl Description {
    fn read<C: ConfigSpace>(config: &C, capability: &Capability) -> Result<Self, pci::CapabilityError> {
        let read8 = |at: usize| capability.read8(config, at);
        let read32 = |at: usize| capability.read32(config, at);
        let number = read8(offset_of!(PciCapability, cfg_type))?;
        let kind = match CapabilityType::from_register(number) {
            None => return Ok(Self::Unknown { number }),
            Some(CapabilityType::PciAccess) => return Ok(Self::PciAccess),
            Some(CapabilityType::Vendor) => {
                return Ok(Self::Vendor {
                    vendor: capability.read16(config, offset_of!(VendorCapability, vendor_id))?,
                });
            }
            Some(kind) => kind,
        };
        let (bar, offset, length) = (
            read8(offset_of!(PciCapability, bar))?,
            read32(offset_of!(PciCapability, offset))?,
            read32(offset_of!(PciCapability, length))?,
        );
        Ok(match kind {
            CapabilityType::Notify => {
                let multiplier = read32(offset_of!(NotifyCapability, notify_off_multiplier))?;
                Self::Notify { bar, offset: offset.into(), length: length.into(), multiplier }
            }
            CapabilityType::SharedMemory => {
                let join = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
                let offset = join(read32(offset_of!(SharedMemoryCapability, offset_hi))?, offset);
                let length = join(read32(offset_of!(SharedMemoryCapability, length_hi))?, length);
                Self::SharedMemory { id: read8(offset_of!(PciCapability, id))?, bar, offset, length }
            }
            _ => Self::Structure { kind, bar, offset: offset.into(), length: length.into() },
        })
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Structure { kind, bar, offset, length } => write!(f, "{kind}, BAR{bar} {offset:#x}+{length:#x}"),
            Self::Notify { bar, offset, length, multiplier } => {
                let kind = CapabilityType::Notify;
                write!(f, "{kind}, BAR{bar} {offset:#x}+{length:#x}, multiplier {multiplier}")
            }
            Self::SharedMemory { id, bar, offset, length } => {
                write!(f, "{} {id}, BAR{bar} {offset:#x}+{length:#x}", CapabilityType::SharedMemory)
            }
            Self::PciAccess => CapabilityType::PciAccess.fmt(f),
            Self::Vendor { vendor } => write!(f, "{} of {vendor:04x}", CapabilityType::Vendor),
            Self::Unknown { number } => write!(f, "type {number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::fake::{FakeConfig, FakeFunction};
    use crate::pci::listing::Details;
    use crate::pci::{Bdf, BusRange, Tree};

    /// The lines for these capabilities, each given by its bytes from the length on.
    fn shown(device: u16, bodies: &[&[u8]]) -> Vec<String> {
        let mut at = 0x40;
        let function = bodies.iter().fold(FakeFunction::new(0x1af4, device, 0), |function, body| {
            let function = function.capability(at, 0x09, body);
            at += (body.len() as u8 + 2).next_multiple_of(4);
            function
        });
        let (mut config, _) = FakeConfig::with(function);
        let tree = Tree::walk(&mut config, &[BusRange::SEGMENT_0]);
        let details = Details { config: &config, node: &tree.nodes()[0], vendor: describe }.to_string();
        details.lines().map(|line| line.trim_start().to_string()).collect()
    }

    const NOTIFY: &[u8] = &[20, 2, 4, 0, 0, 0, 0, 0x30, 0, 0, 0, 0x10, 0, 0, 4, 0, 0, 0];

    #[test]
    fn each_type_is_shown_by_its_name() {
        let lines = shown(
            0x1045,
            &[
                &[16, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0],
                NOTIFY,
                &[16, 3, 4, 0, 0, 0, 0, 0x10, 0, 0, 1, 0, 0, 0],
                &[16, 4, 4, 0, 0, 0, 0, 0x20, 0, 0, 0, 0x10, 0, 0],
                &[20, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                &[24, 8, 2, 7, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0x40, 1, 0, 0, 0, 2, 0, 0, 0],
                &[8, 9, 0xf4, 0x1a, 1, 2],
                &[16, 77, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ],
        );
        let expected = [
            "[40] vendor-specific, 16 bytes: virtio common configuration, BAR4 0x0+0x1000",
            "[50] vendor-specific, 20 bytes: virtio notification, BAR4 0x3000+0x1000, multiplier 4",
            "[64] vendor-specific, 16 bytes: virtio ISR status, BAR4 0x1000+0x1",
            "[74] vendor-specific, 16 bytes: virtio device configuration, BAR4 0x2000+0x1000",
            "[84] vendor-specific, 20 bytes: virtio PCI configuration access",
            "[98] vendor-specific, 24 bytes: virtio shared memory 7, BAR2 0x180000000+0x240000000",
            "[b0] vendor-specific, 8 bytes: virtio vendor data of 1af4",
            "[b8] vendor-specific, 16 bytes: virtio type 77",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn other_devices_capabilities_are_not_described_and_truncated_ones_are_marked() {
        assert_eq!(shown(0x0001, &[NOTIFY]), ["[40] vendor-specific, 20 bytes"]);
        let (mut config, _) = FakeConfig::with(FakeFunction::new(0x1af4, 0x1002, 0).capability(0xf4, 0x09, &[20, 2]));
        let tree = Tree::walk(&mut config, &[BusRange::SEGMENT_0]);
        let details = Details { config: &config, node: &tree.nodes()[0], vendor: describe }.to_string();
        assert!(details.contains("20 bytes: virtio, cut off"), "{details}");
    }

    /// Configuration space in which the data register of a window must not be touched.
    struct Guarded(FakeConfig);

    impl Guarded {
        fn check(offset: u16) {
            assert_ne!(offset & !3, 0x50, "the data register of the window was read");
        }
    }

    impl ConfigSpace for Guarded {
        fn size(&self, segment: u16, bus: u8) -> u16 {
            self.0.size(segment, bus)
        }
        fn read8(&self, function: Bdf, offset: u16) -> u8 {
            Self::check(offset);
            self.0.read8(function, offset)
        }
        fn read16(&self, function: Bdf, offset: u16) -> u16 {
            Self::check(offset);
            self.0.read16(function, offset)
        }
        fn read32(&self, function: Bdf, offset: u16) -> u32 {
            Self::check(offset);
            self.0.read32(function, offset)
        }
        fn write8(&mut self, function: Bdf, offset: u16, value: u8) {
            self.0.write8(function, offset, value);
        }
        fn write16(&mut self, function: Bdf, offset: u16, value: u16) {
            self.0.write16(function, offset, value);
        }
        fn write32(&mut self, function: Bdf, offset: u16, value: u32) {
            self.0.write32(function, offset, value);
        }
    }

    #[test]
    fn a_listing_never_reads_through_the_window() {
        let access = [&[20, 5][..], &[0; 16]].concat();
        let (config, _) = FakeConfig::with(FakeFunction::new(0x1af4, 0x1045, 0).capability(0x40, 0x09, &access));
        let mut config = Guarded(config);
        let mut tree = Tree::walk(&mut config, &[BusRange::SEGMENT_0]);
        tree.size_bars(&mut config);
        let details = Details { config: &config, node: &tree.nodes()[0], vendor: describe }.to_string();
        assert!(details.contains("PCI configuration access"), "{details}");
    }
}
