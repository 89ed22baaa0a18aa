//! A virtqueue: ownership of requests in flight, free descriptors, completions, and the return of everything at the
//! end.
//!
//! A driver moves the buffers of a request into the queue as a *token*, and gets it back on completion: the queue owns
//! buffers in flight. After a reset of the device or of the queue alone, [`Virtqueue::drain`] returns the tokens of
//! unfinished requests. The [`Ring`] knows the memory format and the notifications.

use super::chain::{Chain, Completion};
use super::error::{QueueError, Refusal, Rejected};
use super::extent::Extent;
use super::format::RingLayout;
use super::index::{QueueAddresses, QueueIndex};
use super::indirect::Tables;
use super::options::{Kick, QueueOptions};
use super::quiesced::Stopped;
use super::ring::Ring;
use super::shadow::{DescriptorSpan, Length, Shadow, Used};
use crate::bus::{DmaMemory, OutOfMemory};
use crate::platform::Platform;
use crate::virtio::barrier;

/// A virtqueue with its memory. `T` is a request's token: the buffers lent to the device, or `()`. The queue owns it
/// until [`pop`](Self::pop) returns it with the completion, or [`release`](Self::release) without one.
///
/// The order of use is [`add`](Self::add) (any number), [`arm`](Self::arm), and
/// [`Running::publish`](crate::virtio::Running::publish), which kicks if the device asks for it. After an interrupt,
/// [`pop`](Self::pop) until `None`. If requests are still outstanding then, `arm` again; if it returns `false`, pop
/// again.
#[derive(Debug)]
pub struct Virtqueue<M: DmaMemory, T> {
    index: QueueIndex,
    pub(super) ring: Ring<M>,
    tables: Option<Tables<M>>,
    options: QueueOptions,
    shadow: Shadow<T>,
    /// `IN_ORDER`: the used entry of a batch that has not been popped completely.
    batch: Option<Used>,
    poisoned: Option<QueueError>,
}

