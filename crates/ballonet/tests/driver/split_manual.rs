//! Tests the model of split rings with manual accesses: correct use passes, and each misstep is reported with its
//! clause.

use vm_memory::{Bytes, GuestAddress};

use ballonet_models::feature::{EVENT_IDX, IN_ORDER, INDIRECT_DESC, RING_PACKED};
use ballonet_models::{Bus, Purpose, QueueModel, Ram};

/// Descriptors in the table.
const SIZE: u16 = 4;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// The driver's side of a ring, made of stores only.
struct Hand {
    bus: Bus,
    queue: QueueModel,
    table: u64,
    available: u64,
    /// Memory for buffers and tables.
    buffer: u64,
}

impl Hand {
    fn new(features: u64) -> Self {
        let mut ram = Ram::new(8);
        let mut allocate = |size| ram.allocate_dma(size, 16).unwrap();
        let (table, available) = (allocate(16 * u64::from(SIZE)), allocate(6 + 2 * u64::from(SIZE)));
        let (used, buffer) = (allocate(6 + 8 * u64::from(SIZE)), allocate(4096));
        let mut bus = Bus::new(ram);
        let mut queue = QueueModel::new(0, Purpose::Inflate, SIZE);
        for (half, address) in [table, available, used].into_iter().enumerate() {
            queue.halves[2 * half] = Some(address as u32);
            queue.halves[2 * half + 1] = Some((address >> 32) as u32);
        }
        queue.enable(features, &mut bus);
        Self { bus, queue, table, available, buffer }
    }

    fn store<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        self.bus.ram.memory().write_obj(value, GuestAddress(at)).unwrap();
    }

    /// Writes an entry of a table: address, length, flags, next.
    fn put_in(&self, table: u64, slot: u64, (address, length, flags, next): (u64, u32, u16, u16)) {
        let at = table + 16 * slot;
        self.store(at, address);
        self.store(at + 8, length);
        self.store(at + 12, flags);
        self.store(at + 14, next);
    }

    /// Writes a descriptor of the queue: length, flags, next.
    fn put(&self, slot: u64, (length, flags, next): (u32, u16, u16)) {
        self.put_in(self.table, slot, (self.buffer, length, flags, next));
    }

    /// Publishes the chain at slot 0, `index` times.
    fn publish(&self, index: u16) {
        self.store(self.available + 2, index);
    }

    /// Lets the device take everything. Returns the broken clauses.
    fn serve(mut self) -> Vec<&'static str> {
        let _ = self.queue.take_available(&mut self.bus);
        self.bus.missteps().iter().map(|misstep| misstep.clause).collect()
    }
}

#[test]
fn correct_chains_and_tables_cause_no_findings() {
    let hand = Hand::new(EVENT_IDX | INDIRECT_DESC);
    hand.put(0, (8, NEXT, 1));
    hand.put(1, (8, NEXT | WRITE, 3));
    hand.put(3, (8, WRITE, 0));
    hand.put(2, (32, INDIRECT, 0));
    hand.put_in(hand.buffer, 0, (hand.buffer + 64, 4, NEXT, 1));
    hand.put_in(hand.buffer, 1, (hand.buffer + 128, 4, WRITE, 0));
    hand.store(hand.available + 6, 2_u16);
    hand.publish(2);
    assert_eq!(hand.serve(), [""; 0]);
}

