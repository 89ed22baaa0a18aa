//! The ids of a queue: which are free, and which a request has.
//!
//! In a split queue an id is a descriptor, and a chain has one for each of its own; in a packed queue it names a
//! buffer, and a chain has a single one.

use alloc::boxed::Box;

use crate::bus::OutOfMemory;
use crate::bus::heap;

/// The ids of a queue, each linked to another.
///
/// They are handed out from the head of a list and go back to it, whatever comes back first. With `IN_ORDER` nothing is
/// ever relinked: ids go round from 0 (virtio 1.4, 2.7.5), and what was handed out first comes back first.
#[derive(Debug)]
pub(super) struct Ids {
    /// The next id of the chain, or of the free list.
    next: Box<[u16]>,
    free_head: u16,
    in_order: bool,
    /// `IN_ORDER`: the first id of the request that comes back next.
    oldest: u16,
}

impl Ids {
    /// `size` ids, all free.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub(super) fn new(size: u16, in_order: bool) -> Result<Self, OutOfMemory> {
        let next = boxed(size, |id| if id + 1 < size { id + 1 } else { 0 })?;
        Ok(Self { next, free_head: 0, in_order, oldest: 0 })
    }

    /// The id that is handed out next. Meaningful while one is free, which the queue sees to.
    #[inline]
    pub(super) fn free_head(&self) -> u16 {
        self.free_head
    }

    /// `IN_ORDER`: the first id of the request that comes back next. Meaningful while one is in flight.
    pub(super) fn oldest(&self) -> u16 {
        self.oldest
    }

    /// Hands out an id. One is free, which the queue sees to. It stays linked to the one that is handed out next.
    #[inline]
    pub(super) fn claim(&mut self) -> u16 {
        let id = self.free_head;
        self.free_head = self.next[usize::from(id)];
        id
    }

    /// Takes back the ids from `first` to `last`, linked as they were handed out.
    #[inline]
    pub(super) fn release(&mut self, first: u16, last: u16) {
        if self.in_order {
            self.oldest = self.next[usize::from(last)];
        } else {
            self.next[usize::from(last)] = self.free_head;
            self.free_head = first;
        }
    }
}

/// A value for each of `size` ids. How many there are a legacy device says, so that running out of memory is an error.
pub(super) fn boxed<T>(size: u16, value: impl FnMut(u16) -> T) -> Result<Box<[T]>, OutOfMemory> {
    let mut values = heap::vector(size.into())?;
    values.extend((0..size).map(value));
    Ok(values.into_boxed_slice())
}
