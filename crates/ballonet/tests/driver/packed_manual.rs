//! Tests the model of packed rings with manual accesses: correct use passes, and each misstep is reported with its
//! clause.

use vm_memory::{Bytes, GuestAddress};

use ballonet_models::feature::{EVENT_IDX, INDIRECT_DESC};
use ballonet_models::{Bus, PackedRing, Ram};

/// Descriptors in the ring.
const SIZE: u16 = 4;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAILABLE: u16 = 0x80;

/// The driver's side of a ring, made of stores only.
struct Hand {
    bus: Bus,
    areas: [u64; 3],
    /// Memory for buffers and tables.
    buffer: u64,
}

impl Hand {
    fn new() -> Self {
        let mut ram = Ram::new(8);
        let mut allocate = |size| ram.allocate_dma(size, 16).unwrap();
        let (areas, buffer) = ([allocate(16 * u64::from(SIZE)), allocate(4), allocate(4)], allocate(4096));
        Self { bus: Bus::new(ram), areas, buffer }
    }

    fn ring(&mut self, features: u64) -> PackedRing {
        PackedRing::new(0, SIZE, self.areas, features, &mut self.bus)
    }

    fn store<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        self.bus.ram.memory().write_obj(value, GuestAddress(at)).unwrap();
    }

    /// Writes a descriptor: address, length, id, flags.
    fn write(&self, at: u64, (address, length, id, flags): (u64, u32, u16, u16)) {
        self.store(at, address);
        self.store(at + 8, length);
        self.store(at + 12, id);
        self.store(at + 14, flags);
    }

    fn put(&self, slot: u64, length: u32, id: u16, flags: u16) {
        self.write(self.areas[0] + 16 * slot, (self.buffer, length, id, flags));
    }

    fn suppress(&self, position: u16, flags: u16) {
        self.store(self.areas[1], position);
        self.store(self.areas[1] + 2, flags);
    }

    /// Lets the device take and return everything. Returns the broken clauses.
    fn serve(mut self, features: u64, between: impl FnOnce(&Self)) -> Vec<&'static str> {
        let mut ring = PackedRing::new(0, SIZE, self.areas, features, &mut Bus::new(Ram::new(8)));
        let requests = ring.take_available(&[], &mut self.bus);
        between(&self);
        for request in &requests {
            ring.check_unchanged(request, &mut self.bus);
            let _ = ring.put_used(core::slice::from_ref(request), 0, &mut self.bus);
        }
        self.bus.missteps().iter().map(|misstep| misstep.clause).collect()
    }
}

#[test]
fn correct_chains_tables_and_events_cause_no_findings() {
    let hand = Hand::new();
    hand.put(0, 8, 2, AVAILABLE | NEXT);
    hand.put(1, 8, 2, AVAILABLE | WRITE);
    hand.put(2, 32, 0, AVAILABLE | INDIRECT);
    hand.write(hand.buffer, (hand.buffer + 64, 4, 0, 0));
    hand.write(hand.buffer + 16, (hand.buffer + 128, 4, 0, WRITE));
    hand.suppress(0x8002, 2);
    assert_eq!(hand.serve(EVENT_IDX | INDIRECT_DESC, |_| {}), [""; 0]);
}

#[test]
fn the_device_distinguishes_chains_and_asks_for_a_kick_at_the_next() {
    let mut hand = Hand::new();
    let mut ring = hand.ring(EVENT_IDX);
    hand.put(0, 8, 1, AVAILABLE | NEXT);
    hand.put(1, 8, 1, AVAILABLE);
    hand.put(2, 8, 0, AVAILABLE);
    assert_eq!(ring.waiting(&hand.bus), 2);
    let heads: Vec<_> = ring.take_available(&[], &mut hand.bus).iter().map(|request| request.head).collect();
    assert_eq!((heads, ring.waiting(&hand.bus)), (vec![1, 0], 0));
    let wish: u32 = hand.bus.ram.memory().read_obj(GuestAddress(hand.areas[2])).unwrap();
    assert_eq!(wish, 0x0002_8003);
}

