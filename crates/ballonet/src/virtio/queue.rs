//! Virtqueues as a driver sees them, whatever their layout in memory.
//!
//! A driver moves what it lends to the device into the queue as a *token*, and gets it back when the device is done: while a
//! buffer is in flight the queue owns it. After a reset of the device, or of the queue alone, [`Queue::drain`] returns what the
//! device never finished.

use alloc::vec::Vec;

use derive_more::{Display, Error};

use super::quiesced::Stopped;
use super::spec::{DESCRIPTOR_F_NEXT, DESCRIPTOR_F_WRITE, Features};
use super::transport::{QueueIndex, TransportKind};

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
    pub const fn len(&self) -> usize {
        self.readable.len() + self.writable.len()
    }

    /// Whether there is no segment.
    pub const fn is_empty(&self) -> bool {
        self.readable.is_empty() && self.writable.is_empty()
    }

    /// The segments with their descriptor flags: readable ones first, all but the last linked.
    pub(super) fn flagged(&self) -> impl Iterator<Item = (Segment, u16)> + use<'a> {
        // By position, which costs a few instructions for each segment less than a chain of two iterators.
        let (readable, writable, length) = (self.readable, self.writable, self.len());
        (0..length).filter_map(move |position| {
            let (segment, flags) = match readable.get(position) {
                Some(segment) => (segment, 0),
                None => (writable.get(position - readable.len())?, DESCRIPTOR_F_WRITE),
            };
            Some((*segment, if position + 1 < length { flags | DESCRIPTOR_F_NEXT } else { flags }))
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

/// How a queue is to work, whatever its layout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueOptions {
    /// `EVENT_IDX` was negotiated.
    pub event_idx: bool,
    /// `IN_ORDER` was negotiated: the device is done with requests in the order in which it was shown them, and may say so
    /// of several at a time (2.7.9, 2.8.9).
    pub in_order: bool,
    /// `INDIRECT_DESC` was negotiated, and chains of two to this many segments go through a table of their own, so that
    /// they take one descriptor of the queue. 0 and 1: none do.
    pub indirect_entries: u16,
    /// What a used length may say. What a completion says was written is bounded in any case.
    pub used_length: UsedLength,
}

impl QueueOptions {
    /// The options of a queue after negotiation. Tables of up to `indirect_entries` descriptors are used where the device
    /// accepted them; a legacy device's lengths are ignored.
    pub fn for_device(
        transport: TransportKind,
        features: Features,
        indirect_entries: u16,
        used_length: UsedLength,
    ) -> Self {
        Self {
            event_idx: features.contains(Features::EVENT_IDX),
            in_order: features.contains(Features::IN_ORDER),
            indirect_entries: if features.contains(Features::INDIRECT_DESC) { indirect_entries } else { 0 },
            used_length: if transport == TransportKind::Legacy { UsedLength::Ignored } else { used_length },
        }
    }
}

/// What a device may say of how many bytes it used of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UsedLength {
    /// How many it wrote, as the specification has it (2.7.8.2).
    #[default]
    Strict,
    /// Also how many it read and wrote, as some devices do.
    Lenient,
    /// Anything: a legacy device's length may mean nothing (2.7.8.3).
    Ignored,
}

/// What a kick tells the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kick {
    /// How far the driver has got, as the upper half of a kick that carries it (`NOTIFICATION_DATA`, 4.1.5.2): the
    /// available index of a split queue; `next_off` and, as the top bit, `next_wrap` of a packed one.
    pub progress: u16,
}

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
    #[display("used descriptor {id} ends {requests} requests in order, where the used index tells of {most}")]
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

/// A virtqueue. `T` is what a request lends to the device.
///
/// The order of use is add (any number), publish, kick; then pop until there is nothing, and arm.
pub trait Queue<T> {
    /// Entries in the queue.
    fn size(&self) -> u16;

    /// Requests added and not popped.
    fn outstanding(&self) -> u16;

    /// Descriptors that are free.
    fn free(&self) -> u16;

    /// Whether a request of this many segments fits now.
    fn has_room(&self, segments: usize) -> bool;

    /// Puts a request into the queue. The device does not see it before [`Queue::publish`].
    ///
    /// # Errors
    /// When it does not fit, with the token.
    fn add(&mut self, chain: Chain<'_>, token: T) -> Result<(), Rejected<T>>;

    /// Shows all added requests to the device, by one store. `Some` if it wants to be kicked for them.
    #[must_use = "the device may sleep until it is kicked"]
    fn publish(&mut self) -> Option<Kick>;

    /// A kick for the requests that the device has been shown, which it has not asked for: for one that may have forgotten
    /// an earlier one.
    fn kick(&self) -> Kick;

    /// Takes the next request that the device has returned; `None` if there is none yet.
    ///
    /// # Errors
    /// When the device broke the rules; the queue is out of use then.
    fn pop(&mut self) -> Result<Option<Completion<T>>, QueueError>;

    /// Asks for an interrupt once `completions` more requests are done: at least 1, and at most as many as are
    /// outstanding, so that it is sure to come. `false` if they already are, in which case none may come: pop them.
    ///
    /// A packed queue counts descriptors. Among chains of different lengths the interrupt may come some requests earlier
    /// or later.
    #[must_use = "where it says false no interrupt may come"]
    fn arm(&mut self, completions: u16) -> bool;

    /// Asks the device not to interrupt. Interrupts may still come.
    fn disarm(&mut self);

    /// Which queue of its device it is.
    fn index(&self) -> QueueIndex;

    /// Takes back everything in flight. `proof` says that the device has stopped using the queue; panics if it is for another
    /// queue. The queue cannot be used afterwards.
    fn drain(&mut self, proof: &impl Stopped) -> Vec<T>;
}