#[test]
fn the_model_names_the_clause_of_each_misstep_on_a_split_ring() {
    type Slip = fn(&Hand);
    let slips: [(&str, u64, Slip); 11] = [
        ("SPLIT-FRAME-01", 0, |hand| {
            hand.put(0, (8, NEXT | WRITE, 1));
            hand.put(1, (8, 0, 0));
        }),
        ("SPLIT-DESC-02", 0, |hand| {
            hand.put(0, (8, NEXT, 1));
            hand.put(1, (8, NEXT, 0));
        }),
        ("SPLIT-DESC-02", 0, |hand| hand.put(0, (8, NEXT, SIZE))),
        ("SPLIT-IND-01", 0, |hand| {
            hand.put(0, (16, INDIRECT, 0));
            hand.put_in(hand.buffer, 0, (hand.buffer + 64, 4, 0, 0));
        }),
        ("SPLIT-IND-02", INDIRECT_DESC, |hand| {
            hand.put(0, (16, INDIRECT, 0));
            hand.put_in(hand.buffer, 0, (hand.buffer + 64, 16, INDIRECT, 0));
        }),
        ("SPLIT-IND-04", INDIRECT_DESC, |hand| {
            hand.put(0, (16, INDIRECT | NEXT, 1));
            hand.put(1, (8, 0, 0));
        }),
        ("SPLIT-DESC-03", IN_ORDER, |hand| {
            hand.put(0, (8, NEXT, 2));
            hand.put(2, (8, 0, 0));
        }),
        ("SPLIT-IND-05", IN_ORDER | INDIRECT_DESC, |hand| {
            hand.put(0, (48, INDIRECT, 0));
            hand.put_in(hand.buffer, 0, (hand.buffer + 64, 4, NEXT, 2));
            hand.put_in(hand.buffer, 2, (hand.buffer + 64, 4, 0, 0));
        }),
        ("SPLIT-USUP-01", 0, |hand| {
            hand.put(0, (8, 0, 0));
            hand.store(hand.available, 2_u16);
        }),
        ("SPLIT-USUP-03", EVENT_IDX, |hand| {
            hand.put(0, (8, 0, 0));
            hand.store(hand.available, 1_u16);
        }),
        ("RSVD-05", 0, |hand| hand.put_in(hand.table, 0, (0x70_0000, 8, 0, 0))),
    ];
    for (clause, features, slip) in slips {
        let hand = Hand::new(features);
        slip(&hand);
        hand.publish(1);
        let found = hand.serve();
        assert!(found.contains(&clause), "expected {clause}, found {found:?}");
    }
}

#[test]
fn in_order_descriptors_wrap_at_the_end_of_the_table() {
    for (after_last, found) in [(0, None), (1, Some("SPLIT-DESC-04"))] {
        let mut hand = Hand::new(IN_ORDER);
        (0..3).for_each(|slot| hand.put(slot, (8, if slot < 2 { NEXT } else { 0 }, slot as u16 + 1)));
        hand.publish(1);
        assert_eq!(hand.queue.take_available(&mut hand.bus).len(), 1);
        hand.put(3, (8, NEXT, after_last));
        hand.put(after_last.into(), (8, 0, 0));
        hand.store(hand.available + 6, 3_u16);
        hand.publish(2);
        assert_eq!(hand.serve().first().copied(), found);
    }
}

#[test]
fn an_index_that_goes_back_or_too_far_is_detected() {
    for index in [u16::MAX, SIZE + 1] {
        let hand = Hand::new(0);
        hand.put(0, (8, 0, 0));
        hand.publish(index);
        assert_eq!(hand.serve(), ["SPLIT-AVAIL-01"], "{index:#x}");
    }
}

#[test]
fn a_packed_queue_has_any_size_but_0_and_must_be_aligned() {
    let mut bus = Bus::new(Ram::new(8));
    let mut queue = QueueModel::new(0, Purpose::Inflate, SIZE);
    queue.set_size(3, RING_PACKED, &mut bus);
    assert_eq!(bus.missteps().len(), 0);
    queue.set_size(0, RING_PACKED, &mut bus);
    assert_eq!(bus.missteps()[0].clause, "PCI-COMMON-02");
    queue.halves = [Some(8), Some(0), Some(4), Some(0), Some(2), Some(0)];
    queue.enable(RING_PACKED, &mut bus);
    assert_eq!(bus.missteps()[1].clause, "PACKED-LAY-01");
}
