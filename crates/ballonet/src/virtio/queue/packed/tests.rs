//! The queue against a hand-written device that works, in order and out of order, wrapping at every size.

use proptest::prelude::*;

use super::*;
use crate::virtio::fake::{RAM_ADDRESS, Ram};
use crate::virtio::queue::format::{FormatLayout, RingLayout};
use crate::virtio::queue::indirect::Tables;
use crate::virtio::queue::{QueueIndex, Quiesced, Refusal, Rejected, Virtqueue};

mod device;
mod hostile;
mod in_order;
mod notification;

use device::{Device, Fixture, Taken, options, queue};

const fn segment(length: u32) -> Segment {
    Segment { address: 0x1000, length }
}

fn add(queue: &mut Virtqueue<Ram, u32>, token: u32) {
    queue.add(Chain::readable(&[segment(4)]), token).unwrap();
}

fn token(queue: &mut Virtqueue<Ram, u32>) -> Option<u32> {
    queue.pop().unwrap().map(|done| done.token)
}

#[test]
fn tokens_return_with_their_requests_in_any_order() {
    let (mut queue, mut device) = queue(5, options(false));
    for token in 0..5 {
        add(&mut queue, token);
    }
    assert_eq!((queue.free(), queue.outstanding()), (0, 5));
    assert!(queue.publish().is_some());
    let taken: Vec<_> = core::iter::from_fn(|| device.take()).collect();
    for which in [2, 0, 3, 1, 4] {
        device.put(&taken[which]);
        assert_eq!(token(&mut queue), Some(which as u32));
    }
    assert_eq!(queue.pop(), Ok(None));
    assert_eq!((queue.free(), queue.outstanding()), (5, 0));
}

#[test]
fn a_request_overtaken_for_many_laps_still_completes() {
    let (mut queue, mut device) = queue(3, options(false));
    add(&mut queue, u32::MAX);
    let _ = queue.publish();
    let slow = device.take().unwrap();
    for round in 0..1000 {
        add(&mut queue, round);
        let _ = queue.publish();
        device.serve();
        assert_eq!(token(&mut queue), Some(round));
    }
    add(&mut queue, 1);
    device.put(&slow);
    assert_eq!(token(&mut queue), Some(u32::MAX), "neither its ID nor its age is mistaken for another's");
}

#[test]
fn the_device_sees_readable_segments_before_writable_ones() {
    let (mut queue, mut device) = queue(8, options(false));
    let readable = [Segment { address: 0xa000, length: 1 }, Segment { address: 0xb000, length: 2 }];
    let writable = [Segment { address: 0xc000, length: 3 }];
    queue.add(Chain { readable: &readable, writable: &writable }, 0).unwrap();
    queue.publish().unwrap();
    let taken = device.take().unwrap();
    assert_eq!(taken.segments, [(0xa000, 1, false), (0xb000, 2, false), (0xc000, 3, true)]);
    assert_eq!(queue.free(), 5);
}

#[test]
fn nothing_is_seen_before_it_is_published_and_then_all_at_once() {
    let (mut queue, mut device) = queue(7, options(false));
    for round in 0..20 {
        for token in 0..5 {
            add(&mut queue, token);
            assert!(device.take().is_none(), "round {round}, token {token}");
        }
        let kick = queue.publish().unwrap();
        assert_eq!(queue.publish(), None, "nothing new, so no kick");
        assert_eq!((0..5).filter_map(|_| device.take().map(|taken| device.put(&taken))).count(), 5);
        let progress = device.seen.0 | u16::from(device.seen.1) << 15;
        assert_eq!(kick, Kick { progress }, "a kick carries the progress");
        (0..5).for_each(|expected| assert_eq!(token(&mut queue), Some(expected)));
    }
}

#[test]
fn publishing_stores_only_the_flags_of_the_first_head() {
    let (mut queue, device) = queue(8, options(false));
    queue.add(Chain::readable(&[segment(1); 3]), 0).unwrap();
    queue.add(Chain::readable(&[segment(1); 2]), 1).unwrap();
    let before: Vec<_> = (0..8).map(|offset| device.descriptor(offset)).collect();
    let _ = queue.publish();
    let changed: Vec<_> = (0..8).filter(|offset| device.descriptor(*offset) != before[usize::from(*offset)]).collect();
    assert_eq!(changed, [0]);
    assert_eq!(before[0].3, 0, "the flags were still those of the previous lap, the rest was written");
    assert_eq!(before[0].1, 1);
}

