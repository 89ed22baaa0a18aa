//! Requests to the device in any shape, and waiting for their completion.

use core::ops::Range;

use alloc::format;
use alloc::vec::Vec;

use super::kind::Payload;
use super::{BALLOON, Role, TestDevice};
use crate::arena::Arena;
use crate::ring::{Part, RawQueue, Used};
use crate::verdict::{Stop, Verdict, ensure, fail, skip_unless};
use ballonet::virtio::QueueIndex;
use ballonet::virtio::spec::{Descriptor, Features, Status};

/// How a request lies in memory and in the ring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Units in a request: a balloon's frame numbers, or 4 bytes each.
    pub(crate) frames: usize,
    /// Bytes in a descriptor; the last has the remainder.
    pub(crate) piece: usize,
    /// How far past an aligned address each piece begins.
    pub(crate) skew: usize,
    /// Whether the descriptors are in an indirect table.
    pub(crate) indirect: bool,
}

impl Shape {
    /// One readable and one writable descriptor, aligned, 32 units per request.
    pub(crate) const PLAIN: Self = Self { frames: 32, piece: usize::MAX, skew: 0, indirect: false };

    /// Descriptors that a request takes.
    const fn descriptors(&self, payload: &Payload) -> usize {
        if self.indirect { 1 } else { self.chain(payload) }
    }

    /// Descriptors in its chain, in the ring or in a table.
    const fn chain(&self, payload: &Payload) -> usize {
        payload.readable.len().div_ceil(self.piece) + payload.writable.div_ceil(self.piece)
    }
}

/// What a byte of the arena that the device changed belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Descriptors or the driver's area of a queue.
    Ring,
    /// A buffer that the device was to read.
    Readable,
    /// Nothing that the device was given.
    Outside,
}

