//! Positions on a packed ring (virtio 1.4, 2.8.1).

use ballonet::virtio::spec::{DescriptorFlags, POSITION_WRAP};

/// A place on a packed ring: the offset, and the wrap counter of the lap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RingPosition {
    pub(super) offset: u16,
    pub(super) wrap: bool,
}

impl RingPosition {
    pub(super) const START: Self = Self { offset: 0, wrap: true };

    pub(super) const fn on(self, count: u16, size: u16) -> Self {
        let sum = self.offset as u32 + count as u32;
        if sum < size as u32 {
            Self { offset: sum as u16, wrap: self.wrap }
        } else {
            Self { offset: (sum - size as u32) as u16, wrap: !self.wrap }
        }
    }

    pub(super) const fn word(self) -> u16 {
        self.offset | if self.wrap { POSITION_WRAP } else { 0 }
    }

    pub(super) const fn available_flags(self) -> u16 {
        if self.wrap { DescriptorFlags::AVAIL.bits() } else { DescriptorFlags::USED.bits() }
    }
}
