//! Free page hinting (virtio 1.4, 5.5.6.5): tells a host that is about to copy the guest's memory which of it is free, and
//! need not be copied.
//!
//! What is hinted is the driver's until the host is done with it: first in the queue, as a buffer that the device may write;
//! then *held*. A new round hints what is held once more, because the host may have missed it: it heeds nothing between two
//! rounds. Each run of frames is a request of its own, as there are devices that look at the head of a chain alone.
//!
//! # Taking frames back early
//! The specification lets the driver have hinted frames back at any time, if it writes to them first. [`Hinter::relinquish`]
//! does that for a kernel that runs out of memory, and takes only what the device has returned. A host that removes what is
//! behind a hinted frame, as some do, does so before it returns the buffer; behind one that is still in the queue it would do
//! so after the frame has got a new owner.

use super::hint_plan::{HintAction, HintPlan, HintReport};
use super::hints::{Hint, Hints};
use super::parts::Vring;
use super::poison::{self, Poison};
use super::wire::{CMD_ID_SIZE, CMD_ID_STOP};
use crate::memory::{FrameRun, IdleRun};
use crate::platform::{DmaExhausted, DmaMemory, PageFrames, Platform};
use crate::virtio::{Chain, Completion, Kick, QueueError, QueueSetup, Quiesced, Segment, Setup, TransportKind};

/// The most frames in a hint: 64 MiB.
const HINT_FRAMES: u32 = 16384;
/// The most hints a poll.
const HINTS: usize = 256;
/// The most frames given back a poll: 128 MiB, which may have to be filled.
const RELEASE_FRAMES: u64 = 32768;
/// Of the memory that is free, one frame stays with the guest for so many that are hinted.
const HINTED_FOR_ONE_KEPT: u64 = 15;

/// Where the command is that opens a round, and where the one that closes it.
const OPENING: usize = 0;
const CLOSING: usize = CMD_ID_SIZE;

/// A buffer in the queue.
#[derive(Debug)]
pub(super) enum Buffer {
    /// The command that opens a round.
    Opening,
    /// The command that closes one.
    Closing,
    /// Free memory.
    Memory(Hint),
}

/// What a call of [`Hinter::send`] led to.
pub(super) struct HintsSent {
    /// The kick that the device wants.
    pub(super) kick: Option<Kick>,
    /// The round that is over.
    pub(super) report: Option<HintReport>,
}

/// The hinting queue, what is in it, and what has come back from it and is not the kernel's again.
pub(super) struct Hinter<P: Platform> {
    queue: Vring<P, Buffer>,
    /// The two commands. That which opens a round changes only while the device does not have it.
    commands: P::Memory,
    transport: TransportKind,
    plan: HintPlan,
    held: Hints,
    /// Frames in the queue.
    queued: u64,
    /// The device has the command that opens a round.
    opening: bool,
    /// The device is to be kicked although it does not ask for that.
    nudge: bool,
    poison: Option<Poison<P>>,
}

impl<P: Platform + PageFrames> Hinter<P> {
    /// A hinter on a queue of its own, which `setup` makes.
    ///
    /// # Errors
    /// When there is no memory for the queue and the commands; what was taken has been given back.
    pub(super) fn allocate(
        platform: &mut P,
        setup: &mut Setup<P>,
        queue: &QueueSetup,
        poison: Option<Poison<P>>,
    ) -> Result<Self, DmaExhausted> {
        let transport = setup.device().transport().kind();
        let mut commands = platform.allocate_dma(2 * CMD_ID_SIZE, CMD_ID_SIZE)?;
        commands.write_bytes(CLOSING, &command_bytes(transport, CMD_ID_STOP));
        let (plan, held) = (HintPlan::new(), Hints::default());
        match setup.add_queue(platform, queue) {
            Ok(queue) => {
                Ok(Self { queue, commands, transport, plan, held, queued: 0, opening: false, nudge: false, poison })
            }
            Err(error) => {
                platform.release_dma(commands);
                Err(error)
            }
        }
    }

    /// Takes what the device has returned. Returns the frames.
    pub(super) fn completions(&mut self) -> Result<u64, QueueError> {
        let before = self.queued;
        while let Some(Completion { token, .. }) = self.queue.pop()? {
            match token {
                Buffer::Opening => self.opening = false,
                Buffer::Closing => {}
                Buffer::Memory(hint) => {
                    self.queued -= hint.frames();
                    self.held.push(hint, self.plan.round());
                }
            }
        }
        Ok(before - self.queued)
    }