#[test]
fn a_full_queue_gives_the_token_back() {
    let (mut queue, _) = queue(3, options(false));
    queue.add(Chain::readable(&[segment(4); 2]), 1).unwrap();
    let rejected = queue.add(Chain::readable(&[segment(4); 2]), 2).unwrap_err();
    assert_eq!(rejected, Rejected { reason: Refusal::Full { needed: 2, free: 1 }, token: 2 });
}

#[test]
fn chains_that_no_queue_may_carry_are_refused() {
    let (mut queue, _) = queue(2, options(false));
    let mut refuse = |chain: Chain<'_>| queue.add(chain, 0).unwrap_err().reason;
    assert_eq!(refuse(Chain::default()), Refusal::Empty);
    assert_eq!(refuse(Chain::readable(&[segment(0)])), Refusal::Empty);
    assert_eq!(refuse(Chain::readable(&[segment(1); 3])), Refusal::TooLong { length: 3, size: 2 });
    assert_eq!(refuse(Chain::writable(&[segment(u32::MAX), segment(1)])), Refusal::TooLarge(1 << 32));
}

#[test]
fn a_table_carries_no_more_than_the_queue() {
    let (mut queue, _) = queue(4, QueueOptions { indirect_entries: 8, ..options(false) });
    let refused = queue.add(Chain::readable(&[segment(4); 5]), 0).unwrap_err();
    assert_eq!(refused.reason, Refusal::TooLong { length: 5, size: 4 });
    queue.add(Chain::readable(&[segment(4); 4]), 1).unwrap();
    assert_eq!(queue.free(), 3);
}

#[test]
fn chains_of_every_length_cross_the_wrap_at_every_size() {
    for size in 1..=9 {
        let (mut queue, mut device) = queue(size, options(false));
        for round in 0..u32::from(size) * 8 {
            let length = 1 + round as usize % usize::from(size);
            let segments: Vec<_> = (0..length).map(|at| Segment { address: at as u64, length: round + 1 }).collect();
            queue.add(Chain::readable(&segments), round).unwrap();
            let _ = queue.publish();
            let taken = device.take().unwrap();
            let expected: Vec<_> = segments.iter().map(|it| (it.address, it.length, false)).collect();
            assert_eq!((usize::from(taken.count), &taken.segments), (length, &expected), "size {size}");
            device.put(&taken);
            assert_eq!(token(&mut queue), Some(round));
            assert_eq!(queue.free(), size);
        }
    }
}

#[test]
fn wrap_counters_turn_over_at_every_size_and_option() {
    for (size, event_idx) in [(1, false), (1, true), (2, true), (3, true), (100, true), (257, false), (257, true)] {
        let (mut queue, mut device) = queue(size, options(event_idx));
        for round in 0..u32::from(size) * 5 {
            device.wait();
            add(&mut queue, round);
            assert!(queue.publish().is_some(), "a device that waits is kicked (size {size}, round {round})");
            assert!(queue.arm(1), "nothing is done yet");
            device.serve();
            assert!(device.interrupts(), "so an interrupt comes (size {size}, round {round})");
            assert!(!queue.arm(1), "a completion before arming shows in arming");
            assert_eq!(token(&mut queue), Some(round));
            assert_eq!(queue.pop(), Ok(None));
        }
    }
}

#[test]
fn the_largest_queue_can_be_full() {
    let (mut queue, mut device) = queue(32768, options(true));
    for lap in 0..3 {
        device.wait();
        for token in 0..32768 {
            add(&mut queue, token);
        }
        assert_eq!((queue.free(), queue.outstanding()), (0, 32768));
        assert_eq!(queue.publish(), Some(Kick { progress: if lap % 2 == 0 { 0 } else { 0x8000 } }));
        assert!(queue.arm(32768));
        device.passed.clear();
        (0..32767).for_each(|_| device.serve());
        assert!(!device.interrupts());
        device.serve();
        assert!(device.interrupts());
        (0..32768).for_each(|expected| assert_eq!(token(&mut queue), Some(expected)));
    }
}

