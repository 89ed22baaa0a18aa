//! The device side of a packed ring; rust-vmm has none. It checks the driver's writes, and that the driver does not
//! change exposed descriptors. It advances by single steps, unlike the driver's arithmetic.

use std::sync::atomic::{Ordering, fence};

use vm_memory::{Bytes, GuestAddress};

use super::request::bytes;
use crate::feature;
use crate::queue::Lie;
use crate::queue::{Descriptor, INDIRECT, NEXT, Request, WRITE};
use crate::world::Bus;

const AVAILABLE: u16 = 1 << 7;
const USED: u16 = 1 << 15;
/// Flags of event suppression structures.
const ENABLE: u16 = 0;
const DISABLE: u16 = 1;
const DESCRIPTOR: u16 = 2;

/// Offset and wrap counter.
type Position = (u16, bool);

/// A ring in use.
#[derive(Debug)]
pub struct PackedRing {
    queue: u16,
    size: u16,
    /// Where the ring, the driver's and the device's event suppression structures are.
    areas: [u64; 3],
    event_idx: bool,
    indirect: bool,
    next_available: Position,
    next_used: Position,
    /// Each descriptor as it was when the device first saw it, until its place is returned to the driver.
    exposed: Vec<Option<Descriptor>>,
    /// Where a lie left an apparently available descriptor for the next lap. The driver cannot write there again.
    forged: Option<u16>,
}

impl PackedRing {
    pub fn new(queue: u16, size: u16, areas: [u64; 3], features: u64, bus: &mut Bus) -> Self {
        let mut bytes = vec![0; 16 * usize::from(size)];
        bus.ram.memory().read_slice(&mut bytes, GuestAddress(areas[0])).expect("DMA memory");
        if bytes.iter().any(|b| *b != 0) {
            bus.misstep("PACKED-ZERO", format!("queue {queue}: ring not zeroed when it is enabled"));
        }
        let ring = Self {
            queue,
            size,
            areas,
            event_idx: features & feature::EVENT_IDX != 0,
            indirect: features & feature::INDIRECT_DESC != 0,
            next_available: (0, true),
            next_used: (0, true),
            exposed: vec![None; size.into()],
            forged: None,
        };
        ring.ask_for_kicks(bus);
        ring
    }

    fn step(&self, (offset, wrap): Position) -> Position {
        if offset + 1 == self.size { (0, !wrap) } else { (offset + 1, wrap) }
    }

    fn at(&self, offset: u16) -> u64 {
        self.areas[0] + 16 * u64::from(offset)
    }

    /// The descriptor at an address; `next` holds the buffer ID.
    fn descriptor(at: u64, bus: &Bus) -> Option<Descriptor> {
        let memory = bus.ram.memory();
        let flags = memory.load::<u16>(GuestAddress(at.checked_add(14)?), Ordering::Acquire).ok()?;
        Some(Descriptor {
            address: memory.read_obj(GuestAddress(at)).ok()?,
            length: memory.read_obj(GuestAddress(at + 8)).ok()?,
            flags,
            next: memory.read_obj(GuestAddress(at + 12)).ok()?,
        })
    }

    /// The descriptor at a position, if it is available in this lap.
    fn available(&self, (offset, wrap): Position, bus: &Bus) -> Option<Descriptor> {
        if self.forged == Some(offset) {
            return None;
        }
        let descriptor = Self::descriptor(self.at(offset), bus)?;
        let (available, used) = (descriptor.flags & AVAILABLE != 0, descriptor.flags & USED != 0);
        (available == wrap && used != wrap).then_some(descriptor)
    }

    /// The driver's progress, as encoded in a kick: the offset and, as the top bit, the wrap counter.
    pub(crate) fn published(&self, bus: &Bus) -> u16 {
        let mut position = self.next_available;
        for _ in 0..self.size {
            if self.available(position, bus).is_none() {
                break;
            }
            position = self.step(position);
        }
        position.0 | u16::from(position.1) << 15
    }

    /// Chains that the driver made available and the device has not taken.
    pub fn waiting(&self, bus: &Bus) -> u16 {
        let (mut position, mut chains) = (self.next_available, 0);
        for _ in 0..self.size {
            let Some(descriptor) = self.available(position, bus) else { break };
            chains += u16::from(descriptor.flags & NEXT == 0);
            position = self.step(position);
        }
        chains
    }

    /// Takes all available requests, and asks for a kick at the next.
    pub fn take_available(&mut self, in_flight: &[Request], bus: &mut Bus) -> Vec<Request> {
        let mut taken: Vec<Request> = Vec::new();
        loop {
            self.suppress(0, DISABLE, bus);
            while let Some(request) = self.take(bus) {
                if in_flight.iter().chain(&taken).any(|other| other.head == request.head) {
                    self.misstep(bus, "CLEAN-01", &format!("buffer id {} is in flight already", request.head));
                }
                taken.push(request);
            }
            self.ask_for_kicks(bus);
            fence(Ordering::SeqCst);
            if self.available(self.next_available, bus).is_none() {
                return taken;
            }
        }
    }

