//! The memory of a request, and the request that came back.

use crate::virtio::spec::DescriptorFlags;

// Constants: a call of `bits` costs instructions for each descriptor.
const NEXT: u16 = DescriptorFlags::NEXT.bits();
const WRITE: u16 = DescriptorFlags::WRITE.bits();

/// A contiguous piece of memory that the device reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it starts, as the device addresses memory.
    pub address: u64,
    /// Length in bytes, not 0.
    pub length: u32,
}

/// The memory of one request: what the device reads, then what it writes; in this order on the ring too, whatever the
/// caller does (virtio 1.4, 2.7.4.2).
#[derive(Debug, Clone, Copy, Default)]
pub struct Chain<'a> {
    /// What the device reads.
    pub readable: &'a [Segment],
    /// What the device writes.
    pub writable: &'a [Segment],
}

impl<'a> Chain<'a> {
    /// A request that the device only reads.
    pub const fn readable(segments: &'a [Segment]) -> Self {
        Self { readable: segments, writable: &[] }
    }

    /// A request that the device only writes.
    pub const fn writable(segments: &'a [Segment]) -> Self {
        Self { readable: &[], writable: segments }
    }

    /// How many segments.
    pub(crate) const fn len(&self) -> usize {
        self.readable.len() + self.writable.len()
    }

    /// Whether there is no segment.
    pub(crate) const fn is_empty(&self) -> bool {
        self.readable.is_empty() && self.writable.is_empty()
    }

    /// The segments with their descriptor flags: readable ones first, all but the last linked.
    pub(super) fn flagged(&self) -> impl Iterator<Item = (Segment, u16)> + use<'a> {
        // By position, which costs a few instructions for each segment less than a chain of two iterators.
        let (readable, writable, length) = (self.readable, self.writable, self.len());
        (0..length).filter_map(move |position| {
            let (segment, flags) = match readable.get(position) {
                Some(segment) => (segment, 0),
                None => (writable.get(position - readable.len())?, WRITE),
            };
            Some((*segment, if position + 1 < length { flags | NEXT } else { flags }))
        })
    }
}

/// A request that came back.
#[derive(Debug, PartialEq, Eq)]
pub struct Completion<T> {
    /// What went in with the request.
    pub token: T,
    /// Bytes that the device wrote, from the start of the writable part; never more than that part has. All of it where
    /// the device says nothing of a request, because it was done in order with a later one (`IN_ORDER`, 2.7.9).
    pub written: u32,
    /// What the device said it wrote. More than [`Completion::written`] where it also counted what it read, as some do.
    pub claimed: u32,
}
