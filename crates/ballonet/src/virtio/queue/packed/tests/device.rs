//! A hand-written device side of a packed queue. It has no checks, since the driver is under test, and advances by
//! single steps.

use super::*;

pub(super) type Fixture = (Virtqueue<Ram, u32>, Device);

/// A descriptor as it lies in the ring or a table: address, length, id, flags.
pub(super) type Raw = (u64, u32, u16, u16);

/// A chain that the device has taken.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) id: u16,
    /// Descriptors of the ring.
    pub(super) count: u16,
    /// Address, length, and whether the device writes.
    pub(super) segments: Vec<(u64, u32, bool)>,
}

/// The device side of a queue.
pub(super) struct Device {
    pub(super) ram: Ram,
    pub(super) tables: Option<Ram>,
    pub(super) layout: PackedLayout,
    /// Where the next available descriptor is, and its wrap counter.
    pub(super) seen: (u16, bool),
    /// Where the next used descriptor goes, and its wrap counter.
    pub(super) used: (u16, bool),
    /// Positions passed since the last check of the driver's suppression.
    pub(super) passed: Vec<(u16, bool)>,
}

pub(super) fn options(event_idx: bool) -> QueueOptions {
    QueueOptions { event_idx, ..QueueOptions::default() }
}

pub(super) fn queue(size: u16, options: QueueOptions) -> Fixture {
    let layout = PackedLayout::new(size).unwrap();
    let ram = Ram::new(layout.bytes());
    let (tables, device_tables) = Tables::for_test(size, options);
    let (seen, used) = ((0, true), (0, true));
    let device = Device { ram: ram.clone(), tables: device_tables, layout, seen, used, passed: Vec::new() };
    let shadow = Shadow::new(size, options.in_order).unwrap();
    (Virtqueue::new(QueueIndex::FIRST, ram, tables, shadow, RingLayout(FormatLayout::Packed(layout)), options), device)
}

impl Device {
    pub(super) fn step(&self, (offset, wrap): (u16, bool)) -> (u16, bool) {
        if offset + 1 == self.layout.size() { (0, !wrap) } else { (offset + 1, wrap) }
    }

    pub(super) fn raw(ram: &Ram, entry: usize) -> Raw {
        let at = entry * 16;
        let load16 = |at| u16::from_le_bytes(ram.load(at));
        (u64::from_le_bytes(ram.load(at)), u32::from_le_bytes(ram.load(at + 8)), load16(at + 12), load16(at + 14))
    }

    pub(super) fn descriptor(&self, offset: u16) -> Raw {
        Self::raw(&self.ram, offset.into())
    }

    pub(super) fn is_available(&self) -> bool {
        let (offset, wrap) = self.seen;
        let flags = self.descriptor(offset).3;
        (flags >> 7 & 1 == 1) == wrap && (flags >> 15 & 1 == 1) != wrap
    }

    /// The next available chain.
    pub(super) fn take(&mut self) -> Option<Taken> {
        if !self.is_available() {
            return None;
        }
        let mut taken = Taken { id: 0, count: 0, segments: Vec::new() };
        loop {
            assert!(self.is_available(), "a chain whose head was exposed before the rest");
            let (address, length, id, flags) = self.descriptor(self.seen.0);
            self.seen = self.step(self.seen);
            (taken.id, taken.count) = (id, taken.count + 1);
            if flags & 4 == 0 {
                taken.segments.push((address, length, flags & 2 != 0));
            } else {
                assert_eq!(flags & 3, 0, "INDIRECT excludes other flags");
                taken.segments = self.table(address, length);
            }
            if flags & 1 == 0 {
                return Some(taken);
            }
        }
    }

    pub(super) fn table(&self, address: u64, length: u32) -> Vec<(u64, u32, bool)> {
        let start = (address - RAM_ADDRESS) as usize / 16;
        let entries = start..start + length as usize / 16;
        let raws = entries.map(|entry| Self::raw(self.tables.as_ref().unwrap(), entry));
        raws.map(|(address, length, id, flags)| {
            assert_eq!((id, flags & !2), (0, 0), "in a table only WRITE is allowed");
            (address, length, flags & 2 != 0)
        })
        .collect()
    }

    /// Writes a used descriptor, with these flags besides AVAIL and USED, and skips `count` descriptors.
    pub(super) fn put_with(&mut self, id: u16, length: u32, count: u16, extra: u16) {
        let (offset, wrap) = self.used;
        let at = usize::from(offset) * 16;
        self.ram.store(at + 8, length.to_le_bytes());
        self.ram.store(at + 12, id.to_le_bytes());
        let flags = extra | if wrap { 0x8080_u16 } else { 0 };
        self.ram.store(at + 14, flags.to_le_bytes());
        for _ in 0..count {
            self.passed.push(self.used);
            self.used = self.step(self.used);
        }
    }

    pub(super) fn put(&mut self, taken: &Taken) {
        self.put_with(taken.id, 0, taken.count, 0);
    }

    pub(super) fn serve(&mut self) {
        let taken = self.take().expect("something is available");
        self.put(&taken);
    }

    /// Whether the driver wants an interrupt for the buffers used since the last check.
    pub(super) fn interrupts(&mut self) -> bool {
        let at = self.layout.driver();
        let (word, flags) = (u16::from_le_bytes(self.ram.load(at)), u16::from_le_bytes(self.ram.load(at + 2)));
        let passed = core::mem::take(&mut self.passed);
        match flags {
            0 => !passed.is_empty(),
            1 => false,
            2 => passed.contains(&(word & 0x7fff, word >> 15 == 1)),
            _ => panic!("reserved flags {flags:#x}"),
        }
    }

    pub(super) fn set_suppression(&self, word: u16, flags: u16) {
        self.ram.store(self.layout.device(), word.to_le_bytes());
        self.ram.store(self.layout.device() + 2, flags.to_le_bytes());
    }

    /// Asks for a kick at the next descriptor that it expects.
    pub(super) fn wait(&self) {
        self.set_suppression(self.seen.0 | u16::from(self.seen.1) << 15, 2);
    }
}
