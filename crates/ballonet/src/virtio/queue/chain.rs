//! The memory of a request, and its completion.

use crate::virtio::spec::DescriptorFlags;

// Constants: a call of `bits` costs instructions for each descriptor.
const NEXT: u16 = DescriptorFlags::NEXT.bits();
const WRITE: u16 = DescriptorFlags::WRITE.bits();

/// A contiguous buffer that the device reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its device address.
    pub address: u64,
    /// Length in bytes, not 0.
    pub length: u32,
}

/// The memory of one request. Readable segments precede writable ones on the ring, as required (virtio 1.4, 2.7.4.2).
#[derive(Debug, Clone, Copy, Default)]
pub struct Chain<'a> {
    /// Segments that the device reads.
    pub readable: &'a [Segment],
    /// Segments that the device writes.
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

    /// Number of segments.
    pub(crate) const fn len(&self) -> usize {
        self.readable.len() + self.writable.len()
    }

    /// Whether there is no segment.
    pub(crate) const fn is_empty(&self) -> bool {
        self.readable.is_empty() && self.writable.is_empty()
    }

    /// The segments with their descriptor flags: readable ones first, all but the last linked.
    pub(super) fn flagged(&self) -> impl Iterator<Item = (Segment, u16)> + use<'a> {
        // Indexing takes a few instructions per segment less than two chained iterators.
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

/// A completed request.
#[derive(Debug, PartialEq, Eq)]
pub struct Completion<T> {
    /// The token added with the request.
    pub token: T,
    /// Bytes that the device wrote from the start of the writable part, never more than that part has. With `IN_ORDER`,
    /// a request completed by the used entry of a later one has no length: then it is the whole part (2.7.9).
    pub written: u32,
    /// The length that the device reported. Some devices also count bytes read, so it may exceed
    /// [`Completion::written`].
    pub claimed: u32,
}
