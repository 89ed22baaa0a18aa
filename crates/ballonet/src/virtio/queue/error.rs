//! Why a queue refuses a request, and how a device can break the rules of a queue.

use derive_more::{Display, Error};

/// Why a request could not be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum Refusal {
    /// Too few descriptors are free at present.
    #[display("{needed} descriptors needed, {free} free")]
    Full {
        /// Descriptors needed.
        needed: usize,
        /// Free descriptors.
        free: u16,
    },
    /// The request would never fit.
    #[display("a chain of {length} descriptors in a queue of {size}")]
    TooLong {
        /// Segments in the request.
        length: usize,
        /// The queue's size.
        size: u16,
    },
    /// It has no segments, or an empty one.
    #[display("an empty chain or segment")]
    Empty,
    /// Its total length is 2^32 bytes or more (2.7.5.2).
    #[display("a chain of {_0} bytes")]
    TooLarge(#[error(not(source))] u64),
    /// The device broke the queue's rules earlier.
    #[display("the queue is broken: {_0}")]
    Poisoned(QueueError),
}

/// A request that could not be added, with its token.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejected<T> {
    /// Why.
    pub reason: Refusal,
    /// The token passed in.
    pub token: T,
}

/// How a device broke the rules of a queue. The queue is then unusable until the device is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum QueueError {
    /// The used index advanced by more than the outstanding requests, or went back.
    #[display("used index {index} is {advance} past the last one, with {outstanding} requests outstanding")]
    UsedIndex {
        /// The index.
        index: u16,
        /// How far it advanced, modulo 2^16.
        advance: u16,
        /// Outstanding requests.
        outstanding: u16,
    },
    /// A descriptor in flight has flags that are neither available nor used. Packed queues only.
    #[display("descriptor {offset} has flags {flags:#06x}, neither available nor used")]
    UsedFlags {
        /// The descriptor's offset in the ring.
        offset: u16,
        /// Its flags.
        flags: u16,
    },
    /// A used entry names a descriptor (in a packed queue, a buffer ID) that the queue does not have.
    #[display("used descriptor {id} of a queue of {size}")]
    UsedId {
        /// The descriptor.
        id: u32,
        /// The queue's size.
        size: u16,
    },
    /// A used entry names a descriptor that heads no outstanding request.
    #[display("used descriptor {id} heads no outstanding request")]
    NotOutstanding {
        /// The descriptor.
        id: u16,
    },
    /// `IN_ORDER`: a used entry completes more requests than the used index announces.
    #[display("used descriptor {id} completes {requests} requests in order, but the used index announces {most}")]
    OutOfOrder {
        /// The last request's first descriptor.
        id: u16,
        /// Number of requests that it completes: itself and the outstanding ones before it.
        requests: u16,
        /// Number that the used index announces.
        most: u16,
    },
    /// A used entry claims more bytes than the request has.
    #[display("descriptor {id}: {length} bytes used of a request that allows {limit}")]
    UsedLength {
        /// The request's first descriptor.
        id: u16,
        /// The bytes claimed.
        length: u32,
        /// The largest valid length.
        limit: u32,
    },
}
