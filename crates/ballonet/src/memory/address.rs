//! Physical addresses and page frame numbers, valid by construction.

use core::fmt;

/// Size of a page frame in bytes: 4 KiB, whatever the CPU's page size, because the balloon counts in 4 KiB units
/// (virtio 1.4, 5.5.6).
pub const FRAME_SIZE: u64 = 4096;

/// A physical address: below 2^52, the most that x86-64 page tables can hold (SDM vol. 3, 4.5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PhysAddr(u64);

impl PhysAddr {
    /// The highest physical address.
    pub const MAX: Self = Self((1 << 52) - 1);

    /// The address `value`, or `None` at or above 2^52.
    pub const fn new(value: u64) -> Option<Self> {
        if value <= Self::MAX.0 { Some(Self(value)) } else { None }
    }

    /// The address as a number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The address `bytes` further on, or `None` beyond 2^52.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Self::new(sum),
            None => None,
        }
    }
}

impl fmt::Debug for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The number of a 4 KiB page frame: its physical address divided by 4096. 32 bits, as on the balloon's wire, so frames
/// lie below 16 TiB (virtio 1.4, 5.5.6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pfn(pub u32);

impl Pfn {
    /// Where the frame starts.
    pub const fn start(self) -> PhysAddr {
        PhysAddr(self.0 as u64 * FRAME_SIZE)
    }
}

impl fmt::Debug for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn {:#x}", self.0)
    }
}

impl fmt::Display for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn {:#x}", self.0)
    }
}

/// Contiguous page frames, at least one, none of them beyond 16 TiB.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FrameRun {
    start: Pfn,
    count: u32,
}

impl FrameRun {
    /// `count` frames from `start`, or `None` if there are none or they would pass the last frame number.
    pub const fn new(start: Pfn, count: u32) -> Option<Self> {
        if count == 0 || count - 1 > u32::MAX - start.0 { None } else { Some(Self { start, count }) }
    }

    /// `count` frames, the first of which begins at the physical `address`; `None` if there are none, or none begins
    /// there.
    pub const fn at(address: u64, count: u32) -> Option<Self> {
        let frame = address / FRAME_SIZE;
        if address % FRAME_SIZE != 0 || frame > u32::MAX as u64 { None } else { Self::new(Pfn(frame as u32), count) }
    }

    /// The physical address of the first frame.
    pub const fn address(self) -> u64 {
        self.start.0 as u64 * FRAME_SIZE
    }

    /// The first frame.
    pub const fn start(self) -> Pfn {
        self.start
    }

    /// The last frame.
    pub const fn last(self) -> Pfn {
        Pfn(self.start.0 + (self.count - 1))
    }

    /// How many frames.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// Size in bytes.
    pub const fn bytes(self) -> u64 {
        self.count as u64 * FRAME_SIZE
    }

    /// Every frame number, ascending.
    pub fn pfns(self) -> impl DoubleEndedIterator<Item = Pfn> + ExactSizeIterator + Clone {
        (0..self.count).map(move |offset| Pfn(self.start.0 + offset))
    }

    /// The first `count` frames and the rest, if any; all of it if `count` is not smaller. `count` of 0 counts as 1.
    pub const fn split(self, count: u32) -> (Self, Option<Self>) {
        let first = if count == 0 { 1 } else { count };
        if first >= self.count {
            return (self, None);
        }
        let rest = Self { start: Pfn(self.start.0 + first), count: self.count - first };
        (Self { start: self.start, count: first }, Some(rest))
    }
}

impl fmt::Display for FrameRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frames from {}", self.count, self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_made_of_an_address_at_which_a_frame_begins() {
        let run = FrameRun::at(0x5000, 3).unwrap();
        assert_eq!((run.start(), run.count(), run.address()), (Pfn(5), 3, 0x5000));
        let last = FrameRun::at(0xFFF_FFFF_F000, 1).unwrap();
        assert_eq!((last.last(), last.address()), (Pfn(u32::MAX), 0xFFF_FFFF_F000));
        let none = [(0x5001, 1), (0x5000, 0), (0xFFF_FFFF_F000, 2), (1 << 44, 1), (!0xFFF, 1)];
        assert_eq!(none.map(|(address, count)| FrameRun::at(address, count)), [None; 5]);
    }
}