#[test]
fn the_transport_is_told_where_the_three_areas_are() {
    let (queue, device) = queue(5, options(true));
    let [driver, area] = [device.layout.driver(), device.layout.device()].map(|offset| RAM_ADDRESS + offset as u64);
    assert_eq!(queue.addresses(), QueueAddresses { descriptors: RAM_ADDRESS, driver, device: area });
}

#[test]
fn chains_of_several_segments_go_through_a_table_if_there_are_tables() {
    let (mut queue, mut device) = queue(3, QueueOptions { indirect_entries: 3, ..options(false) });
    let readable = [Segment { address: 0xa000, length: 1 }, Segment { address: 0xb000, length: 2 }];
    let writable = [Segment { address: 0xc000, length: 3 }];
    for round in 0..10 {
        queue.add(Chain { readable: &readable, writable: &writable }, 0).unwrap();
        add(&mut queue, 1);
        queue.add(Chain::readable(&readable), 2).unwrap();
        assert_eq!(queue.free(), 0, "one descriptor each");
        let _ = queue.publish();
        let taken: Vec<_> = core::iter::from_fn(|| device.take()).collect();
        assert_eq!(taken[0].segments, [(0xa000, 1, false), (0xb000, 2, false), (0xc000, 3, true)]);
        assert_eq!(taken[1].segments, [(0x1000, 4, false)], "a single segment needs no table");
        assert_eq!(taken[2].segments, [(0xa000, 1, false), (0xb000, 2, false)]);
        let order = [[0, 1, 2], [2, 0, 1], [1, 2, 0]][round % 3];
        for which in order {
            device.put(&taken[which]);
            assert_eq!(token(&mut queue), Some(which as u32));
        }
    }
}

#[test]
fn the_written_length_is_reported_and_bounded() {
    let (mut queue, mut device) = queue(4, options(false));
    let mut round = |length, flags| {
        queue.add(Chain::writable(&[segment(8)]), 0).unwrap();
        let _ = queue.publish();
        let taken = device.take().unwrap();
        device.put_with(taken.id, length, 1, flags);
        queue.pop().unwrap().unwrap().written
    };
    assert_eq!(round(8, 2), 8);
    assert_eq!(round(5, 0), 5, "some devices report the length without WRITE");
    assert_eq!(round(u32::MAX, 0), 0, "without WRITE the field may hold anything");
}

#[derive(Debug, Clone)]
enum Step {
    Add(u8),
    Publish,
    Take,
    Serve(u8),
    Pop,
    Arm(u8),
    Disarm,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..5u8).prop_map(Step::Add),
        Just(Step::Publish),
        Just(Step::Take),
        (0..8u8).prop_map(Step::Serve),
        Just(Step::Pop),
        (1..6u8).prop_map(Step::Arm),
        Just(Step::Disarm),
    ]
}

proptest! {
    #[test]
    fn every_token_returns_exactly_once_in_any_order(
        size in 1..12u16,
        event_idx: bool,
        indirect: bool,
        steps in prop::collection::vec(step(), 0..400),
    ) {
        let indirect_entries = if indirect { 3 } else { 0 };
        let (mut queue, mut device) = queue(size, QueueOptions { indirect_entries, ..options(event_idx) });
        let (mut next, mut back) = (0, Vec::new());
        let mut held = Vec::new();
        for step in steps {
            match step {
                Step::Add(length) => {
                    let segments = [segment(4); 4];
                    let added = queue.add(Chain::readable(&segments[..usize::from(length)]), next);
                    next += u32::from(added.is_ok());
                }
                Step::Publish => _ = queue.publish(),
                Step::Take => held.extend(device.take()),
                Step::Serve(which) => if !held.is_empty() {
                    let taken = held.swap_remove(usize::from(which) % held.len());
                    device.put(&taken);
                },
                Step::Pop => back.extend(queue.pop().unwrap().map(|done| done.token)),
                Step::Arm(completions) => _ = queue.arm(completions.into()),
                Step::Disarm => queue.disarm(),
            }
            prop_assert!(queue.free() <= size && u32::from(queue.outstanding()) == next - back.len() as u32);
        }
        back.extend(queue.drain(&Quiesced::new()));
        back.sort_unstable();
        prop_assert_eq!(back, (0..next).collect::<Vec<_>>());
    }
}
