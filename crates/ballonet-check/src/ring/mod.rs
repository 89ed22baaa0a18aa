//! Virtqueues written entry by entry: any legal chain; what the device returns is not trusted.
//!
//! The driver's own queues use one good layout each. A tester must try every legal position of rings and chains.

mod areas;
mod attack;
mod collect;
mod position;

use core::mem::offset_of;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

pub(crate) use areas::{Areas, LEGACY_PAGE, Placement, sizes};
pub(crate) use attack::{RawDescriptor, RingField};

use crate::arena::Arena;
use crate::verdict::{Verdict, trouble_unless};
use areas::{write_flag, write_packed, write_split};
use ballonet::virtio::barrier;
use ballonet::virtio::spec::{
    AVAILABLE_F_NO_INTERRUPT, AvailableRing, Descriptor, DescriptorFlags, Features, PackedDescriptor,
    RING_EVENT_DESCRIPTOR, RING_EVENT_DISABLE, RING_EVENT_ENABLE, USED_F_NO_NOTIFY, UsedElement, UsedRing,
};
use position::RingPosition;

/// A piece of memory in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) address: u64,
    pub(crate) length: u32,
    /// Whether the device writes it.
    pub(crate) writable: bool,
}

/// A request that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) id: u16,
    /// The bytes that the device claims to have written.
    pub(crate) length: u32,
    /// The bytes that it may write.
    pub(crate) writable: u32,
}

/// An outstanding request.
#[derive(Debug, Clone)]
struct Posted {
    /// The descriptors of a split queue that it takes.
    slots: Vec<u16>,
    /// How many descriptors it takes.
    descriptors: u16,
    writable: u32,
}

/// When the device must interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WantInterrupt {
    /// For every buffer.
    Every,
    /// Not at all.
    None,
    /// After this many more buffers, of the given number of descriptors each; with `EVENT_IDX`.
    After(u16, u16),
}

/// How far driver and device have got.
#[derive(Debug)]
enum Progress {
    Split {
        /// The available index, with what is not published.
        added: u16,
        published: u16,
        seen: u16,
    },
    Packed {
        added: RingPosition,
        /// Where the batch that is not published begins, and the flags that are held back.
        held: Option<(RingPosition, u16)>,
        /// Descriptors in it.
        batch: u16,
        seen: RingPosition,
    },
}

/// A queue.
#[derive(Debug)]
pub(crate) struct RawQueue {
    pub(crate) index: u16,
    pub(crate) size: u16,
    pub(crate) areas: Areas,
    progress: Progress,
    event_idx: bool,
    in_order: bool,
    /// Free descriptors of a split queue, free ids of a packed one.
    free: VecDeque<u16>,
    free_descriptors: u16,
    posted: Vec<Option<Posted>>,
    /// What is outstanding, in the order in which it was made available.
    order: VecDeque<u16>,
    unpublished: u16,
    /// Returned buffers that were not examined yet.
    pub(crate) done: Vec<Used>,
}

impl RawQueue {
    /// A queue in areas that are zeroed.
    pub(crate) fn new(
        arena: &mut Arena,
        (index, size): (u16, u16),
        areas: Areas,
        features: Features,
        placement: Placement,
    ) -> Self {
        let packed = features.contains(Features::RING_PACKED);
        let (descriptors, _, device) = sizes(size, packed);
        arena.open(areas.device, device);
        if packed {
            arena.open(areas.descriptors, descriptors);
        }
        let in_order = features.contains(Features::IN_ORDER);
        let backwards = placement == Placement::Odd && !in_order;
        let free = if backwards { (0..size).rev().collect() } else { (0..size).collect() };
        let progress = if packed {
            Progress::Packed { added: RingPosition::START, held: None, batch: 0, seen: RingPosition::START }
        } else {
            Progress::Split { added: 0, published: 0, seen: 0 }
        };
        Self {
            index,
            size,
            areas,
            progress,
            event_idx: features.contains(Features::EVENT_IDX),
            in_order,
            free,
            free_descriptors: size,
            posted: alloc::vec![None; usize::from(size)],
            order: VecDeque::new(),
            unpublished: 0,
            done: Vec::new(),
        }
    }

    /// Requests that the device has.
    pub(crate) fn outstanding(&self) -> usize {
        self.order.len()
    }

    /// Descriptors that are free.
    pub(crate) fn room(&self) -> u16 {
        self.free_descriptors
    }

