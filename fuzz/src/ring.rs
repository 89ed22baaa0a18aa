//! The device's side of a queue, split or packed: one that works by the rules on whatever lies in memory.

use ballonet::virtio::{QueueAddresses, RingFormat};

use crate::dma::Pool;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAILABLE: u16 = 1 << 7;
const USED: u16 = 1 << 15;
/// Entries of an indirect table that are read.
const LONGEST_TABLE: u32 = 1024;

/// A piece of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub address: u64,
    pub length: u32,
    pub writable: bool,
}

/// A buffer that the device has taken.
#[derive(Debug, Clone)]
pub struct Taken {
    pub id: u16,
    /// Descriptors of the ring that it takes.
    places: u16,
    pub parts: Vec<Part>,
}

/// The queue. Positions are indices on a split ring; on a packed one they are offsets, with the wrap counter as top bit.
#[derive(Debug)]
pub struct Ring {
    format: RingFormat,
    size: u16,
    at: QueueAddresses,
    event_idx: bool,
    available: u16,
    used: u16,
}

impl Ring {
    pub fn new(format: RingFormat, size: u16, at: QueueAddresses, event_idx: bool) -> Self {
        let start = if format == RingFormat::Packed { 0x8000 } else { 0 };
        Self { format, size, at, event_idx, available: start, used: start }
    }

    /// Where a packed position is `places` on.
    fn on(&self, position: u16, places: u16) -> u16 {
        let (offset, wrap) = (u32::from(position & 0x7fff) + u32::from(places), position & 0x8000);
        if offset < u32::from(self.size) {
            offset as u16 | wrap
        } else {
            (offset - u32::from(self.size)) as u16 | wrap ^ 0x8000
        }
    }

    fn descriptor(&self, index: u16) -> u64 {
        self.at.descriptors + 16 * u64::from(index)
    }

    /// The next buffer that is available; `None` if there is none, or none that makes sense.
    pub fn take(&mut self, pool: &Pool) -> Option<Taken> {
        match self.format {
            RingFormat::Split => self.take_split(pool),
            RingFormat::Packed => self.take_packed(pool),
        }
    }

    fn take_split(&mut self, pool: &Pool) -> Option<Taken> {
        if pool.read16(self.at.driver + 2) == self.available {
            return None;
        }
        let slot = u64::from(self.available % self.size);
        let id = pool.read16(self.at.driver + 4 + 2 * slot);
        self.available = self.available.wrapping_add(1);
        let mut taken = Taken { id, places: 0, parts: Vec::new() };
        let (mut index, mut table, mut left) = (id, self.at.descriptors, self.size);
        while left > 0 {
            let at = table + 16 * u64::from(index);
            let flags = pool.read16(at + 12);
            let part = Part { address: pool.read64(at), length: pool.read32(at + 8), writable: flags & WRITE != 0 };
            if flags & INDIRECT != 0 && table == self.at.descriptors {
                (index, table, left) = (0, part.address, (part.length / 16).min(LONGEST_TABLE) as u16);
                continue;
            }
            taken.parts.push(part);
            left = if flags & NEXT == 0 { 0 } else { left - 1 };
            index = pool.read16(at + 14);
        }
        Some(taken)
    }

    fn take_packed(&mut self, pool: &Pool) -> Option<Taken> {
        let mut taken = Taken { id: 0, places: 0, parts: Vec::new() };
        let mut position = self.available;
        while taken.places < self.size {
            let at = self.descriptor(position & 0x7fff);
            let (flags, wrap) = (pool.read16(at + 14), position & 0x8000 != 0);
            if (flags & AVAILABLE != 0) != wrap || (flags & USED != 0) == wrap {
                return None;
            }
            let part = Part { address: pool.read64(at), length: pool.read32(at + 8), writable: flags & WRITE != 0 };
            (taken.id, taken.places) = (pool.read16(at + 12), taken.places + 1);
            position = self.on(position, 1);
            if flags & INDIRECT != 0 {
                taken.parts.extend(table(part, pool));
            } else {
                taken.parts.push(part);
            }
            if flags & NEXT == 0 {
                self.available = position;
                return Some(taken);
            }
        }
        None
    }

