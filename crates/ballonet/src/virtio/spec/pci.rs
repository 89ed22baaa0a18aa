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

/// The type of structure that a virtio PCI capability describes (4.1.4, `cfg_type`).
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
    /// Decodes `cfg_type`; `None` for types that drivers must skip.
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

    /// Size of a capability of this type, in bytes. Later specifications may have longer ones, which are valid.
    pub const fn capability_size(self) -> u8 {
        (match self {
            Self::Common | Self::Isr | Self::Device => size_of::<PciCapability>(),
            Self::Notify => size_of::<NotifyCapability>(),
            Self::PciAccess => size_of::<PciAccessCapability>(),
            Self::SharedMemory => size_of::<SharedMemoryCapability>(),
            Self::Vendor => size_of::<VendorCapability>(),
        }) as u8
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

/// A virtio PCI capability in configuration space (4.1.4). The driver accesses the fields of these structures one by
/// one, by offset: `offset_of!(PciCapability, cfg_type)`.
#[doc(alias = "virtio_pci_cap")]
#[derive(Debug)]
#[repr(C)]
pub struct PciCapability {
    /// PCI's id of vendor-specific capabilities.
    pub cap_vndr: u8,
    /// Offset of the next capability.
    pub cap_next: u8,
    /// Length of the capability itself in bytes.
    pub cap_len: u8,
    /// [`CapabilityType`].
    pub cfg_type: u8,
    /// Index of the BAR.
    pub bar: u8,
    /// Distinguishes capabilities of one type.
    pub id: u8,
    /// Unused.
    pub padding: [u8; 2],
    /// Where in the BAR.
    pub offset: u32,
    /// Length of the structure in the BAR.
    pub length: u32,
}

/// The capability of the doorbells (4.1.4.4).
#[doc(alias = "virtio_pci_notify_cap")]
#[derive(Debug)]
#[repr(C)]
pub struct NotifyCapability {
    /// Where the doorbells are.
    pub cap: PciCapability,
    /// The factor for a queue's `queue_notify_off`.
    pub notify_off_multiplier: u32,
}

/// The capability of a shared memory region, whose offset and length have 64 bits (4.1.4.7).
#[doc(alias = "virtio_pci_cap64")]
#[derive(Debug)]
#[repr(C)]
pub struct SharedMemoryCapability {
    /// The region's location, with the lower halves.
    pub cap: PciCapability,
    /// Upper half of the offset.
    pub offset_hi: u32,
    /// Upper half of the length.
    pub length_hi: u32,
}

/// The capability that is a window to BARs (4.1.4.9).
#[doc(alias = "virtio_pci_cfg_cap")]
#[derive(Debug)]
#[repr(C)]
pub struct PciAccessCapability {
    /// The window's target, written by the driver.
    pub cap: PciCapability,
    /// The data register.
    pub pci_cfg_data: u32,
}

/// The start of a capability with data of the device's vendor (4.1.4.8).
#[doc(alias = "virtio_pci_vndr_data")]
#[derive(Debug)]
#[repr(C)]
pub(crate) struct VendorCapability {
    /// PCI's id of vendor-specific capabilities.
    pub cap_vndr: u8,
    /// Offset of the next capability.
    pub cap_next: u8,
    /// Length of the capability in bytes, data included.
    pub cap_len: u8,
    /// [`CapabilityType::Vendor`].
    pub cfg_type: u8,
    /// The PCI vendor that defines the data.
    pub vendor_id: u16,
}

/// The common configuration structure (4.1.4.3). The last fields belong to optional features; the structure of a device
/// without these may end at [`CommonConfig::SIZE`].
#[doc(alias = "virtio_pci_common_cfg")]
#[derive(Debug)]
#[repr(C)]
pub struct CommonConfig {
    /// Selects a word of the offered features.
    pub device_feature_select: u32,
    /// Read-only: a word of the offered features.
    pub device_feature: u32,
    /// Selects a word of the accepted features.
    pub driver_feature_select: u32,
    /// A word of the accepted features.
    pub driver_feature: u32,
    /// Vector for configuration changes.
    pub config_msix_vector: u16,
    /// Read-only: number of queues.
    pub num_queues: u16,
    /// [`super::Status`].
    pub device_status: u8,
    /// Read-only: changes with the device configuration.
    pub config_generation: u8,
    /// Selects the queue for the fields below.
    pub queue_select: u16,
    /// Entries in the queue; 0 means that there is no such queue.
    pub queue_size: u16,
    /// Vector of the queue.
    pub queue_msix_vector: u16,
    /// 1 enables the queue.
    pub queue_enable: u16,
    /// Read-only: offset of the queue's doorbell, in units of the multiplier.
    pub queue_notify_off: u16,
    /// The descriptor area.
    pub queue_desc: u64,
    /// The driver area.
    pub queue_driver: u64,
    /// The device area.
    pub queue_device: u64,
    /// Read-only: the value to kick with (`NOTIF_CONFIG_DATA`).
    #[doc(alias = "queue_notify_data")]
    pub queue_notif_config_data: u16,
    /// 1 resets the queue (`RING_RESET`).
    pub queue_reset: u16,
    /// Read-only: the first administration queue (`ADMIN_VQ`).
    pub admin_queue_index: u16,
    /// Read-only: number of administration queues.
    pub admin_queue_num: u16,
}

impl CommonConfig {
    /// Size of the fields that every modern device has, in bytes.
    pub const SIZE: usize = core::mem::offset_of!(Self, queue_notif_config_data);
}

/// Offsets of the legacy interface's registers in I/O ports, in the first BAR (4.1.4.10).
///
/// The device configuration follows the header, which is longer while MSI-X is on.
pub mod legacy {
    /// 32 bits, read-only: offered features; there are only 32.
    #[doc(alias = "VIRTIO_PCI_HOST_FEATURES")]
    pub(crate) const DEVICE_FEATURES: usize = 0x00;
    /// 32 bits: accepted features.
    #[doc(alias = "VIRTIO_PCI_GUEST_FEATURES")]
    pub(crate) const DRIVER_FEATURES: usize = 0x04;
    /// 32 bits: the queue's address divided by [`QUEUE_ALIGN`]; a value other than 0 enables it. Some devices reset all
    /// queues on 0.
    #[doc(alias = "VIRTIO_PCI_QUEUE_PFN")]
    pub(crate) const QUEUE_ADDRESS: usize = 0x08;
    /// 16 bits, read-only: entries in the queue; 0 means that there is no such queue.
    #[doc(alias = "VIRTIO_PCI_QUEUE_NUM")]
    pub(crate) const QUEUE_SIZE: usize = 0x0c;
    /// 16 bits: selects the queue for the queue fields.
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
    /// Alignment of queues in bytes (2.7.2).
    #[doc(alias = "VIRTIO_PCI_VRING_ALIGN")]
    pub(crate) const QUEUE_ALIGN: u64 = 4096;
    /// The only revision of a PCI function with a legacy interface (4.1.2.3).
    #[doc(alias = "VIRTIO_PCI_ABI_VERSION")]
    pub const REVISION: u8 = 0;
}

#[cfg(test)]
mod tests {
    use core::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn structures_are_laid_out_as_the_specification_has_them() {
        assert_eq!((size_of::<PciCapability>(), offset_of!(PciCapability, offset)), (16, 8));
        assert_eq!(size_of::<NotifyCapability>(), 20);
        assert_eq!((size_of::<SharedMemoryCapability>(), size_of::<PciAccessCapability>()), (24, 20));
        assert_eq!((size_of::<VendorCapability>(), offset_of!(VendorCapability, vendor_id)), (6, 4));
        assert_eq!((CommonConfig::SIZE, size_of::<CommonConfig>()), (0x38, 0x40));
        for (offset, expected) in [
            (offset_of!(CommonConfig, driver_feature), 0x0c),
            (offset_of!(CommonConfig, device_status), 0x14),
            (offset_of!(CommonConfig, config_generation), 0x15),
            (offset_of!(CommonConfig, queue_select), 0x16),
            (offset_of!(CommonConfig, queue_notify_off), 0x1e),
            (offset_of!(CommonConfig, queue_desc), 0x20),
            (offset_of!(CommonConfig, queue_device), 0x30),
            (offset_of!(CommonConfig, queue_reset), 0x3a),
        ] {
            assert_eq!(offset, expected);
        }
    }

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
