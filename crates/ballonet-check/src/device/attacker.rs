//! The driver's side of a hostile check against a queue: a started device, valid buffers to point at, and raw
//! access to the ring.
//!
//! The attack goes to the queue for requests; of a balloon, to the deflate queue: if it takes the memory behind a wrong
//! descriptor for frame numbers, deflating those does no harm. The inflate queue works beside it.

use super::{Role, StartOptions, TestDevice};
use crate::ring::{RawDescriptor, RingField};
use crate::verdict::{Stop, Verdict, skip_unless};
use ballonet::pci::{Bdf, ConfigSpace};
use ballonet::virtio::spec::{Descriptor, DescriptorFlags, Features};

/// Bytes of the lawful buffer: whole pages, so that a page of it can be reported.
pub(crate) const BUFFER: usize = 4096;
/// Bytes of the lawful buffer that the device may write.
const ANSWER: usize = 64;
/// Entries of the lawful table.
pub(crate) const TABLE: u16 = 128;
/// The most entries of the queues: enough for every attack, and few enough for long ones.
const SIZE: u16 = 64;

/// The BARs of a function that is no bridge, in its configuration header.
const BARS: u16 = 0x10;
const BARS_END: u16 = 0x28;
/// The header type, without the bit for several functions.
const HEADER_TYPE: u16 = 0x0e;

fn skipped(reason: &str) -> Stop {
    Stop::skipped(format_args!("{reason}"))
}

/// Whether a function is there and no bridge.
fn is_plain_device(config: &impl ConfigSpace, bdf: Bdf) -> bool {
    config.read16(bdf, 0) != u16::MAX && config.read8(bdf, HEADER_TYPE) & 0x7f == 0
}

/// An attacker.
pub(crate) struct Attacker<'d, 'p> {
    pub(crate) device: &'d mut TestDevice<'p>,
    features: Features,
    /// The queue under attack.
    pub(crate) target: Role,
    /// A readable buffer full of valid request data: frame numbers, or a header.
    buffer: usize,
    /// Bytes of one request that the device reads.
    readable: u32,
    /// Memory that the device may write, and the bytes of one request that it does write.
    answer: usize,
    writable: u32,
    table: usize,
    /// Entries that were made available, split only.
    offered: u16,
    /// Something was changed that the device may have been using.
    raced: bool,
}

impl<'d, 'p> Attacker<'d, 'p> {
    /// Starts the device with these features beyond the least, and has it serve a request.
    pub(crate) fn new(device: &'d mut TestDevice<'p>, features: Features) -> Verdict<Self> {
        skip_unless!(device.offered.contains(features), "the device does not offer {}", features - device.offered);
        skip_unless!(device.has_requests(), "no request to a device of this type is known");
        let [buffer, answer, table] = [0; 3];
        let (target, readable, writable) = (Role::Second, 0, 0);
        let mut attacker =
            Self { device, features, target, buffer, readable, answer, writable, table, offered: 0, raced: false };
        attacker.start(SIZE)?;
        Ok(attacker)
    }

    /// Starts the device again, with queues of at most `size` entries.
    pub(crate) fn start(&mut self, size: u16) -> Verdict {
        let features = self.device.least() | self.features;
        let size = if size == SIZE { self.device.attack_size(SIZE) } else { size };
        let setup = StartOptions { features, size, ..self.device.plain() };
        self.device.start(&setup)?;
        self.device.is_plain = false;
        self.offered = 0;
        self.table = self.memory(usize::from(TABLE) * size_of::<Descriptor>(), 16)?;
        self.buffer = self.memory(BUFFER, BUFFER)?;
        self.answer = self.device.arena.place(ANSWER, 16, 0)?;
        self.device.arena.open(self.answer, ANSWER);
        // Frames that the warm-up inflates.
        let payload = self.device.payload(self.target, 0..8)?;
        (self.readable, self.writable) = (payload.readable.len() as u32, payload.writable.min(ANSWER) as u32);
        let whole = payload.readable.iter().copied().cycle().take(BUFFER).collect::<alloc::vec::Vec<u8>>();
        self.device.arena.write(self.buffer, &whole);
        // The queue under attack must be at its start.
        if self.device.has_two_queues() { self.device.warm_up() } else { Ok(()) }
    }

