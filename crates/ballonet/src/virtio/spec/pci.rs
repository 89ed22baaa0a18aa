//! Numbers of virtio over PCI: identities, capability types, the common configuration structure (4.1).

use core::fmt;

/// The vector number that means "none" in a vector register (4.1.5.1.2).
#[doc(alias = "VIRTIO_MSI_NO_VECTOR")]
pub const NO_VECTOR: u16 = 0xffff;

/// ISR bit: a queue was used (4.1.4.5).
#[doc(alias = "VIRTIO_PCI_ISR_QUEUE")]
pub const ISR_QUEUE: u8 = 1;
/// ISR bit: the configuration changed.
#[doc(alias = "VIRTIO_PCI_ISR_CONFIG")]
pub const ISR_CONFIG: u8 = 2;

/// What a virtio PCI capability points at (4.1.4, `cfg_type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CapabilityType {
    /// The common configuration structure.
    #[doc(alias = "VIRTIO_PCI_CAP_COMMON_CFG")]
    Common = 1,
    /// The doorbells.
    #[doc(alias = "VIRTIO_PCI_CAP_NOTIFY_CFG")]
    Notify = 2,
    /// The ISR status byte.
    #[doc(alias = "VIRTIO_PCI_CAP_ISR_CFG")]
    Isr = 3,
    /// The device type's own configuration.
    #[doc(alias = "VIRTIO_PCI_CAP_DEVICE_CFG")]
    Device = 4,
    /// A window to BARs in configuration space.
    #[doc(alias = "VIRTIO_PCI_CAP_PCI_CFG")]
    PciAccess = 5,
    /// A shared memory region.
    #[doc(alias = "VIRTIO_PCI_CAP_SHARED_MEMORY_CFG")]
    SharedMemory = 8,
    /// Data of the device's vendor, for debugging.
    #[doc(alias = "VIRTIO_PCI_CAP_VENDOR_CFG")]
    Vendor = 9,
}

impl CapabilityType {
    /// What `cfg_type` says; `None` for types that drivers are to skip.
    pub const fn from_register(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Common),
            2 => Some(Self::Notify),
            3 => Some(Self::Isr),
            4 => Some(Self::Device),
            5 => Some(Self::PciAccess),
            8 => Some(Self::SharedMemory),
            9 => Some(Self::Vendor),
            _ => None,
        }
    }
}

impl fmt::Display for CapabilityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Common => "common configuration",
            Self::Notify => "notification",
            Self::Isr => "ISR status",
            Self::Device => "device configuration",
            Self::PciAccess => "PCI configuration access",
            Self::SharedMemory => "shared memory",
            Self::Vendor => "vendor data",
        })
    }
}

/// Offsets in a virtio PCI capability, from its start in configuration space (4.1.4).
#[doc(alias = "virtio_pci_cap")]
pub mod cap {
    /// 8 bits: length of the capability itself.
    pub const LENGTH: u16 = 2;
    /// 8 bits: [`super::CapabilityType`].
    pub const TYPE: u16 = 3;
    /// 8 bits: index of the BAR.
    pub const BAR: u16 = 4;
    /// 8 bits: tells several capabilities of one type apart.
    pub(crate) const ID: u16 = 5;
    /// 32 bits: where in the BAR.
    pub const BAR_OFFSET: u16 = 8;
    /// 32 bits: length of the structure in the BAR.
    pub const BAR_LENGTH: u16 = 12;
    /// Size of the fields above.
    pub const SIZE: u8 = 16;
    /// 32 bits, notification capability: `notify_off_multiplier`.
    #[doc(alias = "notify_off_multiplier")]
    pub const NOTIFY_MULTIPLIER: u16 = 16;
    /// 32 bits, shared memory capability: upper half of the offset.
    pub const BAR_OFFSET_HIGH: u16 = 16;
    /// 32 bits, shared memory capability: upper half of the length.
    pub const BAR_LENGTH_HIGH: u16 = 20;
    /// 16 bits, vendor capability: PCI vendor that gives the data its meaning (4.1.4.8).
    pub(crate) const VENDOR_ID: u16 = 4;
    /// Vendor capability: size of the fields before the data.
    pub const VENDOR_SIZE: u8 = 6;
    /// 32 bits, PCI access capability: the data register (4.1.4.9).
    pub const PCI_DATA: u16 = 16;
}

