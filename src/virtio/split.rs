//! Split virtqueues (virtio 1.4, 2.7), driver side.
//!
//! The queue keeps a private shadow of everything that the device could have tampered with: which descriptors are
//! free, which head a request, where a chain ends, what it may write. Shared memory is written for the device and never
//! read back, but for the two fields that are the device's own: the used ring, and its wish to be kicked.

use alloc::vec::Vec;

use super::barrier;
use super::extent::Extent;
use super::indirect::Tables;
use super::queue::{Chain, Completion, Kick, Queue, QueueError, QueueOptions, Refusal, Rejected};
use super::quiesced::Stopped;
use super::shadow::{Request, Shadow};
use super::spec::{AVAILABLE_F_NO_INTERRUPT, DESCRIPTOR_F_INDIRECT, USED_F_NO_NOTIFY};
use super::transport::{QueueAddresses, QueueIndex};
use crate::platform::{DmaExhausted, DmaMemory, Platform};

mod layout;
mod ring;

pub use layout::{Alignment, Layout};
use ring::Ring;

/// Where a request is on the ring.
#[derive(Debug)]
struct Place {
    /// The last descriptor of the chain, so that the chain is freed in one step.
    last: u16,
    /// How many descriptors of the queue it takes.
    descriptors: u16,
}

/// A split virtqueue with its memory.
#[derive(Debug)]
pub struct SplitQueue<M, T> {
    index: QueueIndex,
    ring: Ring<M>,
    tables: Option<Tables<M>>,
    options: QueueOptions,
    shadow: Shadow<T, Place>,
    free: u16,
    /// The available index including what is not published yet.
    added: u16,
    /// The available index as the device sees it.
    published: u16,
    /// The used index up to which entries were popped.
    popped: u16,
    poisoned: Option<QueueError>,
}

impl<M: DmaMemory, T> SplitQueue<M, T> {
    /// The queue with this number, of `layout` and in memory from `platform`.
    ///
    /// # Errors
    /// When there is no memory for it; what was taken has been given back.
    pub fn allocate<P>(
        platform: &mut P,
        index: QueueIndex,
        layout: Layout,
        options: QueueOptions,
    ) -> Result<Self, DmaExhausted>
    where
        P: Platform<Memory = M>,
    {
        let memory = platform.allocate_dma(layout.bytes(), layout.align())?;
        match Tables::allocate(platform, layout.size(), options) {
            Ok(tables) => Ok(Self::new(index, memory, tables, layout, options)),
            Err(error) => {
                platform.release_dma(memory);
                Err(error)
            }
        }
    }

    /// A queue in `memory`, zeroed and laid out as `layout`; `tables` as the options ask for.
    fn new(index: QueueIndex, memory: M, tables: Option<Tables<M>>, layout: Layout, options: QueueOptions) -> Self {
        let size = layout.size();
        Self {
            index,
            ring: Ring::new(memory, layout),
            tables,
            options,
            shadow: Shadow::new(size),
            free: size,
            added: 0,
            published: 0,
            popped: 0,
            poisoned: None,
        }
    }

    /// Where the three areas are, for the transport.
    pub fn addresses(&self) -> QueueAddresses {
        self.ring.addresses()
    }

    /// Whether the device broke the rules, and how.
    pub fn poisoned(&self) -> Option<QueueError> {
        self.poisoned
    }

    /// Gives the memory back to the platform, and what was outstanding to the caller.
    pub fn release<P>(mut self, platform: &mut P, proof: &impl Stopped) -> Vec<T>
    where
        P: Platform<Memory = M>,
    {
        let tokens = self.drain(proof);
        platform.release_dma(self.ring.into_memory());
        if let Some(tables) = self.tables {
            platform.release_dma(tables.into_memory());
        }
        tokens
    }

    fn check(&self, chain: &Chain<'_>) -> Result<Extent, Refusal> {
        if let Some(error) = self.poisoned {
            return Err(Refusal::Poisoned(error));
        }
        let needed = if self.is_indirect(chain.len()) { 1 } else { chain.len() };
        Extent::check(chain, needed, self.free, self.ring.layout().size())
    }

    fn is_indirect(&self, length: usize) -> bool {
        self.tables.as_ref().is_some_and(|tables| tables.carry(length))
    }

    /// Writes the chain into descriptors of the queue; returns the first and where it is.
    fn write_direct(&mut self, chain: &Chain<'_>) -> (u16, Place) {
        let head = self.shadow.free_head();
        let mut last = head;
        for (segment, flags) in chain.flagged() {
            last = self.shadow.claim();
            // The last one's next field means nothing without its flag.
            self.ring.write_descriptor(last, segment, flags, self.shadow.free_head());
        }
        // No longer than the queue: that was checked.
        (head, Place { last, descriptors: chain.len() as u16 })
    }

