//! Both formats behind one queue type, and draining with proofs of a reset.

use core::panic::AssertUnwindSafe;

use super::*;
use crate::virtio::fake::FakePlatform;
use crate::virtio::queue::quiesced::{QueueQuiesced, Quiesced};
use crate::virtio::queue::{RingFormat, Segment};
use crate::virtio::spec::Features;

#[test]
fn the_features_choose_the_queue_and_both_work_behind_one_trait() {
    for (features, word) in [(Features::VERSION_1, "split"), (Features::VERSION_1 | Features::RING_PACKED, "packed")] {
        let format = RingFormat::of(features);
        assert_eq!(format.to_string(), word);
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
        assert!(queue.release(&mut FakePlatform::new(), &Quiesced::new()).eq(['a']));
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
fn resetting_a_queue_returns_its_requests_in_flight() {
    for format in [RingFormat::Split, RingFormat::Packed] {
        let proof = QueueQuiesced::new(QueueIndex::new(2).unwrap());
        assert!(busy(format, 2).release(&mut FakePlatform::new(), &proof).eq(['a']));
    }
}

#[test]
fn resetting_another_queue_returns_nothing() {
    for format in [RingFormat::Split, RingFormat::Packed] {
        let proof = QueueQuiesced::new(QueueIndex::new(1).unwrap());
        let mut queue = busy(format, 2);
        let drained = std::panic::catch_unwind(AssertUnwindSafe(|| drop(queue.drain(&proof))));
        assert!(drained.is_err() && queue.outstanding() == 1, "what is in flight stays there");
    }
}
