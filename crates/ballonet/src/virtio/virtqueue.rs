//! A virtqueue of either layout. The features decide which; its users do not see it.

use alloc::vec::Vec;

use derive_more::Display;

use super::packed::{PackedLayout, PackedQueue};
use super::queue::{Chain, Completion, Kick, Queue, QueueError, QueueOptions, Rejected};
use super::quiesced::Stopped;
use super::spec::Features;
use super::split::{Alignment, Layout, SplitQueue};
use super::transport::{QueueAddresses, QueueIndex, TransportKind};
use crate::platform::{DmaExhausted, DmaMemory, Platform};

/// How queues are laid out in memory; the same for all queues of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub enum RingFormat {
    /// Three areas: descriptor table, available ring, used ring (2.7).
    #[display("split")]
    Split,
    /// One ring of descriptors (2.8).
    #[display("packed")]
    Packed,
}

impl RingFormat {
    /// The format that goes with the features that driver and device agreed on.
    pub const fn of(features: Features) -> Self {
        if features.contains(Features::RING_PACKED) { Self::Packed } else { Self::Split }
    }

    /// The word for it: `split` or `packed`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::Packed => "packed",
        }
    }
}

/// The layout of a queue in one of the formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingLayout {
    /// Of a split queue.
    Split(Layout),
    /// Of a packed queue.
    Packed(PackedLayout),
}

impl RingLayout {
    /// The largest queue of at most `most` entries; for a modern device. Split queues have a power of two. `None` if
    /// `most` is 0.
    pub fn fitting(format: RingFormat, most: u16) -> Option<Self> {
        match format {
            RingFormat::Split => Layout::new(1 << most.checked_ilog2()?, Alignment::Modern).map(Self::Split),
            RingFormat::Packed => PackedLayout::new(most).map(Self::Packed),
        }
    }

    /// The layout of a queue for which a device says `size`, in the format of the accepted `features`, of at most `limit`
    /// entries. A legacy device's queue has that size and no other. `None` where it cannot be.
    pub fn for_device(transport: TransportKind, features: Features, size: u16, limit: u16) -> Option<Self> {
        match transport {
            TransportKind::Legacy => Layout::new(size, Alignment::Legacy).map(Self::Split),
            TransportKind::Modern => Self::fitting(RingFormat::of(features), size.min(limit.max(1))),
        }
    }

    /// Entries in the queue.
    pub const fn size(self) -> u16 {
        match self {
            Self::Split(layout) => layout.size(),
            Self::Packed(layout) => layout.size(),
        }
    }
}

/// A virtqueue with its memory, in one of the formats.
#[derive(Debug)]
pub enum Virtqueue<M: DmaMemory, T> {
    /// A split queue.
    Split(SplitQueue<M, T>),
    /// A packed queue.
    Packed(PackedQueue<M, T>),
}

/// Does the same with either queue.
macro_rules! either {
    ($queue:expr, $inner:ident => $action:expr) => {
        match $queue {
            Self::Split($inner) => $action,
            Self::Packed($inner) => $action,
        }
    };
}

impl<M: DmaMemory, T> Virtqueue<M, T> {
    /// The queue with this number, of `layout` and in memory from `platform`.
    ///
    /// # Errors
    /// When there is no memory for it; what was taken has been given back.
    pub fn allocate<P>(
        platform: &mut P,
        index: QueueIndex,
        layout: RingLayout,
        options: QueueOptions,
    ) -> Result<Self, DmaExhausted>
    where
        P: Platform<Memory = M>,
    {
        match layout {
            RingLayout::Split(layout) => SplitQueue::allocate(platform, index, layout, options).map(Self::Split),
            RingLayout::Packed(layout) => PackedQueue::allocate(platform, index, layout, options).map(Self::Packed),
        }
    }

    /// Where the three areas are, for the transport.
    pub fn addresses(&self) -> QueueAddresses {
        either!(self, queue => queue.addresses())
    }

    /// Whether the device broke the rules, and how.
    pub fn poisoned(&self) -> Option<QueueError> {
        either!(self, queue => queue.poisoned())
    }

    /// Gives the memory back to the platform, and what was outstanding to the caller.
    pub fn release<P>(self, platform: &mut P, proof: &impl Stopped) -> Vec<T>
    where
        P: Platform<Memory = M>,
    {
        either!(self, queue => queue.release(platform, proof))
    }
}

impl<M: DmaMemory, T> Queue<T> for Virtqueue<M, T> {
    fn size(&self) -> u16 {
        either!(self, queue => queue.size())
    }