    /// Room in the arena that the device may read, all zeros.
    pub(crate) fn memory(&mut self, size: usize, align: usize) -> Verdict<usize> {
        let at = self.device.arena.place(size, align, 0)?;
        self.device.arena.zero(at, size);
        self.device.buffers.push((at, at + size));
        Ok(at)
    }

    pub(crate) fn is_packed(&self) -> bool {
        self.features.contains(Features::RING_PACKED)
    }

    /// The number of entries of the queue under attack.
    pub(crate) fn size(&mut self) -> Verdict<u16> {
        self.device.with_queue(self.target, |queue, _| queue.size)
    }

    /// Where the device finds the lawful buffer.
    pub(crate) fn buffer(&self) -> u64 {
        self.device.arena.address(self.buffer)
    }

    /// The address of memory that it may write.
    pub(crate) fn answer(&self) -> u64 {
        self.device.arena.address(self.answer)
    }

    /// Where it finds the table.
    pub(crate) fn table(&self) -> u64 {
        self.device.arena.address(self.table)
    }

    /// Where it finds the descriptors of a queue.
    pub(crate) fn ring_of(&mut self, role: Role) -> Verdict<u64> {
        self.device.with_queue(role, |queue, arena| arena.address(queue.areas.descriptors))
    }

    /// Where another function of the bus has registers in memory.
    pub(crate) fn foreign_registers(&mut self) -> Verdict<u64> {
        let own = self.device.function()?.function.bdf;
        let config = self.device.platform.config();
        let bar = |bdf| {
            (BARS..BARS_END)
                .step_by(4)
                .map(|offset| config.read32(bdf, offset))
                .find(|bar| bar & 1 == 0 && bar & !0xf != 0)
        };
        let functions = (0..32).filter_map(|device| Bdf::new(own.segment(), own.bus(), device, 0));
        let mut bars = functions.filter(|bdf| *bdf != own && is_plain_device(&config, *bdf)).filter_map(bar);
        let found = bars.next();
        found
            .map(|bar| u64::from(bar & !0xf))
            .ok_or_else(|| skipped("no other function of the bus has a BAR in memory"))
    }

    /// Writes descriptor `place` of the ring as it is given.
    pub(crate) fn raw(&mut self, place: u16, descriptor: RawDescriptor) -> Verdict {
        let (packed, size) = (self.is_packed(), self.size()?);
        skip_unless!(place < size, "the queue has {size} entries, which are too few");
        self.device.with_queue(self.target, |queue, arena| {
            descriptor.put(arena, queue.areas.descriptors, place, packed);
        })
    }

    /// Writes descriptor `place` of the ring: `next` on a split ring, the id on a packed one, where it is available in
    /// the first lap.
    pub(crate) fn descriptor(&mut self, place: u16, (address, length): (u64, u32), flags: u16, next: u16) -> Verdict {
        let flags = if self.is_packed() { flags | DescriptorFlags::AVAIL.bits() } else { flags };
        self.raw(place, RawDescriptor { address, length, flags, next })
    }

    /// Writes entry `place` of the table.
    pub(crate) fn entry(&mut self, place: u16, (address, length): (u64, u32), flags: u16, next: u16) {
        let (table, packed) = (self.table, self.is_packed());
        RawDescriptor { address, length, flags, next }.put(&mut self.device.arena, table, place, packed);
    }

    /// Makes the chain at `head` available. On a packed ring its descriptors say so themselves.
    pub(crate) fn offer(&mut self, head: u16) -> Verdict {
        let offered = self.offered;
        self.offered += 1;
        if self.is_packed() {
            return Ok(());
        }
        self.overwrite(RingField::AvailableEntry(offered), head)?;
        self.overwrite(RingField::AvailableIndex, offered + 1)
    }