/// Offsets in the common configuration structure (4.1.4.3).
#[doc(alias = "virtio_pci_common_cfg")]
pub mod common {
    /// 32 bits: which word of the offered features shows.
    pub const DEVICE_FEATURE_SELECT: usize = 0x00;
    /// 32 bits, read-only: offered features.
    pub const DEVICE_FEATURE: usize = 0x04;
    /// 32 bits: which word of the accepted features is written.
    pub const DRIVER_FEATURE_SELECT: usize = 0x08;
    /// 32 bits: accepted features.
    pub const DRIVER_FEATURE: usize = 0x0c;
    /// 16 bits: vector for configuration changes.
    pub const CONFIG_MSIX_VECTOR: usize = 0x10;
    /// 16 bits, read-only: how many queues there are.
    pub const NUM_QUEUES: usize = 0x12;
    /// 8 bits: [`super::super::Status`].
    pub const DEVICE_STATUS: usize = 0x14;
    /// 8 bits, read-only: changes when the device configuration has.
    pub const CONFIG_GENERATION: usize = 0x15;
    /// 16 bits: which queue the fields below are about.
    pub const QUEUE_SELECT: usize = 0x16;
    /// 16 bits: entries in the queue; 0 means that there is no such queue.
    pub const QUEUE_SIZE: usize = 0x18;
    /// 16 bits: vector of the queue.
    pub const QUEUE_MSIX_VECTOR: usize = 0x1a;
    /// 16 bits: 1 puts the queue to use.
    pub const QUEUE_ENABLE: usize = 0x1c;
    /// 16 bits, read-only: where the queue's doorbell is, in units of the multiplier.
    pub const QUEUE_NOTIFY_OFF: usize = 0x1e;
    /// 64 bits: the descriptor area.
    pub const QUEUE_DESC: usize = 0x20;
    /// 64 bits: the driver area.
    pub const QUEUE_DRIVER: usize = 0x28;
    /// 64 bits: the device area.
    pub const QUEUE_DEVICE: usize = 0x30;
    /// End of the fields that every modern device has.
    pub const SIZE: usize = 0x38;
    /// 16 bits, read-only: what to kick with (`NOTIF_CONFIG_DATA`).
    #[doc(alias = "queue_notify_data")]
    pub const QUEUE_NOTIF_CONFIG_DATA: usize = 0x38;
    /// 16 bits: 1 resets the queue (`RING_RESET`).
    pub const QUEUE_RESET: usize = 0x3a;
    /// End of the structure in this version of the specification.
    pub const SIZE_FULL: usize = 0x40;
}

/// Offsets of the legacy interface's registers in I/O ports, in the first BAR (4.1.4.10).
///
/// The device configuration follows the header, which is longer while MSI-X is on.
pub mod legacy {
    /// 32 bits, read-only: offered features, of which there are 32.
    #[doc(alias = "VIRTIO_PCI_HOST_FEATURES")]
    pub(crate) const DEVICE_FEATURES: usize = 0x00;
    /// 32 bits: accepted features.
    #[doc(alias = "VIRTIO_PCI_GUEST_FEATURES")]
    pub(crate) const DRIVER_FEATURES: usize = 0x04;
    /// 32 bits: the queue's address divided by [`QUEUE_ALIGN`]; not 0 puts it to use, and there are devices that take 0
    /// for a reset of all of them.
    #[doc(alias = "VIRTIO_PCI_QUEUE_PFN")]
    pub(crate) const QUEUE_ADDRESS: usize = 0x08;
    /// 16 bits, read-only: entries in the queue; 0 means that there is no such queue.
    #[doc(alias = "VIRTIO_PCI_QUEUE_NUM")]
    pub(crate) const QUEUE_SIZE: usize = 0x0c;
    /// 16 bits: which queue the fields about queues are about.
    #[doc(alias = "VIRTIO_PCI_QUEUE_SEL")]
    pub(crate) const QUEUE_SELECT: usize = 0x0e;
    /// 16 bits: the doorbell of all queues.
    #[doc(alias = "VIRTIO_PCI_QUEUE_NOTIFY")]
    pub(crate) const QUEUE_NOTIFY: usize = 0x10;
    /// 8 bits: [`super::super::Status`], without `FEATURES_OK`.
    #[doc(alias = "VIRTIO_PCI_STATUS")]
    pub(crate) const DEVICE_STATUS: usize = 0x12;
    /// 8 bits, read-only: the ISR byte.
    #[doc(alias = "VIRTIO_PCI_ISR")]
    pub(crate) const ISR: usize = 0x13;
    /// 16 bits: vector for configuration changes. Only while MSI-X is on.
    #[doc(alias = "VIRTIO_MSI_CONFIG_VECTOR")]
    pub(crate) const CONFIG_MSIX_VECTOR: usize = 0x14;
    /// 16 bits: vector of the queue. Only while MSI-X is on.
    #[doc(alias = "VIRTIO_MSI_QUEUE_VECTOR")]
    pub(crate) const QUEUE_MSIX_VECTOR: usize = 0x16;
    /// Where the device configuration starts while MSI-X is off.
    pub(crate) const DEVICE_CONFIG: usize = 0x14;
    /// Where it starts while MSI-X is on.
    #[doc(alias = "VIRTIO_PCI_CONFIG_OFF")]
    pub(crate) const DEVICE_CONFIG_MSIX: usize = 0x18;
    /// What queues are aligned to, in bytes (2.7.2).
    #[doc(alias = "VIRTIO_PCI_VRING_ALIGN")]
    pub(crate) const QUEUE_ALIGN: u64 = 4096;
    /// The only revision of a PCI function with a legacy interface (4.1.2.3).
    #[doc(alias = "VIRTIO_PCI_ABI_VERSION")]
    pub const REVISION: u8 = 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_types_survive_the_round_trip_and_others_are_none() {
        for value in 0..=u8::MAX {
            match CapabilityType::from_register(value) {
                Some(kind) => assert_eq!(kind as u8, value),
                None => assert!(![1, 2, 3, 4, 5, 8, 9].contains(&value)),
            }
        }
    }
}