impl TestDevice<'_> {
    /// The number of a queue, if the device has it.
    pub(crate) fn number(&self, role: Role) -> Verdict<u16> {
        let numbers = &self.numbers;
        let queue = match role {
            Role::Queue(number) => return Ok(number),
            Role::First | Role::Second if self.kind.number != BALLOON => return Ok(self.kind.request_queue),
            Role::First => Some(numbers.inflate),
            Role::Second => Some(numbers.deflate),
            Role::Statistics => numbers.statistics,
            Role::Hinting => numbers.hinting,
            Role::Reporting => numbers.reporting,
        };
        let name = self.queue_name(role);
        queue.map(QueueIndex::number).ok_or_else(|| Stop::skipped(format_args!("the device has no {name} queue")))
    }

    /// What a queue is called.
    pub(crate) fn queue_name(&self, role: Role) -> &'static str {
        match role {
            Role::Queue(_) => "numbered",
            Role::First | Role::Second if self.kind.number != BALLOON => "request",
            Role::First => "inflate",
            Role::Second => "deflate",
            Role::Statistics => "statistics",
            Role::Hinting => "hinting",
            Role::Reporting => "reporting",
        }
    }

    /// Whether requests have two queues.
    pub(crate) fn has_two_queues(&self) -> bool {
        self.kind.number == BALLOON
    }

    /// The vector of a queue when each has its own.
    pub(crate) fn vector_of(&self, role: Role) -> Verdict<usize> {
        let number = self.number(role)?;
        let place = self.queues.iter().position(|queue| queue.index == number);
        place.map(|place| place + 1).ok_or_else(|| Stop::skipped(format_args!("queue {number} is not in use")))
    }

    /// Does something with a queue in use and the arena.
    pub(crate) fn with_queue<T>(&mut self, role: Role, act: impl FnOnce(&mut RawQueue, &mut Arena) -> T) -> Verdict<T> {
        let number = self.number(role)?;
        let queue = self.queues.iter_mut().find(|queue| queue.index == number);
        match queue {
            Some(queue) => Ok(act(queue, &mut self.arena)),
            None => Err(Stop::skipped(format_args!("queue {number} is not in use"))),
        }
    }

    pub(crate) fn add(&mut self, role: Role, chain: &[Part], table: Option<usize>) -> Verdict<u16> {
        self.with_queue(role, |queue, arena| queue.add(arena, chain, table))?
    }

    /// Publishes what was added; returns whether the device wants a kick.
    pub(crate) fn publish(&mut self, role: Role) -> Verdict<bool> {
        self.with_queue(role, RawQueue::publish)
    }

    /// Kicks a queue with the negotiated width and value (4.1.5.2).
    pub(crate) fn kick(&mut self, role: Role) -> Verdict {
        let (queue, progress) = self.with_queue(role, |queue, _| (queue.index, queue.progress()))?;
        self.ring_doorbell(queue, progress)
    }

    /// Adds a request for some of the tester's units; not published yet.
    pub(crate) fn post(&mut self, role: Role, units: Range<usize>, shape: &Shape) -> Verdict<u16> {
        let payload = self.payload(role, units.clone())?;
        self.post_payload(role, units, &payload, shape)
    }

    fn post_payload(&mut self, role: Role, units: Range<usize>, payload: &Payload, shape: &Shape) -> Verdict<u16> {
        let needed = shape.descriptors(payload);
        let (room, size) = self.with_queue(role, |queue, _| (usize::from(queue.room()), queue.size))?;
        skip_unless!(needed <= usize::from(size), "{needed} descriptors do not fit into a queue of {size}");
        if needed > room {
            self.submit(role)?;
            self.drain(role, 0)?;
        }
        let longest = payload.readable.len().max(payload.writable);
        self.is_plain &= !shape.indirect && shape.skew == 0 && shape.piece >= longest;
        let chain = self.place(payload, shape)?;
        let table = self.table(chain.len(), shape.indirect)?;
        // From here on the device may have them, whatever happens next.
        if role == Role::First && self.kind.number == BALLOON {
            self.away[units].fill(true);
        }
        self.add(role, &chain, table)
    }

    /// Puts the bytes of a request into memory, split as `shape` says; returns its descriptors.
    pub(crate) fn place(&mut self, payload: &Payload, shape: &Shape) -> Verdict<Vec<Part>> {
        let mut chain = Vec::new();
        for piece in payload.readable.chunks(shape.piece) {
            let at = self.arena.place(piece.len(), 16, shape.skew)?;
            self.arena.write(at, piece);
            self.buffers.push((at, at + piece.len()));
            chain.push(Part { address: self.arena.address(at), length: piece.len() as u32, writable: false });
        }
        let mut left = payload.writable;
        while left > 0 {
            let length = left.min(shape.piece);
            let at = self.arena.place(length, 16, shape.skew)?;
            self.arena.open(at, length);
            chain.push(Part { address: self.arena.address(at), length: length as u32, writable: true });
            left -= length;
        }
        Ok(chain)
    }

    /// Room for a table of descriptors.
    pub(super) fn table(&mut self, entries: usize, wanted: bool) -> Verdict<Option<usize>> {
        if !wanted {
            return Ok(None);
        }
        let at = self.arena.place(entries * size_of::<Descriptor>(), 16, 0)?;
        self.buffers.push((at, at + entries * size_of::<Descriptor>()));
        Ok(Some(at))
    }

    /// Makes room for `descriptors` in a queue by waiting for requests in flight, or skips the check if the queue is
    /// smaller.
    pub(crate) fn needs_room(&mut self, role: Role, descriptors: u16) -> Verdict {
        let (room, size) = self.with_queue(role, |queue, _| (queue.room(), queue.size))?;
        skip_unless!(descriptors <= size, "{descriptors} descriptors do not fit into a queue of {size}");
        if room < descriptors { self.drain(role, 0) } else { Ok(()) }
    }

    /// The same for this many of the simplest requests.
    pub(crate) fn needs_requests(&mut self, role: Role, requests: u16) -> Verdict {
        self.needs_room(role, requests.saturating_mul(self.kind.descriptors))
    }

    /// How many of the simplest requests a queue has room for now.
    pub(crate) fn room(&mut self, role: Role) -> Verdict<usize> {
        let descriptors = self.kind.descriptors;
        self.with_queue(role, |queue, _| usize::from(queue.room() / descriptors))
    }

    /// Publishes, and kicks if the device wants it.
    pub(crate) fn submit(&mut self, role: Role) -> Verdict {
        if self.publish(role)? { self.kick(role) } else { Ok(()) }
    }

    /// Waits until at most `left` requests of a queue are outstanding. Returned ones are in its `done`.
    pub(crate) fn drain(&mut self, role: Role, left: usize) -> Verdict {
        self.needs_answers(role)?;
        let limit = self.patience.stall;
        let before = self.with_queue(role, |queue, _| queue.done.len())?;
        let done = self.wait(limit, |device| {
            device.with_queue(role, |queue, arena| {
                queue.collect(arena)?;
                Ok(queue.outstanding() <= left)
            })?
        })?;
        if self.with_queue(role, |queue, _| queue.done.len())? > before {
            self.note_answer(role);
        }
        if done {
            return Ok(());
        }
        let (queue, outstanding) = self.with_queue(role, |queue, _| (queue.index, queue.outstanding()))?;
        let status = self.status()?;
        self.note_status(status);
        let detail = format!(
            "queue {queue}: {outstanding} requests were not returned within {} ms, status {status}, features {}",
            limit / 1_000_000,
            self.features
        );
        self.note_silence(role, &detail)?;
        Err(Stop::failed(format_args!("{detail}")))
    }

    /// Takes what came back from a queue.
    pub(crate) fn take_done(&mut self, role: Role) -> Verdict<Vec<Used>> {
        self.with_queue(role, |queue, _| core::mem::take(&mut queue.done))
    }

    /// Sends some of the tester's units in one direction, in as many requests as needed, and waits for all of them.
    pub(crate) fn transfer(&mut self, role: Role, units: Range<usize>, shape: &Shape) -> Verdict<Vec<Used>> {
        self.needs_answers(role)?;
        let mark = self.arena.mark();
        let mut next = units.start;
        while next < units.end {
            let end = (next + shape.frames).min(units.end);
            let payload = self.payload(role, next..end)?;
            let (room, size) = self.with_queue(role, |queue, _| (queue.room(), queue.size))?;
            // Nor may a chain in a table be longer than the queue (2.7.5.3.1).
            let chain = shape.chain(&payload);
            skip_unless!(chain <= usize::from(size), "{chain} descriptors do not fit into a queue of {size}");
            if shape.descriptors(&payload) > usize::from(room) {
                self.submit(role)?;
                let outstanding = self.with_queue(role, |queue, _| queue.outstanding())?;
                self.drain(role, outstanding.saturating_sub(1))?;
                continue;
            }
            self.post_payload(role, next..end, &payload, shape)?;
            next = end;
        }
        self.submit(role)?;
        self.drain(role, 0)?;
        self.arena.rewind(mark);
        if role == Role::Second && self.kind.number == BALLOON {
            self.away[units].fill(false);
        }
        self.take_done(role)
    }

    /// Notes that the device returned these units by requests that were posted one by one.
    pub(crate) fn note_returned(&mut self, units: Range<usize>) {
        if let Some(away) = self.away.get_mut(units) {
            away.fill(false);
        }
    }

    /// Sends units in one direction and then in the other: a balloon inflates and deflates.
    pub(crate) fn exchange(&mut self, frames: usize, shape: &Shape) -> Verdict {
        self.transfer(Role::First, 0..frames, shape)?;
        self.transfer(Role::Second, 0..frames, shape)?;
        Ok(())
    }

    /// The same; also requires that the device wrote only where it may, and needs no reset.
    pub(crate) fn exchange_cleanly(&mut self, frames: usize, shape: &Shape) -> Verdict {
        self.exchange(frames, shape)?;
        self.expect_no_damage(None)?;
        self.expect_well()
    }

    /// Fails if the device needs a reset.
    pub(crate) fn expect_well(&mut self) -> Verdict {
        let status = self.status()?;
        self.note_status(status);
        ensure!(!status.contains(Status::DEVICE_NEEDS_RESET), "the device wants to be reset: the status is {status}");
        Ok(())
    }

    pub(crate) fn note_status(&mut self, status: Status) {
        if status.contains(Status::DEVICE_NEEDS_RESET) && self.needed_reset.is_none() {
            self.needed_reset = Some(format!("status {status}, with features {}", self.features));
        }
    }

    /// Fails if the device wrote where it must not, to memory of one kind or of any.
    pub(crate) fn expect_no_damage(&mut self, kind: Option<Damage>) -> Verdict {
        let found = self.arena.damage(|at| kind.is_none_or(|kind| self.belongs(at).0 == kind));
        if let Some((at, is, was)) = found {
            let what = self.belongs(at).1;
            let address = self.arena.address(at);
            fail!("the device wrote {is:#04x} over {was:#04x} at {address:#x}, {what}");
        }
        Ok(())
    }

    /// What a place in the arena belongs to.
    fn belongs(&self, at: usize) -> (Damage, &'static str) {
        let packed = self.features.contains(Features::RING_PACKED);
        for queue in &self.queues {
            let (descriptors, driver, _) = crate::ring::sizes(queue.size, packed);
            if (queue.areas.descriptors..queue.areas.descriptors + descriptors).contains(&at) {
                return (Damage::Ring, "a descriptor");
            }
            if (queue.areas.driver..queue.areas.driver + driver).contains(&at) {
                return (Damage::Ring, "the driver area of a queue");
            }
        }
        if self.buffers.iter().any(|(start, end)| (*start..*end).contains(&at)) {
            return (Damage::Readable, "a buffer that it may only read");
        }
        (Damage::Outside, "which it was not given")
    }

    /// Deflates all frames that the device may still have, in the simplest setting. Called after a check that left
    /// some.
    pub(crate) fn reclaim_frames(&mut self) -> Verdict {
        if !self.away.contains(&true) {
            return Ok(());
        }
        let setup = self.plain();
        self.start(&setup)?;
        for frame in 0..self.away.len() {
            if !self.away[frame] {
                continue;
            }
            let end = self.away[frame..].iter().position(|away| !away).map_or(self.away.len(), |length| frame + length);
            self.transfer(Role::Second, frame..end, &Shape::PLAIN)?;
        }
        self.stop()
    }
}
