//! The IDs of a queue: the free ones, and those of each request.
//!
//! In a split queue an ID is a descriptor index, and a chain has one per descriptor; in a packed queue it is a buffer
//! ID, and a chain has just one.

use alloc::boxed::Box;

use crate::bus::OutOfMemory;
use crate::bus::heap;

/// The IDs of a queue, linked in lists.
///
/// They are taken from the head of the free list and returned to it, in any order. With `IN_ORDER` nothing is ever
/// relinked: IDs cycle from 0 (virtio 1.4, 2.7.5) and return in the order in which they were taken.
#[derive(Debug)]
pub(super) struct Ids {
    /// The next ID of the chain, or of the free list.
    next: Box<[u16]>,
    free_head: u16,
    in_order: bool,
    /// `IN_ORDER`: the first ID of the request that completes next.
    oldest: u16,
}

impl Ids {
    /// `size` IDs, all free.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub(super) fn new(size: u16, in_order: bool) -> Result<Self, OutOfMemory> {
        let next = boxed(size, |id| if id + 1 < size { id + 1 } else { 0 })?;
        Ok(Self { next, free_head: 0, in_order, oldest: 0 })
    }

    /// The next ID to be taken. Valid only while one is free, which the queue ensures.
    #[inline]
    pub(super) fn free_head(&self) -> u16 {
        self.free_head
    }

    /// `IN_ORDER`: the first ID of the request that completes next. Valid only while one is in flight.
    pub(super) fn oldest(&self) -> u16 {
        self.oldest
    }

    /// Takes an ID. The queue ensures that one is free. It stays linked to the next one taken.
    #[inline]
    pub(super) fn claim(&mut self) -> u16 {
        let id = self.free_head;
        self.free_head = self.next[usize::from(id)];
        id
    }

    /// Frees the IDs from `first` to `last`, still linked as they were taken.
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

/// A value per ID. A legacy device chooses `size`, so running out of memory is an error.
pub(super) fn boxed<T>(size: u16, value: impl FnMut(u16) -> T) -> Result<Box<[T]>, OutOfMemory> {
    let mut values = heap::vector(size.into())?;
    values.extend((0..size).map(value));
    Ok(values.into_boxed_slice())
}
