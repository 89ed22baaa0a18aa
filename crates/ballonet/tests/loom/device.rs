//! Both sides of a ring as the models need them, independent of the layout.

use std::fmt;

use super::memory::Memory;
use super::requests::Request;

/// The driver's side: the real queue.
pub type Queue = ballonet::virtio::Virtqueue<Memory, Request>;

/// A ring layout, with the driver's and the device's side.
pub trait Layout {
    /// The device's side.
    type Device: Device;

    /// Both sides of a ring of `size` entries.
    fn ring(size: u16, event_idx: bool) -> (Queue, Self::Device);
}

/// The device's side of a ring. It follows the specification, with its own fences.
pub trait Device: Send + 'static {
    /// Takes the next available request.
    fn take(&mut self) -> Option<Taken>;

    /// Whether no request is available.
    fn is_idle(&self) -> bool;

    /// Returns a request as used, with `written` bytes written. Returns whether to interrupt the driver.
    fn put(&mut self, taken: &Taken, written: u32) -> bool {
        self.put_all(core::slice::from_ref(taken), written)
    }

    /// Returns requests in order by one used entry, that of the last one, with its `written` bytes. Returns whether to
    /// interrupt the driver.
    fn put_all(&mut self, taken: &[Taken], written: u32) -> bool;

    /// Asks for a kick when the next request is available. The caller must then check whether one has become
    /// available meanwhile.
    fn enable_kicks(&mut self);

    /// Asks for no kicks.
    fn disable_kicks(&mut self);
}

/// A request as the device found it on the ring.
#[derive(Debug)]
pub struct Taken {
    /// Its identifier on the ring.
    pub id: u16,
    /// Its descriptors.
    pub descriptors: Vec<Descriptor>,
}

/// A descriptor's account of a segment.
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
