//! How a queue lies in memory: split or packed, how large, and where its areas are.

use derive_more::Display;

use super::packed::PackedLayout;
use super::split::{Alignment, SplitLayout};
use crate::virtio::spec::Features;
use crate::virtio::transport_kind::TransportKind;

/// How queues are laid out in memory; the same for all queues of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub enum RingFormat {
    /// Three areas: descriptor table, available ring, used ring (2.7).
    #[display("split")]
    Split,
    /// One ring of descriptors (2.8).
    #[display("packed")]
    Packed,
}

impl RingFormat {
    /// The format that goes with the features that driver and device agreed on.
    pub(crate) const fn of(features: Features) -> Self {
        if features.contains(Features::RING_PACKED) { Self::Packed } else { Self::Split }
    }
}

impl From<RingFormat> for &'static str {
    /// The word for it: `split` or `packed`.
    fn from(value: RingFormat) -> Self {
        match value {
            RingFormat::Split => "split",
            RingFormat::Packed => "packed",
        }
    }
}

/// The format, size and areas of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingLayout(pub(super) FormatLayout);

/// The same by format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FormatLayout {
    Split(SplitLayout),
    Packed(PackedLayout),
}

impl RingLayout {
    /// The largest queue of at most `most` entries; for a modern device. Split queues have a power of two. `None` if
    /// `most` is 0.
    pub(crate) fn fitting(format: RingFormat, most: u16) -> Option<Self> {
        let layout = match format {
            RingFormat::Split => {
                SplitLayout::new(1 << most.checked_ilog2()?, Alignment::Modern).map(FormatLayout::Split)
            }
            RingFormat::Packed => PackedLayout::new(most).map(FormatLayout::Packed),
        };
        layout.map(Self)
    }

    /// The layout of a queue for which a device says `size`, in the format of the accepted `features`, of at most
    /// `limit` entries. The queue of a legacy device on PCI has that size and no other. `None` where there is no such
    /// queue.
    pub fn for_device(transport: TransportKind, features: Features, size: u16, limit: u16) -> Option<Self> {
        let most = size.min(limit.max(1));
        let legacy = |size| SplitLayout::new(size, Alignment::Legacy).map(|layout| Self(FormatLayout::Split(layout)));
        match transport {
            TransportKind::Legacy => legacy(size),
            TransportKind::MmioLegacy => legacy(1 << most.checked_ilog2()?),
            TransportKind::Modern | TransportKind::Mmio => Self::fitting(RingFormat::of(features), most),
        }
    }

    /// Entries in the queue.
    pub(crate) const fn size(self) -> u16 {
        match self.0 {
            FormatLayout::Split(layout) => layout.size(),
            FormatLayout::Packed(layout) => layout.size(),
        }
    }

    /// Size of the queue's memory, and what it is aligned to, in bytes.
    pub(super) const fn memory(self) -> (usize, usize) {
        match self.0 {
            FormatLayout::Split(layout) => (layout.bytes(), layout.align()),
            FormatLayout::Packed(layout) => (layout.bytes(), layout.align()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_queues_take_a_power_of_two_of_what_the_device_offers_and_packed_ones_all() {
        let size = |format, most| RingLayout::fitting(format, most).map(RingLayout::size);
        for (most, split, packed) in [
            (0, None, None),
            (1, Some(1), Some(1)),
            (48, Some(32), Some(48)),
            (32767, Some(16384), Some(32767)),
            (32768, Some(32768), Some(32768)),
        ] {
            assert_eq!((size(RingFormat::Split, most), size(RingFormat::Packed, most)), (split, packed), "{most}");
        }
    }
}