#[test]
fn the_model_names_the_clause_of_each_misstep_on_a_packed_ring() {
    type Slip = fn(&Hand);
    let before: [(&str, Slip); 10] = [
        ("PACKED-SG-06", |hand| hand.put(0, 8, 0, AVAILABLE | NEXT)),
        ("PACKED-SG-02", |hand| (0..4).for_each(|slot| hand.put(slot, 8, 0, AVAILABLE | NEXT))),
        ("PACKED-SG-02", |hand| hand.put(0, 8, SIZE, AVAILABLE)),
        ("PACKED-SG-03", |hand| {
            hand.put(0, 8, 0, AVAILABLE | NEXT | WRITE);
            hand.put(1, 8, 0, AVAILABLE);
        }),
        ("PACKED-IND-01", |hand| hand.put(0, 16, 0, AVAILABLE | INDIRECT)),
        ("PACKED-IND-04", |hand| {
            hand.put(0, 16, 0, AVAILABLE | INDIRECT | NEXT);
            hand.put(1, 8, 0, AVAILABLE);
        }),
        ("RSVD-05", |hand| hand.write(hand.areas[0], (0x70_0000, 8, 0, AVAILABLE))),
        ("CLEAN-01", |hand| (0..2).for_each(|slot| hand.put(slot, 8, 0, AVAILABLE))),
        ("PACKED-EVENT", |hand| {
            hand.put(0, 8, 0, AVAILABLE);
            hand.suppress(0x8000, 2);
        }),
        ("PACKED-EVENT", |hand| {
            hand.put(0, 8, 0, AVAILABLE);
            hand.suppress(0, 3);
        }),
    ];
    for (clause, slip) in before {
        let hand = Hand::new();
        slip(&hand);
        let found = hand.serve(0, |_| {});
        assert!(found.contains(&clause), "expected {clause}, found {found:?}");
    }
    let between: [(&str, Slip); 3] = [
        ("PACKED-DESC-01", |hand| hand.put(0, 8, 1, AVAILABLE)),
        ("PACKED-DESC-01", |hand| hand.store(hand.areas[0] + 14, 0_u16)),
        ("CLEAN-01", |hand| hand.store(hand.buffer, 1_u8)),
    ];
    for (clause, slip) in between {
        let hand = Hand::new();
        hand.put(0, 8, 0, AVAILABLE);
        let found = hand.serve(0, slip);
        assert_eq!(found, [clause]);
    }
}

#[test]
fn a_table_may_have_no_flag_but_write_and_a_ring_starts_zeroed() {
    let hand = Hand::new();
    hand.put(0, 32, 0, AVAILABLE | INDIRECT);
    hand.write(hand.buffer, (hand.buffer + 64, 4, 0, NEXT));
    hand.write(hand.buffer + 16, (hand.buffer + 64, 4, 0, 0));
    assert_eq!(hand.serve(INDIRECT_DESC, |_| {}), ["PACKED-IND-02"]);
    let mut hand = Hand::new();
    hand.put(3, 8, 0, 0);
    let _ = hand.ring(0);
    assert_eq!(hand.bus.missteps()[0].clause, "PACKED-ZERO");
}

#[test]
fn a_slot_that_was_not_returned_must_not_be_reused() {
    let mut hand = Hand::new();
    let mut ring = hand.ring(0);
    (0..4).for_each(|slot| hand.put(slot, 8, slot as u16, AVAILABLE));
    assert_eq!(ring.take_available(&[], &mut hand.bus).len(), 4);
    // Flags of the next lap, on the descriptor that the device still has.
    hand.put(0, 8, 0, 0x8000);
    let _ = ring.take_available(&[], &mut hand.bus);
    assert!(hand.bus.missteps().iter().any(|misstep| misstep.clause == "PACKED-SG-05"));
}
