//! Split virtqueues (virtio 1.4, 2.7), driver side.
//!
//! The queue keeps a private shadow of everything that the device could have tampered with: which descriptors are
//! free, which head a request, where a chain ends, what it may write. Shared memory is written for the device and never
//! read back, but for the two fields that are the device's own: the used ring, and its wish to be kicked.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::barrier;
use super::device::Quiesced;
use super::queue::{Chain, Completion, Kick, Queue, QueueError, Refusal, Rejected, Segment};
use super::spec::{
    AVAILABLE_F_NO_INTERRUPT, DESCRIPTOR_F_INDIRECT, DESCRIPTOR_F_NEXT, DESCRIPTOR_F_WRITE, DESCRIPTOR_SIZE,
    QUEUE_SIZE_MAX, USED_F_NO_NOTIFY,
};
use super::transport::QueueAddresses;
use crate::platform::{DmaExhausted, DmaMemory, Platform};

mod layout;
mod ring;

pub use layout::{Alignment, Layout};
use ring::Ring;

/// How a split queue is to work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SplitOptions {
    /// `EVENT_IDX` was negotiated.
    pub event_idx: bool,
    /// `INDIRECT_DESC` was negotiated, and chains of two to this many segments go through a table of their own, so that
    /// they take one descriptor of the queue. 0 and 1: none do.
    pub indirect_entries: u16,
    /// A used length may count what the device read, too. The specification has it count what was written only
    /// (2.7.8.2), but devices differ; what a completion says was written is bounded either way.
    pub lenient_length: bool,
}

/// What the driver knows of a descriptor.
#[derive(Debug)]
struct Shadow<T> {
    /// The next descriptor of the chain, or of the free list.
    next: u16,
    /// For the head of an outstanding request: the request.
    request: Option<Request<T>>,
}

#[derive(Debug)]
struct Request<T> {
    token: T,
    /// The last descriptor of the chain, so that the chain is freed in one step.
    last: u16,
    /// How many descriptors of the queue it takes.
    descriptors: u16,
    readable: u32,
    writable: u32,
}

/// A split virtqueue with its memory.
#[derive(Debug)]
pub struct SplitQueue<M, T> {
    ring: Ring<M>,
    /// A table of descriptors for each descriptor of the queue, if there are tables.
    tables: Option<M>,
    options: SplitOptions,
    shadow: Box<[Shadow<T>]>,
    /// The first free descriptor, meaningful while `free` is not 0.
    free_head: u16,
    free: u16,
    outstanding: u16,
    /// The available index including what is not published yet.
    added: u16,
    /// The available index as the device sees it.
    published: u16,
    /// The used index up to which entries were popped.
    popped: u16,
    poisoned: Option<QueueError>,
}

impl<M: DmaMemory, T> SplitQueue<M, T> {
    /// A queue of `layout` in memory from `platform`.
    ///
    /// # Errors
    /// When there is no memory for it; what was taken has been given back.
    pub fn allocate<P>(platform: &mut P, layout: Layout, options: SplitOptions) -> Result<Self, DmaExhausted>
    where
        P: Platform<Memory = M>,
    {
        let memory = platform.allocate_dma(layout.bytes(), layout.align())?;
        let tables = match Self::table_bytes(layout, options) {
            0 => None,
            bytes => match platform.allocate_dma(bytes, DESCRIPTOR_SIZE) {
                Ok(tables) => Some(tables),
                Err(error) => {
                    platform.release_dma(memory);
                    return Err(error);
                }
            },
        };
        Ok(Self::new(memory, tables, layout, options))
    }

    fn table_bytes(layout: Layout, options: SplitOptions) -> usize {
        if options.indirect_entries < 2 {
            return 0;
        }
        usize::from(layout.size()) * usize::from(options.indirect_entries) * DESCRIPTOR_SIZE
    }