    /// Asks to be kicked for the next buffer, or not to be.
    pub fn want_kicks(&self, wanted: bool, pool: &Pool) {
        let (split, event) = (self.format == RingFormat::Split, self.event_idx);
        match (split, event) {
            (true, false) => pool.write(self.at.device, u16::from(!wanted).to_le_bytes()),
            (true, true) => {
                let index = if wanted { self.available } else { self.available.wrapping_sub(1) };
                pool.write(self.at.device + 4 + 8 * u64::from(self.size), index.to_le_bytes());
            }
            (false, _) => {
                pool.write(self.at.device, self.available.to_le_bytes());
                let flags = if wanted { 2 * u16::from(event) } else { 1 };
                pool.write(self.at.device + 2, flags.to_le_bytes());
            }
        }
    }

    /// Returns buffers in the order in which they were taken, by one entry for all. Whether the driver wants an interrupt.
    pub fn put(&mut self, batch: &[Taken], length: u32, pool: &Pool) -> bool {
        let Some(last) = batch.last() else { return false };
        let (before, id) = (self.used, last.id.into());
        match self.format {
            RingFormat::Split => {
                self.forge(id, length, batch.len() as u16, pool);
                if !self.event_idx {
                    return pool.read16(self.at.driver) & 1 == 0;
                }
                let event = pool.read16(self.at.driver + 4 + 2 * u64::from(self.size));
                usize::from(event.wrapping_sub(before)) < batch.len()
            }
            RingFormat::Packed => {
                let places = batch.iter().map(|taken| taken.places).sum();
                self.forge(id, length, places, pool);
                let (event, flags) = (pool.read16(self.at.driver), pool.read16(self.at.driver + 2));
                match flags {
                    0 => true,
                    1 => false,
                    _ => (0..places).any(|place| self.on(before, place) == event),
                }
            }
        }
    }

    /// Writes a used entry, whatever it says, and goes on by as many places or entries.
    pub fn forge(&mut self, id: u32, length: u32, advance: u16, pool: &Pool) {
        match self.format {
            RingFormat::Split => {
                let entry = self.at.device + 4 + 8 * u64::from(self.used % self.size);
                pool.write(entry, id.to_le_bytes());
                pool.write(entry + 4, length.to_le_bytes());
                self.used = self.used.wrapping_add(advance);
                pool.write(self.at.device + 2, self.used.to_le_bytes());
            }
            RingFormat::Packed => {
                let at = self.descriptor(self.used & 0x7fff);
                pool.write(at + 8, length.to_le_bytes());
                pool.write(at + 12, (id as u16).to_le_bytes());
                let lap = if self.used & 0x8000 == 0 { 0 } else { AVAILABLE | USED };
                let written = if length == 0 { 0 } else { WRITE };
                pool.write(at + 14, (lap | written).to_le_bytes());
                self.used = self.on(self.used, advance % self.size.max(1).saturating_add(1));
            }
        }
    }

    /// Writes flags over the descriptor or ring flags where the next buffer is returned.
    pub fn scribble(&self, flags: u16, pool: &Pool) {
        match self.format {
            RingFormat::Split => pool.write(self.at.device + 2, flags.to_le_bytes()),
            RingFormat::Packed => pool.write(self.descriptor(self.used & 0x7fff) + 14, flags.to_le_bytes()),
        }
    }
}

fn table(indirect: Part, pool: &Pool) -> impl Iterator<Item = Part> + '_ {
    (0..(indirect.length / 16).min(LONGEST_TABLE)).map(move |entry| {
        let at = indirect.address + 16 * u64::from(entry);
        Part { address: pool.read64(at), length: pool.read32(at + 8), writable: pool.read16(at + 14) & WRITE != 0 }
    })
}
