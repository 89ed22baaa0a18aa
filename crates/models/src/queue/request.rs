//! Requests as the device takes them: descriptors and readable bytes.

use vm_memory::{Bytes, GuestAddress};

use crate::world::Bus;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;
/// The number that means no vector.
pub(crate) const NO_VECTOR: u16 = 0xffff;

/// The purpose of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Inflate,
    Deflate,
    Statistics,
    Hint,
    Reporting,
    /// Requests for random bytes.
    Entropy,
    /// Requests to another device, served at once.
    Served,
    /// Commands to another device.
    Control,
    /// Buffers that another device fills when it has something.
    Held,
    /// A private feature of the VMM.
    Own,
    /// None: every request is completed.
    Spare,
    /// A gap in the numbering.
    Missing,
}

/// A descriptor as it lies in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    pub address: u64,
    pub length: u32,
    pub flags: u16,
    pub next: u16,
}

impl Descriptor {
    /// Whether it points to a table instead of a buffer.
    pub fn is_indirect(&self) -> bool {
        self.flags & INDIRECT != 0
    }

    /// Whether the device may write there.
    pub fn is_writable(&self) -> bool {
        self.flags & WRITE != 0
    }
}

/// A buffer that the device has taken from the available ring and not returned.
#[derive(Debug, Clone)]
pub struct Request {
    /// The first descriptor; on a packed ring the buffer id.
    pub head: u16,
    pub due: u64,
    /// The descriptors that the chain uses, with their slots in the table or ring.
    pub chain: Vec<(u16, Descriptor)>,
    /// The device-readable bytes.
    pub bytes: Vec<u8>,
}

impl Request {
    /// The ring slots that it takes, not counting a table's entries.
    pub(super) fn slots(&self) -> impl Iterator<Item = u16> {
        let table = self.chain.iter().position(|(_, descriptor)| descriptor.flags & INDIRECT != 0);
        self.chain.iter().take(table.map_or(self.chain.len(), |at| at + 1)).map(|(slot, _)| *slot)
    }
}

/// The contents of a descriptor's memory.
pub(crate) fn bytes(descriptor: &Descriptor, bus: &Bus) -> Vec<u8> {
    let mut bytes = vec![0; descriptor.length as usize];
    bus.ram.memory().read_slice(&mut bytes, GuestAddress(descriptor.address)).expect("DMA memory");
    bytes
}