    fn ask_for_kicks(&self, bus: &Bus) {
        let (offset, wrap) = self.next_available;
        if self.event_idx {
            self.suppress(offset | u16::from(wrap) << 15, DESCRIPTOR, bus);
        } else {
            // The position is ignored then.
            self.suppress(0x7777, ENABLE, bus);
        }
    }

    fn suppress(&self, position: u16, flags: u16, bus: &Bus) {
        let memory = bus.ram.memory();
        memory.store(position, GuestAddress(self.areas[2]), Ordering::Relaxed).expect("ring in RAM");
        memory.store(flags, GuestAddress(self.areas[2] + 2), Ordering::Release).expect("ring in RAM");
    }

    fn misstep(&self, bus: &mut Bus, clause: &'static str, what: &str) {
        bus.misstep(clause, format!("queue {} at {:?}: {what}", self.queue, self.next_available));
    }

    /// Takes the next chain, checking each descriptor.
    fn take(&mut self, bus: &mut Bus) -> Option<Request> {
        self.available(self.next_available, bus)?;
        let mut request = Request { head: 0, due: 0, chain: Vec::new(), bytes: Vec::new() };
        loop {
            let offset = self.next_available.0;
            let Some(descriptor) = self.available(self.next_available, bus) else {
                self.misstep(bus, "PACKED-SG-06", "a head was exposed before the rest of its chain");
                return None;
            };
            if self.exposed[usize::from(offset)].replace(descriptor).is_some() {
                self.misstep(bus, "PACKED-SG-05", "the slot was not returned yet");
            }
            self.check_lists(&descriptor, request.chain.is_empty(), bus);
            request.chain.push((offset, descriptor));
            request.head = descriptor.next;
            self.next_available = self.step(self.next_available);
            if descriptor.flags & NEXT == 0 {
                break;
            }
            if request.chain.len() == usize::from(self.size) {
                self.misstep(bus, "PACKED-SG-02", "a chain is longer than the ring");
                return None;
            }
        }
        if request.head >= self.size {
            self.misstep(bus, "PACKED-SG-02", &format!("buffer id {} of {}", request.head, self.size));
        }
        if let [(_, single)] = request.chain[..]
            && single.flags & INDIRECT != 0
        {
            self.take_table(single, &mut request, bus);
        }
        self.read(&mut request, bus)?;
        Some(request)
    }

    fn check_lists(&self, descriptor: &Descriptor, head: bool, bus: &mut Bus) {
        if descriptor.flags & INDIRECT != 0 {
            if !self.indirect {
                self.misstep(bus, "PACKED-IND-01", "indirect descriptor not negotiated");
            }
            if descriptor.flags & NEXT != 0 || !head {
                self.misstep(bus, "PACKED-IND-04", "indirect descriptor chained");
            }
        }
    }

    fn take_table(&self, table: Descriptor, request: &mut Request, bus: &mut Bus) {
        for entry in 0..table.length / 16 {
            let Some(descriptor) = Self::descriptor(table.address + 16 * u64::from(entry), bus) else { return };
            if descriptor.flags & !WRITE != 0 {
                self.misstep(bus, "PACKED-IND-02", &format!("flags {:#x} in a table", descriptor.flags));
            }
            request.chain.push((entry as u16, descriptor));
        }
    }

    /// Reads the readable bytes of a request; `None` if the driver does not own its memory.
    fn read(&self, request: &mut Request, bus: &mut Bus) -> Option<()> {
        let mut seen_writable = false;
        for (_, descriptor) in request.chain.iter().filter(|(_, d)| d.flags & INDIRECT == 0) {
            if !bus.ram.is_drivers(descriptor.address, descriptor.length.into()) {
                self.misstep(bus, "RSVD-05", &format!("buffer {:#x} is not the driver's to lend", descriptor.address));
                return None;
            }
            if descriptor.flags & WRITE != 0 {
                seen_writable = true;
            } else {
                if seen_writable {
                    self.misstep(bus, "PACKED-SG-03", "readable element after a writable one");
                }
                request.bytes.extend(bytes(descriptor, bus));
            }
        }
        Some(())
    }

    /// Checks that the driver did not change a request's buffers or table since the device took it.
    pub fn check_unchanged(&self, request: &Request, bus: &mut Bus) {
        let readable = |d: &Descriptor| d.flags & (WRITE | INDIRECT) == 0;
        let readables = request.chain.iter().filter(|(_, d)| readable(d));
        let now: Vec<u8> = readables.flat_map(|(_, d)| bytes(d, bus)).collect();
        if now != request.bytes {
            self.misstep(bus, "CLEAN-01", &format!("buffer {} changed in flight", request.head));
        }
        let [(_, head), entries @ ..] = &request.chain[..] else { return };
        let table = entries.iter().filter(|_| head.flags & INDIRECT != 0);
        for (entry, descriptor) in table {
            if Self::descriptor(head.address + 16 * u64::from(*entry), bus) != Some(*descriptor) {
                self.misstep(bus, "CLEAN-01", &format!("table of {} changed in flight", request.head));
            }
        }
    }

