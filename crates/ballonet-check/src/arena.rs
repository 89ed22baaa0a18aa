//! The memory that the device under test is given, with a pattern around everything in it.
//!
//! The arena knows the value of every byte: the pattern, or what the tester wrote. Areas that the device may write are
//! opened; a change anywhere else means that the device wrote where it must not.

use alloc::vec;
use alloc::vec::Vec;

use crate::platform::Memory;
use crate::verdict::{Verdict, trouble_unless};
use ballonet::platform::DmaMemory;

/// Size of the arena in bytes.
pub(crate) const ARENA: usize = 256 * 1024;
/// Pattern bytes between any two things in it.
const GUARD: usize = 64;
/// Bytes compared at a time.
const PIECE: usize = 4096;

/// The pattern byte of a place: rarely 0, and different at neighbouring places.
const fn pattern(offset: usize) -> u8 {
    (offset as u8).wrapping_mul(7) ^ (offset >> 8) as u8 ^ 0xa5
}

/// The memory and the expected value of every byte.
pub(crate) struct Arena {
    memory: Memory,
    image: Vec<u8>,
    /// The pattern of all of it.
    blank: Vec<u8>,
    /// Where the next thing goes.
    next: usize,
    /// What the device may write: start and end.
    open: Vec<(usize, usize)>,
}

impl Arena {
    pub(crate) fn new(memory: Memory) -> Self {
        let blank = (0..ARENA).map(pattern).collect();
        let mut arena = Self { memory, image: vec![0; ARENA], blank, next: 0, open: Vec::new() };
        arena.clear();
        arena
    }

    pub(crate) fn into_memory(self) -> Memory {
        self.memory
    }

    /// Empties it: the pattern everywhere. No device may be using it.
    pub(crate) fn clear(&mut self) {
        self.image.copy_from_slice(&self.blank);
        self.memory.write_bytes(0, &self.image);
        self.next = GUARD;
        self.open.clear();
    }

    /// Finds room for `size` bytes, `skew` bytes past a multiple of `align`.
    pub(crate) fn place(&mut self, size: usize, align: usize, skew: usize) -> Verdict<usize> {
        let start = self.next.next_multiple_of(align) + skew;
        trouble_unless!(
            start + size + GUARD <= ARENA,
            "the memory for rings and buffers has no room for {size} bytes more"
        );
        self.next = start + size + GUARD;
        Ok(start)
    }

    /// The end of what is placed, to return to by [`Arena::rewind`].
    pub(crate) fn mark(&self) -> usize {
        self.next
    }

    /// Frees everything placed since `mark`, which the device no longer uses: what it wrote there stays.
    pub(crate) fn rewind(&mut self, mark: usize) {
        for (start, end) in self.open.iter().copied().filter(|(start, _)| *start >= mark) {
            self.memory.read_bytes(start, &mut self.image[start..end]);
        }
        self.open.retain(|(start, _)| *start < mark);
        self.next = mark;
    }

    /// Lets the device write a part.
    pub(crate) fn open(&mut self, start: usize, size: usize) {
        self.open.push((start, start + size));
    }

    /// Where the device finds a place.
    pub(crate) fn address(&self, offset: usize) -> u64 {
        self.memory.device_address() + offset as u64
    }

    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.memory.write_bytes(offset, bytes);
        self.image[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Stores 16 bits in one piece, little-endian.
    pub(crate) fn store16(&mut self, offset: usize, value: u16) {
        self.memory.store16(offset, value.to_le());
        self.image[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// Stores 32 bits in one piece, little-endian.
    pub(crate) fn store32(&mut self, offset: usize, value: u32) {
        self.memory.store32(offset, value.to_le());
        self.image[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn zero(&mut self, offset: usize, size: usize) {
        self.image[offset..offset + size].fill(0);
        self.memory.write_bytes(offset, &self.image[offset..offset + size]);
    }

    /// What is there now.
    pub(crate) fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_bytes(offset, &mut bytes);
        bytes
    }

    pub(crate) fn load16(&self, offset: usize) -> u16 {
        u16::from_le(self.memory.load16(offset))
    }

    pub(crate) fn load32(&self, offset: usize) -> u32 {
        u32::from_le(self.memory.load32(offset))
    }

    /// The first byte, of those that `counts` selects, that the device changed without permission: offset, value found,
    /// value expected.
    pub(crate) fn damage(&self, counts: impl Fn(usize) -> bool) -> Option<(usize, u8, u8)> {
        let mut piece = [0; PIECE];
        for start in (0..ARENA).step_by(PIECE) {
            self.memory.read_bytes(start, &mut piece);
            let expected = &self.image[start..start + PIECE];
            if piece == *expected {
                continue;
            }
            let differs = |(offset, (is, was)): (usize, (&u8, &u8))| {
                let at = start + offset;
                (is != was && !self.is_open(at) && counts(at)).then_some((at, *is, *was))
            };
            if let Some(found) = piece.iter().zip(expected).enumerate().find_map(differs) {
                return Some(found);
            }
        }
        None
    }

    fn is_open(&self, at: usize) -> bool {
        self.open.iter().any(|(start, end)| (*start..*end).contains(&at))
    }

    /// Expects every byte to keep its present value: from here on the device may write nothing.
    pub(crate) fn freeze(&mut self) {
        self.memory.read_bytes(0, &mut self.image);
        self.open.clear();
    }
}
