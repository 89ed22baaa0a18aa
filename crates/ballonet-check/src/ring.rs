//! Virtqueues written by hand, entry by entry: any chain that is legal, and nothing taken on trust of what comes back.
//!
//! The driver's own queues keep to one good layout each. A tester has to put rings and chains at every legal place.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::arena::Arena;
use super::outcome::{Verdict, ensure, own};
use ballonet::platform::DmaMemory;
use ballonet::virtio::barrier;
use ballonet::virtio::spec::{
    AVAILABLE_ENTRY, AVAILABLE_F_NO_INTERRUPT, DESCRIPTOR_F_INDIRECT, DESCRIPTOR_F_NEXT, DESCRIPTOR_F_WRITE,
    DESCRIPTOR_SIZE, EVENT_SUPPRESSION_SIZE, Features, PACKED_DESCRIPTOR_FLAGS, PACKED_DESCRIPTOR_ID,
    PACKED_F_AVAILABLE, PACKED_F_USED, POSITION_WRAP, RING_ENTRIES, RING_EVENT_DESCRIPTOR, RING_EVENT_DISABLE,
    RING_EVENT_ENABLE, RING_FLAGS, RING_INDEX, USED_ENTRY, USED_F_NO_NOTIFY,
};

/// A piece of memory in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) address: u64,
    pub(super) length: u32,
    /// Whether the device writes it.
    pub(super) writable: bool,
}

/// A request that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) id: u16,
    /// What the device says it wrote.
    pub(super) length: u32,
    /// What it could write.
    pub(super) writable: u32,
}

/// A request in the device's hands.
#[derive(Debug, Clone)]
struct Posted {
    /// The descriptors of a split queue that it takes.
    slots: Vec<u16>,
    /// How many descriptors it takes.
    descriptors: u16,
    writable: u32,
}

/// Where the three areas of a queue are in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Areas {
    pub(super) descriptors: usize,
    pub(super) driver: usize,
    pub(super) device: usize,
}

/// How the areas are placed, and the descriptors of a split queue used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    /// In order, each on a boundary of 64 bytes.
    Plain,
    /// Backwards, each at the worst alignment that is legal, and split descriptors from the last to the first.
    Odd,
}

/// When the device is to interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// For every buffer.
    Every,
    /// Not at all.
    None,
    /// After this many more buffers of one descriptor are used; with `EVENT_IDX`.
    After(u16),
}

/// A place on a packed ring: the offset, and the wrap counter of the lap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    offset: u16,
    wrap: bool,
}

impl Place {
    const START: Self = Self { offset: 0, wrap: true };

    const fn on(self, count: u16, size: u16) -> Self {
        let sum = self.offset as u32 + count as u32;
        if sum < size as u32 {
            Self { offset: sum as u16, wrap: self.wrap }
        } else {
            Self { offset: (sum - size as u32) as u16, wrap: !self.wrap }
        }
    }

    const fn word(self) -> u16 {
        self.offset | if self.wrap { POSITION_WRAP } else { 0 }
    }

    const fn available_flags(self) -> u16 {
        if self.wrap { PACKED_F_AVAILABLE } else { PACKED_F_USED }
    }
}

/// How far driver and device are.
#[derive(Debug)]
enum Progress {
    Split {
        /// The available index, with what is not published.
        added: u16,
        published: u16,
        seen: u16,
    },
    Packed {
        added: Place,
        /// Where the batch that is not published begins, and the flags that are held back.
        held: Option<(Place, u16)>,
        /// Descriptors in it.
        batch: u16,
        seen: Place,
    },
}

/// A queue.
#[derive(Debug)]
pub(super) struct RawQueue {
    pub(super) index: u16,
    pub(super) size: u16,
    pub(super) areas: Areas,
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
    pub(super) done: Vec<Used>,
}

