//! Why a queue refuses a request, and how a device can break the rules of a queue.

use derive_more::{Display, Error};

/// Why a request could not be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum Refusal {
    /// Too few free descriptors just now.
    #[display("{needed} descriptors needed, {free} free")]
    Full {
        /// How many it takes.
        needed: usize,
        /// How many are free.
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
    /// It has no segments, or one of them no bytes.
    #[display("an empty chain or segment")]
    Empty,
    /// All of it together must stay below 2^32 bytes (2.7.5.2).
    #[display("a chain of {_0} bytes")]
    TooLarge(#[error(not(source))] u64),
    /// The device broke the queue's rules earlier.
    #[display("the queue is out of use: {_0}")]
    Poisoned(QueueError),
}

/// A request that could not be added, with what it lends.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejected<T> {
    /// Why.
    pub reason: Refusal,
    /// What went in.
    pub token: T,
}

/// How a device broke the rules of a queue. From then on the queue is out of use until the device is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum QueueError {
    /// The used index went further than there are requests outstanding, or back.
    #[display("used index {index} is {advance} past the last one, with {outstanding} requests outstanding")]
    UsedIndex {
        /// The index.
        index: u16,
        /// How far it went, modulo 2^16.
        advance: u16,
        /// How many requests are outstanding.
        outstanding: u16,
    },
    /// A descriptor whose request the device has not finished no longer says that it is available. Packed queues only.
    #[display("descriptor {offset} has flags {flags:#06x}, which are neither of an available nor of a used one")]
    UsedFlags {
        /// The descriptor's offset in the ring.
        offset: u16,
        /// Its flags.
        flags: u16,
    },
    /// An entry names a descriptor, or in a packed queue a buffer id, that the queue does not have.
    #[display("used descriptor {id} of a queue of {size}")]
    UsedId {
        /// The descriptor.
        id: u32,
        /// The queue's size.
        size: u16,
    },
    /// An entry names a descriptor that heads no outstanding request.
    #[display("used descriptor {id} heads no outstanding request")]
    NotOutstanding {
        /// The descriptor.
        id: u16,
    },
    /// An entry ends more requests than the used index says are done, though it is to end them in order (`IN_ORDER`).
    #[display("used descriptor {id} ends {requests} requests in order, where the used index announces {most}")]
    OutOfOrder {
        /// The last request's first descriptor.
        id: u16,
        /// It, and the requests before it that are outstanding.
        requests: u16,
        /// How many are done at most.
        most: u16,
    },
    /// An entry claims more bytes than the request has.
    #[display("descriptor {id}: {length} bytes used of a request that allows {limit}")]
    UsedLength {
        /// The request's first descriptor.
        id: u16,
        /// The bytes claimed.
        length: u32,
        /// The most there could be.
        limit: u32,
    },
}
