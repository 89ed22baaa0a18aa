//! The queue against a hand-written device: working, lying, and with wrapping indices.

use crate::virtio::spec::DescriptorFlags;
use proptest::prelude::*;

use super::*;
use crate::virtio::fake::{RAM_ADDRESS, Ram};
use crate::virtio::queue::format::{FormatLayout, RingLayout};
use crate::virtio::queue::indirect::Tables;
use crate::virtio::queue::ring::Ring;
use crate::virtio::queue::{Completion, QueueIndex, Quiesced, Refusal, Rejected, UsedLength, Virtqueue};

mod clauses;
mod in_order;
mod lies;

type Fixture = (Virtqueue<Ram, u32>, Device);

/// The device side of the queue. It has no checks, since the driver is under test.
struct Device {
    ram: Ram,
    tables: Option<Ram>,
    layout: SplitLayout,
    /// The next available entry to read.
    seen: u16,
    used: u16,
}

fn options(event_idx: bool) -> QueueOptions {
    QueueOptions { event_idx, ..QueueOptions::default() }
}

fn queue(size: u16, options: QueueOptions) -> Fixture {
    let layout = SplitLayout::new(size, Alignment::Modern).unwrap();
    let ram = Ram::new(layout.bytes());
    let (tables, device_tables) = Tables::for_test(size, options);
    let device = Device { ram: ram.clone(), tables: device_tables, layout, seen: 0, used: 0 };
    let shadow = Shadow::new(size, options.in_order).unwrap();
    (Virtqueue::new(QueueIndex::FIRST, ram, tables, shadow, RingLayout(FormatLayout::Split(layout)), options), device)
}

/// A queue whose indices have run up to `start` already.
fn queue_at(size: u16, options: QueueOptions, start: u16) -> Fixture {
    let (mut queue, mut device) = queue(size, options);
    let Ring::Split(ring) = &mut queue.ring else { panic!("it is split") };
    (ring.added, ring.published, ring.popped) = (start, start, start);
    (device.seen, device.used) = (start, start);
    device.set_used_index(start);
    device.ram.store(device.layout.available() + 2, start.to_le_bytes());
    (queue, device)
}

impl Device {
    fn read16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.ram.load(offset))
    }

    fn available_index(&self) -> u16 {
        self.read16(self.layout.available() + 2)
    }

    fn set_used_index(&self, index: u16) {
        self.ram.store(self.layout.used() + 2, index.to_le_bytes());
    }

    fn set_available_event(&self, index: u16) {
        self.ram.store(self.layout.available_event(), index.to_le_bytes());
    }

    fn used_event(&self) -> u16 {
        self.read16(self.layout.used_event())
    }

    /// A descriptor: address, length, flags, next.
    fn descriptor(&self, ram: &Ram, offset: usize) -> (u64, u32, u16, u16) {
        let load16 = |at| u16::from_le_bytes(ram.load(offset + at));
        (u64::from_le_bytes(ram.load(offset)), u32::from_le_bytes(ram.load(offset + 8)), load16(12), load16(14))
    }

    /// The descriptors of a chain: address, length, flags without NEXT.
    fn chain(&self, head: u16) -> Vec<(u64, u32, u16)> {
        let mut chain = Vec::new();
        let mut index = head;
        loop {
            let (address, length, flags, next) = self.descriptor(&self.ram, usize::from(index) * 16);
            chain.push((address, length, flags & !1));
            assert!(chain.len() <= usize::from(self.layout.size()), "a chain that loops");
            if flags & 1 == 0 {
                return chain;
            }
            index = next;
        }
    }

    /// The head of the next available chain.
    fn take(&mut self) -> Option<u16> {
        if self.seen == self.available_index() {
            return None;
        }
        let offset = self.layout.available() + 4 + usize::from(self.seen % self.layout.size()) * 2;
        self.seen = self.seen.wrapping_add(1);
        Some(self.read16(offset))
    }

    /// Writes a used entry and shows it.
    fn put(&mut self, id: u32, length: u32) {
        self.put_batch(id, length, 1);
    }

    /// Publishes one used entry for several requests.
    fn put_batch(&mut self, id: u32, length: u32, requests: u16) {
        let offset = self.layout.used() + 4 + usize::from(self.used % self.layout.size()) * 8;
        self.ram.store(offset, id.to_le_bytes());
        self.ram.store(offset + 4, length.to_le_bytes());
        self.used = self.used.wrapping_add(requests);
        self.set_used_index(self.used);
    }

    /// Finishes the next available chain.
    fn serve(&mut self) {
        let head = self.take().expect("something is available");
        self.put(head.into(), 0);
    }
}

