//! The split ring on the device's side: rust-vmm's, with checks of the driver's half of it. Packed rings are delegated
//! to [`PackedRing`](super::PackedRing).

use std::sync::atomic::Ordering;

use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress};

use super::request::bytes;
use super::{Descriptor, INDIRECT, Lie, NEXT, PackedRing, QueueModel, Request, WRITE};
use crate::world::Bus;

impl QueueModel {
    fn descriptor(at: u64, bus: &Bus) -> Option<Descriptor> {
        let raw: [u8; 16] = bus.ram.memory().read_obj(GuestAddress(at)).ok()?;
        let u16_at = |i: usize| u16::from_le_bytes([raw[i], raw[i + 1]]);
        let u32_at = |i: usize| u32::from(u16_at(i)) | u32::from(u16_at(i + 2)) << 16;
        Some(Descriptor {
            address: u64::from(u32_at(0)) | u64::from(u32_at(4)) << 32,
            length: u32_at(8),
            flags: u16_at(12),
            next: u16_at(14),
        })
    }

    /// Takes all available requests.
    pub fn take_available(&mut self, bus: &mut Bus) -> Vec<Request> {
        if let Some(ring) = &mut self.packed {
            return ring.take_available(&self.in_flight, bus);
        }
        let flags = self.load16(self.ring.avail_ring(), bus);
        if flags > u16::from(!self.event_idx) {
            let clause = if self.event_idx { "SPLIT-USUP-03" } else { "SPLIT-USUP-01" };
            bus.misstep(clause, format!("queue {}: available flags {flags:#x}", self.index));
        }
        if self.waiting(bus) > self.size() {
            bus.misstep("SPLIT-AVAIL-01", format!("queue {}: {} buffers published", self.index, self.waiting(bus)));
            return Vec::new();
        }
        let memory = bus.ram.memory().clone();
        let mut taken = Vec::new();
        while let Some(chain) = self.ring.pop_descriptor_chain(memory.as_ref()) {
            let head = chain.head_index();
            let request = self.walk(head, bus);
            if let Some(request) = request.as_ref().filter(|_| self.in_order) {
                self.check_order(request, bus);
            }
            taken.extend(request);
        }
        let _ = self.ring.enable_notification(memory.as_ref());
        taken
    }

    /// Checks that the driver uses table and indirect tables in order, wrapping at the table's end.
    fn check_order(&mut self, request: &Request, bus: &mut Bus) {
        let (mut expected, mut clauses) = (self.next_slot, ["SPLIT-DESC-03", "SPLIT-DESC-04"]);
        for (slot, descriptor) in &request.chain {
            if *slot != expected {
                let clause = clauses[usize::from(expected == 0)];
                bus.misstep(clause, format!("queue {}: slot {slot} where {expected} is next", self.index));
            }
            if descriptor.flags & INDIRECT != 0 {
                (expected, clauses) = (0, ["SPLIT-IND-05"; 2]);
            } else {
                expected = (slot + 1) % self.size();
            }
        }
        let in_ring =
            request.chain.iter().position(|(_, d)| d.flags & INDIRECT != 0).map_or(request.chain.len(), |_| 1);
        self.next_slot = (self.next_slot + in_ring as u16) % self.size();
    }

    /// Walks the chain from `head`, checking each descriptor.
    fn walk(&self, head: u16, bus: &mut Bus) -> Option<Request> {
        let wrong = |bus: &mut Bus, clause, what: &str| {
            bus.misstep(clause, format!("queue {} head {head}: {what}", self.index));
        };
        if self.in_flight.iter().any(|r| r.slots().any(|slot| slot == head)) {
            wrong(bus, "CLEAN-01", "descriptor made available again before it was used");
        }
        let mut request = Request { head, due: 0, chain: Vec::new(), bytes: Vec::new() };
        let (mut slot, mut table, mut limit) = (head, self.ring.desc_table(), self.size());
        let mut seen_writable = false;
        // The descriptor that points to a table is not part of the chain.
        let (mut left, mut in_table) = (self.size(), false);
        loop {
            if slot >= limit || left == 0 {
                let first = request.chain.is_empty();
                let what = match (left, first) {
                    (0, _) => "the chain does not end",
                    (_, true) => "the head leaves the table",
                    (_, false) => "next leaves the table",
                };
                wrong(bus, "SPLIT-DESC-02", what);
                return None;
            }
            let descriptor = Self::descriptor(table + 16 * u64::from(slot), bus)?;
            request.chain.push((slot, descriptor));
            if descriptor.flags & INDIRECT != 0 {
                if !self.indirect {
                    wrong(bus, "SPLIT-IND-01", "indirect descriptor not negotiated");
                }
                // A table may be the ring itself.
                if std::mem::replace(&mut in_table, true) {
                    wrong(bus, "SPLIT-IND-02", "a table inside a table");
                    return None;
                }
                if descriptor.flags & NEXT != 0 {
                    wrong(bus, "SPLIT-IND-04", "indirect descriptor chained");
                    return None;
                }
                (table, slot, limit) = (descriptor.address, 0, (descriptor.length / 16) as u16);
                continue;
            }
            left -= 1;
            if !bus.ram.is_drivers(descriptor.address, descriptor.length.into()) {
                wrong(bus, "RSVD-05", &format!("buffer {:#x} is not the driver's to lend", descriptor.address));
                return None;
            }
            if descriptor.flags & WRITE != 0 {
                seen_writable = true;
            } else {
                if seen_writable {
                    wrong(bus, "SPLIT-FRAME-01", "readable descriptor after a writable one");
                }
                request.bytes.extend(bytes(&descriptor, bus));
            }
            if descriptor.flags & NEXT == 0 {
                return Some(request);
            }
            slot = descriptor.next;
        }
    }

