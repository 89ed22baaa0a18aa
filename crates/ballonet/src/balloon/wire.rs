//! The balloon on the wire: feature bits, configuration fields, statistics tags, and the encoding of frame numbers and
//! statistics (virtio 1.4, 5.5). Little-endian on a modern device.

use core::mem::offset_of;

use crate::memory::FrameRun;
use crate::virtio::spec::Features;

/// The driver must tell the host before it uses ballooned frames again.
#[doc(alias = "VIRTIO_BALLOON_F_MUST_TELL_HOST")]
pub const MUST_TELL_HOST: Features = Features::from_bits_retain(1 << 0);
/// There is a queue for memory statistics.
#[doc(alias = "VIRTIO_BALLOON_F_STATS_VQ")]
pub const STATS_VQ: Features = Features::from_bits_retain(1 << 1);
/// When memory runs out, ballooned frames may be deflated below the target.
#[doc(alias = "VIRTIO_BALLOON_F_DEFLATE_ON_OOM")]
pub const DEFLATE_ON_OOM: Features = Features::from_bits_retain(1 << 2);
/// There is a queue for free page hints.
#[doc(alias = "VIRTIO_BALLOON_F_FREE_PAGE_HINT")]
pub const FREE_PAGE_HINT: Features = Features::from_bits_retain(1 << 3);
/// Free frames hold a fill value that the driver writes for the device.
#[doc(alias = "VIRTIO_BALLOON_F_PAGE_POISON")]
pub const PAGE_POISON: Features = Features::from_bits_retain(1 << 4);
/// There is a queue for free page reports.
#[doc(alias = "VIRTIO_BALLOON_F_REPORTING")]
#[doc(alias = "VIRTIO_BALLOON_F_PAGE_REPORTING")]
pub const PAGE_REPORTING: Features = Features::from_bits_retain(1 << 5);

/// The features of a balloon over PCI, with their names on command lines and in logs; the balloon's own first.
pub const FEATURES: [(&str, Features); 21] = [
    ("must_tell_host", MUST_TELL_HOST),
    ("stats_vq", STATS_VQ),
    ("deflate_on_oom", DEFLATE_ON_OOM),
    ("free_page_hint", FREE_PAGE_HINT),
    ("page_poison", PAGE_POISON),
    ("page_reporting", PAGE_REPORTING),
    ("notify_on_empty", Features::NOTIFY_ON_EMPTY),
    ("any_layout", Features::ANY_LAYOUT),
    ("indirect_desc", Features::INDIRECT_DESC),
    ("event_idx", Features::EVENT_IDX),
    ("version_1", Features::VERSION_1),
    ("access_platform", Features::ACCESS_PLATFORM),
    ("ring_packed", Features::RING_PACKED),
    ("in_order", Features::IN_ORDER),
    ("order_platform", Features::ORDER_PLATFORM),
    ("sr_iov", Features::SR_IOV),
    ("notification_data", Features::NOTIFICATION_DATA),
    ("notif_config_data", Features::NOTIF_CONFIG_DATA),
    ("ring_reset", Features::RING_RESET),
    ("admin_vq", Features::ADMIN_VQ),
    ("suspend", Features::SUSPEND),
];

/// The device configuration of a balloon (5.5.4). Each field is read or written in one access. The last two belong to
/// optional features; without them the configuration may end at [`BalloonConfig::SIZE`].
#[doc(alias = "virtio_balloon_config")]
#[derive(Debug)]
#[repr(C)]
pub struct BalloonConfig {
    /// The target, in 4 KiB frames, written by the device.
    pub num_pages: u32,
    /// The balloon's size, in 4 KiB frames, written by the driver.
    pub actual: u32,
    /// The host's hint command, written by the device; with `FREE_PAGE_HINT` (5.5.6.5).
    pub free_page_hint_cmd_id: u32,
    /// The fill value of free frames, written by the driver; with `PAGE_POISON` (5.5.6.6).
    pub poison_val: u32,
}

impl BalloonConfig {
    /// Size of the fields that every balloon has, in bytes.
    pub const SIZE: usize = offset_of!(Self, free_page_hint_cmd_id);
}

/// From the host: stop hinting, but keep the hinted frames. From the driver: the round is over.
#[doc(alias = "VIRTIO_BALLOON_CMD_ID_STOP")]
pub(super) const CMD_ID_STOP: u32 = 0;
/// From the host: hinted frames may be used again. Each greater value asks for a round of hints.
#[doc(alias = "VIRTIO_BALLOON_CMD_ID_DONE")]
pub(super) const CMD_ID_DONE: u32 = 1;
/// Size of a command in a buffer, in bytes.
pub(super) const CMD_ID_SIZE: usize = 4;

/// Size of a frame number on the wire, in bytes.
pub const PFN_SIZE: usize = 4;
/// Writes the frame numbers of `run` to the start of `bytes`, as many as fit. Returns the number of bytes.
#[inline]
pub fn write_pfns(run: FrameRun, bytes: &mut [u8]) -> usize {
    let room = (bytes.len() / PFN_SIZE).min(run.count() as usize);
    let start = run.start().0;
    for (offset, entry) in bytes.chunks_exact_mut(PFN_SIZE).take(room).enumerate() {
        // `wrapping_add` never wraps here; this form of loop is vectorised.
        entry.copy_from_slice(&start.wrapping_add(offset as u32).to_le_bytes());
    }
    room * PFN_SIZE
}

