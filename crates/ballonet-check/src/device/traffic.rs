//! Requests to the device, in any shape, and waiting for them.

use core::ops::Range;

use alloc::format;
use alloc::vec::Vec;

use super::{Arena, Role, TestDevice};
use crate::check::{Stop, Verdict, ensure, fail, skip_unless};
use crate::ring::{Part, RawQueue, Used};
use ballonet::balloon::wire::PFN_SIZE;
use ballonet::platform::Registers;
use ballonet::virtio::QueueIndex;
use ballonet::virtio::spec::{Descriptor, Features, Status};

/// How a request lies in memory and in the ring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Frame numbers in a request.
    pub(crate) frames: usize,
    /// Bytes in a descriptor; the last has what is left.
    pub(crate) piece: usize,
    /// How far past an aligned address each piece begins.
    pub(crate) skew: usize,
    /// Whether the descriptors are in a table of their own.
    pub(crate) indirect: bool,
}

impl Shape {
    /// One descriptor a request, aligned, of 32 frames.
    pub(crate) const PLAIN: Self = Self { frames: 32, piece: usize::MAX, skew: 0, indirect: false };

    /// Descriptors that a request takes.
    const fn descriptors(&self, frames: usize) -> usize {
        if self.indirect { 1 } else { self.chain(frames) }
    }

