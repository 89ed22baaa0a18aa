//! Packed virtqueues (virtio 1.4, 2.8), driver side.
//!
//! One ring of descriptors for both directions. The driver makes a chain available by writing its descriptors in ring
//! order, with the wrap counter of the lap in their flags; the device returns it by a single used descriptor, written
//! over the first one that it has not returned yet, and goes on behind as many descriptors as the chain had. A bit of
//! the flags tells laps apart, so there is no index; chains are told apart by a buffer id. With `IN_ORDER` one used
//! descriptor may stand for several chains, and the device goes on behind all of them.
//!
//! As in the split queue, all that the device could have tampered with is kept in a private shadow: the length of each
//! chain, free ids, both positions. Of the shared memory only used descriptors and the device's event suppression
//! structure are read.

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

/// The memory of a packed virtqueue, and the positions in it.
#[derive(Debug)]
pub(super) struct PackedRing<M> {
    areas: Areas<M>,
    event_idx: bool,
    in_order: bool,
    /// Where the next chain goes.
    added: Position,
    /// The first descriptor that the device does not see yet: it must not look further than that.
    published: Position,
    /// The flags of that descriptor, once there is a chain.
    held_back: Option<u16>,
    /// Where the device returns the next chain.
    popped: Position,
    /// The interrupt suppression last written for the device.
    wish: Suppression,
}

impl<M: DmaMemory> PackedRing<M> {
    /// Finishes a chain by the flags of its head. Those of the first chain that the device has not seen are held back
    /// until it is published, and with them all later chains: the device takes chains in the order of the ring.
    #[inline]
    fn write_head(&mut self, head: Position, flags: u16) {
        if self.held_back.is_none() {
            self.held_back = Some(flags);
        } else {
            self.areas.set_flags(head.offset(), flags);
        }
    }

    /// Descriptors that the device may return, from where it returns the next chain.
    #[inline]
    fn in_reach(&self) -> u32 {
        self.published.since(self.popped, self.size())
    }

    /// The flags of the descriptor `ahead` of where the next chain is returned, if it is a used one.
    fn used_flags(&self, ahead: u16) -> Result<Option<u16>, QueueError> {
        let position = self.popped.advance(ahead, self.size());
        let flags = self.areas.flags(position.offset());
        if position.is_used(flags) {
            return Ok(Some(flags));
        }
        self.unused(ahead, position, flags).map(|()| None)
    }

    /// Whether a descriptor that is not a used one may be what its flags say: within reach the driver has made every
    /// descriptor of this lap available.
    fn unused(&self, ahead: u16, position: Position, flags: u16) -> Result<(), QueueError> {
        if u32::from(ahead) < self.in_reach() && !position.is_of_this_lap(flags) {
            return Err(QueueError::UsedFlags { offset: position.offset(), flags });
        }
        Ok(())
    }

    /// How far ahead the descriptor is by which the device has returned `completions` more chains, if all are of
    /// average length; it returns that one some time in any case.
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
            // What zeroed memory says.
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
        // No longer than the queue: that was checked.
        DescriptorSpan { id, last: id, descriptors: chain.len() as u16 }
    }

    pub(super) fn add_table(&mut self, id: u16, table: Segment) {
        let head = self.added;
        self.areas.write_descriptor(head.offset(), table, id);
        self.added = head.advance(1, self.size());
        self.write_head(head, INDIRECT | head.available());
    }

    /// In a table the order is that of its entries, and WRITE is the one flag that they may have (2.8.19).
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

    /// A used descriptor does not say how many chains it stands for: as many as are outstanding, at most.
    #[inline]
    pub(super) fn used(&self) -> Result<Option<(Used, u16)>, QueueError> {
        let offset = self.popped.offset();
        let flags = self.areas.flags(offset);
        if !self.popped.is_used(flags) {
            return self.unused(0, self.popped, flags).map(|()| None);
        }
        barrier::observe();
        let (id, length) = self.areas.used(offset);
        // Without WRITE the length is reserved (2.8.7), but there are devices that never set WRITE and mean the length:
        // it counts where it can be true.
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

    /// The device writes one used descriptor for each chain or batch, so the way leads from one to the next.
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
                // An id that was passed already leads nowhere.
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
