//! Packed virtqueues (virtio 1.4, 2.8), driver side.
//!
//! One ring of descriptors for both directions. The driver makes a chain available by writing its descriptors in ring
//! order, with the wrap counter of the lap in their flags; the device returns it by a single used descriptor, written
//! over the first one that it has not returned yet, and skips as many descriptors as the chain had. A flag bit
//! distinguishes laps, so there is no index; a buffer ID identifies the chain. With `IN_ORDER` one used descriptor may
//! complete several chains, and the device skips all their descriptors.
//!
//! As in the split queue, everything that the device could tamper with is kept in a private shadow: the length of each
//! chain, free IDs, both positions. The driver reads only used descriptors and the device's event suppression structure
//! from shared memory.

use super::chain::{Chain, Segment};
use super::error::QueueError;
use super::ids::Ids;
use super::index::QueueAddresses;
use super::options::{Kick, QueueOptions};
use super::shadow::{DescriptorSpan, Length, Shadow, Used};
use crate::bus::DmaMemory;
use crate::virtio::barrier;
use crate::virtio::spec::{Descriptor, DescriptorFlags};

mod areas;
mod layout;
mod position;
mod suppression;

use areas::Areas;
pub(super) use layout::PackedLayout;
use position::Position;
use suppression::Suppression;

// Constants: a call of `bits` costs instructions for each descriptor.
const NEXT: u16 = DescriptorFlags::NEXT.bits();
const WRITE: u16 = DescriptorFlags::WRITE.bits();
const INDIRECT: u16 = DescriptorFlags::INDIRECT.bits();

/// The memory of a packed virtqueue, and both sides' positions in it.
#[derive(Debug)]
pub(super) struct PackedRing<M> {
    areas: Areas<M>,
    event_idx: bool,
    in_order: bool,
    /// Where the next chain goes.
    added: Position,
    /// The first descriptor that the device does not see yet.
    published: Position,
    /// The flags for that descriptor, once it heads a chain.
    held_back: Option<u16>,
    /// Where the next used descriptor is expected.
    popped: Position,
    /// The interrupt suppression last written for the device.
    wish: Suppression,
}

impl<M: DmaMemory> PackedRing<M> {
    /// Finishes a chain by writing its head's flags. For the first unpublished chain they are held back until
    /// `publish`, which also hides all later chains: the device takes chains in ring order.
    #[inline]
    fn write_head(&mut self, head: Position, flags: u16) {
        if self.held_back.is_none() {
            self.held_back = Some(flags);
        } else {
            self.areas.set_flags(head.offset(), flags);
        }
    }

    /// Number of published descriptors that the device has not returned.
    #[inline]
    fn in_reach(&self) -> u32 {
        self.published.since(self.popped, self.size())
    }

    /// The flags of the descriptor `ahead` of the next expected used one, if it is used.
    fn used_flags(&self, ahead: u16) -> Result<Option<u16>, QueueError> {
        let position = self.popped.advance(ahead, self.size());
        let flags = self.areas.flags(position.offset());
        if position.is_used(flags) {
            return Ok(Some(flags));
        }
        self.unused(ahead, position, flags).map(|()| None)
    }

    /// Fails if a descriptor that is not used has impossible flags: within reach, the driver has made every descriptor
    /// of this lap available.
    fn unused(&self, ahead: u16, position: Position, flags: u16) -> Result<(), QueueError> {
        if u32::from(ahead) < self.in_reach() && !position.is_of_this_lap(flags) {
            return Err(QueueError::UsedFlags { offset: position.offset(), flags });
        }
        Ok(())
    }

    /// How far ahead the used descriptor of the `completions`th next chain lies, if all chains have average length; the
    /// device passes that descriptor in any case.
    fn distance<T>(&self, completions: u16, shadow: &Shadow<T>) -> u16 {
        let taken = self.size() - shadow.free();
        (completions - 1) * (taken / shadow.outstanding().max(1))
    }

    /// Tells the device when to interrupt.
    fn set_wish(&mut self, wish: Suppression) {
        if self.wish != wish {
            self.areas.set_driver_suppression(wish);
            self.wish = wish;
        }
    }
}

/// The operations of [`super::ring::Ring`].
impl<M: DmaMemory> PackedRing<M> {
    pub(super) fn new(memory: M, layout: PackedLayout, options: QueueOptions) -> Self {
        Self {
            areas: Areas::new(memory, layout),
            event_idx: options.event_idx,
            in_order: options.in_order,
            added: Position::START,
            published: Position::START,
            held_back: None,
            popped: Position::START,
            // As in zeroed memory.
            wish: Suppression::Enable,
        }
    }

