//! Packed virtqueues (virtio 1.4, 2.8), driver side.
//!
//! One ring of descriptors for both directions. The driver makes a chain available by writing its descriptors in ring
//! order, with the wrap counter of the lap in their flags; the device returns it by a single used descriptor, written
//! over the first one that it has not returned yet, and goes on behind as many descriptors as the chain had. A bit of
//! the flags tells laps apart, so there is no index; chains are told apart by a buffer id.
//!
//! As in the split queue, all that the device could have tampered with is kept in a private shadow: the length of each
//! chain, free ids, both positions. Of the shared memory only used descriptors and the device's event suppression
//! structure are read.

use alloc::vec::Vec;

use super::barrier;
use super::extent::Extent;
use super::indirect::Tables;
use super::queue::{Chain, Completion, Kick, Queue, QueueError, QueueOptions, Refusal, Rejected};
use super::quiesced::Stopped;
use super::shadow::{Request, Shadow};
use super::spec::{DESCRIPTOR_F_INDIRECT, DESCRIPTOR_F_NEXT, DESCRIPTOR_F_WRITE};
use super::transport::{QueueAddresses, QueueIndex};
use crate::platform::{DmaExhausted, DmaMemory, Platform};

mod layout;
mod position;
mod ring;
mod suppression;

pub use layout::PackedLayout;
use position::Position;
use ring::Ring;
use suppression::Suppression;

/// How many descriptors of the ring a request takes.
#[derive(Debug)]
struct Place(u16);

/// A packed virtqueue with its memory.
#[derive(Debug)]
pub struct PackedQueue<M, T> {
    index: QueueIndex,
    ring: Ring<M>,
    tables: Option<Tables<M>>,
    options: QueueOptions,
    /// Requests by buffer id. There are as many ids as descriptors, so one is free wherever a descriptor is.
    shadow: Shadow<T, Place>,
    free: u16,
    /// Where the next chain goes.
    added: Position,
    /// The first descriptor that the device does not see yet: it must not look further than that.
    published: Position,
    /// The flags of that descriptor, once there is a chain.
    held_back: Option<u16>,
    /// Where the device returns the next chain.
    popped: Position,
    /// What the device was last told of when to interrupt.
    wish: Suppression,
    poisoned: Option<QueueError>,
}

