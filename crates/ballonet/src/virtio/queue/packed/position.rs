//! A position on a packed ring: the offset of a descriptor, and the wrap counter (virtio 1.4, 2.8.1).

use crate::virtio::spec::{DescriptorFlags, POSITION_WRAP};

// Constants: a call of `bits` costs instructions for each descriptor.
const AVAIL: u16 = DescriptorFlags::AVAIL.bits();
const USED: u16 = DescriptorFlags::USED.bits();

/// A position on a ring, distinct from the same descriptor one lap earlier or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    offset: u16,
    wrap: bool,
}

impl Position {
    /// Where both sides start: the first descriptor, the wrap counter at 1.
    pub(super) const START: Self = Self { offset: 0, wrap: true };

    /// The descriptor's offset in the ring.
    pub(super) const fn offset(self) -> u16 {
        self.offset
    }

    /// The position `count` descriptors further on, at most one lap.
    #[inline]
    pub(super) const fn advance(self, count: u16, size: u16) -> Self {
        let sum = self.offset as u32 + count as u32;
        if sum < size as u32 {
            Self { offset: sum as u16, wrap: self.wrap }
        } else {
            Self { offset: (sum - size as u32) as u16, wrap: !self.wrap }
        }
    }

    /// Number of descriptors from `earlier` up to here, modulo two laps: a wrap counter of one bit distinguishes no
    /// more.
    #[inline]
    pub(super) const fn since(self, earlier: Self, size: u16) -> u32 {
        let laps = 2 * size as u32;
        // An offset from the device may lie beyond the ring, but ours does not, so the distance exceeds the range by at
        // most one lap.
        let distance = self.index(size) + laps - earlier.index(size) % laps;
        if distance < laps { distance } else { distance - laps }
    }

    /// The descriptor's number within two laps, counted from the lap with the wrap counter at 1.
    const fn index(self, size: u16) -> u32 {
        self.offset as u32 + if self.wrap { 0 } else { size as u32 }
    }

    /// The flags that make a descriptor at this position available.
    pub(super) const fn available(self) -> u16 {
        if self.wrap { AVAIL } else { USED }
    }

    /// Whether the flags belong to an available or used descriptor of this lap, not to an earlier one.
    pub(super) const fn is_of_this_lap(self, flags: u16) -> bool {
        (flags & AVAIL != 0) == self.wrap
    }

    /// Whether the flags mark a used descriptor of this lap.
    pub(super) const fn is_used(self, flags: u16) -> bool {
        self.is_of_this_lap(flags) && (flags & USED != 0) == self.wrap
    }

    /// The 16-bit encoding in event suppression structures and kicks (2.8.14, 4.1.5.2).
    pub(super) const fn word(self) -> u16 {
        self.offset | if self.wrap { POSITION_WRAP } else { 0 }
    }

    /// Decodes 16 bits from the device: the offset may lie beyond the ring.
    pub(super) const fn from_word(word: u16) -> Self {
        Self { offset: word & !POSITION_WRAP, wrap: word & POSITION_WRAP != 0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The position after this many single steps.
    fn walked(steps: u32, size: u16) -> Position {
        let (mut offset, mut wrap) = (0, true);
        for _ in 0..steps {
            offset += 1;
            if offset == size {
                (offset, wrap) = (0, !wrap);
            }
        }
        Position { offset, wrap }
    }

    #[test]
    fn available_and_used_flags_are_distinct_in_both_laps() {
        for position in [Position::START, Position::START.advance(3, 3)] {
            let available = position.available();
            assert!(position.is_of_this_lap(available) && !position.is_used(available));
            let used = available ^ DescriptorFlags::USED.bits();
            assert!(position.is_of_this_lap(used) && position.is_used(used));
            let before = position.advance(3, 3).available();
            assert!(!position.is_of_this_lap(before) && !position.is_used(before));
        }
        assert!(!Position::START.is_of_this_lap(0), "a zeroed ring has nothing available or used");
    }

    proptest! {
        #[test]
        fn advancing_equals_as_many_single_steps(size in 1..50u16, steps in 0..200u32, share in 0..=50u16) {
            let count = share.min(size);
            let start = walked(steps, size);
            let end = start.advance(count, size);
            prop_assert_eq!(end, walked(steps + u32::from(count), size));
            prop_assert_eq!(end.since(start, size), u32::from(count));
        }

        #[test]
        fn a_word_holds_every_position(size in 1..=32768u16, offset: u16, wrap: bool) {
            let position = Position { offset: offset % size, wrap };
            prop_assert_eq!(Position::from_word(position.word()), position);
        }

        #[test]
        fn any_word_from_the_device_is_handled(word: u16, offset: u16, wrap: bool, size in 1..=32768u16) {
            let here = Position { offset: offset % size, wrap };
            prop_assert!(here.since(Position::from_word(word), size) < 2 * u32::from(size));
        }
    }
}