    pub(super) fn size(&self) -> u16 {
        self.areas.size()
    }

    pub(super) fn addresses(&self) -> QueueAddresses {
        self.areas.addresses()
    }

    pub(super) fn into_memory(self) -> M {
        self.areas.into_memory()
    }

    #[inline]
    pub(super) fn add_chain(&mut self, chain: &Chain<'_>, ids: &mut Ids) -> DescriptorSpan {
        let (id, head, size) = (ids.claim(), self.added, self.size());
        let mut head_flags = 0;
        for (segment, flags) in chain.flagged() {
            let here = self.added;
            self.areas.write_descriptor(here.offset(), segment, id);
            let flags = flags | here.available();
            if here == head {
                head_flags = flags;
            } else {
                self.areas.set_flags(here.offset(), flags);
            }
            self.added = here.advance(1, size);
        }
        self.write_head(head, head_flags);
        // Checked to be no longer than the queue.
        DescriptorSpan { id, last: id, descriptors: chain.len() as u16 }
    }

    pub(super) fn add_table(&mut self, id: u16, table: Segment) {
        let head = self.added;
        self.areas.write_descriptor(head.offset(), table, id);
        self.added = head.advance(1, self.size());
        self.write_head(head, INDIRECT | head.available());
    }

    /// In a table the entries are in order, and WRITE is the only flag allowed (2.8.19).
    #[inline]
    pub(super) fn write_table(tables: &mut M, offset: usize, chain: &Chain<'_>) {
        for (position, (segment, flags)) in chain.flagged().enumerate() {
            let entry = offset + position * size_of::<Descriptor>();
            areas::write_descriptor(tables, entry, segment, 0);
            areas::set_flags(tables, entry, flags & !NEXT);
        }
    }

    #[inline]
    pub(super) fn publish(&mut self) -> Option<Kick> {
        let flags = self.held_back.take()?;
        let (old, new, size) = (self.published, self.added, self.size());
        barrier::publish();
        self.areas.set_flags(old.offset(), flags);
        self.published = new;
        barrier::full();
        let wish = self.areas.device_suppression(self.event_idx);
        wish.wants(old, new, size).then_some(Kick { progress: new.word() })
    }

    pub(super) fn kick(&self) -> Kick {
        Kick { progress: self.published.word() }
    }

    /// A used descriptor does not tell how many chains it completes, so the limit is `u16::MAX`: all outstanding ones.
    #[inline]
    pub(super) fn used(&self) -> Result<Option<(Used, u16)>, QueueError> {
        let offset = self.popped.offset();
        let flags = self.areas.flags(offset);
        if !self.popped.is_used(flags) {
            return self.unused(0, self.popped, flags).map(|()| None);
        }
        barrier::observe();
        let (id, length) = self.areas.used(offset);
        // Without WRITE the length is reserved (2.8.7), but some devices never set WRITE and still report the length:
        // it counts if it is plausible.
        let length = if flags & WRITE != 0 { Length::Said(length) } else { Length::Perhaps(length) };
        Ok(Some((Used { id: id.into(), length }, u16::MAX)))
    }

    #[inline]
    pub(super) fn pop(&mut self, descriptors: u16) {
        self.popped = self.popped.advance(descriptors, self.size());
    }

    pub(super) fn arm<T>(&mut self, completions: u16, shadow: &Shadow<T>) {
        self.set_wish(if self.event_idx {
            Suppression::Descriptor(self.popped.advance(self.distance(completions, shadow), self.size()))
        } else {
            Suppression::Enable
        });
    }

    /// The device writes one used descriptor per chain or batch, so this walks from one to the next.
    pub(super) fn is_done<T>(&self, completions: u16, batched: Option<Used>, shadow: &Shadow<T>) -> bool {
        let distance = self.distance(completions, shadow);
        let Ok(mut ahead) = batched.map_or(Ok(0), |used| shadow.span(used.id)) else { return true };
        while ahead <= distance && u32::from(ahead) < self.in_reach() {
            match self.used_flags(ahead) {
                Ok(None) => return false,
                Ok(Some(_)) => barrier::observe(),
                Err(_) => return true,
            }
            let offset = self.popped.advance(ahead, self.size()).offset();
            let id = u32::from(self.areas.used(offset).0);
            let end = if self.in_order { shadow.span(id) } else { shadow.descriptors(id).map(|count| ahead + count) };
            match end {
                // An ID that the walk has passed already would loop.
                Ok(end) if end > ahead => ahead = end,
                _ => return true,
            }
        }
        ahead > distance
    }

    pub(super) fn disarm(&mut self) {
        self.set_wish(Suppression::Disable);
    }
}

#[cfg(test)]
mod tests;