const fn segment(length: u32) -> Segment {
    Segment { address: 0x1000, length }
}

fn add(queue: &mut Virtqueue<Ram, u32>, token: u32) {
    queue.add(Chain::readable(&[segment(4)]), token).unwrap();
}

#[test]
fn tokens_return_with_their_requests_in_any_order() {
    let (mut queue, mut device) = queue(4, options(false));
    for token in 0..4 {
        add(&mut queue, token);
    }
    assert_eq!((queue.free(), queue.outstanding()), (0, 4));
    assert!(queue.publish().is_some());
    let heads: Vec<u16> = core::iter::from_fn(|| device.take()).collect();
    for (head, token) in [(heads[2], 2), (heads[0], 0), (heads[3], 3), (heads[1], 1)] {
        device.put(head.into(), 0);
        assert_eq!(queue.pop().unwrap().map(|done| done.token), Some(token));
    }
    assert_eq!(queue.pop(), Ok(None));
    assert_eq!((queue.free(), queue.outstanding()), (4, 0));
}

#[test]
fn the_device_sees_readable_segments_before_writable_ones() {
    let (mut queue, mut device) = queue(8, options(false));
    let readable = [Segment { address: 0xa000, length: 1 }, Segment { address: 0xb000, length: 2 }];
    let writable = [Segment { address: 0xc000, length: 3 }];
    queue.add(Chain { readable: &readable, writable: &writable }, 0).unwrap();
    queue.publish().unwrap();
    let head = device.take().unwrap();
    assert_eq!(device.chain(head), [(0xa000, 1, 0), (0xb000, 2, 0), (0xc000, 3, 2)]);
    assert_eq!(queue.free(), 5);
}

#[test]
fn nothing_is_seen_before_it_is_published_and_then_all_at_once() {
    let (mut queue, device) = queue(8, options(false));
    for token in 0..5 {
        add(&mut queue, token);
        assert_eq!(device.available_index(), 0);
    }
    assert_eq!(queue.publish(), Some(Kick { progress: 5 }));
    assert_eq!(device.available_index(), 5);
    assert_eq!(queue.publish(), None, "nothing new, so no kick");
}