    /// Says to the host what is due, as much as there is room for, by one publication. At most one round ends.
    pub(super) fn send(&mut self, platform: &mut P) -> Result<HintsSent, QueueError> {
        let report = self.close()?;
        self.open()?;
        for _ in 0..HINTS {
            if self.plan.next() != HintAction::Hint || !self.can_hint() {
                break;
            }
            match self.next_hint(platform) {
                Some(hint) => self.hint(platform, hint)?,
                None => self.plan.exhausted(),
            }
        }
        let kick = self.queue.publish();
        let nudge = core::mem::take(&mut self.nudge) && self.queue.outstanding() > 0;
        Ok(HintsSent { kick: kick.or_else(|| nudge.then(|| self.queue.kick())), report })
    }

    /// What to hint next: what is held from earlier rounds, and then what is free, but for what the guest needs to go on.
    fn next_hint(&mut self, platform: &mut P) -> Option<Hint> {
        // Room for all that can come back, so that nothing needs memory when it does.
        let runs = usize::from(self.queue.outstanding()) + 1;
        let round = self.plan.round().filter(|_| self.held.reserve(runs))?;
        if let Some(stale) = self.held.take_stale() {
            return Some(Hint { round, ..stale });
        }
        let idle = platform.take_idle(HINT_FRAMES, self.hinted() / HINTED_FOR_ONE_KEPT)?;
        assert!(idle.run.count() <= HINT_FRAMES, "the platform gave {} where {HINT_FRAMES} were asked for", idle.run);
        Some(Hint { idle, round })
    }

    fn hint(&mut self, platform: &mut P, hint: Hint) -> Result<(), QueueError> {
        let (run, frames) = (hint.run(), hint.frames());
        // A hint is of less than 2^32 bytes.
        let segment = Segment { address: platform.device_address(run), length: run.bytes() as u32 };
        if self.queue.add(Chain::writable(&[segment]), Buffer::Memory(hint)).is_err() {
            // Only a queue that is out of use refuses what it has room for.
            self.put_early(platform, run);
            return self.queue.poisoned().map_or(Ok(()), Err);
        }
        self.queued += frames;
        self.plan.sent(frames);
        Ok(())
    }

    /// If the host is done, gives back what the device has returned, as much as a poll may. Returns the frames.
    pub(super) fn give_back(&mut self, platform: &mut P) -> u64 {
        let mut frames = 0;
        while self.plan.is_done() && frames < RELEASE_FRAMES {
            let Some(hint) = self.held.take() else { break };
            frames += hint.frames();
            match (self.poison, hint.idle) {
                (None, IdleRun { run, reported: true }) => platform.release_reported(run),
                (poison, IdleRun { run, .. }) => poison::release(poison, platform, run),
            }
        }
        frames
    }

    /// Gives so many frames back to the kernel, which runs out, although the host is not done: fewer if the device has
    /// returned fewer, none where the platform cannot fill them, and up to a region more. Returns how many. Allocates nothing.
    /// Nothing more is hinted in this round.
    pub(super) fn relinquish(&mut self, platform: &mut P, frames: u64) -> u64 {
        if P::filler().is_none() || self.hinted() == 0 {
            return 0;
        }
        // Of a queue that is broken the next poll tells.
        let _ = self.completions();
        let mut back = 0;
        while back < frames {
            let Some(run) = self.held.take_part(frames - back) else { break };
            self.put_early(platform, run);
            back += u64::from(run.count());
        }
        if back > 0 {
            self.plan.exhausted();
        }
        back
    }

    /// Gives back hinted frames while the host may take them for free: from then on what is in them counts, so they are
    /// written to first (5.5.6.5.1).
    fn put_early(&self, platform: &mut P, run: FrameRun) {
        if let Some(fill) = P::filler() {
            fill(platform, run, self.poison.map_or(0, Poison::byte));
        }
        platform.release(run);
    }

    /// Gives the queue back, and all frames. The device has let go of them; its host may go on and not copy them. Returns how
    /// many frames.
    pub(super) fn release(mut self, platform: &mut P, proof: &Quiesced) -> u64 {
        let frames = self.hinted();
        for buffer in self.queue.drain(proof) {
            if let Buffer::Memory(hint) = buffer {
                self.put_early(platform, hint.run());
            }
        }
        while let Some(hint) = self.held.take() {
            self.put_early(platform, hint.run());
        }
        self.queue.release(platform, proof);
        platform.release_dma(self.commands);
        frames
    }
}

