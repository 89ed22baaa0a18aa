//! A queue's options after negotiation, and the contents of a kick.

use crate::virtio::spec::Features;
use crate::virtio::transport_kind::TransportKind;

/// A queue's options, independent of its layout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueOptions {
    /// `EVENT_IDX` was negotiated.
    pub event_idx: bool,
    /// `IN_ORDER` was negotiated: the device completes requests in the order in which they were made available,
    /// possibly several with one used entry (2.7.9, 2.8.9).
    pub in_order: bool,
    /// With `INDIRECT_DESC`: chains of two to this many segments go through a table, so that they take one descriptor
    /// of the queue. 0 and 1: none do.
    pub indirect_entries: u16,
    /// Which used lengths are valid. [`super::Completion::written`] is bounded in any case.
    pub used_length: UsedLength,
}

impl QueueOptions {
    /// The options of a queue after negotiation. Tables of up to `indirect_entries` descriptors are used if
    /// `INDIRECT_DESC` was negotiated; a legacy device's lengths are ignored.
    pub(crate) fn for_device(
        transport: TransportKind,
        features: Features,
        indirect_entries: u16,
        used_length: UsedLength,
    ) -> Self {
        Self {
            event_idx: features.contains(Features::EVENT_IDX),
            in_order: features.contains(Features::IN_ORDER),
            indirect_entries: if features.contains(Features::INDIRECT_DESC) { indirect_entries } else { 0 },
            used_length: if transport.is_legacy() { UsedLength::Ignored } else { used_length },
        }
    }
}

/// Which used lengths a device may report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UsedLength {
    /// The bytes written, as specified (2.7.8.2).
    #[default]
    Strict,
    /// Also the sum of bytes read and written, as some devices report.
    Lenient,
    /// Anything: a legacy device's length may mean nothing (2.7.8.3).
    Ignored,
}

/// The contents of a kick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kick {
    /// The driver's progress, which is the upper half of a kick with `NOTIFICATION_DATA` (4.1.5.2): the available index
    /// of a split queue; `next_off` and, as the top bit, `next_wrap` of a packed one.
    pub progress: u16,
}