    /// Descriptors of the ring that a request takes.
    fn places(request: &Request) -> usize {
        match request.chain[..] {
            [(_, head), ..] if head.flags & INDIRECT != 0 => 1,
            _ => request.chain.len(),
        }
    }

    /// Returns requests by a single used descriptor. Whether the driver wants an interrupt for it.
    pub fn put_used(&mut self, requests: &[Request], length: u32, bus: &mut Bus) -> bool {
        let mut passed = Vec::new();
        let mut position = self.next_used;
        for _ in 0..requests.iter().map(Self::places).sum() {
            self.check_place(position, bus);
            passed.push(position);
            position = self.step(position);
        }
        // As QEMU: WRITE is not set, whatever was written.
        let last = requests.last().expect("a batch of at least one");
        self.store_used(last.head, length, self.used_flags(), bus);
        self.next_used = position;
        fence(Ordering::SeqCst);
        self.wants_interrupt(&passed, bus)
    }

    /// Checks that the driver did not change a descriptor that the device is about to return (2.8.16).
    fn check_place(&mut self, (offset, _): Position, bus: &mut Bus) {
        let exposed = self.exposed[usize::from(offset)].take();
        if exposed.is_none() || exposed != Self::descriptor(self.at(offset), bus) {
            self.misstep(
                bus,
                "PACKED-DESC-01",
                &format!("descriptor {offset} changed while exposed; it was {exposed:x?}"),
            );
        }
    }

    fn used_flags(&self) -> u16 {
        if self.next_used.1 { AVAILABLE | USED } else { 0 }
    }

    fn store_used(&self, id: u16, length: u32, flags: u16, bus: &Bus) {
        let (memory, at) = (bus.ram.memory(), self.at(self.next_used.0));
        memory.write_obj(length, GuestAddress(at + 8)).expect("ring in RAM");
        memory.write_obj(id, GuestAddress(at + 12)).expect("ring in RAM");
        memory.store(flags, GuestAddress(at + 14), Ordering::Release).expect("ring in RAM");
    }

    fn wants_interrupt(&self, passed: &[Position], bus: &mut Bus) -> bool {
        let load = |at| bus.ram.memory().load::<u16>(GuestAddress(at), Ordering::Acquire).expect("ring in RAM");
        let (flags, position) = (load(self.areas[1] + 2), load(self.areas[1]));
        let event = (position & 0x7fff, position >> 15 == 1);
        match flags {
            ENABLE => true,
            DISABLE => false,
            DESCRIPTOR if self.event_idx && event.0 < self.size => passed.contains(&event),
            _ => {
                self.misstep(bus, "PACKED-EVENT", &format!("event suppression {position:#x}, flags {flags:#x}"));
                true
            }
        }
    }

    /// Writes a used descriptor with any contents, and advances by `advance` descriptors, at most one lap.
    pub(crate) fn forge_used(&mut self, id: u16, length: u32, advance: u16, bus: &Bus) {
        let written = if length == 0 { 0 } else { WRITE };
        self.store_used(id, length, self.used_flags() | written, bus);
        for _ in 0..advance.min(self.size) {
            self.next_used = self.step(self.next_used);
        }
    }

    /// The address of the flags of the next descriptor to be used.
    pub(crate) fn mark(&self) -> u64 {
        self.at(self.next_used.0) + 14
    }

    /// Tells a lie instead of completing `request`. `last` is the id used before.
    pub(crate) fn lie(&mut self, lie: Lie, request: &Request, in_flight: &[Request], last: Option<u32>, bus: &Bus) {
        let (id, flags) = (request.head, self.used_flags());
        let in_use = |id: u16| id == request.head || in_flight.iter().any(|other| other.head == id);
        match lie {
            Lie::IdOutOfRange => self.store_used(self.size, 0, flags, bus),
            Lie::IdNotInFlight => {
                let free = (0..self.size).rev().find(|id| !in_use(*id));
                self.store_used(free.unwrap_or(u16::MAX), 0, flags, bus);
            }
            // On a packed ring that also completes all requests before it.
            Lie::OutOfOrder => self.store_used(in_flight.last().map_or(id, |later| later.head), 0, flags, bus),
            Lie::IdRepeated => self.store_used(last.map_or(id, |id| id as u16), 0, flags, bus),
            Lie::LengthTooLong => self.store_used(id, u32::MAX, flags | WRITE, bus),
            Lie::IndexJumps => {
                self.forged = Some(self.next_used.0);
                self.store_used(id, 0, flags ^ AVAILABLE, bus);
            }
            Lie::IndexGoesBack => self.store_used(id, 0, flags ^ (AVAILABLE | USED), bus),
        }
        self.next_used = self.step(self.next_used);
    }
}
