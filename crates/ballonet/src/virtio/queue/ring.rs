//! The ring of a queue, in either format: its shared memory, and both sides' progress in it.

use super::chain::{Chain, Segment};
use super::error::QueueError;
use super::format::{FormatLayout, RingLayout};
use super::ids::Ids;
use super::index::QueueAddresses;
use super::options::{Kick, QueueOptions};
use super::packed::PackedRing;
use super::shadow::{DescriptorSpan, Shadow, Used};
use super::split::SplitRing;
use crate::bus::DmaMemory;

/// A ring and its memory.
#[derive(Debug)]
pub(super) enum Ring<M> {
    Split(SplitRing<M>),
    Packed(PackedRing<M>),
}

/// Dispatches an operation by format.
macro_rules! either {
    ($any:expr, $ring:ident => $operation:expr) => {
        match $any {
            Self::Split($ring) => $operation,
            Self::Packed($ring) => $operation,
        }
    };
}

impl<M: DmaMemory> Ring<M> {
    /// The ring in `memory`, which is zeroed.
    pub(super) fn new(memory: M, layout: RingLayout, options: QueueOptions) -> Self {
        match layout.0 {
            FormatLayout::Split(layout) => Self::Split(SplitRing::new(memory, layout, options)),
            FormatLayout::Packed(layout) => Self::Packed(PackedRing::new(memory, layout, options)),
        }
    }

    /// Entries in the ring.
    #[inline]
    pub(super) fn size(&self) -> u16 {
        either!(self, ring => ring.size())
    }

    /// Where the three areas are.
    pub(super) fn addresses(&self) -> QueueAddresses {
        either!(self, ring => ring.addresses())
    }

    /// The memory, which the device no longer uses.
    pub(super) fn into_memory(self) -> M {
        either!(self, ring => ring.into_memory())
    }

    /// Writes a chain into descriptors of the ring; there must be room. The device does not see it yet.
    #[inline]
    pub(super) fn add_chain(&mut self, chain: &Chain<'_>, ids: &mut Ids) -> DescriptorSpan {
        either!(self, ring => ring.add_chain(chain, ids))
    }

    /// Writes a single descriptor with this ID that points to a table. The device does not see it yet.
    #[inline]
    pub(super) fn add_table(&mut self, id: u16, table: Segment) {
        either!(self, ring => ring.add_table(id, table));
    }

    /// Writes a chain into the table at `offset` of the memory of all tables.
    #[inline]
    pub(super) fn write_table(&self, tables: &mut M, offset: usize, chain: &Chain<'_>) {
        match self {
            Self::Split(_) => SplitRing::write_table(tables, offset, chain),
            Self::Packed(_) => PackedRing::write_table(tables, offset, chain),
        }
    }

    /// Makes all chains available to the device. `Some` if it wants a kick.
    #[inline]
    pub(super) fn publish(&mut self) -> Option<Kick> {
        either!(self, ring => ring.publish())
    }

    /// A kick for the published chains, whether the device wants one or not.
    pub(super) fn kick(&self) -> Kick {
        either!(self, ring => ring.kick())
    }

    /// The next used entry, if there is one, and the most requests that it may complete.
    #[inline]
    pub(super) fn used<T>(&self, shadow: &Shadow<T>) -> Result<Option<(Used, u16)>, QueueError> {
        match self {
            Self::Split(ring) => ring.used(shadow),
            Self::Packed(ring) => ring.used(),
        }
    }

    /// Advances past a completed request of this many descriptors.
    #[inline]
    pub(super) fn pop(&mut self, descriptors: u16) {
        match self {
            Self::Split(ring) => ring.pop(),
            Self::Packed(ring) => ring.pop(descriptors),
        }
    }

    /// Asks for an interrupt once `completions` more requests are done, of at least that many outstanding.
    pub(super) fn arm<T>(&mut self, completions: u16, shadow: &Shadow<T>) {
        match self {
            Self::Split(ring) => ring.arm(completions),
            Self::Packed(ring) => ring.arm(completions, shadow),
        }
    }

    /// Whether `completions` more requests, including `batched`, are done already. Also `true` if the device broke the
    /// rules, so that the next `pop` reports it.
    pub(super) fn is_done<T>(&self, completions: u16, batched: Option<Used>, shadow: &Shadow<T>) -> bool {
        match self {
            Self::Split(ring) => ring.is_done(completions, shadow),
            Self::Packed(ring) => ring.is_done(completions, batched, shadow),
        }
    }

    /// Asks for no interrupts.
    pub(super) fn disarm(&mut self) {
        either!(self, ring => ring.disarm());
    }
}