#[test]
fn a_full_queue_gives_the_token_back() {
    let (mut queue, _) = queue(1, options(false));
    add(&mut queue, 1);
    let rejected = queue.add(Chain::readable(&[segment(4)]), 2).unwrap_err();
    assert_eq!(rejected, Rejected { reason: Refusal::Full { needed: 1, free: 0 }, token: 2 });
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
fn descriptors_of_long_chains_are_all_free_again_after_many_rounds() {
    let (mut queue, mut device) = queue(8, options(false));
    for round in 0..1000 {
        let segments = [segment(4); 8];
        queue.add(Chain::readable(&segments[..1 + round % 5]), 0).unwrap();
        queue.add(Chain::writable(&segments[..1 + round % 3]), 1).unwrap();
        let _ = queue.publish();
        let heads = [device.take().unwrap(), device.take().unwrap()];
        for head in heads.into_iter().rev() {
            device.chain(head);
            device.put(head.into(), 0);
            assert!(queue.pop().unwrap().is_some());
        }
        assert_eq!(queue.free(), 8);
    }
    add(&mut queue, 7);
    let _ = queue.publish();
    assert_eq!(device.available_index(), 2001);
}

#[test]
fn indices_wrap_at_every_size_and_option() {
    for (size, event_idx) in [(1, false), (1, true), (2, true), (256, true), (32768, false), (32768, true)] {
        let (mut queue, mut device) = queue_at(size, options(event_idx), 0xfff0);
        for token in 0..64 {
            device.set_available_event(device.seen);
            add(&mut queue, token);
            assert!(queue.publish().is_some(), "a device that waits is kicked (size {size}, token {token})");
            assert!(queue.arm(1), "nothing is done yet");
            device.serve();
            assert!(!queue.arm(1), "a completion before arming shows in arming");
            assert_eq!(queue.pop().unwrap().map(|done| done.token), Some(token));
            assert_eq!(queue.pop(), Ok(None));
        }
    }
}

#[test]
fn a_full_window_of_the_largest_queue_is_not_an_index_jump() {
    let (mut queue, mut device) = queue_at(32768, options(true), 0x9000);
    for token in 0..32768 {
        add(&mut queue, token);
    }
    assert!(queue.publish().is_some() || device.available_index() == 0x1000);
    while let Some(head) = device.take() {
        device.put(head.into(), 0);
    }
    for token in 0..32768 {
        assert_eq!(queue.pop().unwrap().map(|done| done.token), Some(token));
    }
}

#[test]
fn without_event_idx_only_the_flag_decides_whether_to_kick() {
    let (mut queue, device) = queue(4, options(false));
    device.set_available_event(0x7777);
    add(&mut queue, 0);
    assert!(queue.publish().is_some());
    device.ram.store(device.layout.used(), USED_F_NO_NOTIFY.to_le_bytes());
    add(&mut queue, 1);
    assert!(queue.publish().is_none());
    assert_eq!(device.available_index(), 2, "published nevertheless");
}

#[test]
fn with_event_idx_only_the_index_decides_whether_to_kick() {
    let (mut queue, device) = queue(8, options(true));
    device.ram.store(device.layout.used(), USED_F_NO_NOTIFY.to_le_bytes());
    add(&mut queue, 0);
    assert!(queue.publish().is_some(), "the flag is ignored");
    device.set_available_event(2);
    add(&mut queue, 1);
    assert!(queue.publish().is_none(), "entry 1 is not the one it waits for");
    add(&mut queue, 2);
    add(&mut queue, 3);
    assert!(queue.publish().is_some(), "entry 2 is in the batch");
}

#[test]
fn suppression_follows_the_negotiated_features() {
    let (mut queue, device) = self::queue(4, options(true));
    queue.disarm();
    let _ = queue.arm(1);
    queue.disarm();
    assert_eq!(device.read16(device.layout.available()), 0, "with EVENT_IDX the flags stay 0");
    let (mut queue, device) = self::queue(4, options(false));
    queue.disarm();
    assert_eq!(device.read16(device.layout.available()), 1);
    assert!(queue.arm(1));
    assert_eq!(device.read16(device.layout.available()), 0);
    assert_eq!(device.used_event(), 0, "without EVENT_IDX used_event is left alone");
}

#[test]
fn arming_for_several_completions_asks_for_the_last_of_them() {
    let (mut queue, mut device) = queue_at(8, options(true), 0xfffe);
    for token in 0..6 {
        add(&mut queue, token);
    }
    let _ = queue.publish();
    assert!(queue.arm(4));
    assert_eq!(device.used_event(), 0xfffeu16.wrapping_add(3));
    (0..3).for_each(|_| device.serve());
    assert!(queue.arm(4), "three of four: the interrupt is still to come");
    device.serve();
    assert!(!queue.arm(4), "the fourth came before the arming");
    assert!(queue.arm(100) && device.used_event() == 0xfffeu16.wrapping_add(5), "clamped to the outstanding requests");
}

#[test]
fn chains_of_several_segments_go_through_a_table_if_there_are_tables() {
    let (mut queue, mut device) = queue(4, QueueOptions { indirect_entries: 3, ..options(false) });
    let readable = [Segment { address: 0xa000, length: 1 }, Segment { address: 0xb000, length: 2 }];
    let writable = [Segment { address: 0xc000, length: 3 }];
    queue.add(Chain { readable: &readable, writable: &writable }, 0).unwrap();
    add(&mut queue, 1);
    queue.add(Chain::readable(&readable), 2).unwrap();
    assert_eq!(queue.free(), 1, "one descriptor each");
    queue.publish().unwrap();

    let tables = device.tables.clone().unwrap();
    let head = device.take().unwrap();
    let (address, length, flags, _) = device.descriptor(&device.ram, usize::from(head) * 16);
    assert_eq!((length, flags), (48, DescriptorFlags::INDIRECT.bits()), "INDIRECT never stands beside NEXT");
    assert!(address.is_multiple_of(16));
    let start = (address - RAM_ADDRESS) as usize;
    let table: Vec<_> = (0..3).map(|entry| device.descriptor(&tables, start + 16 * entry)).collect();
    assert_eq!(table[0], (0xa000, 1, 1, 1));
    assert_eq!(table[1], (0xb000, 2, 1, 2));
    assert_eq!((table[2].0, table[2].1, table[2].2), (0xc000, 3, 2));
    let single = device.take().unwrap();
    assert_eq!(device.chain(single), [(0x1000, 4, 0)], "a single segment needs no table");
    for head in [head, single] {
        device.put(head.into(), 0);
        assert!(queue.pop().unwrap().is_some());
    }
    assert_eq!(queue.free(), 3);
}

/// Whether an entry index is among those from `old` to before `new`, step by step.
fn is_among(event: u16, new: u16, old: u16) -> bool {
    let mut index = old;
    while index != new {
        if index == event {
            return true;
        }
        index = index.wrapping_add(1);
    }
    false
}

#[derive(Debug, Clone)]
enum Step {
    Add(u8),
    Publish,
    Serve(u8),
    Pop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![(1..4u8).prop_map(Step::Add), Just(Step::Publish), (0..8u8).prop_map(Step::Serve), Just(Step::Pop),]
}

proptest! {
    #[test]
    fn event_arithmetic_agrees_with_counting(old: u16, advance in 0..=0x8000u16, distance in -3..0x8003i32) {
        let new = old.wrapping_add(advance);
        let event = old.wrapping_add(distance as u16);
        prop_assert_eq!(needs_event(event, new, old), is_among(event, new, old));
    }

    #[test]
    fn every_token_returns_exactly_once(
        steps in prop::collection::vec(step(), 0..300),
        start: u16,
        event_idx: bool,
    ) {
        let (mut queue, mut device) = queue_at(8, options(event_idx), start);
        let (mut next, mut back) = (0, Vec::new());
        let mut held = Vec::new();
        for step in steps {
            match step {
                Step::Add(length) => {
                    let segments = [segment(4); 3];
                    let added = queue.add(Chain::readable(&segments[..usize::from(length)]), next);
                    next += u32::from(added.is_ok());
                }
                Step::Publish => _ = queue.publish(),
                Step::Serve(which) => {
                    held.extend(core::iter::from_fn(|| device.take()));
                    if !held.is_empty() {
                        let head = held.swap_remove(usize::from(which) % held.len());
                        device.put(head.into(), 0);
                    }
                }
                Step::Pop => back.extend(queue.pop().unwrap().map(|done| done.token)),
            }
            prop_assert!(queue.free() <= 8 && u32::from(queue.outstanding()) == next - back.len() as u32);
        }
        back.extend(queue.drain(&Quiesced::new()));
        back.sort_unstable();
        prop_assert_eq!(back, (0..next).collect::<Vec<_>>());
    }

    #[test]
    fn no_used_ring_contents_cause_a_panic_or_invent_tokens(
        index: u16,
        entries in prop::collection::vec((prop_oneof![0..10u32, any::<u32>()], any::<u32>()), 8),
    ) {
        let (mut queue, mut device) = queue(8, options(true));
        for token in 0..5 {
            add(&mut queue, token);
        }
        let _ = queue.publish();
        for (id, length) in entries {
            device.put(id, length);
        }
        device.set_used_index(index);
        let mut tokens = Vec::new();
        while let Ok(Some(done)) = queue.pop() {
            tokens.push(done.token);
        }
        tokens.extend(queue.drain(&Quiesced::new()));
        tokens.sort_unstable();
        prop_assert_eq!(tokens, [0, 1, 2, 3, 4]);
    }
}
