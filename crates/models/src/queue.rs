//! One virtqueue of a device: the fields through which the driver sets it up, its ring (rust-vmm's, or a packed one), and
//! the requests taken from it. Checks the driver's half of the split ring.

use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::behaviour::{Lie, feature};
use super::bug::Bug;
use super::bus::Bus;
use super::packed::PackedRing;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;
/// The vector that stands for none.
pub const NO_VECTOR: u16 = 0xffff;

/// What a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Inflate,
    Deflate,
    Statistics,
    Hint,
    Reporting,
    /// Requests for random bytes.
    Entropy,
    /// Something of the VMM's own.
    Own,
    /// Nothing: what comes is completed.
    Spare,
    /// A gap in the numbering.
    Missing,
}

/// A descriptor as it lies in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    pub address: u64,
    pub length: u32,
    pub flags: u16,
    pub next: u16,
}

/// A buffer that the device has taken from the available ring and not returned.
#[derive(Debug, Clone)]
pub struct Request {
    /// The first descriptor; on a packed ring the buffer id.
    pub head: u16,
    pub due: u64,
    /// The descriptors that the chain uses, with their slots in the table or ring.
    pub chain: Vec<(u16, Descriptor)>,
    /// The device-readable bytes.
    pub bytes: Vec<u8>,
}

impl Request {
    /// The slots of the ring that it takes: those of a table are none.
    fn slots(&self) -> impl Iterator<Item = u16> {
        let table = self.chain.iter().position(|(_, descriptor)| descriptor.flags & INDIRECT != 0);
        self.chain.iter().take(table.map_or(self.chain.len(), |at| at + 1)).map(|(slot, _)| *slot)
    }
}

/// Which of the six halves of the three addresses have been written.
type Halves = [Option<u32>; 6];

/// A queue and its registers.
#[derive(Debug)]
pub struct QueueModel {
    pub index: u16,
    pub purpose: Purpose,
    pub max_size: u16,
    pub vector: u16,
    /// The vector has been written and not read back since.
    pub vector_unread: bool,
    pub enabled: bool,
    /// What `queue_enable` shows of a queue that a bug left enabled.
    pub shown_enabled: bool,
    /// When the reset of this queue that is under way will be done.
    pub resetting: Option<u64>,
    /// It was reset by itself and not enabled since; whether it had a vector before.
    pub idle: Option<bool>,
    pub halves: Halves,
    size: u16,
    /// The split ring.
    ring: Queue,
    /// The packed ring, once the queue is enabled and if that is what was negotiated.
    packed: Option<PackedRing>,
    pub in_flight: Vec<Request>,
    pub kicks: u64,
    pub completed: u64,
    /// How often it was reset by itself.
    pub resets: u64,
    /// The time at which a kick is to be handled.
    pub kicked: Option<u64>,
    indirect: bool,
    event_idx: bool,
    in_order: bool,
    /// With `IN_ORDER`: the slot of the table that the driver uses next.
    next_slot: u16,
}

impl QueueModel {
    pub fn new(index: u16, purpose: Purpose, max_size: u16) -> Self {
        Self {
            index,
            purpose,
            max_size,
            vector: NO_VECTOR,
            vector_unread: false,
            enabled: false,
            shown_enabled: false,
            resetting: None,
            idle: None,
            halves: [None; 6],
            size: max_size,
            ring: Queue::new(max_size.max(1).next_power_of_two()).expect("a queue size up to 32768"),
            packed: None,
            in_flight: Vec::new(),
            kicks: 0,
            completed: 0,
            resets: 0,
            kicked: None,
            indirect: false,
            event_idx: false,
            in_order: false,
            next_slot: 0,
        }
    }

    /// As after a reset of the device. The counters stay.
    pub fn reset(&mut self) {
        let (kicks, completed, resets) = (self.kicks, self.completed, self.resets);
        *self = Self { kicks, completed, resets, ..Self::new(self.index, self.purpose, self.max_size) };
    }

    /// The same by a device with this bug.
    pub fn reset_with(&mut self, bug: Option<Bug>) {
        let (size, vector, enabled) = (self.size, self.vector, self.enabled);
        self.reset();
        match bug {
            Some(Bug::ResetKeepsQueueSize) => self.size = size,
            Some(Bug::ResetKeepsVectors) => self.vector = vector,
            Some(Bug::ResetKeepsQueueEnable) => self.shown_enabled = enabled,
            _ => {}
        }
    }

    /// As after a reset of this queue alone, which may be due. `None` if it is not.
    pub fn finish_reset(&mut self, now: u64) -> Option<Vec<Request>> {
        self.resetting.filter(|due| *due <= now)?;
        let had_vector = self.vector != NO_VECTOR;
        let in_flight = std::mem::take(&mut self.in_flight);
        self.reset();
        self.idle = Some(had_vector);
        self.resets += 1;
        Some(in_flight)
    }

