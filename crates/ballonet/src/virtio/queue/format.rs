//! How a queue lies in memory: split or packed, how large, and where its areas are.

use derive_more::Display;

use super::packed::PackedLayout;
use super::split::{Alignment, SplitLayout};
use crate::virtio::spec::Features;
use crate::virtio::transport_kind::TransportKind;

/// The memory format of a device's queues; the same for all of them.
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
    /// The format for the negotiated features.
    pub(crate) const fn of(features: Features) -> Self {
        if features.contains(Features::RING_PACKED) { Self::Packed } else { Self::Split }
    }
}

impl From<RingFormat> for &'static str {
    /// Its name: `split` or `packed`.
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

/// A [`RingLayout`], by format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FormatLayout {
    Split(SplitLayout),
    Packed(PackedLayout),
}

impl RingLayout {
    /// The largest queue of at most `most` entries, for a modern device. The size of a split queue is a power of two.
    /// `None` if `most` is 0.
    pub(crate) fn fitting(format: RingFormat, most: u16) -> Option<Self> {
        let layout = match format {
            RingFormat::Split => {
                SplitLayout::new(1 << most.checked_ilog2()?, Alignment::Modern).map(FormatLayout::Split)
            }
            RingFormat::Packed => PackedLayout::new(most).map(FormatLayout::Packed),
        };
        layout.map(Self)
    }

    /// The layout of a queue of at most `limit` entries in the format of the accepted `features`, where the device
    /// reports `size`. A legacy PCI device's queue has exactly `size` entries. `None` if no queue fits.
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

    /// Size and alignment of the queue's memory, in bytes.
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
    fn split_queues_round_the_offered_size_down_to_a_power_of_two_and_packed_ones_use_it_all() {
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
