//! Ranges of physical addresses.

use core::fmt;

use derive_more::{Display, Error};

use crate::memory::PhysAddr;

/// A range of physical addresses: at least one byte, none of it at or above 2^52.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PhysRange {
    start: PhysAddr,
    last: PhysAddr,
}

/// Why a start and a length make no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum BadRange {
    /// The range has no byte.
    #[display("it is empty")]
    Empty,
    /// The range passes the highest physical address, 2^52 - 1, or wraps around.
    #[display("it passes the highest physical address")]
    TooHigh,
}

impl PhysRange {
    /// The `length` bytes from `start` on.
    ///
    /// # Errors
    /// When there are none, or they pass the highest physical address.
    pub const fn new(start: u64, length: u64) -> Result<Self, BadRange> {
        let Some(reach) = length.checked_sub(1) else { return Err(BadRange::Empty) };
        let Some(start) = PhysAddr::new(start) else { return Err(BadRange::TooHigh) };
        match start.checked_add(reach) {
            Some(last) => Ok(Self { start, last }),
            None => Err(BadRange::TooHigh),
        }
    }

    /// The first byte's address.
    pub const fn start(self) -> PhysAddr {
        self.start
    }

    /// The last byte's address.
    pub const fn last(self) -> PhysAddr {
        self.last
    }

    /// The address after the last byte. A number, since it may be 2^52, which is no address.
    pub const fn end(self) -> u64 {
        self.last.as_u64() + 1
    }

    /// Size in bytes, at least 1.
    pub const fn bytes(self) -> u64 {
        self.end() - self.start.as_u64()
    }

    /// Whether `address` is in the range.
    pub fn contains(self, address: PhysAddr) -> bool {
        self.start <= address && address <= self.last
    }

    /// Whether any byte is in both ranges.
    pub fn overlaps(self, other: Self) -> bool {
        self.start <= other.last && other.start <= self.last
    }
}

impl fmt::Display for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.last)
    }
}

impl fmt::Debug for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_valid_by_construction() {
        assert_eq!(PhysRange::new(0x1000, 0), Err(BadRange::Empty));
        assert_eq!(PhysRange::new(0x1000, u64::MAX), Err(BadRange::TooHigh));
        assert_eq!(PhysRange::new(u64::MAX, 1), Err(BadRange::TooHigh));
        assert_eq!(PhysRange::new(1, 1 << 52), Err(BadRange::TooHigh));
        let all = PhysRange::new(0, 1 << 52).unwrap();
        assert_eq!((all.end(), all.bytes()), (1 << 52, 1 << 52));
    }

    #[test]
    fn neighbours_do_not_overlap() {
        let low = PhysRange::new(0x1000, 0x1000).unwrap();
        let high = PhysRange::new(0x2000, 0x1000).unwrap();
        assert!(!low.overlaps(high) && !high.overlaps(low));
        assert!(low.overlaps(PhysRange::new(0x1fff, 2).unwrap()));
        assert!(low.contains(low.last()) && !low.contains(high.start()));
    }
}
