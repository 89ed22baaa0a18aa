//! When one side of a packed queue wants to be notified by the other (virtio 1.4, 2.8.10 and 2.8.14).

use super::position::Position;
use crate::virtio::spec::{RING_EVENT_DESCRIPTOR, RING_EVENT_DISABLE, RING_EVENT_ENABLE, RING_EVENT_FLAGS};

/// The decoded event suppression structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suppression {
    /// Notify of every event.
    Enable,
    /// Notify of none.
    Disable,
    /// Notify when the descriptor at this position has been made available or used; only with `EVENT_IDX`.
    Descriptor(Position),
}

impl Suppression {
    /// The whole structure as one word, position in the low half: with a single store and load, the halves are always
    /// consistent.
    pub(super) const fn word(self) -> u32 {
        match self {
            Self::Enable => (RING_EVENT_ENABLE as u32) << 16,
            Self::Disable => (RING_EVENT_DISABLE as u32) << 16,
            Self::Descriptor(position) => (RING_EVENT_DESCRIPTOR as u32) << 16 | position.word() as u32,
        }
    }

    /// Decodes the device's structure. A superfluous notification does no harm, so invalid contents mean notify always:
    /// the reserved flags value, or a position without `EVENT_IDX`.
    pub(super) const fn from_word(word: u32, event_idx: bool) -> Self {
        match (word >> 16) as u16 & RING_EVENT_FLAGS {
            RING_EVENT_DISABLE => Self::Disable,
            RING_EVENT_DESCRIPTOR if event_idx => Self::Descriptor(Position::from_word(word as u16)),
            _ => Self::Enable,
        }
    }

    /// Whether to notify, now that the position went from `old` to `new`; at most a lap.
    #[inline]
    pub(super) const fn wants(self, old: Position, new: Position, size: u16) -> bool {
        match self {
            Self::Enable => true,
            Self::Disable => false,
            Self::Descriptor(event) => {
                let past = new.since(event, size);
                past != 0 && past <= new.since(old, size)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether the event is among the descriptors passed, looked for one by one.
    fn passes(event: Position, mut position: Position, count: u16, size: u16) -> bool {
        for _ in 0..count {
            if position == event {
                return true;
            }
            position = position.advance(1, size);
        }
        false
    }

    #[test]
    fn invalid_contents_ask_for_every_notification() {
        assert_eq!(Suppression::from_word(3 << 16, true), Suppression::Enable);
        assert_eq!(Suppression::from_word(2 << 16 | 5, false), Suppression::Enable);
        assert_eq!(Suppression::from_word(0xfffd << 16, true), Suppression::Disable, "reserved bits are ignored");
    }

    #[test]
    fn words_are_laid_out_as_the_specification_has_them() {
        let position = Position::START.advance(5, 8);
        assert_eq!(Suppression::Descriptor(position).word(), 0x0002_8005);
        assert_eq!(Suppression::Descriptor(position.advance(8, 8)).word(), 0x0002_0005);
        assert_eq!((Suppression::Enable.word(), Suppression::Disable.word()), (0, 0x0001_0000));
    }

    proptest! {
        #[test]
        fn event_arithmetic_agrees_with_counting(
            size in prop_oneof![1..20u16, 1..=32768u16, Just(32768)],
            start: u16,
            wrap: bool,
            count: u16,
            distance: u16,
            next_lap: bool,
        ) {
            let start = Position::from_word((start % size) | if wrap { 0x8000 } else { 0 });
            let count = count % (size + 1);
            // Any of the positions that two laps have.
            let event = start.advance(distance % size, size);
            let event = if next_lap { event.advance(size, size) } else { event };
            let wanted = Suppression::Descriptor(event).wants(start, start.advance(count, size), size);
            prop_assert_eq!(wanted, passes(event, start, count, size));
        }

        #[test]
        fn a_word_survives_the_round_trip(word: u32) {
            let said = Suppression::from_word(word, true);
            prop_assert_eq!(Suppression::from_word(said.word(), true), said);
        }
    }
}