    /// Adds a chain, through an indirect table at `table` if there is one. The caller has made sure that there is room.
    pub(crate) fn add(&mut self, arena: &mut Arena, chain: &[Part], table: Option<usize>) -> Verdict<u16> {
        let needed = if table.is_some() { 1 } else { chain.len() as u16 };
        let (queue, room) = (self.index, self.free_descriptors);
        trouble_unless!(
            needed <= room && needed > 0,
            "{needed} descriptors are added to queue {queue}, which has room for {room}"
        );
        let packed = matches!(self.progress, Progress::Packed { .. });
        let writable = chain.iter().filter(|part| part.writable).map(|part| part.length).sum();
        if let Some(table) = table {
            for (position, part) in chain.iter().enumerate() {
                let next = position + 1 < chain.len();
                let at = table + position * size_of::<Descriptor>();
                if packed {
                    // Entries of a packed table have neither NEXT nor an id (2.8.8).
                    write_packed(arena, at, *part, 0, write_flag(*part));
                } else {
                    let flags = write_flag(*part) | if next { DescriptorFlags::NEXT.bits() } else { 0 };
                    write_split(arena, at, *part, flags, position as u16 + 1);
                }
            }
        }
        let whole = table.map(|table| Part {
            address: arena.address(table),
            length: (chain.len() * size_of::<Descriptor>()) as u32,
            writable: false,
        });
        let (chain, own) = match &whole {
            Some(part) => (core::slice::from_ref(part), DescriptorFlags::INDIRECT.bits()),
            None => (chain, 0),
        };
        let (id, slots) = if packed { self.add_packed(arena, chain, own) } else { self.add_split(arena, chain, own) };
        self.free_descriptors -= needed;
        self.posted[usize::from(id)] = Some(Posted { slots, descriptors: needed, writable });
        self.order.push_back(id);
        self.unpublished += 1;
        Ok(id)
    }

    fn add_split(&mut self, arena: &mut Arena, chain: &[Part], own: u16) -> (u16, Vec<u16>) {
        let slots: Vec<u16> = self.free.drain(..chain.len()).collect();
        for (position, (part, slot)) in chain.iter().zip(&slots).enumerate() {
            let next = slots.get(position + 1).copied();
            let flags = own | write_flag(*part) | if next.is_some() { DescriptorFlags::NEXT.bits() } else { 0 };
            let at = self.areas.descriptors + usize::from(*slot) * size_of::<Descriptor>();
            // Without NEXT the field is ignored, so it holds junk.
            write_split(arena, at, *part, flags, next.unwrap_or(0xdead));
        }
        let head = slots[0];
        if let Progress::Split { added, .. } = &mut self.progress {
            let entry = usize::from(*added % self.size) * size_of::<u16>();
            arena.store16(self.areas.driver + offset_of!(AvailableRing, ring) + entry, head);
            *added = added.wrapping_add(1);
        }
        (head, slots)
    }

    fn add_packed(&mut self, arena: &mut Arena, chain: &[Part], own: u16) -> (u16, Vec<u16>) {
        let id = self.free.pop_front().unwrap_or(0);
        let Progress::Packed { added, held, batch, .. } = &mut self.progress else { return (id, Vec::new()) };
        for (position, part) in chain.iter().enumerate() {
            let next = position + 1 < chain.len();
            let flags =
                added.available_flags() | own | write_flag(*part) | if next { DescriptorFlags::NEXT.bits() } else { 0 };
            let at = self.areas.descriptors + usize::from(added.offset) * size_of::<Descriptor>();
            // Only the last descriptor's id counts (2.8.6), so the others hold junk.
            let shown = if next { 0xdead } else { id };
            if held.is_none() {
                // The first of the batch becomes available last: its flags stay as they are.
                let kept = arena.load16(at + offset_of!(PackedDescriptor, flags));
                write_packed(arena, at, *part, shown, kept);
                *held = Some((*added, flags));
            } else {
                write_packed(arena, at, *part, shown, flags);
            }
            *added = added.on(1, self.size);
            *batch += 1;
        }
        (id, Vec::new())
    }

