//! Queues that are set up incorrectly.

use core::mem::offset_of;

use super::{QUEUE_LIMIT, Role, Shape, StartOptions, TestDevice, Transport};
use crate::arena::ARENA;
use crate::ring::{Areas, Placement, RawDescriptor, sizes};
use crate::verdict::{Reaction, Verdict};
use ballonet::virtio::spec::{AvailableRing, DescriptorFlags, Status};

/// How a queue is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wrong {
    /// Its size, if that is invalid.
    pub(crate) size: Option<u16>,
    /// The addresses of descriptors, driver area and device area.
    pub(crate) parts: [u64; 3],
    pub(crate) writes_addresses: bool,
}

/// A queue that waits to be set up incorrectly.
struct Prepared {
    number: u16,
    size: u16,
    areas: Areas,
    /// The right way.
    right: Wrong,
}

/// Entries of the queue.
const SIZE: u16 = 64;

impl TestDevice<'_> {
    /// Starts the device with its other queues set up correctly, and the one for requests, which holds one, as `change`
    /// says. Refused if the queue does not show itself in use, or the device does not start.
    pub(crate) fn set_up_wrong(
        &mut self,
        change: impl FnOnce(&mut Self, u16, &mut Wrong) -> Verdict,
    ) -> Verdict<Reaction> {
        // Only this much is compiled for each check.
        let prepared = self.prepare_wrong()?;
        let mut wrong = prepared.right;
        change(self, prepared.number, &mut wrong)?;
        self.complete_wrong(&prepared, wrong)
    }

    /// Does everything up to the selection of the queue.
    fn prepare_wrong(&mut self) -> Verdict<Prepared> {
        self.stop()?;
        self.arena.clear();
        self.negotiate_least()?;
        self.features = self.least();
        let setup = StartOptions { size: self.attack_size(SIZE), ..self.plain() };
        let queue = self.number(Role::Second)?;
        for other in self.wanted_queues().into_iter().filter(|other| *other != queue) {
            self.enable(other, &setup)?;
        }
        let size = setup.size.min(self.sizes[usize::from(queue)]);
        let placement = if self.is_legacy() { Placement::Block } else { Placement::Plain };
        let areas = Areas::place(&mut self.arena, size, false, placement)?;
        self.fill(areas)?;
        self.arena.open(areas.device, sizes(size, false).2);
        let parts = [areas.descriptors, areas.driver, areas.device].map(|area| self.arena.address(area));
        self.select(queue);
        Ok(Prepared { number: queue, size, areas, right: Wrong { size: None, parts, writes_addresses: true } })
    }

    /// Sets the queue up, starts the device, and sends the request.
    fn complete_wrong(&mut self, prepared: &Prepared, wrong: Wrong) -> Verdict<Reaction> {
        let &Prepared { number: queue, size, areas, right: Wrong { parts, .. } } = prepared;
        self.select(queue);
        match wrong.size {
            Some(size) => self.write_size(size)?,
            None => self.set_size(size, 0),
        }
        match (wrong.writes_addresses, wrong.parts == parts) {
            (true, true) => self.write_areas(areas),
            (true, false) => self.write_parts(wrong.parts)?,
            (false, _) if self.is_legacy() => self.write_parts(wrong.parts)?,
            (false, _) => {}
        }
        self.switch_on();
        let enabled = self.shows_use(queue);
        let live = self.live();
        self.set_status(live);
        self.kick_number(queue, queue);
        self.wait_quiet()?;
        let started = self.status()?.contains(live);
        Ok(if enabled && started { Reaction::Ignored } else { Reaction::Refused })
    }

    /// Puts a request into a queue that is not enabled yet.
    fn fill(&mut self, areas: Areas) -> Verdict {
        let Ok(payload) = self.payload(Role::Second, 0..8) else { return Ok(()) };
        let chain = self.place(&payload, &Shape::PLAIN)?;
        for (place, part) in (0..).zip(&chain) {
            let last = usize::from(place) + 1 == chain.len();
            let next = if last { DescriptorFlags::empty() } else { DescriptorFlags::NEXT };
            let write = if part.writable { DescriptorFlags::WRITE } else { DescriptorFlags::empty() };
            let flags = (next | write).bits();
            let request = RawDescriptor { address: part.address, length: part.length, flags, next: place + 1 };
            request.put(&mut self.arena, areas.descriptors, place, false);
        }
        self.arena.store16(areas.driver + offset_of!(AvailableRing, ring), 0);
        self.arena.store16(areas.driver + offset_of!(AvailableRing, idx), 1);
        Ok(())
    }

    /// The size of queues under attack: this, or what the legacy interface on PCI makes them have.
    pub(super) fn attack_size(&self, size: u16) -> u16 {
        if matches!(self.transport, Transport::Legacy(_)) { QUEUE_LIMIT } else { size }
    }

    /// The status of a running device.
    pub(crate) fn live(&self) -> Status {
        self.settled() | Status::DRIVER_OK
    }

    /// Lets the device write anywhere in the arena, since the driver has told it to overwrite the driver's own data.
    pub(crate) fn allow_all(&mut self) {
        self.arena.open(0, ARENA);
    }

    /// Starts the device with queues of `size` entries.
    pub(crate) fn start_small(&mut self, size: u16) -> Verdict {
        let setup = StartOptions { size, ..self.plain() };
        self.start(&setup)?;
        self.warm_up()
    }

    /// Inflates single frames in turn, and continues if the device returns none.
    pub(crate) fn send_singles(&mut self, count: usize) -> Verdict {
        for frame in 0..count {
            if self.with_queue(Role::First, |queue, _| queue.room())? == 0 {
                return Ok(());
            }
            self.post(Role::First, frame..frame + 1, &Shape::PLAIN)?;
            self.publish(Role::First)?;
            self.kick(Role::First)?;
            // A device that has returned the frame may still be at work for the kick: it must meet each frame alike.
            self.wait_quiet()?;
            let returned = self.with_queue(Role::First, |queue, arena| queue.collect(arena).unwrap_or(true))?;
            if !returned {
                return Ok(());
            }
        }
        Ok(())
    }
}
