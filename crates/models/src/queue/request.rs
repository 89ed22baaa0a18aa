//! Requests as the device takes them: descriptors and readable bytes.

use vm_memory::{Bytes, GuestAddress};

use crate::world::Bus;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;
/// The vector that stands for none.
pub(crate) const NO_VECTOR: u16 = 0xffff;

/// What a queue is for.
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
    /// Something of the VMM's own.
    Own,
    /// Nothing: what comes is completed.
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
    /// Whether it points to a table, and is no part of the buffer itself.
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
    /// The slots of the ring that it takes: those of a table are none.
    pub(super) fn slots(&self) -> impl Iterator<Item = u16> {
        let table = self.chain.iter().position(|(_, descriptor)| descriptor.flags & INDIRECT != 0);
        self.chain.iter().take(table.map_or(self.chain.len(), |at| at + 1)).map(|(slot, _)| *slot)
    }
}

/// The memory that a descriptor lends.
pub(crate) fn bytes(descriptor: &Descriptor, bus: &Bus) -> Vec<u8> {
    let mut bytes = vec![0; descriptor.length as usize];
    bus.ram.memory().read_slice(&mut bytes, GuestAddress(descriptor.address)).expect("DMA memory");
    bytes
}