    /// Writes the chain into the table that belongs to the first free descriptor, and that descriptor.
    fn write_indirect(&mut self, chain: &Chain<'_>) -> (u16, Place) {
        let head = self.shadow.claim();
        let tables = self.tables.as_mut().expect("a chain is indirect only where there are tables");
        for (position, (segment, flags)) in chain.flagged().enumerate() {
            let entry = tables.entry(head, position);
            ring::write_descriptor(tables.memory_mut(), entry, segment, flags, position as u16 + 1);
        }
        self.ring.write_descriptor(head, tables.segment(head, chain.len()), DESCRIPTOR_F_INDIRECT, 0);
        (head, Place { last: head, descriptors: 1 })
    }

    /// How many used entries wait to be popped.
    fn waiting(&mut self) -> Result<u16, QueueError> {
        if let Some(error) = self.poisoned {
            return Err(error);
        }
        let index = self.ring.used_index();
        let advance = index.wrapping_sub(self.popped);
        // What was added but not published cannot have been used.
        let unpublished = self.added.wrapping_sub(self.published);
        let outstanding = self.shadow.outstanding().saturating_sub(unpublished);
        if advance > outstanding {
            return Err(self.poison(QueueError::UsedIndex { index, advance, outstanding }));
        }
        Ok(advance)
    }

    fn poison(&mut self, error: QueueError) -> QueueError {
        *self.poisoned.get_or_insert(error)
    }

    /// Checks a used entry against the shadow, and takes the request out of it.
    fn take(&mut self, id: u32, claimed: u32) -> Result<Completion<T>, QueueError> {
        let (completion, place) = self.shadow.take(id, claimed, self.options.used_length)?;
        // The shadow knows this id, so it has 16 bits.
        self.shadow.release(id as u16, place.last);
        self.free += place.descriptors;
        Ok(completion)
    }
}

impl<M: DmaMemory, T> Queue<T> for SplitQueue<M, T> {
    fn size(&self) -> u16 {
        self.ring.layout().size()
    }

    fn outstanding(&self) -> u16 {
        self.shadow.outstanding()
    }

    fn free(&self) -> u16 {
        self.free
    }

    fn add(&mut self, chain: Chain<'_>, token: T) -> Result<(), Rejected<T>> {
        let extent = match self.check(&chain) {
            Ok(extent) => extent,
            Err(reason) => return Err(Rejected { reason, token }),
        };
        let (head, place) =
            if self.is_indirect(chain.len()) { self.write_indirect(&chain) } else { self.write_direct(&chain) };
        self.free -= place.descriptors;
        self.shadow.put(head, Request { token, extent, place });
        self.ring.write_available(self.added, head);
        self.added = self.added.wrapping_add(1);
        Ok(())
    }

    fn publish(&mut self) -> Option<Kick> {
        let (old, new) = (self.published, self.added);
        if old == new {
            return None;
        }
        barrier::publish();
        self.ring.set_available_index(new);
        self.published = new;
        self.shadow.publish();
        barrier::full();
        let wanted = if self.options.event_idx {
            needs_event(self.ring.available_event(), new, old)
        } else {
            self.ring.used_flags() & USED_F_NO_NOTIFY == 0
        };
        wanted.then_some(Kick { progress: new })
    }

    fn pop(&mut self) -> Result<Option<Completion<T>>, QueueError> {
        if self.waiting()? == 0 {
            return Ok(None);
        }
        barrier::observe();
        let (id, length) = self.ring.used_entry(self.popped);
        match self.take(id, length) {
            Ok(completion) => {
                self.popped = self.popped.wrapping_add(1);
                Ok(Some(completion))
            }
            Err(error) => Err(self.poison(error)),
        }
    }

    fn arm(&mut self, completions: u16) -> bool {
        let completions = completions.clamp(1, self.shadow.outstanding().max(1));
        if self.options.event_idx {
            // The device interrupts when it has used the entry at this index (2.7.7).
            self.ring.set_used_event(self.popped.wrapping_add(completions - 1));
        } else {
            self.ring.set_available_flags(0);
        }
        barrier::full();
        // What was used before the device could see the wish raises no interrupt. A queue that is out of use is not
        // armed either: popping names the error.
        self.waiting().is_ok_and(|waiting| waiting < completions)
    }

    fn disarm(&mut self) {
        if self.options.event_idx {
            // As far ahead as an index can be.
            self.ring.set_used_event(self.popped.wrapping_sub(1));
        } else {
            self.ring.set_available_flags(AVAILABLE_F_NO_INTERRUPT);
        }
    }

    fn index(&self) -> QueueIndex {
        self.index
    }

    fn drain(&mut self, proof: &impl Stopped) -> Vec<T> {
        assert!(proof.covers(self.index), "{proof:?} is no proof for queue {}", self.index);
        self.free = 0;
        self.shadow.drain()
    }
}

/// Whether the other side, which wants to hear of the entry at index `event`, is to be told that the index went from
/// `old` to `new` (2.7.10). All modulo 2^16: exactly when `event` is one of the entries from `old` up to before `new`.
#[doc(alias = "vring_need_event")]
const fn needs_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests;
