//! What a queue knows of its requests in flight: kept where the device cannot write, so that what the device says can be
//! held against it.
//!
//! Ids are handed out from a free list. In a split queue an id is a descriptor, and a chain has one for each of its
//! own; in a packed queue it names a buffer, and a chain has a single one.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::extent::Extent;
use super::queue::{Completion, QueueError, UsedLength};

/// A request in flight.
#[derive(Debug)]
pub(super) struct Request<T, P> {
    /// What the driver lends with it.
    pub(super) token: T,
    /// How many bytes the device may read and write.
    pub(super) extent: Extent,
    /// Where it is on the ring.
    pub(super) place: P,
}

/// A request with its number in the order of addition.
#[derive(Debug)]
struct Numbered<T, P> {
    number: u64,
    request: Request<T, P>,
}

#[derive(Debug)]
struct Slot<T, P> {
    /// The next id of the chain, or of the free list.
    next: u16,
    /// The request that this id stands for, while it is outstanding.
    request: Option<Numbered<T, P>>,
}

/// The requests in flight and the free ids of a queue.
#[derive(Debug)]
pub(super) struct Shadow<T, P> {
    slots: Box<[Slot<T, P>]>,
    /// The first free id, if there is any.
    free_head: u16,
    outstanding: u16,
    /// Requests ever added.
    added: u64,
    /// How many of them the device has been shown.
    published: u64,
}

impl<T, P> Shadow<T, P> {
    /// With `size` ids, all free.
    pub(super) fn new(size: u16) -> Self {
        let slots = (0..size).map(|id| Slot { next: id.wrapping_add(1), request: None }).collect();
        Self { slots, free_head: 0, outstanding: 0, added: 0, published: 0 }
    }

    /// How many requests are in flight, shown to the device or not.
    pub(super) fn outstanding(&self) -> u16 {
        self.outstanding
    }

    /// The id that is handed out next. Meaningful while one is free, which the queue sees to.
    pub(super) fn free_head(&self) -> u16 {
        self.free_head
    }

    /// Hands out an id. One is free, which the queue sees to. It stays linked to the one that is handed out next.
    pub(super) fn claim(&mut self) -> u16 {
        let id = self.free_head;
        self.free_head = self.slots[usize::from(id)].next;
        id
    }

    /// Takes back the ids from `first` to `last`, linked as they were handed out.
    pub(super) fn release(&mut self, first: u16, last: u16) {
        self.slots[usize::from(last)].next = self.free_head;
        self.free_head = first;
    }

    /// Has `id`, which was handed out, stand for a request.
    pub(super) fn put(&mut self, id: u16, request: Request<T, P>) {
        self.slots[usize::from(id)].request = Some(Numbered { number: self.added, request });
        self.added += 1;
        self.outstanding += 1;
    }

    /// All requests have been shown to the device.
    pub(super) fn publish(&mut self) {
        self.published = self.added;
    }

    /// The request that the device names by `id`: one that it has been shown.
    pub(super) fn get(&self, id: u32) -> Result<&Request<T, P>, QueueError> {
        let size = self.slots.len() as u16;
        let slot = self.slots.get(id as usize).ok_or(QueueError::UsedId { id, size })?;
        match &slot.request {
            Some(Numbered { number, request }) if *number < self.published => Ok(request),
            _ => Err(QueueError::NotOutstanding { id: id as u16 }),
        }
    }

    /// Ends the request that the device names by `id`, of which it claims to have used so many bytes. Its ids are still
    /// to be released.
    ///
    /// After an error it stays outstanding: the device may still be at work on it.
    pub(super) fn take(&mut self, id: u32, claimed: u32, used: UsedLength) -> Result<(Completion<T>, P), QueueError> {
        let extent = self.get(id)?.extent;
        let limit = extent.limit(used);
        if claimed > limit {
            return Err(QueueError::UsedLength { id: id as u16, length: claimed, limit });
        }
        let taken = self.slots.get_mut(id as usize).and_then(|slot| slot.request.take());
        let Request { token, place, .. } = taken.ok_or(QueueError::NotOutstanding { id: id as u16 })?.request;
        self.outstanding -= 1;
        Ok((Completion { token, written: claimed.min(extent.writable), claimed }, place))
    }

    /// Ends all requests. Ids are not handed out from here on: a fresh queue is made for a fresh start.
    pub(super) fn drain(&mut self) -> Vec<T> {
        self.outstanding = 0;
        let requests = self.slots.iter_mut().filter_map(|slot| slot.request.take());
        requests.map(|numbered| numbered.request.token).collect()
    }
}
