//! What is measured: every way to lay out and send a request.

use core::fmt;

use super::bed::BedOptions;
use ballonet::virtio::spec::Features;
use ballonet::virtio::{RingFormat, TransportKind};

/// How the memory of a request is described on the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One piece, one descriptor.
    Direct,
    /// Three pieces in a chain of descriptors.
    Chained,
    /// Three pieces in a table, to which one descriptor points.
    Indirect,
}

impl Shape {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Chained => "chained",
            Self::Indirect => "indirect",
        }
    }

    /// The number of pieces of a request.
    pub const fn segments(self) -> usize {
        match self {
            Self::Direct => 1,
            Self::Chained | Self::Indirect => 3,
        }
    }
}

/// One way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// The format of the queue.
    pub ring: RingFormat,
    /// The shape of a request.
    pub shape: Shape,
    /// Whether the device uses requests in the order in which they were made available.
    pub in_order: bool,
    /// Whether both sides request notifications by an event index; otherwise by a flag.
    pub event_idx: bool,
}

impl Case {
    /// All of them.
    pub const ALL: [Self; 24] = {
        let rings = [RingFormat::Split, RingFormat::Packed];
        let shapes = [Shape::Direct, Shape::Chained, Shape::Indirect];
        let first = Self { ring: RingFormat::Split, shape: Shape::Direct, in_order: false, event_idx: false };
        let mut all = [first; 24];
        let mut number = 0;
        while number < all.len() {
            let (ring, in_order, shape) = (rings[number / 12], number / 6 % 2 == 1, shapes[number / 2 % 3]);
            all[number] = Self { ring, shape, in_order, event_idx: number % 2 == 1 };
            number += 1;
        }
        all
    };

    /// The features of the case, among those in which cases differ.
    pub(super) fn features(self) -> Features {
        let mut features = Features::empty();
        features.set(Features::RING_PACKED, self.ring == RingFormat::Packed);
        features.set(Features::INDIRECT_DESC, self.shape == Shape::Indirect);
        features.set(Features::IN_ORDER, self.in_order);
        features.set(Features::EVENT_IDX, self.event_idx);
        features
    }

    /// What the device is brought up with to measure it.
    pub(super) fn bed_options(self) -> BedOptions {
        let indirect_entries = if self.shape == Shape::Indirect { self.shape.segments() as u16 } else { 0 };
        BedOptions { features: self.features(), indirect_entries, reporting: None }
    }

    /// Whether it can be made on this transport from these features.
    pub(super) fn is_possible(self, transport: TransportKind, offered: Features) -> bool {
        let modern = !transport.is_legacy();
        // A legacy device has only the first 32 bits, whatever it offers.
        offered.contains(self.features()) && (modern || self.ring == RingFormat::Split && !self.in_order)
    }

    /// The format of the queue and the order of its requests: `split`, `packed_in_order`.
    pub const fn format(self) -> &'static str {
        match (self.ring, self.in_order) {
            (RingFormat::Split, false) => "split",
            (RingFormat::Split, true) => "split_in_order",
            (RingFormat::Packed, false) => "packed",
            (RingFormat::Packed, true) => "packed_in_order",
        }
    }

    /// How notifications are asked for: `event_idx` or `flags`.
    pub const fn notification(self) -> &'static str {
        if self.event_idx { "event_idx" } else { "flags" }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.format(), self.shape.word(), self.notification())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_case_is_there_once_and_has_a_name_of_its_own() {
        let mut names: Vec<_> = Case::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(names[0], "split.direct.flags");
        assert_eq!(names[23], "packed_in_order.indirect.event_idx");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), Case::ALL.len());
    }

    #[test]
    fn what_a_device_does_not_offer_is_not_measured() {
        let count = |transport, offered| Case::ALL.iter().filter(|case| case.is_possible(transport, offered)).count();
        let all = Features::RING_PACKED | Features::INDIRECT_DESC | Features::EVENT_IDX | Features::IN_ORDER;
        assert_eq!(count(TransportKind::Modern, all), 24);
        assert_eq!(count(TransportKind::Legacy, all), 6, "split rings only");
        assert_eq!(count(TransportKind::Modern, all - Features::INDIRECT_DESC), 16);
        assert_eq!(count(TransportKind::Modern, all - Features::EVENT_IDX), 12);
        assert_eq!(count(TransportKind::Modern, Features::empty()), 2);
    }
}
