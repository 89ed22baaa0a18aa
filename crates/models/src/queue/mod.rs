//! One virtqueue of a device: the fields through which the driver sets it up, its ring (rust-vmm's, or a packed one),
//! and the requests taken from it. Checks the driver's half of the split ring.

mod lie;
mod packed;
mod request;
mod split;

pub use lie::Lie;
pub use packed::PackedRing;
pub use request::{Descriptor, Purpose, Request};

pub(crate) use request::{INDIRECT, NEXT, NO_VECTOR, WRITE};

use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::bug::Bug;
use crate::feature;
use crate::world::Bus;

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
    /// The value of `queue_enable` for a queue that a bug left enabled.
    pub shown_enabled: bool,
    /// When the current reset of this queue completes, in nanoseconds.
    pub resetting: Option<u64>,
    /// It was reset individually and not enabled since; `true` if it had a vector before.
    pub idle: Option<bool>,
    pub halves: Halves,
    size: u16,
    /// The split ring.
    ring: Queue,
    /// The packed ring, if negotiated, once the queue is enabled.
    packed: Option<PackedRing>,
    pub in_flight: Vec<Request>,
    pub kicks: u64,
    pub completed: u64,
    /// How often it was reset individually.
    pub resets: u64,
    /// When a pending kick is handled, in nanoseconds.
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
    pub(crate) fn reset(&mut self) {
        let (kicks, completed, resets) = (self.kicks, self.completed, self.resets);
        *self = Self { kicks, completed, resets, ..Self::new(self.index, self.purpose, self.max_size) };
    }

    /// The same for a device with this bug.
    pub(crate) fn reset_with(&mut self, bug: Option<Bug>) {
        let (size, vector, enabled) = (self.size, self.vector, self.enabled);
        self.reset();
        match bug {
            Some(Bug::ResetKeepsQueueSize) => self.size = size,
            Some(Bug::ResetKeepsVectors) => self.vector = vector,
            Some(Bug::ResetKeepsQueueEnable) => self.shown_enabled = enabled,
            _ => {}
        }
    }

    /// Completes an individual reset of this queue and returns the requests it drops; `None` if none is due.
    pub(crate) fn finish_reset(&mut self, now: u64) -> Option<Vec<Request>> {
        self.resetting.filter(|due| *due <= now)?;
        let had_vector = self.vector != NO_VECTOR;
        let in_flight = std::mem::take(&mut self.in_flight);
        self.reset();
        self.idle = Some(had_vector);
        self.resets += 1;
        Some(in_flight)
    }

    pub(crate) fn event_idx(&self) -> bool {
        self.event_idx
    }

    pub fn size(&self) -> u16 {
        if self.purpose == Purpose::Missing { 0 } else { self.size }
    }

    /// Keeps a size from before a reset.
    pub(crate) fn keep_size(&mut self, size: u16) {
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
    pub(crate) fn ring_start(&self) -> u64 {
        self.address(0)
    }

    /// Address and length of the driver area and the device area.
    pub(crate) fn driver_and_device_areas(&self) -> [(u64, u64); 2] {
        let [_, driver, device] = self.parts(self.packed.is_some());
        [(driver.1, driver.2), (device.1, device.2)]
    }

    /// The driver's progress, as encoded in a kick.
    pub(crate) fn published(&self, bus: &Bus) -> u16 {
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
    pub(crate) fn uses(&self, start: u64, size: u64) -> bool {
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

    /// Writes useless kick suppression: these flags, and a distant event index.
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

    /// Buffers that the driver published and the device has not taken.
    pub(crate) fn waiting(&self, bus: &Bus) -> u16 {
        match &self.packed {
            Some(ring) => ring.waiting(bus),
            None if self.enabled => self.load16(self.ring.avail_ring() + 2, bus).wrapping_sub(self.ring.next_avail()),
            None => 0,
        }
    }
}