    fn outstanding(&self) -> u16 {
        either!(self, queue => queue.outstanding())
    }

    fn free(&self) -> u16 {
        either!(self, queue => queue.free())
    }

    fn has_room(&self, segments: usize) -> bool {
        either!(self, queue => queue.has_room(segments))
    }

    fn add(&mut self, chain: Chain<'_>, token: T) -> Result<(), Rejected<T>> {
        either!(self, queue => queue.add(chain, token))
    }

    fn publish(&mut self) -> Option<Kick> {
        either!(self, queue => queue.publish())
    }

    fn kick(&self) -> Kick {
        either!(self, queue => queue.kick())
    }

    fn pop(&mut self) -> Result<Option<Completion<T>>, QueueError> {
        either!(self, queue => queue.pop())
    }

    fn arm(&mut self, completions: u16) -> bool {
        either!(self, queue => queue.arm(completions))
    }

    fn disarm(&mut self) {
        either!(self, queue => queue.disarm());
    }

    fn index(&self) -> QueueIndex {
        either!(self, queue => queue.index())
    }

    fn drain(&mut self, proof: &impl Stopped) -> Vec<T> {
        either!(self, queue => queue.drain(proof))
    }
}

#[cfg(test)]
mod tests {
    use core::panic::AssertUnwindSafe;

    use super::*;
    use crate::virtio::fake::FakePlatform;
    use crate::virtio::{QueueQuiesced, Quiesced, Segment};

    #[test]
    fn split_queues_take_a_power_of_two_of_what_the_device_offers_and_packed_ones_all() {
        let size = |format, most| RingLayout::fitting(format, most).map(RingLayout::size);
        for (most, split, packed) in [
            (0, None, None),
            (1, Some(1), Some(1)),
            (48, Some(32), Some(48)),
            (32767, Some(16384), Some(32767)),
            (32768, Some(32768), Some(32768)),
        ] {
            assert_eq!((size(RingFormat::Split, most), size(RingFormat::Packed, most)), (split, packed), "{most}");
        }
    }

    #[test]
    fn the_features_choose_the_queue_and_both_work_behind_one_trait() {
        for (features, word) in
            [(Features::VERSION_1, "split"), (Features::VERSION_1 | Features::RING_PACKED, "packed")]
        {
            let format = RingFormat::of(features);
            assert_eq!(format.word(), word);
            let layout = RingLayout::fitting(format, 8).unwrap();
            let options = QueueOptions { indirect_entries: 4, ..QueueOptions::default() };
            let mut queue = Virtqueue::allocate(&mut FakePlatform::new(), QueueIndex::FIRST, layout, options).unwrap();
            let segments = [Segment { address: 0x1000, length: 4 }; 3];
            queue.add(Chain::readable(&segments), 'a').unwrap();
            assert!(queue.publish().is_some());
            assert_eq!((queue.size(), queue.free(), queue.outstanding()), (8, 7, 1));
            assert_eq!(queue.pop(), Ok(None));
            assert!(queue.arm(1));
            queue.disarm();
            assert_eq!(queue.poisoned(), None);
            assert_eq!(queue.release(&mut FakePlatform::new(), &Quiesced::new()), ['a']);
        }
    }

    /// A queue with this number and a request in flight.
    fn busy(format: RingFormat, number: u16) -> Virtqueue<crate::virtio::fake::Ram, char> {
        let (index, layout) = (QueueIndex::new(number).unwrap(), RingLayout::fitting(format, 8).unwrap());
        let options = QueueOptions::default();
        let mut queue = Virtqueue::allocate(&mut FakePlatform::new(), index, layout, options).unwrap();
        queue.add(Chain::readable(&[Segment { address: 0x1000, length: 4 }]), 'a').unwrap();
        let _ = queue.publish();
        queue
    }

    #[test]
    fn the_reset_of_a_queue_gives_back_what_was_in_flight_there() {
        for format in [RingFormat::Split, RingFormat::Packed] {
            let proof = QueueQuiesced::new(QueueIndex::new(2).unwrap());
            assert_eq!(busy(format, 2).release(&mut FakePlatform::new(), &proof), ['a']);
        }
    }

    #[test]
    fn the_reset_of_another_queue_gives_nothing_back() {
        for format in [RingFormat::Split, RingFormat::Packed] {
            let proof = QueueQuiesced::new(QueueIndex::new(1).unwrap());
            let mut queue = busy(format, 2);
            let drained = std::panic::catch_unwind(AssertUnwindSafe(|| queue.drain(&proof)));
            assert!(drained.is_err() && queue.outstanding() == 1, "what is in flight stays there");
        }
    }
}