    /// A queue in `memory`, zeroed and laid out as `layout`; `tables` as large as the options ask for.
    fn new(memory: M, tables: Option<M>, layout: Layout, options: SplitOptions) -> Self {
        let size = layout.size();
        let shadow = (0..size).map(|index| Shadow { next: index.wrapping_add(1), request: None }).collect();
        Self {
            ring: Ring::new(memory, layout),
            tables,
            options,
            shadow,
            free_head: 0,
            free: size,
            outstanding: 0,
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
    pub fn release<P>(mut self, platform: &mut P, proof: &Quiesced) -> Vec<T>
    where
        P: Platform<Memory = M>,
    {
        let tokens = self.drain(proof);
        platform.release_dma(self.ring.into_memory());
        if let Some(tables) = self.tables {
            platform.release_dma(tables);
        }
        tokens
    }

    fn check(&self, chain: &Chain<'_>) -> Result<(u32, u32), Refusal> {
        if let Some(error) = self.poisoned {
            return Err(Refusal::Poisoned(error));
        }
        let length = chain.len();
        let size = self.ring.layout().size();
        if length > usize::from(size) {
            return Err(Refusal::TooLong { length, size });
        }
        if chain.is_empty() || chain.readable.iter().chain(chain.writable).any(|segment| segment.length == 0) {
            return Err(Refusal::Empty);
        }
        let needed = if self.is_indirect(length) { 1 } else { length };
        if needed > usize::from(self.free) {
            return Err(Refusal::Full { needed, free: self.free });
        }
        // At most 32768 lengths of 32 bits: the sums fit.
        let sum = |segments: &[Segment]| segments.iter().map(|segment| u64::from(segment.length)).sum::<u64>();
        let (readable, writable) = (sum(chain.readable), sum(chain.writable));
        match u32::try_from(readable + writable) {
            Ok(_) => Ok((readable as u32, writable as u32)),
            Err(_) => Err(Refusal::TooLarge(readable + writable)),
        }
    }

    fn is_indirect(&self, length: usize) -> bool {
        self.tables.is_some() && length >= 2 && length <= usize::from(self.options.indirect_entries)
    }

    /// Writes the chain into descriptors of the queue; returns the first and the last.
    fn write_direct(&mut self, chain: &Chain<'_>) -> (u16, u16) {
        let head = self.free_head;
        let mut last = head;
        let mut index = head;
        for (segment, flags) in flagged(chain) {
            let next = self.shadow[usize::from(index)].next;
            // The last one's next field means nothing without its flag.
            self.ring.write_descriptor(index, segment, flags, next);
            last = index;
            index = next;
        }
        self.free_head = index;
        self.free -= chain.len() as u16;
        (head, last)
    }

    /// Writes the chain into the table that belongs to the first free descriptor, and that descriptor.
    fn write_indirect(&mut self, chain: &Chain<'_>) -> (u16, u16) {
        let head = self.free_head;
        let start = usize::from(head) * usize::from(self.options.indirect_entries) * DESCRIPTOR_SIZE;
        let tables = self.tables.as_mut().expect("a chain is indirect only where there are tables");
        for (position, (segment, flags)) in flagged(chain).enumerate() {
            ring::write_descriptor(tables, start + position * DESCRIPTOR_SIZE, segment, flags, position as u16 + 1);
        }
        let table =
            Segment { address: tables.device_address() + start as u64, length: (chain.len() * DESCRIPTOR_SIZE) as u32 };
        self.free_head = self.shadow[usize::from(head)].next;
        self.free -= 1;
        self.ring.write_descriptor(head, table, DESCRIPTOR_F_INDIRECT, 0);
        (head, head)
    }

    /// Puts a chain of `count` descriptors back into the free list.
    fn release_chain(&mut self, head: u16, last: u16, count: u16) {
        self.shadow[usize::from(last)].next = self.free_head;
        self.free_head = head;
        self.free += count;
    }

    /// How many used entries wait to be popped.
    fn waiting(&mut self) -> Result<u16, QueueError> {
        if let Some(error) = self.poisoned {
            return Err(error);
        }
        let index = self.ring.used_index();
        let advance = index.wrapping_sub(self.popped);
        // What was added but not published cannot have been used.
        let outstanding = self.outstanding - self.added.wrapping_sub(self.published);
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
        let size = self.ring.layout().size();
        let Some(slot) = self.shadow.get_mut(id as usize) else {
            return Err(QueueError::UsedId { id, size });
        };
        let id = id as u16;
        let Some(request) = slot.request.take() else {
            return Err(QueueError::NotOutstanding { id });
        };
        let limit = if self.options.lenient_length { request.readable + request.writable } else { request.writable };
        if claimed > limit {
            // The request stays outstanding: the device may still be at work on it.
            slot.request = Some(request);
            return Err(QueueError::UsedLength { id, length: claimed, limit });
        }
        self.release_chain(id, request.last, request.descriptors);
        self.outstanding -= 1;
        Ok(Completion { token: request.token, written: claimed.min(request.writable), claimed })
    }
}

impl<M: DmaMemory, T> Queue<T> for SplitQueue<M, T> {
    fn size(&self) -> u16 {
        self.ring.layout().size()
    }

    fn outstanding(&self) -> u16 {
        self.outstanding
    }

    fn free(&self) -> u16 {
        self.free
    }

    fn add(&mut self, chain: Chain<'_>, token: T) -> Result<(), Rejected<T>> {
        let (readable, writable) = match self.check(&chain) {
            Ok(sums) => sums,
            Err(reason) => return Err(Rejected { reason, token }),
        };
        let free = self.free;
        let (head, last) =
            if self.is_indirect(chain.len()) { self.write_indirect(&chain) } else { self.write_direct(&chain) };
        let request = Request { token, last, descriptors: free - self.free, readable, writable };
        self.shadow[usize::from(head)].request = Some(request);
        self.ring.write_available(self.added, head);
        self.added = self.added.wrapping_add(1);
        self.outstanding += 1;
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
        let completions = completions.clamp(1, self.outstanding.max(1));
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

    fn drain(&mut self, _proof: &Quiesced) -> Vec<T> {
        let requests = self.shadow.iter_mut().filter_map(|slot| slot.request.take());
        let tokens = requests.map(|request| request.token).collect();
        // Indices and free list are stale now; a fresh queue is made for a fresh start.
        self.outstanding = 0;
        self.free = 0;
        tokens
    }
}

/// Whether the other side, which wants to hear of the entry at index `event`, is to be told that the index went from
/// `old` to `new` (2.7.10). All modulo 2^16: exactly when `event` is one of the entries from `old` up to before `new`.
#[doc(alias = "vring_need_event")]
const fn needs_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// The segments of a chain with their descriptor flags: readable ones first, all but the last linked.
fn flagged<'a>(chain: &Chain<'a>) -> impl Iterator<Item = (Segment, u16)> + use<'a> {
    let last = chain.len().saturating_sub(1);
    let readable = chain.readable.iter().map(|segment| (*segment, 0));
    let writable = chain.writable.iter().map(|segment| (*segment, DESCRIPTOR_F_WRITE));
    readable.chain(writable).enumerate().map(move |(position, (segment, flags))| {
        (segment, if position < last { flags | DESCRIPTOR_F_NEXT } else { flags })
    })
}

#[cfg(test)]
mod tests;