/// The kind of a statistic (5.5.6.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Tag {
    /// Bytes swapped in.
    #[doc(alias = "VIRTIO_BALLOON_S_SWAP_IN")]
    SwapIn = 0,
    /// Bytes swapped out.
    #[doc(alias = "VIRTIO_BALLOON_S_SWAP_OUT")]
    SwapOut = 1,
    /// Page faults that needed I/O.
    #[doc(alias = "VIRTIO_BALLOON_S_MAJFLT")]
    MajorFaults = 2,
    /// Page faults that needed none.
    #[doc(alias = "VIRTIO_BALLOON_S_MINFLT")]
    MinorFaults = 3,
    /// Free memory, in bytes.
    #[doc(alias = "VIRTIO_BALLOON_S_MEMFREE")]
    Free = 4,
    /// All memory, in bytes.
    #[doc(alias = "VIRTIO_BALLOON_S_MEMTOT")]
    Total = 5,
    /// Memory available without swapping, in bytes.
    #[doc(alias = "VIRTIO_BALLOON_S_AVAIL")]
    Available = 6,
    /// Caches that could be dropped, in bytes.
    #[doc(alias = "VIRTIO_BALLOON_S_CACHES")]
    Caches = 7,
    /// Allocations of huge pages.
    #[doc(alias = "VIRTIO_BALLOON_S_HTLB_PGALLOC")]
    HugePages = 8,
    /// Failed allocations of huge pages.
    #[doc(alias = "VIRTIO_BALLOON_S_HTLB_PGFAIL")]
    HugePageFailures = 9,
    /// Programs killed for lack of memory. From here on the tags are Linux's, beyond virtio 1.4.
    #[doc(alias = "VIRTIO_BALLOON_S_OOM_KILL")]
    OomKills = 10,
    /// Allocations that waited for reclaimed memory.
    #[doc(alias = "VIRTIO_BALLOON_S_ALLOC_STALL")]
    AllocationStalls = 11,
    /// Frames scanned in the background.
    #[doc(alias = "VIRTIO_BALLOON_S_ASYNC_SCAN")]
    AsyncScan = 12,
    /// Frames scanned for a waiting allocation.
    #[doc(alias = "VIRTIO_BALLOON_S_DIRECT_SCAN")]
    DirectScan = 13,
    /// Frames reclaimed in the background.
    #[doc(alias = "VIRTIO_BALLOON_S_ASYNC_RECLAIM")]
    AsyncReclaim = 14,
    /// Frames reclaimed for a waiting allocation.
    #[doc(alias = "VIRTIO_BALLOON_S_DIRECT_RECLAIM")]
    DirectReclaim = 15,
}

impl Tag {
    /// All tags, in numeric order.
    pub const ALL: [Self; 16] = [
        Self::SwapIn,
        Self::SwapOut,
        Self::MajorFaults,
        Self::MinorFaults,
        Self::Free,
        Self::Total,
        Self::Available,
        Self::Caches,
        Self::HugePages,
        Self::HugePageFailures,
        Self::OomKills,
        Self::AllocationStalls,
        Self::AsyncScan,
        Self::DirectScan,
        Self::AsyncReclaim,
        Self::DirectReclaim,
    ];
}

/// Size of a statistic on the wire: a 16-bit tag and, not aligned, a 64-bit value.
#[doc(alias = "virtio_balloon_stat")]
pub(super) const STATISTIC_SIZE: usize = 10;

/// The wire format of a statistic.
pub fn statistic(tag: Tag, value: u64) -> [u8; STATISTIC_SIZE] {
    let mut entry = [0; STATISTIC_SIZE];
    let (head, tail) = entry.split_at_mut(2);
    head.copy_from_slice(&(tag as u16).to_le_bytes());
    tail.copy_from_slice(&value.to_le_bytes());
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Pfn;

    #[test]
    fn feature_bits_are_those_of_the_specification_crate() {
        use virtio_spec::balloon::F;
        for (ours, theirs) in [
            (MUST_TELL_HOST, F::MUST_TELL_HOST),
            (STATS_VQ, F::STATS_VQ),
            (DEFLATE_ON_OOM, F::DEFLATE_ON_OOM),
            (FREE_PAGE_HINT, F::FREE_PAGE_HINT),
            (PAGE_POISON, F::PAGE_POISON),
            (PAGE_REPORTING, F::PAGE_REPORTING),
        ] {
            assert_eq!(u128::from(ours.bits()), theirs.bits().to_ne(), "{ours}");
        }
    }

    #[test]
    fn frame_numbers_are_little_endian_and_ascending() {
        let run = FrameRun::new(Pfn(0x0102_03ff), 2).unwrap();
        let mut bytes = [0xaa; 12];
        assert_eq!(write_pfns(run, &mut bytes), 8);
        assert_eq!(bytes, [0xff, 3, 2, 1, 0, 4, 2, 1, 0xaa, 0xaa, 0xaa, 0xaa]);
    }

    #[test]
    fn the_largest_frame_number_can_be_written() {
        let run = FrameRun::new(Pfn(u32::MAX), 1).unwrap();
        let mut bytes = [0; 4];
        assert_eq!(write_pfns(run, &mut bytes), 4);
        assert_eq!(bytes, [0xff; 4]);
    }

    #[test]
    fn frame_numbers_stop_at_the_end_of_the_buffer() {
        let run = FrameRun::new(Pfn(1), 1000).unwrap();
        let mut bytes = [0; 10];
        assert_eq!(write_pfns(run, &mut bytes), 8);
        assert_eq!(bytes, [1, 0, 0, 0, 2, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_statistic_has_ten_bytes_without_padding() {
        assert_eq!(statistic(Tag::Total, 0x0807_0605_0403_0201), [5, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn tags_count_up_from_zero() {
        for (index, tag) in Tag::ALL.into_iter().enumerate() {
            assert_eq!(tag as usize, index);
        }
    }
}