impl<M: DmaMemory, T> Virtqueue<M, T> {
    /// A queue with this number and `layout`, in memory from `platform`.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn allocate<P>(
        platform: &mut P,
        index: QueueIndex,
        layout: RingLayout,
        options: QueueOptions,
    ) -> Result<Self, OutOfMemory>
    where
        P: Platform<Memory = M>,
    {
        let (size, (bytes, align)) = (layout.size(), layout.memory());
        let shadow = Shadow::new(size, options.in_order)?;
        let memory = platform.allocate_dma(bytes, align)?;
        let tables = Tables::allocate(platform, size, options);
        Ok(Self::new(index, memory, tables, shadow, layout, options))
    }

    /// A queue in `memory`, zeroed and laid out as `layout`; `tables` as the options ask for.
    pub(super) fn new(
        index: QueueIndex,
        memory: M,
        tables: Option<Tables<M>>,
        shadow: Shadow<T>,
        layout: RingLayout,
        options: QueueOptions,
    ) -> Self {
        let ring = Ring::new(memory, layout, options);
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

    /// Releases the memory to the platform and returns the tokens of outstanding requests. Panics if `proof` is for
    /// another queue.
    pub fn release<P, S>(self, platform: &mut P, proof: &S) -> impl Iterator<Item = T> + use<P, S, M, T>
    where
        P: Platform<Memory = M>,
        S: Stopped,
    {
        self.expect_covered(proof);
        platform.release_dma(self.ring.into_memory());
        if let Some(tables) = self.tables {
            platform.release_dma(tables.into_memory());
        }
        self.shadow.into_tokens()
    }

    /// Entries in the queue.
    pub fn size(&self) -> u16 {
        self.ring.size()
    }

    /// Requests added but not popped.
    pub fn outstanding(&self) -> u16 {
        self.shadow.outstanding()
    }

    /// Descriptors that are free.
    pub fn free(&self) -> u16 {
        self.shadow.free()
    }

    /// Whether a request of `segments` segments fits now.
    pub fn has_room(&self, segments: usize) -> bool {
        segments <= usize::from(self.ring.size()) && self.needed(segments) <= usize::from(self.shadow.free())
    }

    /// Puts a request into the queue. The device does not see it before [`Virtqueue::publish`].
    ///
    /// # Errors
    /// When it does not fit; the token is returned.
    #[inline]
    pub fn add(&mut self, chain: Chain<'_>, token: T) -> Result<(), Rejected<T>> {
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

    /// Makes all added requests available to the device, by one store. `Some` if it wants a kick.
    #[must_use = "the device may sleep until it is kicked"]
    #[inline]
    pub fn publish(&mut self) -> Option<Kick> {
        self.shadow.publish();
        self.ring.publish()
    }

    /// An unsolicited kick for the published requests: for a device that may have missed an earlier one.
    pub(crate) fn kick(&self) -> Kick {
        self.ring.kick()
    }

    /// Takes the next request that the device has returned; `None` if there is none yet.
    ///
    /// # Errors
    /// When the device broke the rules; the queue is then unusable.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<Completion<T>>, QueueError> {
        if let Some(error) = self.poisoned {
            return Err(error);
        }
        self.take().inspect_err(|error| self.poisoned = Some(*error))
    }

    /// Asks for an interrupt once `completions` more requests are done: clamped to 1 at least and to the outstanding
    /// requests at most, so that the interrupt is sure to come. `false` if they already are done, in which case none
    /// may come: pop them.
    ///
    /// A packed queue counts descriptors, so with chains of different lengths the interrupt may come some requests
    /// early or late.
    #[must_use = "if it returns false, no interrupt may come"]
    pub fn arm(&mut self, completions: u16) -> bool {
        let completions = completions.clamp(1, self.shadow.outstanding().max(1));
        self.ring.arm(completions, &self.shadow);
        barrier::full();
        // Requests used before the device could see the new event raise no interrupt. A broken queue is not armed
        // either, so that the next `pop` reports the error.
        self.poisoned.is_none() && !self.ring.is_done(completions, self.batch, &self.shadow)
    }

    /// Asks the device not to interrupt. Interrupts may still come.
    pub fn disarm(&mut self) {
        self.ring.disarm();
    }

    /// The queue's index.
    pub fn index(&self) -> QueueIndex {
        self.index
    }

    /// Takes back everything in flight. `proof` shows that the device no longer uses the queue; panics if it is for
    /// another queue. The queue cannot be used afterwards.
    pub(crate) fn drain<S: Stopped>(&mut self, proof: &S) -> impl Iterator<Item = T> + use<'_, S, M, T> {
        self.expect_covered(proof);
        self.batch = None;
        self.shadow.drain()
    }

    fn expect_covered(&self, proof: &impl Stopped) {
        assert!(proof.covers(self.index), "{proof:?} is no proof for queue {}", self.index);
    }

    #[inline]
    fn check(&self, chain: &Chain<'_>) -> Result<Extent, Refusal> {
        if let Some(error) = self.poisoned {
            return Err(Refusal::Poisoned(error));
        }
        Extent::check(chain, self.needed(chain.len()), self.shadow.free(), self.ring.size())
    }

    /// Number of queue descriptors that a chain of this length takes.
    #[inline]
    fn needed(&self, length: usize) -> usize {
        if self.is_indirect(length) { 1 } else { length }
    }

    #[inline]
    fn is_indirect(&self, length: usize) -> bool {
        self.tables.as_ref().is_some_and(|tables| tables.carry(length))
    }

    /// Writes the chain into the table of the next ID, and the descriptor that points there.
    fn add_indirect(&mut self, chain: &Chain<'_>) -> DescriptorSpan {
        let id = self.shadow.ids.claim();
        let tables = self.tables.as_mut().expect("a chain is indirect only where there are tables");
        let offset = tables.entry(id, 0);
        self.ring.write_table(tables.memory_mut(), offset, chain);
        self.ring.add_table(id, tables.segment(id, chain.len()));
        DescriptorSpan { id, last: id, descriptors: 1 }
    }

    /// The next completed request, if any.
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

    /// `IN_ORDER`: this used entry completes its request and all before it, which need no entries of their own (2.7.9):
    /// `most` at most.
    fn begin_batch(&mut self, used: Used, most: u16) -> Result<(), QueueError> {
        let requests = self.shadow.batch(used.id)?;
        if requests > most {
            // Its ID is known, so it fits into 16 bits.
            return Err(QueueError::OutOfOrder { id: used.id as u16, requests, most });
        }
        self.batch = Some(used);
        Ok(())
    }

    /// `IN_ORDER`: the oldest request of the batch. The batch ends with its last one.
    fn next_of_batch(&mut self) -> Option<Used> {
        let last = self.batch?;
        let oldest = u32::from(self.shadow.ids.oldest());
        if last.id == oldest {
            self.batch = None;
            return Some(last);
        }
        Some(Used { id: oldest, length: Length::Unsaid })
    }

    /// Pops the next request, checking its used entry against the shadow.
    #[inline]
    fn take(&mut self) -> Result<Option<Completion<T>>, QueueError> {
        let Some(used) = self.used()? else { return Ok(None) };
        let (completion, descriptors) = self.shadow.take(used, self.options.used_length)?;
        self.ring.pop(descriptors);
        Ok(Some(completion))
    }
}

#[cfg(test)]
mod tests;
