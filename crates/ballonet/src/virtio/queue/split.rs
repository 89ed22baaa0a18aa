//! Split virtqueues (virtio 1.4, 2.7), driver side.
//!
//! The queue keeps a private shadow of everything that the device could tamper with: which descriptors are free, which
//! head a request, where a chain ends, what it may write. The driver reads back only the two parts of shared memory
//! that the device writes: the used ring, and its kick suppression.

use super::chain::{Chain, Segment};
use super::error::QueueError;
use super::ids::Ids;
use super::index::QueueAddresses;
use super::options::{Kick, QueueOptions};
use super::shadow::{DescriptorSpan, Length, Shadow, Used};
use crate::bus::DmaMemory;
use crate::virtio::barrier;
use crate::virtio::spec::{AVAILABLE_F_NO_INTERRUPT, Descriptor, DescriptorFlags, USED_F_NO_NOTIFY};

mod areas;
mod layout;

use areas::Areas;

// Constants: a call of `bits` costs instructions for each descriptor.
const INDIRECT: u16 = DescriptorFlags::INDIRECT.bits();
pub(super) use layout::{Alignment, SplitLayout};

/// The memory of a split virtqueue, and the indices into it.
#[derive(Debug)]
pub(super) struct SplitRing<M> {
    areas: Areas<M>,
    event_idx: bool,
    /// The available index, including unpublished entries.
    added: u16,
    /// The available index as the device sees it.
    published: u16,
    /// The used index up to which requests were popped.
    popped: u16,
}

impl<M: DmaMemory> SplitRing<M> {
    /// Writes the next available entry.
    #[inline]
    fn add(&mut self, head: u16) {
        self.areas.write_available(self.added, head);
        self.added = self.added.wrapping_add(1);
    }

    /// How many completed requests have not been popped yet, according to the device.
    #[inline]
    fn waiting<T>(&self, shadow: &Shadow<T>) -> Result<u16, QueueError> {
        let index = self.areas.used_index();
        let advance = index.wrapping_sub(self.popped);
        // Unpublished requests cannot have been used.
        let outstanding = shadow.shown();
        if advance > outstanding {
            return Err(QueueError::UsedIndex { index, advance, outstanding });
        }
        Ok(advance)
    }
}

/// The operations of [`super::ring::Ring`].
impl<M: DmaMemory> SplitRing<M> {
    pub(super) fn new(memory: M, layout: SplitLayout, options: QueueOptions) -> Self {
        Self { areas: Areas::new(memory, layout), event_idx: options.event_idx, added: 0, published: 0, popped: 0 }
    }

    pub(super) fn size(&self) -> u16 {
        self.areas.layout().size()
    }

    pub(super) fn addresses(&self) -> QueueAddresses {
        self.areas.addresses()
    }

    pub(super) fn into_memory(self) -> M {
        self.areas.into_memory()
    }

    /// The head identifies the chain.
    #[inline]
    pub(super) fn add_chain(&mut self, chain: &Chain<'_>, ids: &mut Ids) -> DescriptorSpan {
        let head = ids.free_head();
        let mut last = head;
        for (segment, flags) in chain.flagged() {
            last = ids.claim();
            // Without NEXT, the last one's `next` is ignored.
            self.areas.write_descriptor(last, segment, flags, ids.free_head());
        }
        self.add(head);
        // Checked to be no longer than the queue.
        DescriptorSpan { id: head, last, descriptors: chain.len() as u16 }
    }

    #[inline]
    pub(super) fn add_table(&mut self, id: u16, table: Segment) {
        self.areas.write_descriptor(id, table, INDIRECT, 0);
        self.add(id);
    }

    #[inline]
    pub(super) fn write_table(tables: &mut M, offset: usize, chain: &Chain<'_>) {
        // A table has at most 65535 entries.
        for (next, (segment, flags)) in (1..).zip(chain.flagged()) {
            let entry = offset + usize::from(next - 1) * size_of::<Descriptor>();
            areas::write_descriptor(tables, entry, segment, flags, next);
        }
    }

    #[inline]
    pub(super) fn publish(&mut self) -> Option<Kick> {
        let (old, new) = (self.published, self.added);
        if old == new {
            return None;
        }
        barrier::publish();
        self.areas.set_available_index(new);
        self.published = new;
        barrier::full();
        let wanted = if self.event_idx {
            needs_event(self.areas.available_event(), new, old)
        } else {
            self.areas.used_flags() & USED_F_NO_NOTIFY == 0
        };
        wanted.then_some(Kick { progress: new })
    }

    pub(super) fn kick(&self) -> Kick {
        Kick { progress: self.published }
    }

    #[inline]
    pub(super) fn used<T>(&self, shadow: &Shadow<T>) -> Result<Option<(Used, u16)>, QueueError> {
        let waiting = self.waiting(shadow)?;
        if waiting == 0 {
            return Ok(None);
        }
        barrier::observe();
        let (id, length) = self.areas.used_entry(self.popped);
        Ok(Some((Used { id, length: Length::Said(length) }, waiting)))
    }

    #[inline]
    pub(super) fn pop(&mut self) {
        self.popped = self.popped.wrapping_add(1);
    }

    pub(super) fn arm(&mut self, completions: u16) {
        if self.event_idx {
            // The device interrupts when it has used the entry at this index (2.7.7).
            self.areas.set_used_event(self.popped.wrapping_add(completions - 1));
        } else {
            self.areas.set_available_flags(0);
        }
    }

    /// The used index counts all requests, even if the device skips their entries (`IN_ORDER`).
    pub(super) fn is_done<T>(&self, completions: u16, shadow: &Shadow<T>) -> bool {
        self.waiting(shadow).map_or(true, |waiting| waiting >= completions)
    }

    pub(super) fn disarm(&mut self) {
        if self.event_idx {
            // The index furthest ahead.
            self.areas.set_used_event(self.popped.wrapping_sub(1));
        } else {
            self.areas.set_available_flags(AVAILABLE_F_NO_INTERRUPT);
        }
    }
}

/// Whether to notify the other side, which asked for entry `event`, of an index that went from `old` to `new` (2.7.10).
/// Modulo 2^16: exactly when `event` is in `old..new`.
#[doc(alias = "vring_need_event")]
const fn needs_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests;