impl<P: Platform> Hinter<P> {
    /// Its queue.
    pub(super) fn queue(&self) -> &Vring<P, Buffer> {
        &self.queue
    }

    /// Frames that are hinted and not the kernel's again.
    pub(super) fn hinted(&self) -> u64 {
        self.held.frames() + self.queued
    }

    /// The host's command is this now. Returns whether it is another than before.
    ///
    /// DONE may be what a guest hears first that has moved, and QEMU leaves a kick behind that it had not heeded yet: what is
    /// in the queue would stay there.
    pub(super) fn set_command(&mut self, command: u32) -> bool {
        let changed = self.plan.set_command(command);
        self.nudge |= changed && self.plan.is_done();
        changed
    }

    /// Asks for no interrupt before [`Hinter::arm`].
    pub(super) fn disarm(&mut self) {
        if self.queue.outstanding() > 0 {
            self.queue.disarm();
        }
    }

    /// Asks for an interrupt once the share of what is in flight is done that makes room for more. `false` if that is so
    /// already.
    pub(super) fn arm(&mut self) -> bool {
        let outstanding = self.queue.outstanding();
        let more = self.plan.next() != HintAction::Rest;
        outstanding == 0 || self.queue.arm(if more { outstanding.div_ceil(2) } else { outstanding })
    }

    /// Whether there is something to do for which nothing has to come from the device.
    pub(super) fn is_due(&self) -> bool {
        let sends = match self.plan.next() {
            HintAction::Rest => false,
            HintAction::Open(_) => self.can_open(),
            HintAction::Hint => self.can_hint(),
            HintAction::Close => self.queue.has_room(1),
        };
        sends || self.plan.is_done() && self.held.frames() > 0
    }

    /// A round is opened when the command that opened the last one has come back.
    fn can_open(&self) -> bool {
        !self.opening && self.can_hint()
    }

    /// One descriptor is kept for closing the round.
    fn can_hint(&self) -> bool {
        self.queue.free() > 1
    }

    /// Tells the host that the round is over, if it is.
    fn close(&mut self) -> Result<Option<HintReport>, QueueError> {
        if self.plan.next() != HintAction::Close || !self.queue.has_room(1) {
            return Ok(None);
        }
        self.send_command(CLOSING, Buffer::Closing)?;
        Ok(self.plan.closed())
    }

    /// Tells the host that a round begins, if one is due. All that is held is hinted once more in it.
    fn open(&mut self) -> Result<(), QueueError> {
        let HintAction::Open(id) = self.plan.next() else { return Ok(()) };
        if !self.can_open() {
            return Ok(());
        }
        self.commands.write_bytes(OPENING, &command_bytes(self.transport, id));
        self.send_command(OPENING, Buffer::Opening)?;
        self.opening = true;
        self.held.grow_stale();
        self.plan.opened(id);
        Ok(())
    }

    /// Puts the command at `offset` into the queue, which has room for it.
    fn send_command(&mut self, offset: usize, buffer: Buffer) -> Result<(), QueueError> {
        let address = self.commands.device_address() + offset as u64;
        let segment = Segment { address, length: CMD_ID_SIZE as u32 };
        match self.queue.add(Chain::readable(&[segment]), buffer) {
            Ok(()) => Ok(()),
            Err(_) => self.queue.poisoned().map_or(Ok(()), Err),
        }
    }
}

/// A command as it goes into a buffer: in the guest's byte order for a legacy device (5.5.6.5.3).
fn command_bytes(transport: TransportKind, id: u32) -> [u8; CMD_ID_SIZE] {
    if transport.is_legacy() { id.to_ne_bytes() } else { id.to_le_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_the_byte_order_of_its_transport() {
        assert_eq!(command_bytes(TransportKind::Modern, 0x8000_0102), [2, 1, 0, 0x80]);
        assert_eq!(command_bytes(TransportKind::Legacy, 0x8000_0102), 0x8000_0102_u32.to_ne_bytes());
        assert_eq!(command_bytes(TransportKind::Modern, CMD_ID_STOP), [0; 4]);
    }
}
