//! What the models need of a ring's two sides, whatever its layout.

use std::fmt;

use super::memory::Memory;
use super::requests::Request;

/// The driver's side: the real queue.
pub type Queue = ballonet::virtio::Virtqueue<Memory, Request>;

/// A layout of rings, with the driver's and the device's side.
pub trait Layout {
    /// The device's side.
    type Device: Device;

    /// Both sides of a ring of `size` entries.
    fn ring(size: u16, event_idx: bool) -> (Queue, Self::Device);
}

/// The device's side of a ring. It follows the specification, with fences of its own.
pub trait Device: Send + 'static {
    /// Takes the next available request.
    fn take(&mut self) -> Option<Taken>;

    /// Whether no request is available.
    fn is_idle(&self) -> bool;

    /// Gives a request back as used, `written` bytes of it written. Whether the driver must be interrupted for it.
    fn put(&mut self, taken: &Taken, written: u32) -> bool {
        self.put_all(core::slice::from_ref(taken), written)
    }

    /// Gives requests back as used in order, by what it says of the last: `written` bytes of that written. Whether the
    /// driver must be interrupted for them.
    fn put_all(&mut self, taken: &[Taken], written: u32) -> bool;

    /// Asks for a kick once the next request is available. Whether one has become available meanwhile has to be looked
    /// at afterwards.
    fn enable_kicks(&mut self);

    /// Asks for no kicks.
    fn disable_kicks(&mut self);
}

/// A request as the device found it on the ring.
#[derive(Debug)]
pub struct Taken {
    /// What the ring names it by.
    pub id: u16,
    /// Its descriptors.
    pub descriptors: Vec<Descriptor>,
}

/// What a descriptor says about a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    pub address: u64,
    pub length: u32,
    pub writable: bool,
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.writable { "to be written" } else { "to be read" };
        write!(f, "{} bytes at {:#x} {direction}", self.length, self.address)
    }
}