    pub fn event_idx(&self) -> bool {
        self.event_idx
    }

    pub fn size(&self) -> u16 {
        if self.purpose == Purpose::Missing { 0 } else { self.size }
    }

    /// Has a size from before a reset.
    pub fn keep_size(&mut self, size: u16) {
        if self.ring.try_set_size(size).is_ok() {
            self.size = size;
        }
    }

    pub fn set_size(&mut self, size: u16, features: u64, bus: &mut Bus) {
        let packed = features & feature::RING_PACKED != 0;
        let (clause, right) = if packed {
            ("PCI-COMMON-02", size != 0 && size <= self.max_size)
        } else {
            ("PCI-COMMON-03", self.ring.try_set_size(size).is_ok())
        };
        if right {
            self.size = size;
        } else {
            bus.misstep(clause, format!("queue {}: size {size} of {}", self.index, self.max_size));
        }
    }

    /// Address number `which` (0 descriptors, 1 available, 2 used).
    fn address(&self, which: usize) -> u64 {
        let half = |i: usize| u64::from(self.halves[i].unwrap_or(0));
        half(2 * which) | half(2 * which + 1) << 32
    }

    /// Where the descriptor table is.
    pub fn ring_start(&self) -> u64 {
        self.address(0)
    }

    /// The areas that driver and device write: where each is, and how long.
    pub fn driver_and_device_areas(&self) -> [(u64, u64); 2] {
        let [_, driver, device] = self.parts(self.packed.is_some());
        [(driver.1, driver.2), (device.1, device.2)]
    }

    /// How far the driver has got, as a kick says it.
    pub fn published(&self, bus: &Bus) -> u16 {
        match &self.packed {
            Some(ring) => ring.published(bus),
            None => self.load16(self.ring.avail_ring() + 2, bus),
        }
    }

