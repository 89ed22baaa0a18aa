//! What the two formats of virtqueues have in common: whose a request is, what is free, what came back, and that all of
//! it goes back in the end. A format adds how chains lie in memory and how each side tells the other of them.

use alloc::vec::Vec;
use core::fmt::Debug;

use super::barrier;
use super::extent::Extent;
use super::ids::Ids;
use super::indirect::Tables;
use super::queue::{Chain, Completion, Kick, Queue, QueueError, QueueOptions, Refusal, Rejected, Segment};
use super::quiesced::Stopped;
use super::shadow::{Length, Place, Shadow, Used};
use super::transport::{QueueAddresses, QueueIndex};
use crate::platform::{DmaExhausted, DmaMemory, Platform};

/// A queue's format: its shared memory, and how far each side has got in it.
pub trait Ring: Sized {
    /// The memory that holds it.
    type Memory: DmaMemory;
    /// Its size, and where its areas are.
    type Layout: Copy + Debug;

    /// Entries of a layout, and size and alignment of its memory in bytes.
    fn dimensions(layout: Self::Layout) -> (u16, usize, usize);

    /// The ring in `memory`, zeroed and laid out so.
    fn new(memory: Self::Memory, layout: Self::Layout, options: QueueOptions) -> Self;

    /// Entries in the ring.
    fn size(&self) -> u16;

    /// Where the three areas are.
    fn addresses(&self) -> QueueAddresses;

    /// The memory, which the device no longer knows.
    fn into_memory(self) -> Self::Memory;

    /// Writes a chain into descriptors of the ring, for which there is room. The device does not see it yet.
    fn add_chain(&mut self, chain: &Chain<'_>, ids: &mut Ids) -> Place;

    /// Writes a single descriptor of this id that points to a table. The device does not see it yet.
    fn add_table(&mut self, id: u16, table: Segment);

    /// Writes entry number `position` of a table, which lies at `offset` of the memory of all tables.
    fn write_entry(tables: &mut Self::Memory, offset: usize, position: usize, segment: Segment, flags: u16);

    /// Shows all chains to the device. `Some` if it wants to be kicked for them.
    fn publish(&mut self) -> Option<Kick>;

    /// A kick for what the device has been shown, whether it wants one or not.
    fn kick(&self) -> Kick;

    /// What the device says next, if it says anything, and the most requests that it can have finished by that.
    fn used<T>(&self, shadow: &Shadow<T>) -> Result<Option<(Used, u16)>, QueueError>;

    /// A request of so many descriptors came back.
    fn pop(&mut self, descriptors: u16);

    /// Asks for an interrupt once `completions` more requests are done, of at least that many outstanding.
    fn arm<T>(&mut self, completions: u16, shadow: &Shadow<T>);

    /// Whether so many, `batched` among them, have been done already. Also where the device broke the rules, which
    /// popping will name.
    fn is_done<T>(&self, completions: u16, batched: Option<Used>, shadow: &Shadow<T>) -> bool;

    /// Asks for no interrupts.
    fn disarm(&mut self);
}

/// A virtqueue whose ring is an `R`, with its memory.
#[derive(Debug)]
pub struct RingQueue<R: Ring, T> {
    index: QueueIndex,
    pub(super) ring: R,
    tables: Option<Tables<R::Memory>>,
    options: QueueOptions,
    shadow: Shadow<T>,
    /// `IN_ORDER`: what the device said last of a batch that has not come back in full.
    batch: Option<Used>,
    poisoned: Option<QueueError>,
}

impl<R: Ring, T> RingQueue<R, T> {
    /// The queue with this number, of `layout` and in memory from `platform`.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn allocate<P>(
        platform: &mut P,
        index: QueueIndex,
        layout: R::Layout,
        options: QueueOptions,
    ) -> Result<Self, DmaExhausted>
    where
        P: Platform<Memory = R::Memory>,
    {
        let (size, bytes, align) = R::dimensions(layout);
        let shadow = Shadow::new(size, options.in_order)?;
        let memory = platform.allocate_dma(bytes, align)?;
        let tables = Tables::allocate(platform, size, options);
        Ok(Self::new(index, memory, tables, shadow, layout, options))
    }

