//! A virtqueue of either layout. Which one it is follows from the features; whoever uses it does not see it.

use alloc::vec::Vec;

use derive_more::Display;

use super::device::Quiesced;
use super::packed::{PackedLayout, PackedQueue};
use super::queue::{Chain, Completion, Kick, Queue, QueueError, QueueOptions, Rejected};
use super::spec::Features;
use super::split::{Alignment, Layout, SplitQueue};
use super::transport::QueueAddresses;
use crate::platform::{DmaExhausted, DmaMemory, Platform};

/// How queues are laid out in memory: all queues of a device in one way.
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
pub enum Virtqueue<M, T> {
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
    /// A queue of `layout` in memory from `platform`.
    ///
    /// # Errors
    /// When there is no memory for it; what was taken has been given back.
    pub fn allocate<P>(platform: &mut P, layout: RingLayout, options: QueueOptions) -> Result<Self, DmaExhausted>
    where
        P: Platform<Memory = M>,
    {
        match layout {
            RingLayout::Split(layout) => SplitQueue::allocate(platform, layout, options).map(Self::Split),
            RingLayout::Packed(layout) => PackedQueue::allocate(platform, layout, options).map(Self::Packed),
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
    pub fn release<P>(self, platform: &mut P, proof: &Quiesced) -> Vec<T>
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

    fn add(&mut self, chain: Chain<'_>, token: T) -> Result<(), Rejected<T>> {
        either!(self, queue => queue.add(chain, token))
    }

    fn publish(&mut self) -> Option<Kick> {
        either!(self, queue => queue.publish())
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

    fn drain(&mut self, proof: &Quiesced) -> Vec<T> {
        either!(self, queue => queue.drain(proof))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::Segment;
    use crate::virtio::fake::FakePlatform;

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
            let mut queue = Virtqueue::allocate(&mut FakePlatform::new(), layout, options).unwrap();
            let segments = [Segment { address: 0x1000, length: 4 }; 3];
            queue.add(Chain::readable(&segments), 'a').unwrap();
            assert!(queue.publish().is_some());
            assert_eq!((queue.size(), queue.free(), queue.outstanding()), (8, 7, 1));
            assert_eq!(queue.pop(), Ok(None));
            assert!(queue.arm(1));
            queue.disarm();
            assert_eq!(queue.poisoned(), None);
            assert_eq!(queue.release(&mut FakePlatform::new(), &Quiesced::for_test()), ['a']);
        }
    }
}
