//! What negotiation settles for a queue, and what a kick carries.

use crate::virtio::spec::Features;
use crate::virtio::transport_kind::TransportKind;

/// How a queue is to work, whatever its layout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueOptions {
    /// `EVENT_IDX` was negotiated.
    pub event_idx: bool,
    /// `IN_ORDER` was negotiated: the device is done with requests in the order in which it was shown them, and may say
    /// so of several at a time (2.7.9, 2.8.9).
    pub in_order: bool,
    /// `INDIRECT_DESC` was negotiated, and chains of two to this many segments go through a table of their own, so that
    /// they take one descriptor of the queue. 0 and 1: none do.
    pub indirect_entries: u16,
    /// What a used length may say. What a completion says was written is bounded in any case.
    pub used_length: UsedLength,
}

impl QueueOptions {
    /// The options of a queue after negotiation. Tables of up to `indirect_entries` descriptors are used where the
    /// device accepted them; a legacy device's lengths are ignored.
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

/// What a device may say of how many bytes it used of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UsedLength {
    /// How many it wrote, as the specification has it (2.7.8.2).
    #[default]
    Strict,
    /// Also how many it read and wrote, as some devices do.
    Lenient,
    /// Anything: a legacy device's length may mean nothing (2.7.8.3).
    Ignored,
}

/// What a kick tells the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kick {
    /// How far the driver has got, as the upper half of a kick that carries it (`NOTIFICATION_DATA`, 4.1.5.2): the
    /// available index of a split queue; `next_off` and, as the top bit, `next_wrap` of a packed one.
    pub progress: u16,
}