    /// Descriptors in its chain, in the ring or in a table.
    const fn chain(&self, frames: usize) -> usize {
        (frames * PFN_SIZE).div_ceil(self.piece)
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
    /// The number of a queue, if it is in use.
    pub(crate) fn number(&self, role: Role) -> Verdict<u16> {
        let queue = match role {
            Role::Inflate => Some(self.numbers.inflate),
            Role::Deflate => Some(self.numbers.deflate),
            Role::Statistics => self.numbers.statistics,
            Role::Reporting => self.numbers.reporting,
        };
        queue.map(QueueIndex::number).ok_or_else(|| Stop::Skipped(format!("the device has no {role:?} queue")))
    }

    /// Does something with a queue in use and the arena.
    pub(crate) fn with_queue<T>(&mut self, role: Role, act: impl FnOnce(&mut RawQueue, &mut Arena) -> T) -> Verdict<T> {
        let number = self.number(role)?;
        let queue = self.queues.iter_mut().find(|queue| queue.index == number);
        match queue {
            Some(queue) => Ok(act(queue, &mut self.arena)),
            None => Err(Stop::Skipped(format!("queue {number} is not in use"))),
        }
    }

    pub(crate) fn add(&mut self, role: Role, chain: &[Part], table: Option<usize>) -> Verdict<u16> {
        self.with_queue(role, |queue, arena| queue.add(arena, chain, table))?
    }

    /// Publishes what was added; whether the device wants a kick.
    pub(crate) fn publish(&mut self, role: Role) -> Verdict<bool> {
        self.with_queue(role, RawQueue::publish)
    }

    /// Kicks a queue with the negotiated width and value (4.1.5.2).
    pub(crate) fn kick(&mut self, role: Role) -> Verdict {
        let (queue, progress) = self.with_queue(role, |queue, _| (queue.index, queue.progress()))?;
        let (offset, number) = self.doorbell(queue)?;
        if self.features.contains(Features::NOTIFICATION_DATA) {
            self.notify.write32(offset, u32::from(progress) << 16 | u32::from(number));
        } else {
            self.notify.write16(offset, number);
        }
        Ok(())
    }

    /// Adds a request for some of the tester's frames; not published yet.
    pub(crate) fn post(&mut self, role: Role, frames: Range<usize>, shape: &Shape) -> Verdict<u16> {
        self.is_plain &= !shape.indirect && shape.skew == 0 && shape.piece >= frames.len() * PFN_SIZE;
        let bytes: Vec<u8> = self.pfns[frames.clone()].iter().flat_map(|pfn| pfn.to_le_bytes()).collect();
        let mut chain = Vec::new();
        for piece in bytes.chunks(shape.piece.min(bytes.len())) {
            let at = self.arena.place(piece.len(), 16, shape.skew)?;
            self.arena.write(at, piece);
            self.buffers.push((at, at + piece.len()));
            chain.push(Part { address: self.arena.address(at), length: piece.len() as u32, writable: false });
        }
        let table = self.table(chain.len(), shape.indirect)?;
        // From here on the device may have them, however this ends.
        if role == Role::Inflate {
            self.away[frames].fill(true);
        }
        self.add(role, &chain, table)
    }

    /// Room for a table of descriptors.
    fn table(&mut self, entries: usize, wanted: bool) -> Verdict<Option<usize>> {
        if !wanted {
            return Ok(None);
        }
        let at = self.arena.place(entries * size_of::<Descriptor>(), 16, 0)?;
        self.buffers.push((at, at + entries * size_of::<Descriptor>()));
        Ok(Some(at))
    }

    /// Makes room for `descriptors` in a queue by waiting for requests in flight, or skips the check if the queue is smaller.
    pub(crate) fn needs_room(&mut self, role: Role, descriptors: u16) -> Verdict {
        let (room, size) = self.with_queue(role, |queue, _| (queue.room(), queue.size))?;
        skip_unless!(descriptors <= size, "{descriptors} descriptors do not fit into a queue of {size}");
        if room < descriptors { self.drain(role, 0) } else { Ok(()) }
    }

    /// Publishes, and kicks if the device wants it.
    pub(crate) fn submit(&mut self, role: Role) -> Verdict {
        if self.publish(role)? { self.kick(role) } else { Ok(()) }
    }

    /// Waits until at most `left` requests of a queue are outstanding. Those that came back are in its `done`.
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
            "queue {queue}: {outstanding} requests were not done after {} ms, status {status}, features {}",
            limit / 1_000_000,
            self.features
        );
        self.note_silence(role, &detail)?;
        Err(Stop::Failed(detail))
    }

    /// Takes what came back from a queue.
    pub(crate) fn take_done(&mut self, role: Role) -> Verdict<Vec<Used>> {
        self.with_queue(role, |queue, _| core::mem::take(&mut queue.done))
    }

    /// Sends some of the tester's frames one way, in as many requests as it takes, and waits for all of them.
    pub(crate) fn transfer(&mut self, role: Role, frames: Range<usize>, shape: &Shape) -> Verdict<Vec<Used>> {
        self.needs_answers(role)?;
        let mark = self.arena.mark();
        let mut next = frames.start;
        while next < frames.end {
            let end = (next + shape.frames).min(frames.end);
            let needed = shape.descriptors(end - next);
            let (room, size) = self.with_queue(role, |queue, _| (queue.room(), queue.size))?;
            // Nor may a chain in a table be longer than the queue (2.7.5.3.1).
            let chain = shape.chain(end - next);
            skip_unless!(chain <= usize::from(size), "{chain} descriptors do not fit into a queue of {size}");
            if needed > usize::from(room) {
                self.submit(role)?;
                let outstanding = self.with_queue(role, |queue, _| queue.outstanding())?;
                self.drain(role, outstanding.saturating_sub(1))?;
                continue;
            }
            self.post(role, next..end, shape)?;
            next = end;
        }
        self.submit(role)?;
        self.drain(role, 0)?;
        self.arena.rewind(mark);
        if role == Role::Deflate {
            self.away[frames].fill(false);
        }
        self.take_done(role)
    }

    /// Inflates frames and deflates them again.
    pub(crate) fn exchange(&mut self, frames: usize, shape: &Shape) -> Verdict {
        self.transfer(Role::Inflate, 0..frames, shape)?;
        self.transfer(Role::Deflate, 0..frames, shape)?;
        Ok(())
    }

    /// The same, and the device wrote only where it may, and needs no reset.
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

    /// Fails if the device wrote where it must not: to memory of one kind, or any.
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

    /// Deflates all frames that the device may still have, in the plainest setting. Called after a check that left some.
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
            self.transfer(Role::Deflate, frame..end, &Shape::PLAIN)?;
        }
        self.stop()
    }
}