    /// The three areas: name, address, length, alignment.
    fn parts(&self, packed: bool) -> [(&'static str, u64, u64, u64); 3] {
        let size = u64::from(self.size());
        if packed {
            return [
                ("descriptor ring", self.address(0), 16 * size, 16),
                ("driver event suppression", self.address(1), 4, 4),
                ("device event suppression", self.address(2), 4, 4),
            ];
        }
        [
            ("descriptor table", self.address(0), 16 * size, 16),
            ("available ring", self.address(1), 6 + 2 * size, 2),
            ("used ring", self.address(2), 6 + 8 * size, 4),
        ]
    }

    /// Whether memory from `start` is part of an enabled queue or of a request in flight.
    pub fn uses(&self, start: u64, size: u64) -> bool {
        let overlaps = |at: u64, len: u64| at < start + size && start < at + len;
        self.enabled
            && (self.parts(self.packed.is_some()).iter().any(|&(_, at, len, _)| overlaps(at, len))
                || self.in_flight.iter().any(|r| r.chain.iter().any(|(_, d)| overlaps(d.address, u64::from(d.length)))))
    }

    /// `queue_enable` = 1: checks that everything is in place and starts the ring.
    pub fn enable(&mut self, features: u64, bus: &mut Bus) {
        if self.halves.iter().any(Option::is_none) {
            bus.misstep("PCI-COMMON-04", format!("queue {} enabled before its addresses are set", self.index));
        }
        if self.vector_unread {
            bus.misstep("PCI-MSIX-05", format!("queue {} enabled before its vector is read back", self.index));
        }
        if self.idle.take() == Some(true) && self.vector == NO_VECTOR {
            bus.misstep("QRST-03", format!("queue {} enabled again without its vector", self.index));
        }
        let packed = features & feature::RING_PACKED != 0;
        for (name, at, len, align) in self.parts(packed) {
            if at % align != 0 || !bus.ram.in_dma(at, len) {
                let clause = if packed { "PACKED-LAY-01" } else { "SPLIT-LAY-01" };
                bus.misstep(clause, format!("queue {}: {name} at {at:#x}+{len:#x}", self.index));
                return;
            }
            let mut bytes = vec![0; len as usize];
            bus.ram.memory().read_slice(&mut bytes, GuestAddress(at)).expect("DMA memory");
            // The available flags and used_event may be set beforehand; device-written parts must be clear.
            if name == "used ring" && bytes.iter().any(|b| *b != 0) {
                bus.misstep("SPLIT-ASUP-01", format!("queue {}: used ring not zeroed", self.index));
            }
        }
        self.enabled = true;
        if packed {
            let areas = [0, 1, 2].map(|which| self.address(which));
            self.packed = Some(PackedRing::new(self.index, self.size, areas, features, bus));
            return;
        }
        if !self.size.is_power_of_two() {
            bus.misstep("PCI-COMMON-03", format!("queue {}: split, of {}", self.index, self.size));
        }
        let half = |i: usize| self.halves[i];
        self.ring.set_desc_table_address(half(0), half(1));
        self.ring.set_avail_ring_address(half(2), half(3));
        self.ring.set_used_ring_address(half(4), half(5));
        self.ring.set_event_idx(features & feature::EVENT_IDX != 0);
        self.ring.set_ready(true);
        self.indirect = features & feature::INDIRECT_DESC != 0;
        self.event_idx = features & feature::EVENT_IDX != 0;
        self.in_order = features & feature::IN_ORDER != 0;
        self.fill_ignored_field(bus);
    }

    /// Sets the suppression field that does not count to a value that would deny every kick (SPLIT-ASUP-02 and -05).
    fn fill_ignored_field(&self, bus: &Bus) {
        let used = self.ring.used_ring();
        let (at, junk) = if self.event_idx { (used, 1) } else { (used + 4 + 8 * u64::from(self.size()), 0x7777_u16) };
        bus.ram.memory().store(junk, GuestAddress(at), Ordering::Relaxed).expect("used ring in RAM");
    }

    fn load16(&self, at: u64, bus: &Bus) -> u16 {
        bus.ram.memory().load::<u16>(GuestAddress(at), Ordering::Acquire).expect("ring in RAM")
    }

    /// Says of the kicks that the device wants what is no use to anybody: flags, and an event that is far off.
    pub fn suppress(&self, flags: u16, bus: &Bus) {
        let [_, (device, length)] = self.driver_and_device_areas();
        let at = if self.packed.is_some() { device + 2 } else { device };
        let memory = bus.ram.memory();
        memory.store(flags, GuestAddress(at), Ordering::Relaxed).expect("ring in RAM");
        if self.event_idx && self.packed.is_none() {
            let event = self.ring.next_avail().wrapping_sub(1);
            memory.store(event, GuestAddress(device + length - 2), Ordering::Relaxed).expect("ring in RAM");
        }
    }

    /// Buffers that the driver has published and the device not yet taken.
    pub fn waiting(&self, bus: &Bus) -> u16 {
        match &self.packed {
            Some(ring) => ring.waiting(bus),
            None if self.enabled => self.load16(self.ring.avail_ring() + 2, bus).wrapping_sub(self.ring.next_avail()),
            None => 0,
        }
    }

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

    /// Takes what is available.
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

    /// Checks that the driver uses the table in its order and round its end, and the entries of indirect tables in theirs.
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
        // The descriptor that points to a table is none of the chain's.
        let mut left = self.size();
        loop {
            if slot >= limit || left == 0 {
                wrong(bus, "SPLIT-DESC-02", "chain leaves the table or does not end");
                return None;
            }
            let descriptor = Self::descriptor(table + 16 * u64::from(slot), bus)?;
            request.chain.push((slot, descriptor));
            if descriptor.flags & INDIRECT != 0 {
                if !self.indirect {
                    wrong(bus, "SPLIT-IND-01", "indirect descriptor not negotiated");
                }
                if table != self.ring.desc_table() {
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

    /// Whether the driver left a request alone since the device took it: descriptors and readable bytes.
    pub fn check_unchanged(&self, request: &Request, bus: &mut Bus) {
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

    /// Has the first entry of a batch stand for all of it; nobody is to look at the others.
    fn write_batch(&self, start: u16, requests: u16, last: u16, length: u32, bus: &Bus) {
        let memory = bus.ram.memory();
        let entry = |step: u16| self.ring.used_ring() + 4 + 8 * u64::from(start.wrapping_add(step) % self.size());
        memory.write_obj([u32::from(last), length], GuestAddress(entry(0))).expect("used ring in RAM");
        for step in 1..requests {
            memory.write_obj([u32::MAX; 2], GuestAddress(entry(step))).expect("used ring in RAM");
        }
    }

    /// Writes a used element and index as they are, whatever they say.
    fn forge_used(&mut self, id: u32, length: u32, advance: u16, bus: &Bus) {
        let memory = bus.ram.memory();
        let (ring, at) = (self.ring.used_ring(), self.ring.next_used());
        let element = GuestAddress(ring + 4 + 8 * u64::from(at % self.size()));
        memory.write_obj(id.to_le(), element).expect("used ring in RAM");
        memory.write_obj(length.to_le(), GuestAddress(element.0 + 4)).expect("used ring in RAM");
        let index = at.wrapping_add(advance);
        memory.store(index.to_le(), GuestAddress(ring + 2), Ordering::Release).expect("used ring in RAM");
        self.ring.set_next_used(index);
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

/// The memory that a descriptor lends.
pub fn bytes(descriptor: &Descriptor, bus: &Bus) -> Vec<u8> {
    let mut bytes = vec![0; descriptor.length as usize];
    bus.ram.memory().read_slice(&mut bytes, GuestAddress(descriptor.address)).expect("DMA memory");
    bytes
}
