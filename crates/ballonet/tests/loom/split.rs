//! The device's side of a split queue (virtio 1.4, 2.7).

use core::mem::offset_of;

use ballonet::platform::DmaMemory;
use ballonet::virtio::spec::{
    AVAILABLE_F_NO_INTERRUPT, AvailableRing, Descriptor as RingDescriptor, DescriptorFlags, Features, USED_F_NO_NOTIFY,
    UsedElement, UsedRing,
};
use ballonet::virtio::{QueueAddresses, QueueIndex, QueueOptions, RingLayout, TransportKind, Virtqueue};
use loom::sync::atomic::{Ordering, fence};

use super::device::{self, Descriptor, Queue, Taken};
use super::memory::{Memory, Width};
use super::platform::OneBlock;

/// Split rings.
pub struct Split<const IN_ORDER: bool>;

impl<const IN_ORDER: bool> device::Layout for Split<IN_ORDER> {
    type Device = Device;

    fn ring(size: u16, event_idx: bool) -> (Queue, Device) {
        let layout = Layout { size };
        let memory = Memory::new(layout.bytes(), fields(layout));
        let options = QueueOptions { event_idx, in_order: IN_ORDER, ..QueueOptions::default() };
        let ring =
            RingLayout::for_device(TransportKind::Modern, Features::empty(), size, size).expect("a power of two");
        let queue = Virtqueue::allocate(&mut OneBlock(Some(memory.clone())), QueueIndex::FIRST, ring, options)
            .expect("one block");
        assert_eq!(queue.addresses(), layout.addresses(memory.device_address()));
        (queue, Device { memory, layout, event_idx, seen: 0, used: 0 })
    }
}

/// The offsets of a split queue's areas.
#[derive(Clone, Copy)]
struct Layout {
    size: u16,
}

impl Layout {
    fn size(self) -> u16 {
        self.size
    }

    fn available(self) -> usize {
        usize::from(self.size) * size_of::<RingDescriptor>()
    }

    fn used_event(self) -> usize {
        self.available() + offset_of!(AvailableRing, ring) + usize::from(self.size) * size_of::<u16>()
    }

    /// On a separate cache line, so that driver and device do not write the same one.
    fn used(self) -> usize {
        (self.used_event() + 2).next_multiple_of(64)
    }

    fn available_event(self) -> usize {
        self.used() + offset_of!(UsedRing, ring) + usize::from(self.size) * size_of::<UsedElement>()
    }

    fn bytes(self) -> usize {
        (self.available_event() + 2).next_multiple_of(64)
    }

    fn addresses(self, start: u64) -> QueueAddresses {
        let (driver, device) = (start + self.available() as u64, start + self.used() as u64);
        QueueAddresses { descriptors: start, driver, device }
    }
}

fn fields(layout: Layout) -> Vec<(usize, Width)> {
    let mut fields = Vec::new();
    for entry in 0..usize::from(layout.size()) {
        let descriptor = entry * size_of::<RingDescriptor>();
        fields.push((descriptor + offset_of!(RingDescriptor, addr), Width::Eight));
        fields.push((descriptor + offset_of!(RingDescriptor, len), Width::Four));
        fields.push((descriptor + offset_of!(RingDescriptor, flags), Width::Two));
        fields.push((descriptor + offset_of!(RingDescriptor, next), Width::Two));
        fields.push((layout.available() + offset_of!(AvailableRing, ring) + entry * size_of::<u16>(), Width::Two));
        let used = layout.used() + offset_of!(UsedRing, ring) + entry * size_of::<UsedElement>();
        fields.push((used, Width::Four));
        fields.push((used + 4, Width::Four));
    }
    for ring in [layout.available(), layout.used()] {
        fields.push((ring + offset_of!(AvailableRing, flags), Width::Two));
        fields.push((ring + offset_of!(AvailableRing, idx), Width::Two));
    }
    fields.push((layout.used_event(), Width::Two));
    fields.push((layout.available_event(), Width::Two));
    fields
}

/// The device's side.
pub struct Device {
    memory: Memory,
    layout: Layout,
    event_idx: bool,
    /// The available index up to which the device has taken requests.
    seen: u16,
    /// The used index.
    used: u16,
}

impl Device {
    fn position(&self, index: u16) -> usize {
        usize::from(index % self.layout.size())
    }

    fn descriptor(&self, index: u16) -> (Descriptor, Option<u16>) {
        let at = usize::from(index) * size_of::<RingDescriptor>();
        let flags = self.memory.load16(at + offset_of!(RingDescriptor, flags));
        let descriptor = Descriptor {
            address: self.memory.load64(at + offset_of!(RingDescriptor, addr)),
            length: self.memory.load32(at + offset_of!(RingDescriptor, len)),
            writable: flags & DescriptorFlags::WRITE.bits() != 0,
        };
        let next = (flags & DescriptorFlags::NEXT.bits() != 0)
            .then(|| self.memory.load16(at + offset_of!(RingDescriptor, next)));
        (descriptor, next)
    }

    /// Whether the driver wants an interrupt for one of the last `requests` used entries.
    fn wants_interrupt(&self, requests: u16) -> bool {
        fence(Ordering::SeqCst);
        if self.event_idx {
            self.used.wrapping_sub(self.memory.load16(self.layout.used_event())).wrapping_sub(1) < requests
        } else {
            self.memory.load16(self.layout.available() + offset_of!(AvailableRing, flags)) & AVAILABLE_F_NO_INTERRUPT
                == 0
        }
    }
}

impl device::Device for Device {
    fn take(&mut self) -> Option<Taken> {
        if self.is_idle() {
            return None;
        }
        fence(Ordering::Acquire);
        let entry =
            self.layout.available() + offset_of!(AvailableRing, ring) + self.position(self.seen) * size_of::<u16>();
        let id = self.memory.load16(entry);
        self.seen = self.seen.wrapping_add(1);
        let mut descriptors = Vec::new();
        let mut next = Some(id);
        while let Some(index) = next {
            assert!(index < self.layout.size() && descriptors.len() < 2, "torn request: {descriptors:?}, then {index}");
            let (descriptor, after) = self.descriptor(index);
            descriptors.push(descriptor);
            next = after;
        }
        Some(Taken { id, descriptors })
    }

    fn is_idle(&self) -> bool {
        self.memory.load16(self.layout.available() + offset_of!(AvailableRing, idx)) == self.seen
    }

    /// The used entry is written in place of the first request's.
    fn put_all(&mut self, taken: &[Taken], written: u32) -> bool {
        let entry =
            self.layout.used() + offset_of!(UsedRing, ring) + self.position(self.used) * size_of::<UsedElement>();
        self.memory.store32(entry, taken.last().expect("a request").id.into());
        self.memory.store32(entry + 4, written);
        fence(Ordering::Release);
        let requests = taken.len() as u16;
        self.used = self.used.wrapping_add(requests);
        self.memory.store16(self.layout.used() + offset_of!(UsedRing, idx), self.used);
        self.wants_interrupt(requests)
    }

    fn enable_kicks(&mut self) {
        if self.event_idx {
            self.memory.store16(self.layout.available_event(), self.seen);
        } else {
            self.memory.store16(self.layout.used() + offset_of!(UsedRing, flags), 0);
        }
        fence(Ordering::SeqCst);
    }

    fn disable_kicks(&mut self) {
        if self.event_idx {
            // An index in the past.
            self.memory.store16(self.layout.available_event(), self.seen.wrapping_sub(1));
        } else {
            self.memory.store16(self.layout.used() + offset_of!(UsedRing, flags), USED_F_NO_NOTIFY);
        }
    }
}
