//! What the device returns: every used entry is checked before it is trusted.

use core::mem::offset_of;

use alloc::vec::Vec;

use super::{Progress, RawQueue, Used};
use crate::arena::Arena;
use crate::verdict::{Verdict, ensure, fail};
use ballonet::virtio::barrier;
use ballonet::virtio::spec::{
    Descriptor, DescriptorFlags, POSITION_WRAP, PackedDescriptor, RING_EVENT_DESCRIPTOR, RING_EVENT_DISABLE,
    USED_F_NO_NOTIFY, UsedElement, UsedRing,
};

impl RawQueue {
    /// Fails if the device's kick suppression has an undefined value.
    pub(crate) fn check_suppression(&self, arena: &Arena) -> Verdict {
        let queue = self.index;
        match self.progress {
            Progress::Split { .. } => {
                let flags = arena.load16(self.areas.device + offset_of!(UsedRing, flags));
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

    /// Takes returned requests into [`RawQueue::done`]; returns whether there were any.
    pub(crate) fn collect(&mut self, arena: &Arena) -> Verdict<bool> {
        let before = self.done.len();
        match self.progress {
            Progress::Split { .. } => self.collect_split(arena)?,
            Progress::Packed { .. } => self.collect_packed(arena)?,
        }
        Ok(self.done.len() != before)
    }

    fn collect_split(&mut self, arena: &Arena) -> Verdict {
        let index = arena.load16(self.areas.device + offset_of!(UsedRing, idx));
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
            let entry = self.areas.device
                + offset_of!(UsedRing, ring)
                + usize::from(seen % self.size) * size_of::<UsedElement>();
            let (id, length) = (arena.load32(entry), arena.load32(entry + 4));
            let count = self.finish(id, length)?.0;
            ensure!(count <= left, "queue {queue}: id {id} was used out of order, {count} requests early");
            if let Progress::Split { seen, .. } = &mut self.progress {
                *seen = seen.wrapping_add(count);
            }
        }
    }

    fn collect_packed(&mut self, arena: &Arena) -> Verdict {
        loop {
            let Progress::Packed { seen, .. } = self.progress else { return Ok(()) };
            let at = self.areas.descriptors + usize::from(seen.offset) * size_of::<Descriptor>();
            let flags = arena.load16(at + offset_of!(PackedDescriptor, flags));
            let is = |bit: u16| (flags & bit != 0) == seen.wrap;
            if !is(DescriptorFlags::AVAIL.bits()) || !is(DescriptorFlags::USED.bits()) {
                return Ok(());
            }
            let (queue, offset) = (self.index, seen.offset);
            ensure!(self.outstanding() > 0, "queue {queue}: descriptor {offset} was used with nothing outstanding");
            barrier::observe();
            let (id, length) = (arena.load16(at + offset_of!(PackedDescriptor, id)), arena.load32(at + 8));
            let descriptors = self.finish(id.into(), length)?.1;
            if let Progress::Packed { seen, .. } = &mut self.progress {
                *seen = seen.on(descriptors, self.size);
            }
        }
    }

    /// Ends the request that the device names, and with `IN_ORDER` those before it: returns how many requests and
    /// descriptors.
    fn finish(&mut self, id: u32, length: u32) -> Verdict<(u16, u16)> {
        let (queue, size) = (self.index, self.size);
        ensure!(id < u32::from(size), "queue {queue} of {size}: used id {id}");
        let id = id as u16;
        let Some(place) = self.order.iter().position(|posted| *posted == id) else {
            fail!("queue {queue}: used id {id} is not outstanding");
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
            // The device reports no length for requests that are skipped.
            let length = if *ended_id == id { length } else { 0 };
            self.done.push(Used { id: *ended_id, length, writable: posted.writable });
        }
        self.free_descriptors += descriptors;
        Ok((ended.len() as u16, descriptors))
    }
}