    /// Checks that the driver did not change a request since the device took it: descriptors and readable bytes.
    pub(crate) fn check_unchanged(&self, request: &Request, bus: &mut Bus) {
        if let Some(ring) = &self.packed {
            return ring.check_unchanged(request, bus);
        }
        let (mut readable, mut table) = (Vec::new(), self.ring.desc_table());
        for (slot, descriptor) in &request.chain {
            if Self::descriptor(table + 16 * u64::from(*slot), bus) != Some(*descriptor) {
                bus.misstep("CLEAN-01", format!("queue {}: descriptor {slot} changed in flight", self.index));
            }
            if descriptor.flags & INDIRECT != 0 {
                table = descriptor.address;
            } else if descriptor.flags & WRITE == 0 {
                readable.extend(bytes(descriptor, bus));
            }
        }
        if readable != request.bytes {
            bus.misstep("CLEAN-01", format!("queue {}: buffer of {} changed in flight", self.index, request.head));
        }
    }

    /// Returns requests to the driver by a single used entry. Whether the driver wants an interrupt for it.
    pub fn put_used(&mut self, requests: &[Request], length: u32, bus: &mut Bus) -> bool {
        self.completed += requests.len() as u64;
        if let Some(ring) = &mut self.packed {
            return ring.put_used(requests, length, bus);
        }
        let memory = bus.ram.memory().clone();
        let start = self.ring.next_used();
        for request in requests {
            self.ring.add_used(memory.as_ref(), request.head, length).expect("used ring in RAM");
        }
        if let [.., last] = requests
            && requests.len() > 1
        {
            self.write_batch(start, requests.len() as u16, last.head, length, bus);
        }
        let wanted = self.ring.needs_notification(memory.as_ref()).expect("rings in RAM");
        wanted && (self.event_idx || self.load16(self.ring.avail_ring(), bus) & 1 == 0)
    }

    /// The first entry of a batch completes all of it; the driver must not read the others.
    fn write_batch(&self, start: u16, requests: u16, last: u16, length: u32, bus: &Bus) {
        let memory = bus.ram.memory();
        let entry = |step: u16| self.ring.used_ring() + 4 + 8 * u64::from(start.wrapping_add(step) % self.size());
        memory.write_obj([u32::from(last), length], GuestAddress(entry(0))).expect("used ring in RAM");
        for step in 1..requests {
            memory.write_obj([u32::MAX; 2], GuestAddress(entry(step))).expect("used ring in RAM");
        }
    }

    /// Writes a used entry with any contents, and advances the device by `advance` entries (on a packed ring,
    /// descriptors).
    pub fn forge_used(&mut self, id: u32, length: u32, advance: u16, bus: &Bus) {
        if let Some(ring) = &mut self.packed {
            return ring.forge_used(id as u16, length, advance, bus);
        }
        let memory = bus.ram.memory();
        let (ring, at) = (self.ring.used_ring(), self.ring.next_used());
        let element = GuestAddress(ring + 4 + 8 * u64::from(at % self.size()));
        memory.write_obj(id.to_le(), element).expect("used ring in RAM");
        memory.write_obj(length.to_le(), GuestAddress(element.0 + 4)).expect("used ring in RAM");
        let index = at.wrapping_add(advance);
        memory.store(index.to_le(), GuestAddress(ring + 2), Ordering::Release).expect("used ring in RAM");
        self.ring.set_next_used(index);
    }

    /// Overwrites the mark of a completion: the used index, or on a packed ring the flags of the next descriptor to be
    /// used.
    pub fn forge_mark(&self, value: u16, bus: &Bus) {
        let at = self.packed.as_ref().map_or(self.ring.used_ring() + 2, PackedRing::mark);
        bus.ram.memory().store(value, GuestAddress(at), Ordering::Release).expect("ring in RAM");
    }

    /// Tells a lie in the used ring instead of completing `request`. `last` is the id used before.
    pub fn lie(&mut self, lie: Lie, request: &Request, last: Option<u32>, bus: &Bus) {
        if let Some(ring) = &mut self.packed {
            return ring.lie(lie, request, &self.in_flight, last, bus);
        }
        let head = request.head;
        let size = self.size();
        let in_use = |slot| self.in_flight.iter().any(|r| r.chain.iter().any(|(used, _)| *used == slot));
        let free = (0..size).rev().find(|slot| *slot != head && !in_use(*slot));
        let head = u32::from(head);
        match lie {
            Lie::IdOutOfRange => self.forge_used(u32::from(size), 0, 1, bus),
            Lie::IdNotInFlight => self.forge_used(free.map_or(head + 0x1_0000, u32::from), 0, 1, bus),
            Lie::IdRepeated => self.forge_used(last.unwrap_or(head), 0, 1, bus),
            Lie::LengthTooLong => self.forge_used(head, u32::MAX, 1, bus),
            Lie::OutOfOrder => {
                let later = self.in_flight.last().map_or(request.head, |later| later.head);
                self.forge_used(later.into(), 0, 1, bus);
            }
            Lie::IndexJumps => self.forge_used(head, 0, size + 1, bus),
            Lie::IndexGoesBack => self.forge_used(head, 0, u16::MAX, bus),
        }
    }
}