    /// Overwrites a field of a split queue.
    pub(crate) fn overwrite(&mut self, field: RingField, value: u16) -> Verdict {
        self.device.with_queue(self.target, |queue, arena| queue.overwrite(arena, field, value))
    }

    /// Offers one descriptor.
    pub(crate) fn send(&mut self, place: (u64, u32), flags: u16) -> Verdict {
        self.descriptor(0, place, flags, 0)?;
        self.offer(0)
    }

    /// Offers a chain of descriptors, each with its flags beside NEXT.
    pub(crate) fn send_chain(&mut self, chain: &[((u64, u32), u16)]) -> Verdict {
        for (number, (place, flags)) in (0..).zip(chain) {
            let next = if usize::from(number) + 1 < chain.len() { DescriptorFlags::NEXT.bits() } else { 0 };
            self.descriptor(number, *place, flags | next, if self.is_packed() { 0 } else { number + 1 })?;
        }
        self.offer(0)
    }

    /// Offers a table of descriptors, each with its flags beside NEXT.
    pub(crate) fn send_table_of(&mut self, chain: &[((u64, u32), u16)]) -> Verdict {
        let packed = self.is_packed();
        for (number, (place, flags)) in (0..).zip(chain) {
            let next = if packed || usize::from(number) + 1 == chain.len() { 0 } else { DescriptorFlags::NEXT.bits() };
            self.entry(number, *place, flags | next, if packed { 0 } else { number + 1 });
        }
        self.send_table(chain.len() as u16)
    }

    /// Offers a table with one descriptor.
    pub(crate) fn send_in_table(&mut self, place: (u64, u32), flags: u16) -> Verdict {
        self.entry(0, place, flags, 0);
        self.send_table(1)
    }

    /// Offers the table as `entries` entries.
    pub(crate) fn send_table(&mut self, entries: u16) -> Verdict {
        let table = (self.table(), u32::from(entries) * size_of::<Descriptor>() as u32);
        self.send(table, DescriptorFlags::INDIRECT.bits())
    }

    /// A lawful request at `place`; for a device that reads one part and writes another, only if the ring has room.
    pub(crate) fn lawful(&mut self, place: u16) -> Verdict {
        let (next, write) = (DescriptorFlags::NEXT.bits(), DescriptorFlags::WRITE.bits());
        let size = self.size()?;
        let (read, written) = ((self.buffer(), self.readable), (self.answer(), self.writable));
        // The second part is at the other end of a split ring, and on a packed one right after the first.
        let (first, second) = if self.is_packed() { (2 * place, 2 * place + 1) } else { (place, size - 1 - place) };
        match (self.readable, self.writable) {
            (0, _) => self.descriptor(place, written, write, place),
            (_, 0) => self.descriptor(place, read, 0, place),
            _ if first >= second || second >= size => self.descriptor(place, read, 0, place),
            _ => {
                self.descriptor(second, written, write, place)?;
                self.descriptor(first, read, next, if self.is_packed() { place } else { second })
            }
        }
    }

    /// Kicks the queue.
    pub(crate) fn kick(&mut self) -> Verdict {
        self.device.kick(self.target)
    }

    /// Lets the device work until it wants to be reset, or for a moment.
    pub(crate) fn wait(&mut self) -> Verdict {
        self.device.settle(1, TestDevice::wants_reset).map(drop)
    }

    /// Kicks the queue, and lets the device act on what it has before more follows.
    pub(crate) fn kick_and_wait(&mut self) -> Verdict {
        self.kick()?;
        self.wait()
    }

    /// Kicks the queue before a change of what the device now uses, or has used already.
    pub(crate) fn kick_to_race(&mut self) -> Verdict {
        self.raced = true;
        self.kick()
    }

    /// Kicks once more, and lets the device work. Whether there was a race.
    pub(crate) fn finish(mut self) -> Verdict<bool> {
        self.kick_and_wait()?;
        Ok(self.raced)
    }
}