    /// A queue in `memory`, zeroed and laid out as `layout`; `tables` as the options ask for.
    pub(super) fn new(
        index: QueueIndex,
        memory: R::Memory,
        tables: Option<Tables<R::Memory>>,
        shadow: Shadow<T>,
        layout: R::Layout,
        options: QueueOptions,
    ) -> Self {
        let ring = R::new(memory, layout, options);
        Self { index, ring, tables, options, shadow, batch: None, poisoned: None }
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
        P: Platform<Memory = R::Memory>,
    {
        let tokens = self.drain(proof);
        platform.release_dma(self.ring.into_memory());
        if let Some(tables) = self.tables {
            platform.release_dma(tables.into_memory());
        }
        tokens
    }

    #[inline]
    fn check(&self, chain: &Chain<'_>) -> Result<Extent, Refusal> {
        if let Some(error) = self.poisoned {
            return Err(Refusal::Poisoned(error));
        }
        Extent::check(chain, self.needed(chain.len()), self.shadow.free(), self.ring.size())
    }

    /// How many descriptors a chain of this length takes.
    #[inline]
    fn needed(&self, length: usize) -> usize {
        if self.is_indirect(length) { 1 } else { length }
    }

    #[inline]
    fn is_indirect(&self, length: usize) -> bool {
        self.tables.as_ref().is_some_and(|tables| tables.carry(length))
    }

    /// Writes the chain into the table that belongs to the next id, and the one descriptor that points there.
    fn add_indirect(&mut self, chain: &Chain<'_>) -> Place {
        let id = self.shadow.ids.claim();
        let tables = self.tables.as_mut().expect("a chain is indirect only where there are tables");
        for (position, (segment, flags)) in chain.flagged().enumerate() {
            let offset = tables.entry(id, position);
            R::write_entry(tables.memory_mut(), offset, position, segment, flags);
        }
        self.ring.add_table(id, tables.segment(id, chain.len()));
        Place { id, last: id, descriptors: 1 }
    }

    /// The request that comes back next, if the device is done with it.
    #[inline]
    fn used(&mut self) -> Result<Option<Used>, QueueError> {
        if self.batch.is_none() {
            let Some((used, most)) = self.ring.used(&self.shadow)? else { return Ok(None) };
            if !self.options.in_order {
                return Ok(Some(used));
            }
            self.begin_batch(used, most)?;
        }
        Ok(self.next_of_batch())
    }

    /// `IN_ORDER`: the device is done with this request and by that with all before, of which it need not say anything
    /// (2.7.9); with `most` at most.
    fn begin_batch(&mut self, used: Used, most: u16) -> Result<(), QueueError> {
        let requests = self.shadow.batch(used.id)?;
        if requests > most {
            // Its id is known, so it has 16 bits.
            return Err(QueueError::OutOfOrder { id: used.id as u16, requests, most });
        }
        self.batch = Some(used);
        Ok(())
    }

    /// `IN_ORDER`: the oldest request of the batch. The last one ends it.
    fn next_of_batch(&mut self) -> Option<Used> {
        let last = self.batch?;
        let oldest = u32::from(self.shadow.ids.oldest());
        if last.id == oldest {
            self.batch = None;
            return Some(last);
        }
        Some(Used { id: oldest, length: Length::Unsaid })
    }

    /// Takes the next request, checking what the device says against the shadow.
    #[inline]
    fn take(&mut self) -> Result<Option<Completion<T>>, QueueError> {
        let Some(used) = self.used()? else { return Ok(None) };
        let (completion, descriptors) = self.shadow.take(used, self.options.used_length)?;
        self.ring.pop(descriptors);
        Ok(Some(completion))
    }
}

impl<R: Ring, T> Queue<T> for RingQueue<R, T> {
    fn size(&self) -> u16 {
        self.ring.size()
    }

    fn outstanding(&self) -> u16 {
        self.shadow.outstanding()
    }

    fn free(&self) -> u16 {
        self.shadow.free()
    }

    fn has_room(&self, segments: usize) -> bool {
        segments <= usize::from(self.ring.size()) && self.needed(segments) <= usize::from(self.shadow.free())
    }

    #[inline]
    fn add(&mut self, chain: Chain<'_>, token: T) -> Result<(), Rejected<T>> {
        let extent = match self.check(&chain) {
            Ok(extent) => extent,
            Err(reason) => return Err(Rejected { reason, token }),
        };
        let place = if self.is_indirect(chain.len()) {
            self.add_indirect(&chain)
        } else {
            self.ring.add_chain(&chain, &mut self.shadow.ids)
        };
        self.shadow.put(token, extent, place);
        Ok(())
    }

    #[inline]
    fn publish(&mut self) -> Option<Kick> {
        self.shadow.publish();
        self.ring.publish()
    }

    fn kick(&self) -> Kick {
        self.ring.kick()
    }

    #[inline]
    fn pop(&mut self) -> Result<Option<Completion<T>>, QueueError> {
        if let Some(error) = self.poisoned {
            return Err(error);
        }
        self.take().inspect_err(|error| self.poisoned = Some(*error))
    }

    fn arm(&mut self, completions: u16) -> bool {
        let completions = completions.clamp(1, self.shadow.outstanding().max(1));
        self.ring.arm(completions, &self.shadow);
        barrier::full();
        // What was used before the device could see the wish raises no interrupt. A queue that is out of use is not
        // armed either: popping names the error.
        self.poisoned.is_none() && !self.ring.is_done(completions, self.batch, &self.shadow)
    }

    fn disarm(&mut self) {
        self.ring.disarm();
    }

    fn index(&self) -> QueueIndex {
        self.index
    }

    fn drain(&mut self, proof: &impl Stopped) -> Vec<T> {
        assert!(proof.covers(self.index), "{proof:?} is no proof for queue {}", self.index);
        self.batch = None;
        self.shadow.drain()
    }
}
