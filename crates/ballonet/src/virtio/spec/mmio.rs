//! Registers of virtio over MMIO, each of 32 bits: offsets from the start of the device's window, and the numbers that
//! identify a device (4.2.2, 4.2.4).

/// Read-only: [`MAGIC`].
#[doc(alias = "VIRTIO_MMIO_MAGIC_VALUE")]
pub(crate) const MAGIC_VALUE: usize = 0x000;
/// Read-only: [`VERSION_MODERN`] or [`VERSION_LEGACY`].
#[doc(alias = "VIRTIO_MMIO_VERSION")]
pub(crate) const VERSION: usize = 0x004;
/// Read-only: the device type; 0 is a placeholder, a window without a device.
#[doc(alias = "VIRTIO_MMIO_DEVICE_ID")]
pub(crate) const DEVICE_ID: usize = 0x008;
/// Read-only: a word of the offered features.
#[doc(alias = "VIRTIO_MMIO_DEVICE_FEATURES")]
pub(crate) const DEVICE_FEATURES: usize = 0x010;
/// Write-only: selects a word of the offered features.
#[doc(alias = "VIRTIO_MMIO_DEVICE_FEATURES_SEL")]
pub(crate) const DEVICE_FEATURES_SELECT: usize = 0x014;
/// Write-only: a word of the accepted features.
#[doc(alias = "VIRTIO_MMIO_DRIVER_FEATURES")]
pub(crate) const DRIVER_FEATURES: usize = 0x020;
/// Write-only: selects a word of the accepted features.
#[doc(alias = "VIRTIO_MMIO_DRIVER_FEATURES_SEL")]
pub(crate) const DRIVER_FEATURES_SELECT: usize = 0x024;
/// Write-only, legacy: size of the guest's pages in bytes, the unit of [`QUEUE_FRAME`].
#[doc(alias = "VIRTIO_MMIO_GUEST_PAGE_SIZE")]
pub(crate) const GUEST_PAGE_SIZE: usize = 0x028;
/// Write-only: selects the queue for the queue registers.
#[doc(alias = "VIRTIO_MMIO_QUEUE_SEL")]
pub(crate) const QUEUE_SELECT: usize = 0x030;
/// Read-only: the queue's maximum size; 0 means that there is no such queue.
#[doc(alias = "VIRTIO_MMIO_QUEUE_NUM_MAX")]
pub(crate) const QUEUE_SIZE_LIMIT: usize = 0x034;
/// Write-only: entries in the queue.
#[doc(alias = "VIRTIO_MMIO_QUEUE_NUM")]
pub(crate) const QUEUE_SIZE: usize = 0x038;
/// Write-only, legacy: alignment of the used ring in bytes.
#[doc(alias = "VIRTIO_MMIO_QUEUE_ALIGN")]
pub(crate) const QUEUE_ALIGN: usize = 0x03c;
/// Legacy: the queue's frame, in pages of [`GUEST_PAGE_SIZE`]; not 0 enables the queue.
#[doc(alias = "VIRTIO_MMIO_QUEUE_PFN")]
pub(crate) const QUEUE_FRAME: usize = 0x040;
/// 1 enables the queue.
#[doc(alias = "VIRTIO_MMIO_QUEUE_READY")]
pub(crate) const QUEUE_READY: usize = 0x044;
/// Write-only: the doorbell of all queues.
#[doc(alias = "VIRTIO_MMIO_QUEUE_NOTIFY")]
pub(crate) const QUEUE_NOTIFY: usize = 0x050;
/// Read-only: why the device interrupts, as in the ISR byte of virtio over PCI.
#[doc(alias = "VIRTIO_MMIO_INTERRUPT_STATUS")]
pub(crate) const INTERRUPT_STATUS: usize = 0x060;
/// Write-only: clears the written bits of [`INTERRUPT_STATUS`].
#[doc(alias = "VIRTIO_MMIO_INTERRUPT_ACK")]
pub(crate) const INTERRUPT_ACK: usize = 0x064;
/// The device status.
#[doc(alias = "VIRTIO_MMIO_STATUS")]
pub(crate) const STATUS: usize = 0x070;
/// Write-only, 64 bits in two registers: the descriptor area.
#[doc(alias = "VIRTIO_MMIO_QUEUE_DESC_LOW")]
pub(crate) const QUEUE_DESC: usize = 0x080;
/// Write-only, 64 bits in two registers: the driver area.
#[doc(alias = "VIRTIO_MMIO_QUEUE_AVAIL_LOW")]
pub(crate) const QUEUE_DRIVER: usize = 0x090;
/// Write-only, 64 bits in two registers: the device area.
#[doc(alias = "VIRTIO_MMIO_QUEUE_USED_LOW")]
pub(crate) const QUEUE_DEVICE: usize = 0x0a0;
/// Write-only: selects a shared memory region.
#[doc(alias = "VIRTIO_MMIO_SHM_SEL")]
pub(crate) const SHARED_MEMORY_SELECT: usize = 0x0ac;
/// Read-only, 64 bits in two registers: length of the region in bytes; all ones means that there is none.
#[doc(alias = "VIRTIO_MMIO_SHM_LEN_LOW")]
pub(crate) const SHARED_MEMORY_LENGTH: usize = 0x0b0;
/// Read-only, 64 bits in two registers: physical address of the region.
#[doc(alias = "VIRTIO_MMIO_SHM_BASE_LOW")]
pub(crate) const SHARED_MEMORY_BASE: usize = 0x0b8;
/// 1 resets the queue (`RING_RESET`); reads as 1 until that is done.
pub(crate) const QUEUE_RESET: usize = 0x0c0;
/// Read-only: changes with the device configuration.
#[doc(alias = "VIRTIO_MMIO_CONFIG_GENERATION")]
pub(crate) const CONFIG_GENERATION: usize = 0x0fc;
/// Where the device configuration starts.
#[doc(alias = "VIRTIO_MMIO_CONFIG")]
pub(crate) const CONFIG: usize = 0x100;

/// `virt`, little-endian.
pub(crate) const MAGIC: u32 = 0x7472_6976;
/// The version of a device that follows version 1 of the specification or a later one.
pub(crate) const VERSION_MODERN: u32 = 2;
/// The version of a legacy device.
pub const VERSION_LEGACY: u32 = 1;
/// Page size written to a legacy device, and alignment of its queues, in bytes.
pub(crate) const PAGE_SIZE: u32 = 4096;