impl RawQueue {
    /// Finds room for the areas of a queue and zeroes them.
    pub(super) fn place<M: DmaMemory>(
        arena: &mut Arena<M>,
        size: u16,
        packed: bool,
        placement: Placement,
    ) -> Verdict<Areas> {
        let (descriptors, driver, device) = sizes(size, packed);
        // Beside each size: the alignment that the specification asks for (2.7, 2.8.10).
        let areas = if placement == Placement::Plain {
            let descriptors = arena.place(descriptors, 64, 0)?;
            let driver = arena.place(driver, 64, 0)?;
            Areas { descriptors, driver, device: arena.place(device, 64, 0)? }
        } else {
            let device = arena.place(device, 64, 4)?;
            let driver = arena.place(driver, 64, if packed { 4 } else { 2 })?;
            Areas { descriptors: arena.place(descriptors, 64, 16)?, driver, device }
        };
        arena.zero(areas.descriptors, descriptors);
        arena.zero(areas.driver, driver);
        arena.zero(areas.device, device);
        Ok(areas)
    }

    /// A queue in areas that are zeroed.
    pub(super) fn new<M: DmaMemory>(
        arena: &mut Arena<M>,
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
            Progress::Packed { added: Place::START, held: None, batch: 0, seen: Place::START }
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
    pub(super) fn outstanding(&self) -> usize {
        self.order.len()
    }

    /// Descriptors that are free.
    pub(super) fn room(&self) -> u16 {
        self.free_descriptors
    }

    /// Adds a chain, by a table at `table` if it is to go by one. There is room: the caller has seen to it.
    pub(super) fn add<M: DmaMemory>(
        &mut self,
        arena: &mut Arena<M>,
        chain: &[Part],
        table: Option<usize>,
    ) -> Verdict<u16> {
        let needed = if table.is_some() { 1 } else { chain.len() as u16 };
        let (queue, room) = (self.index, self.free_descriptors);
        own!(
            needed <= room && needed > 0,
            "{needed} descriptors are added to queue {queue}, which has room for {room}"
        );
        let packed = matches!(self.progress, Progress::Packed { .. });
        let writable = chain.iter().filter(|part| part.writable).map(|part| part.length).sum();
        if let Some(table) = table {
            for (position, part) in chain.iter().enumerate() {
                let next = position + 1 < chain.len();
                let at = table + position * DESCRIPTOR_SIZE;
                if packed {
                    // Entries of a packed table have neither NEXT nor an id (2.8.8).
                    write_packed(arena, at, *part, 0, write_flag(*part));
                } else {
                    let flags = write_flag(*part) | if next { DESCRIPTOR_F_NEXT } else { 0 };
                    write_split(arena, at, *part, flags, position as u16 + 1);
                }
            }
        }
        let whole = table.map(|table| Part {
            address: arena.address(table),
            length: (chain.len() * DESCRIPTOR_SIZE) as u32,
            writable: false,
        });
        let (chain, own) = match &whole {
            Some(part) => (core::slice::from_ref(part), DESCRIPTOR_F_INDIRECT),
            None => (chain, 0),
        };
        let (id, slots) = if packed { self.add_packed(arena, chain, own) } else { self.add_split(arena, chain, own) };
        self.free_descriptors -= needed;
        self.posted[usize::from(id)] = Some(Posted { slots, descriptors: needed, writable });
        self.order.push_back(id);
        self.unpublished += 1;
        Ok(id)
    }

    fn add_split<M: DmaMemory>(&mut self, arena: &mut Arena<M>, chain: &[Part], own: u16) -> (u16, Vec<u16>) {
        let slots: Vec<u16> = self.free.drain(..chain.len()).collect();
        for (position, (part, slot)) in chain.iter().zip(&slots).enumerate() {
            let next = slots.get(position + 1).copied();
            let flags = own | write_flag(*part) | if next.is_some() { DESCRIPTOR_F_NEXT } else { 0 };
            let at = self.areas.descriptors + usize::from(*slot) * DESCRIPTOR_SIZE;
            // Without NEXT the field means nothing: so it holds nonsense.
            write_split(arena, at, *part, flags, next.unwrap_or(0xdead));
        }
        let head = slots[0];
        if let Progress::Split { added, .. } = &mut self.progress {
            let entry = usize::from(*added % self.size) * AVAILABLE_ENTRY;
            arena.store16(self.areas.driver + RING_ENTRIES + entry, head);
            *added = added.wrapping_add(1);
        }
        (head, slots)
    }

    fn add_packed<M: DmaMemory>(&mut self, arena: &mut Arena<M>, chain: &[Part], own: u16) -> (u16, Vec<u16>) {
        let id = self.free.pop_front().unwrap_or(0);
        let Progress::Packed { added, held, batch, .. } = &mut self.progress else { return (id, Vec::new()) };
        for (position, part) in chain.iter().enumerate() {
            let next = position + 1 < chain.len();
            let flags = added.available_flags() | own | write_flag(*part) | if next { DESCRIPTOR_F_NEXT } else { 0 };
            let at = self.areas.descriptors + usize::from(added.offset) * DESCRIPTOR_SIZE;
            // Only the last descriptor's id counts (2.8.6): so the others hold nonsense.
            let shown = if next { 0xdead } else { id };
            if held.is_none() {
                // The first of the batch becomes available last: its flags stay as they are.
                let kept = arena.load16(at + PACKED_DESCRIPTOR_FLAGS);
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

    /// Shows the device what was added. Whether it wants to be kicked for it.
    pub(super) fn publish<M: DmaMemory>(&mut self, arena: &mut Arena<M>) -> bool {
        barrier::publish();
        self.unpublished = 0;
        match &mut self.progress {
            Progress::Split { added, published, .. } => {
                let old = core::mem::replace(published, *added);
                arena.store16(self.areas.driver + RING_INDEX, *added);
                barrier::full();
                if self.event_idx {
                    let event = arena.load16(self.areas.device + RING_ENTRIES + usize::from(self.size) * USED_ENTRY);
                    added.wrapping_sub(event).wrapping_sub(1) < added.wrapping_sub(old)
                } else {
                    arena.load16(self.areas.device + RING_FLAGS) & USED_F_NO_NOTIFY == 0
                }
            }
            Progress::Packed { held, batch, .. } => {
                let Some((start, flags)) = held.take() else { return false };
                let at = self.areas.descriptors + usize::from(start.offset) * DESCRIPTOR_SIZE;
                arena.store16(at + PACKED_DESCRIPTOR_FLAGS, flags);
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
    pub(super) fn progress(&self) -> u16 {
        match self.progress {
            Progress::Split { published, .. } => published,
            Progress::Packed { added, .. } => added.word(),
        }
    }

    /// Says when the device must interrupt, counted from the buffers returned so far.
    pub(super) fn wish<M: DmaMemory>(&self, arena: &mut Arena<M>, wish: Wish) {
        match self.progress {
            Progress::Split { seen, .. } if self.event_idx => {
                let event = match wish {
                    Wish::Every => seen,
                    Wish::None => seen.wrapping_sub(1),
                    Wish::After(count) => seen.wrapping_add(count).wrapping_sub(1),
                };
                arena.store16(self.areas.driver + RING_ENTRIES + usize::from(self.size) * AVAILABLE_ENTRY, event);
            }
            Progress::Split { .. } => {
                let flags = if wish == Wish::None { AVAILABLE_F_NO_INTERRUPT } else { 0 };
                arena.store16(self.areas.driver + RING_FLAGS, flags);
            }
            Progress::Packed { seen, .. } => {
                let (position, flags) = match wish {
                    Wish::Every => (0, RING_EVENT_ENABLE),
                    Wish::None => (0, RING_EVENT_DISABLE),
                    Wish::After(count) => (seen.on(count - 1, self.size).word(), RING_EVENT_DESCRIPTOR),
                };
                arena.store32(self.areas.driver, u32::from(flags) << 16 | u32::from(position));
            }
        }
        barrier::full();
    }

    /// Whether what the device says of the kicks it wants is one of the words there are for it.
    pub(super) fn check_suppression<M: DmaMemory>(&self, arena: &Arena<M>) -> Verdict {
        let queue = self.index;
        match self.progress {
            Progress::Split { .. } => {
                let flags = arena.load16(self.areas.device + RING_FLAGS);
                ensure!(flags <= USED_F_NO_NOTIFY, "queue {queue}: the used ring's flags are {flags:#06x}");
            }
            Progress::Packed { .. } => {
                let word = arena.load32(self.areas.device);
                let (position, flags) = (word as u16, (word >> 16) as u16);
                let most = if self.event_idx { RING_EVENT_DESCRIPTOR } else { RING_EVENT_DISABLE };
                ensure!(flags <= most, "queue {queue}: the device's event suppression flags are {flags:#06x}");
                let offset = position & !POSITION_WRAP;
                ensure!(
                    flags != RING_EVENT_DESCRIPTOR || offset < self.size,
                    "queue {queue} of {}: the device waits for descriptor {offset}",
                    self.size
                );
            }
        }
        Ok(())
    }

    /// Takes what came back into [`RawQueue::done`]; whether anything did.
    pub(super) fn collect<M: DmaMemory>(&mut self, arena: &Arena<M>) -> Verdict<bool> {
        let before = self.done.len();
        match self.progress {
            Progress::Split { .. } => self.collect_split(arena)?,
            Progress::Packed { .. } => self.collect_packed(arena)?,
        }
        Ok(self.done.len() != before)
    }

    fn collect_split<M: DmaMemory>(&mut self, arena: &Arena<M>) -> Verdict {
        let index = arena.load16(self.areas.device + RING_INDEX);
        loop {
            let Progress::Split { seen, .. } = self.progress else { return Ok(()) };
            let (queue, left) = (self.index, index.wrapping_sub(seen));
            let most = self.outstanding() - usize::from(self.unpublished);
            ensure!(
                usize::from(left) <= most,
                "queue {queue}: the used index is {index}, {left} past {seen}, with {most} requests outstanding"
            );
            if left == 0 {
                return Ok(());
            }
            barrier::observe();
            let entry = self.areas.device + RING_ENTRIES + usize::from(seen % self.size) * USED_ENTRY;
            let (id, length) = (arena.load32(entry), arena.load32(entry + 4));
            let count = self.finish(id, length)?.0;
            ensure!(count <= left, "queue {queue}: id {id} was used out of order, {count} requests before their time");
            if let Progress::Split { seen, .. } = &mut self.progress {
                *seen = seen.wrapping_add(count);
            }
        }
    }

    fn collect_packed<M: DmaMemory>(&mut self, arena: &Arena<M>) -> Verdict {
        loop {
            let Progress::Packed { seen, .. } = self.progress else { return Ok(()) };
            let at = self.areas.descriptors + usize::from(seen.offset) * DESCRIPTOR_SIZE;
            let flags = arena.load16(at + PACKED_DESCRIPTOR_FLAGS);
            let is = |bit: u16| (flags & bit != 0) == seen.wrap;
            if !is(PACKED_F_AVAILABLE) || !is(PACKED_F_USED) {
                return Ok(());
            }
            let (queue, offset) = (self.index, seen.offset);
            ensure!(self.outstanding() > 0, "queue {queue}: descriptor {offset} was used with nothing outstanding");
            barrier::observe();
            let (id, length) = (arena.load16(at + PACKED_DESCRIPTOR_ID), arena.load32(at + 8));
            let descriptors = self.finish(id.into(), length)?.1;
            if let Progress::Packed { seen, .. } = &mut self.progress {
                *seen = seen.on(descriptors, self.size);
            }
        }
    }

    /// Ends the request that the device names, and with `IN_ORDER` those before it: how many, and how many descriptors.
    fn finish(&mut self, id: u32, length: u32) -> Verdict<(u16, u16)> {
        let (queue, size) = (self.index, self.size);
        ensure!(id < u32::from(size), "queue {queue} of {size}: used id {id}");
        let id = id as u16;
        let Some(place) = self.order.iter().position(|posted| *posted == id) else {
            ensure!(false, "queue {queue}: used id {id} is not outstanding");
            return Ok((0, 0));
        };
        let shown = self.order.len() - usize::from(self.unpublished);
        ensure!(place < shown, "queue {queue}: used id {id} was not published yet");
        let ended: Vec<u16> = if self.in_order {
            self.order.drain(..=place).collect()
        } else {
            self.order.remove(place).into_iter().collect()
        };
        let mut descriptors = 0;
        for ended_id in &ended {
            let Some(posted) = self.posted[usize::from(*ended_id)].take() else { continue };
            descriptors += posted.descriptors;
            if posted.slots.is_empty() {
                self.free.push_back(*ended_id);
            } else {
                self.free.extend(posted.slots);
            }
            // Of those that are skipped the device says no length.
            let length = if *ended_id == id { length } else { 0 };
            self.done.push(Used { id: *ended_id, length, writable: posted.writable });
        }
        self.free_descriptors += descriptors;
        Ok((ended.len() as u16, descriptors))
    }
}

/// Sizes of the three areas in bytes.
pub(super) const fn sizes(size: u16, packed: bool) -> (usize, usize, usize) {
    let entries = size as usize;
    if packed {
        return (entries * DESCRIPTOR_SIZE, EVENT_SUPPRESSION_SIZE, EVENT_SUPPRESSION_SIZE);
    }
    // Each ring ends with the index for `EVENT_IDX`.
    (entries * DESCRIPTOR_SIZE, RING_ENTRIES + entries * AVAILABLE_ENTRY + 2, RING_ENTRIES + entries * USED_ENTRY + 2)
}

const fn write_flag(part: Part) -> u16 {
    if part.writable { DESCRIPTOR_F_WRITE } else { 0 }
}

fn write_split<M: DmaMemory>(arena: &mut Arena<M>, at: usize, part: Part, flags: u16, next: u16) {
    let mut bytes = [0; DESCRIPTOR_SIZE];
    bytes[..8].copy_from_slice(&part.address.to_le_bytes());
    bytes[8..12].copy_from_slice(&part.length.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    arena.write(at, &bytes);
}

/// All of a packed descriptor, the flags in a store of their own.
fn write_packed<M: DmaMemory>(arena: &mut Arena<M>, at: usize, part: Part, id: u16, flags: u16) {
    let mut bytes = [0; PACKED_DESCRIPTOR_FLAGS];
    bytes[..8].copy_from_slice(&part.address.to_le_bytes());
    bytes[8..12].copy_from_slice(&part.length.to_le_bytes());
    bytes[12..].copy_from_slice(&id.to_le_bytes());
    arena.write(at, &bytes);
    arena.store16(at + PACKED_DESCRIPTOR_FLAGS, flags);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::ARENA;
    use crate::outcome::Stop;
    use ballonet::platform::Platform;
    use ballonet_models::{Machine, ModelPlatform};

    #[test]
    fn what_the_tester_has_no_room_for_is_its_own_trouble() {
        for packed in [false, true] {
            let mut platform = ModelPlatform::new(&Machine::new(64));
            let mut arena = Arena::new(platform.allocate_dma(ARENA, 4096).unwrap());
            let areas = RawQueue::place(&mut arena, 2, packed, Placement::Plain).unwrap();
            let features = if packed { Features::RING_PACKED } else { Features::empty() };
            let mut queue = RawQueue::new(&mut arena, (1, 2), areas, features, Placement::Plain);
            let part = Part { address: arena.address(0), length: 4, writable: false };
            for chain in [&[part; 3][..], &[]] {
                let trouble = queue.add(&mut arena, chain, None);
                assert!(matches!(&trouble, Err(Stop::Trouble(detail)) if detail.contains("queue 1")), "{trouble:?}");
            }
            queue.add(&mut arena, &[part; 2], None).unwrap();
            assert!(matches!(queue.add(&mut arena, &[part], None), Err(Stop::Trouble(_))));
            assert!(matches!(arena.place(ARENA, 16, 0), Err(Stop::Trouble(_))));
        }
    }
}