impl<M: DmaMemory, T> PackedQueue<M, T> {
    /// The queue with this number, of `layout` and in memory from `platform`.
    ///
    /// # Errors
    /// When there is no memory for it; what was taken has been given back.
    pub fn allocate<P>(
        platform: &mut P,
        index: QueueIndex,
        layout: PackedLayout,
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
    fn new(
        index: QueueIndex,
        memory: M,
        tables: Option<Tables<M>>,
        layout: PackedLayout,
        options: QueueOptions,
    ) -> Self {
        Self {
            index,
            ring: Ring::new(memory, layout),
            tables,
            options,
            shadow: Shadow::new(layout.size()),
            free: layout.size(),
            added: Position::START,
            published: Position::START,
            held_back: None,
            popped: Position::START,
            // What zeroed memory says.
            wish: Suppression::Enable,
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
        Extent::check(chain, needed, self.free, self.ring.size())
    }

    fn is_indirect(&self, length: usize) -> bool {
        self.tables.as_ref().is_some_and(|tables| tables.carry(length))
    }

    /// Writes the chain into the next descriptors of the ring; returns where it is.
    fn write_direct(&mut self, chain: &Chain<'_>, id: u16) -> Place {
        let (head, size) = (self.added, self.ring.size());
        let mut head_flags = 0;
        for (segment, flags) in chain.flagged() {
            let here = self.added;
            self.ring.write_descriptor(here.offset(), segment, id);
            let flags = flags | here.available();
            if here == head {
                head_flags = flags;
            } else {
                self.ring.set_flags(here.offset(), flags);
            }
            self.added = here.advance(1, size);
        }
        self.write_head(head, head_flags);
        // No longer than the queue: that was checked.
        Place(chain.len() as u16)
    }

    /// Writes the chain into the table that belongs to its id, and the one descriptor that points there.
    fn write_indirect(&mut self, chain: &Chain<'_>, id: u16) -> Place {
        let tables = self.tables.as_mut().expect("a chain is indirect only where there are tables");
        for (position, (segment, flags)) in chain.flagged().enumerate() {
            let entry = tables.entry(id, position);
            // In a table the order is that of its entries, and WRITE is the one flag that they may have (2.8.19).
            ring::write_descriptor(tables.memory_mut(), entry, segment, 0);
            ring::set_flags(tables.memory_mut(), entry, flags & !DESCRIPTOR_F_NEXT);
        }
        let head = self.added;
        self.ring.write_descriptor(head.offset(), tables.segment(id, chain.len()), id);
        self.added = head.advance(1, self.ring.size());
        self.write_head(head, DESCRIPTOR_F_INDIRECT | head.available());
        Place(1)
    }

    /// Finishes a chain by the flags of its head. Those of the first chain that the device has not seen are held back
    /// until it is published, and with them all later chains: the device takes chains in the order of the ring.
    fn write_head(&mut self, head: Position, flags: u16) {
        if self.held_back.is_none() {
            self.held_back = Some(flags);
        } else {
            self.ring.set_flags(head.offset(), flags);
        }
    }

    /// Descriptors that the device may return, from where it returns the next chain.
    fn in_reach(&self) -> u32 {
        self.published.since(self.popped, self.ring.size())
    }

    /// The flags of the descriptor `ahead` of where the next chain is returned, if it is a used one.
    fn used_flags(&self, ahead: u16) -> Result<Option<u16>, QueueError> {
        let position = self.popped.advance(ahead, self.ring.size());
        let (offset, flags) = (position.offset(), self.ring.flags(position.offset()));
        if position.is_used(flags) {
            return Ok(Some(flags));
        }
        // Within reach the driver has made every descriptor of this lap available.
        if u32::from(ahead) < self.in_reach() && !position.is_of_this_lap(flags) {
            return Err(QueueError::UsedFlags { offset, flags });
        }
        Ok(None)
    }

    /// Checks the used descriptor at the next position against the shadow, and takes the request out of it.
    fn take(&mut self, flags: u16) -> Result<Completion<T>, QueueError> {
        let (id, length) = self.ring.used(self.popped.offset());
        let used = self.options.used_length;
        let limit = self.shadow.get(id.into())?.extent.limit(used);
        // Without WRITE the length is reserved (2.8.7), but there are devices that never set WRITE and mean the length:
        // it counts where it can be true.
        let claimed = if flags & DESCRIPTOR_F_WRITE != 0 || length <= limit { length } else { 0 };
        let (completion, Place(descriptors)) = self.shadow.take(id.into(), claimed, used)?;
        self.shadow.release(id, id);
        self.popped = self.popped.advance(descriptors, self.ring.size());
        self.free += descriptors;
        Ok(completion)
    }

    /// Whether the device has returned chains up to beyond the descriptor `distance` ahead.
    ///
    /// It writes one used descriptor for each chain, so the way leads from chain to chain. It ends also where the device
    /// has broken the rules, which popping will name.
    fn has_used_past(&self, distance: u16) -> bool {
        let mut ahead = 0;
        while u32::from(ahead) < self.in_reach() {
            match self.used_flags(ahead) {
                Ok(None) => return false,
                Ok(Some(_)) => barrier::observe(),
                Err(_) => return true,
            }
            let offset = self.popped.advance(ahead, self.ring.size()).offset();
            let Ok(request) = self.shadow.get(self.ring.used(offset).0.into()) else { return true };
            // Both are at most the size, since `ahead` is in reach.
            ahead += request.place.0;
            if ahead > distance {
                return true;
            }
        }
        false
    }

    /// Tells the device when to interrupt.
    fn set_wish(&mut self, wish: Suppression) {
        if self.wish != wish {
            self.ring.set_driver_suppression(wish);
            self.wish = wish;
        }
    }

    fn poison(&mut self, error: QueueError) -> QueueError {
        *self.poisoned.get_or_insert(error)
    }
}

impl<M: DmaMemory, T> Queue<T> for PackedQueue<M, T> {
    fn size(&self) -> u16 {
        self.ring.size()
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
        let id = self.shadow.claim();
        let place =
            if self.is_indirect(chain.len()) { self.write_indirect(&chain, id) } else { self.write_direct(&chain, id) };
        self.free -= place.0;
        self.shadow.put(id, Request { token, extent, place });
        Ok(())
    }

    fn publish(&mut self) -> Option<Kick> {
        let flags = self.held_back.take()?;
        let (old, new, size) = (self.published, self.added, self.ring.size());
        barrier::publish();
        self.ring.set_flags(old.offset(), flags);
        self.published = new;
        self.shadow.publish();
        barrier::full();
        let wish = self.ring.device_suppression(self.options.event_idx);
        wish.wants(new, new.since(old, size), size).then_some(Kick { progress: new.word() })
    }

    fn pop(&mut self) -> Result<Option<Completion<T>>, QueueError> {
        if let Some(error) = self.poisoned {
            return Err(error);
        }
        let outcome = match self.used_flags(0) {
            Ok(None) => return Ok(None),
            Ok(Some(flags)) => {
                barrier::observe();
                self.take(flags)
            }
            Err(error) => Err(error),
        };
        outcome.map(Some).map_err(|error| self.poison(error))
    }

    fn arm(&mut self, completions: u16) -> bool {
        let outstanding = self.shadow.outstanding().max(1);
        let completions = completions.clamp(1, outstanding);
        // The interrupt is asked for by descriptor: by that which is returned last if all chains are of average length,
        // and which is returned some time in any case.
        let taken = self.ring.size() - self.free;
        let distance = (completions - 1) * (taken / outstanding);
        self.set_wish(if self.options.event_idx {
            Suppression::Descriptor(self.popped.advance(distance, self.ring.size()))
        } else {
            Suppression::Enable
        });
        barrier::full();
        // What was used before the device could see the wish raises no interrupt. A queue that is out of use is not
        // armed either: popping names the error.
        self.poisoned.is_none() && !self.has_used_past(distance)
    }

    fn disarm(&mut self) {
        self.set_wish(Suppression::Disable);
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

#[cfg(test)]
mod tests;