    /// Publishes what was added. Returns whether the device wants a kick.
    pub(crate) fn publish(&mut self, arena: &mut Arena) -> bool {
        barrier::publish();
        self.unpublished = 0;
        match &mut self.progress {
            Progress::Split { added, published, .. } => {
                let old = core::mem::replace(published, *added);
                arena.store16(self.areas.driver + offset_of!(AvailableRing, idx), *added);
                barrier::full();
                if self.event_idx {
                    let event = arena.load16(
                        self.areas.device
                            + offset_of!(UsedRing, ring)
                            + usize::from(self.size) * size_of::<UsedElement>(),
                    );
                    added.wrapping_sub(event).wrapping_sub(1) < added.wrapping_sub(old)
                } else {
                    arena.load16(self.areas.device + offset_of!(UsedRing, flags)) & USED_F_NO_NOTIFY == 0
                }
            }
            Progress::Packed { held, batch, .. } => {
                let Some((start, flags)) = held.take() else { return false };
                let at = self.areas.descriptors + usize::from(start.offset) * size_of::<Descriptor>();
                arena.store16(at + offset_of!(PackedDescriptor, flags), flags);
                barrier::full();
                let count = core::mem::take(batch);
                let word = arena.load32(self.areas.device);
                let (position, flags) = (word as u16, (word >> 16) as u16);
                match flags {
                    RING_EVENT_DISABLE => false,
                    RING_EVENT_DESCRIPTOR => (0..count).any(|step| start.on(step, self.size).word() == position),
                    _ => true,
                }
            }
        }
    }

    /// The upper half of a kick that carries it (`NOTIFICATION_DATA`).
    pub(crate) fn progress(&self) -> u16 {
        match self.progress {
            Progress::Split { published, .. } => published,
            Progress::Packed { added, .. } => added.word(),
        }
    }

    /// Sets when the device must interrupt, counted from the buffers returned so far.
    pub(crate) fn want_interrupt(&self, arena: &mut Arena, wish: WantInterrupt) {
        match self.progress {
            Progress::Split { seen, .. } if self.event_idx => {
                let event = match wish {
                    WantInterrupt::Every => seen,
                    WantInterrupt::None => seen.wrapping_sub(1),
                    WantInterrupt::After(count, _) => seen.wrapping_add(count).wrapping_sub(1),
                };
                arena.store16(
                    self.areas.driver + offset_of!(AvailableRing, ring) + usize::from(self.size) * size_of::<u16>(),
                    event,
                );
            }
            Progress::Split { .. } => {
                let flags = if wish == WantInterrupt::None { AVAILABLE_F_NO_INTERRUPT } else { 0 };
                arena.store16(self.areas.driver + offset_of!(AvailableRing, flags), flags);
            }
            Progress::Packed { seen, .. } => {
                let (position, flags) = match wish {
                    WantInterrupt::Every => (0, RING_EVENT_ENABLE),
                    WantInterrupt::None => (0, RING_EVENT_DISABLE),
                    WantInterrupt::After(count, each) => {
                        (seen.on(count * each - 1, self.size).word(), RING_EVENT_DESCRIPTOR)
                    }
                };
                arena.store32(self.areas.driver, u32::from(flags) << 16 | u32::from(position));
            }
        }
        barrier::full();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::ARENA;
    use crate::platform::AnyPlatform;
    use crate::verdict::Ending;
    use ballonet_models::{Machine, ModelPlatform};

    #[test]
    fn what_the_tester_has_no_room_for_is_its_own_trouble() {
        for packed in [false, true] {
            let mut platform = ModelPlatform::new(&Machine::new(64));
            let mut arena = Arena::new(AnyPlatform::allocate_dma(&mut platform, ARENA, 4096).unwrap());
            let areas = Areas::place(&mut arena, 2, packed, Placement::Plain).unwrap();
            let features = if packed { Features::RING_PACKED } else { Features::empty() };
            let mut queue = RawQueue::new(&mut arena, (1, 2), areas, features, Placement::Plain);
            let part = Part { address: arena.address(0), length: 4, writable: false };
            for chain in [&[part; 3][..], &[]] {
                let trouble = queue.add(&mut arena, chain, None).unwrap_err();
                assert_eq!(trouble.ending(), Ending::Trouble);
                assert!(trouble.clone().reason().contains("queue 1"), "{trouble:?}");
            }
            queue.add(&mut arena, &[part; 2], None).unwrap();
            assert_eq!(queue.add(&mut arena, &[part], None).unwrap_err().ending(), Ending::Trouble);
            assert_eq!(arena.place(ARENA, 16, 0).unwrap_err().ending(), Ending::Trouble);
        }
    }
}
