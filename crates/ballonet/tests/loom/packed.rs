//! The device's side of a packed queue (virtio 1.4, 2.8).

use core::mem::offset_of;

use ballonet::platform::DmaMemory;
use ballonet::virtio::spec::{
    DescriptorFlags, Features, POSITION_WRAP, PackedDescriptor, RING_EVENT_DESCRIPTOR, RING_EVENT_DISABLE,
    RING_EVENT_ENABLE,
};
use ballonet::virtio::{QueueAddresses, QueueIndex, QueueOptions, RingLayout, TransportKind, Virtqueue};
use loom::sync::atomic::{Ordering, fence};

use super::device::{self, Descriptor, Queue, Taken};
use super::memory::{Memory, Width};
use super::platform::OneBlock;

/// Packed rings.
pub struct Packed<const IN_ORDER: bool>;

impl<const IN_ORDER: bool> device::Layout for Packed<IN_ORDER> {
    type Device = Device;

    fn ring(size: u16, event_idx: bool) -> (Queue, Device) {
        let layout = Layout { size };
        let memory = Memory::new(layout.bytes(), fields(layout));
        let options = QueueOptions { event_idx, in_order: IN_ORDER, ..QueueOptions::default() };
        let ring = RingLayout::for_device(TransportKind::Modern, Features::RING_PACKED, size, size).expect("not 0");
        let queue = Virtqueue::allocate(&mut OneBlock(Some(memory.clone())), QueueIndex::FIRST, ring, options)
            .expect("one block");
        assert_eq!(queue.addresses(), layout.addresses(memory.device_address()));
        let start = Place { offset: 0, wrap: true };
        (queue, Device { memory, layout, event_idx, seen: start, used: start })
    }
}

/// The offsets of a packed queue's areas, with a cache line for each event suppression structure.
#[derive(Clone, Copy)]
struct Layout {
    size: u16,
}

impl Layout {
    fn size(self) -> u16 {
        self.size
    }

    fn driver(self) -> usize {
        (usize::from(self.size) * size_of::<PackedDescriptor>()).next_multiple_of(64)
    }

    fn device(self) -> usize {
        self.driver() + 64
    }

    fn bytes(self) -> usize {
        self.device() + 4
    }

    fn addresses(self, start: u64) -> QueueAddresses {
        let (driver, device) = (start + self.driver() as u64, start + self.device() as u64);
        QueueAddresses { descriptors: start, driver, device }
    }
}

fn fields(layout: Layout) -> Vec<(usize, Width)> {
    let mut fields = vec![(layout.driver(), Width::Four), (layout.device(), Width::Four)];
    for entry in 0..usize::from(layout.size()) {
        let descriptor = entry * size_of::<PackedDescriptor>();
        fields.push((descriptor + offset_of!(PackedDescriptor, addr), Width::Eight));
        fields.push((descriptor + offset_of!(PackedDescriptor, len), Width::Four));
        fields.push((descriptor + offset_of!(PackedDescriptor, id), Width::Two));
        fields.push((descriptor + offset_of!(PackedDescriptor, flags), Width::Two));
    }
    fields
}

/// A position on the ring, with its wrap counter.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    offset: u16,
    wrap: bool,
}

impl Place {
    fn next(self, size: u16) -> Self {
        if self.offset + 1 < size {
            Self { offset: self.offset + 1, ..self }
        } else {
            Self { offset: 0, wrap: !self.wrap }
        }
    }

    fn at(self) -> usize {
        usize::from(self.offset) * size_of::<PackedDescriptor>()
    }

    fn word(self) -> u16 {
        self.offset | if self.wrap { POSITION_WRAP } else { 0 }
    }
}

/// The device's side.
pub struct Device {
    memory: Memory,
    layout: Layout,
    event_idx: bool,
    /// The position of the next request.
    seen: Place,
    /// The position of the next used descriptor.
    used: Place,
}

impl Device {
    fn flags(&self, place: Place) -> u16 {
        self.memory.load16(place.at() + offset_of!(PackedDescriptor, flags))
    }

    /// Advances the used position by `count`. Whether the driver wants an interrupt for these.
    fn advance_used(&mut self, count: usize) -> bool {
        fence(Ordering::SeqCst);
        let wish = self.memory.load32(self.layout.driver());
        let (event, mode) = (wish as u16, (wish >> 16) as u16);
        let mut passed = false;
        for _ in 0..count {
            passed |= self.used.word() == event;
            self.used = self.used.next(self.layout.size());
        }
        match mode {
            RING_EVENT_ENABLE => true,
            RING_EVENT_DISABLE => false,
            RING_EVENT_DESCRIPTOR if self.event_idx => passed,
            _ => panic!("event suppression {wish:#010x}"),
        }
    }

    fn set_wish(&mut self, mode: u16, event: u16) {
        self.memory.store32(self.layout.device(), u32::from(mode) << 16 | u32::from(event));
    }
}

impl device::Device for Device {
    fn take(&mut self) -> Option<Taken> {
        if self.is_idle() {
            return None;
        }
        fence(Ordering::Acquire);
        let mut descriptors = Vec::new();
        loop {
            let (at, flags) = (self.seen.at(), self.flags(self.seen));
            descriptors.push(Descriptor {
                address: self.memory.load64(at + offset_of!(PackedDescriptor, addr)),
                length: self.memory.load32(at + offset_of!(PackedDescriptor, len)),
                writable: flags & DescriptorFlags::WRITE.bits() != 0,
            });
            self.seen = self.seen.next(self.layout.size());
            if flags & DescriptorFlags::NEXT.bits() == 0 {
                let id = self.memory.load16(at + offset_of!(PackedDescriptor, id));
                return Some(Taken { id, descriptors });
            }
            assert!(descriptors.len() < 2, "torn request: {descriptors:?}, and more");
        }
    }

    fn is_idle(&self) -> bool {
        let flags = self.flags(self.seen);
        let (available, used) = (flags & DescriptorFlags::AVAIL.bits() != 0, flags & DescriptorFlags::USED.bits() != 0);
        available != self.seen.wrap || used == self.seen.wrap
    }

    /// The used descriptor overwrites the first descriptor of the first request.
    fn put_all(&mut self, taken: &[Taken], written: u32) -> bool {
        let at = self.used.at();
        self.memory.store16(at + offset_of!(PackedDescriptor, id), taken.last().expect("a request").id);
        self.memory.store32(at + offset_of!(PackedDescriptor, len), written);
        fence(Ordering::Release);
        let lap = if self.used.wrap { DescriptorFlags::AVAIL.bits() | DescriptorFlags::USED.bits() } else { 0 };
        let write = if written == 0 { 0 } else { DescriptorFlags::WRITE.bits() };
        self.memory.store16(at + offset_of!(PackedDescriptor, flags), lap | write);
        self.advance_used(taken.iter().map(|taken| taken.descriptors.len()).sum())
    }

    fn enable_kicks(&mut self) {
        if self.event_idx {
            self.set_wish(RING_EVENT_DESCRIPTOR, self.seen.word());
        } else {
            self.set_wish(RING_EVENT_ENABLE, 0);
        }
        fence(Ordering::SeqCst);
    }

    fn disable_kicks(&mut self) {
        self.set_wish(RING_EVENT_DISABLE, 0);
    }
}
