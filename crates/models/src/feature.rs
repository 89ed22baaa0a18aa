//! Feature bits by number (virtio 1.4, 5.5.3 and 6).

pub const MUST_TELL_HOST: u64 = 1 << 0;
pub const STATS_VQ: u64 = 1 << 1;
pub const DEFLATE_ON_OOM: u64 = 1 << 2;
pub const FREE_PAGE_HINT: u64 = 1 << 3;
pub const PAGE_POISON: u64 = 1 << 4;
pub const PAGE_REPORTING: u64 = 1 << 5;
/// The bits defined by the device type.
pub(crate) const OF_DEVICE_TYPE: u64 = 0x00ff_ffff;
pub const ANY_LAYOUT: u64 = 1 << 27;
pub const INDIRECT_DESC: u64 = 1 << 28;
pub const EVENT_IDX: u64 = 1 << 29;
pub const VERSION_1: u64 = 1 << 32;
pub const ACCESS_PLATFORM: u64 = 1 << 33;
pub const RING_PACKED: u64 = 1 << 34;
pub const IN_ORDER: u64 = 1 << 35;
pub const ORDER_PLATFORM: u64 = 1 << 36;
pub const NOTIFICATION_DATA: u64 = 1 << 38;
pub const NOTIF_CONFIG_DATA: u64 = 1 << 39;
pub const RING_RESET: u64 = 1 << 40;
