//! Types of virtio devices, and the PCI identities that stand for them (5, 4.1.2).

/// PCI vendor of every virtio device (4.1.2).
#[doc(alias = "PCI_VENDOR_ID_REDHAT_QUMRANET")]
pub(crate) const VENDOR: u16 = 0x1af4;
/// A modern device's PCI device ID is this plus the virtio device type (4.1.2).
const MODERN_DEVICE_BASE: u16 = 0x1040;

/// A virtio device type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceType {
    /// Its number (5).
    pub number: u16,
    /// PCI device ID of a transitional device of this type, which may have a modern interface too (4.1.2).
    pub transitional: Option<u16>,
}

impl DeviceType {
    /// The traditional memory balloon (5.5.1).
    #[doc(alias = "VIRTIO_ID_BALLOON")]
    #[doc(alias = "VIRTIO_TRANS_ID_BALLOON")]
    pub const BALLOON: Self = Self { number: 5, transitional: Some(0x1002) };
    /// The entropy source (5.4.1).
    #[doc(alias = "VIRTIO_ID_RNG")]
    #[doc(alias = "VIRTIO_TRANS_ID_RNG")]
    pub const ENTROPY: Self = Self { number: 4, transitional: Some(0x1005) };

    /// PCI device ID of a device of this type without a legacy interface.
    pub(crate) const fn modern(self) -> u16 {
        MODERN_DEVICE_BASE + self.number
    }

    /// Whether a PCI function with these IDs is a device of this type. No other field matters (4.1.2).
    pub const fn is_function(self, vendor: u16, device: u16) -> bool {
        let transitional = matches!(self.transitional, Some(id) if id == device);
        vendor == VENDOR && (device == self.modern() || transitional)
    }
}

#[cfg(test)]
mod tests {
    use virtio_bindings::virtio_ids as ids;

    use super::*;

    #[test]
    fn types_are_those_of_the_c_headers() {
        for (device_type, number, transitional) in [
            (DeviceType::BALLOON, ids::VIRTIO_ID_BALLOON, ids::VIRTIO_TRANS_ID_BALLOON),
            (DeviceType::ENTROPY, ids::VIRTIO_ID_RNG, ids::VIRTIO_TRANS_ID_RNG),
        ] {
            assert_eq!(u32::from(device_type.number), number);
            assert_eq!(device_type.transitional.map(u32::from), Some(transitional));
        }
    }

    #[test]
    fn a_function_has_a_type_by_vendor_and_device_alone() {
        let balloon = DeviceType::BALLOON;
        assert!(balloon.is_function(0x1af4, 0x1045) && balloon.is_function(0x1af4, 0x1002));
        assert!(!balloon.is_function(0x1af4, 0x1044) && !balloon.is_function(0x1af4, 0x1005));
        assert!(!balloon.is_function(0x8086, 0x1045));
    }
}
