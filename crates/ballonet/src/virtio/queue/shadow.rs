//! A queue's private record of its requests in flight. The device cannot write it, so used entries are checked against
//! it.

use alloc::boxed::Box;

use super::chain::Completion;
use super::error::QueueError;
use super::extent::Extent;
use super::ids::{Ids, boxed};
use super::options::UsedLength;
use crate::bus::OutOfMemory;

/// Where a request is on the ring.
#[derive(Debug, Clone, Copy)]
pub(super) struct DescriptorSpan {
    /// The ID that identifies it.
    pub(super) id: u16,
    /// The last of its IDs, linked from the first, so that all are freed in one step.
    pub(super) last: u16,
    /// Number of queue descriptors that it takes.
    pub(super) descriptors: u16,
}

/// A used entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    /// The request's ID.
    pub(super) id: u32,
    /// Its used length.
    pub(super) length: Length,
}

/// A used length.
#[derive(Debug, Clone, Copy)]
pub(super) enum Length {
    /// Reported.
    Said(u32),
    /// Reported, but counts only if it is plausible.
    Perhaps(u32),
    /// Not reported: the device has used the whole buffer (2.7.9).
    Unsaid,
}

/// A request in flight.
#[derive(Debug)]
struct InFlight<T> {
    /// Its sequence number.
    number: u64,
    /// Total descriptors ever taken, up to and including its own.
    end: u64,
    /// The driver's token.
    token: T,
    extent: Extent,
    place: DescriptorSpan,
}

/// The requests in flight, the free IDs and the free descriptors of a queue.
#[derive(Debug)]
pub(super) struct Shadow<T> {
    pub(super) ids: Ids,
    requests: Box<[Option<InFlight<T>>]>,
    /// Descriptors of the queue that are free.
    free: u16,
    outstanding: u16,
    /// Requests ever added.
    added: u64,
    /// How many of them are published.
    published: u64,
    /// Descriptors ever taken.
    taken: u64,
}

impl<T> Shadow<T> {
    /// With `size` IDs and descriptors, all free.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub(super) fn new(size: u16, in_order: bool) -> Result<Self, OutOfMemory> {
        Ok(Self {
            ids: Ids::new(size, in_order)?,
            requests: boxed(size, |_| None)?,
            free: size,
            outstanding: 0,
            added: 0,
            published: 0,
            taken: 0,
        })
    }

    /// Number of requests in flight, published or not.
    pub(super) fn outstanding(&self) -> u16 {
        self.outstanding
    }

    /// How many of them are published.
    #[inline]
    pub(super) fn shown(&self) -> u16 {
        // The unpublished ones are all in flight, unless the queue was drained.
        self.outstanding.saturating_sub((self.added - self.published) as u16)
    }

    /// Descriptors of the queue that are free.
    pub(super) fn free(&self) -> u16 {
        self.free
    }

    /// Records a request whose IDs and descriptors have been taken.
    #[inline]
    pub(super) fn put(&mut self, token: T, extent: Extent, place: DescriptorSpan) {
        self.free -= place.descriptors;
        self.taken += u64::from(place.descriptors);
        let request = InFlight { number: self.added, end: self.taken, token, extent, place };
        self.requests[usize::from(place.id)] = Some(request);
        self.added += 1;
        self.outstanding += 1;
    }

    /// Records that all requests have been published.
    #[inline]
    pub(super) fn publish(&mut self) {
        self.published = self.added;
    }

    /// The published request with this ID.
    #[inline]
    fn get(&self, id: u32) -> Result<&InFlight<T>, QueueError> {
        let size = self.requests.len() as u16;
        match self.requests.get(id as usize).ok_or(QueueError::UsedId { id, size })? {
            Some(request) if request.number < self.published => Ok(request),
            _ => Err(QueueError::NotOutstanding { id: id as u16 }),
        }
    }

    /// Number of descriptors of the request with this ID.
    pub(super) fn descriptors(&self, id: u32) -> Result<u16, QueueError> {
        Ok(self.get(id)?.place.descriptors)
    }

    /// `IN_ORDER`: how many requests complete together with the one with this ID.
    pub(super) fn batch(&self, id: u32) -> Result<u16, QueueError> {
        let came_back = self.added - u64::from(self.outstanding);
        // No more than are in flight.
        Ok((self.get(id)?.number + 1 - came_back) as u16)
    }

    /// `IN_ORDER`: how many descriptors these requests take.
    pub(super) fn span(&self, id: u32) -> Result<u16, QueueError> {
        let in_use = self.requests.len() as u64 - u64::from(self.free);
        Ok((self.get(id)?.end - (self.taken - in_use)) as u16)
    }

    /// Completes a request: frees its IDs and descriptors, and returns the number of descriptors.
    ///
    /// After an error it stays outstanding: the device may still be using it.
    #[inline]
    pub(super) fn take(&mut self, used: Used, rule: UsedLength) -> Result<(Completion<T>, u16), QueueError> {
        let Used { id, length } = used;
        let extent = self.get(id)?.extent;
        let limit = extent.limit(rule);
        let claimed = match length {
            Length::Said(length) if length > limit => {
                return Err(QueueError::UsedLength { id: id as u16, length, limit });
            }
            Length::Said(length) => length,
            Length::Perhaps(length) if length <= limit => length,
            Length::Perhaps(_) => 0,
            Length::Unsaid => extent.writable,
        };
        let taken = self.requests.get_mut(id as usize).and_then(Option::take);
        let InFlight { token, place, .. } = taken.ok_or(QueueError::NotOutstanding { id: id as u16 })?;
        self.ids.release(place.id, place.last);
        self.free += place.descriptors;
        self.outstanding -= 1;
        Ok((Completion { token, written: claimed.min(extent.writable), claimed }, place.descriptors))
    }

    /// Ends all requests. The shadow accepts no more: a restart takes a new queue.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.outstanding = 0;
        self.free = 0;
        self.requests.iter_mut().filter_map(Option::take).map(|request| request.token)
    }

    /// Ends all requests of a queue that is no longer needed.
    pub(super) fn into_tokens(self) -> impl Iterator<Item = T> {
        self.requests.into_vec().into_iter().flatten().map(|request| request.token)
    }
}
