//! The hinting queue (virtio 1.4, 5.5.6.5): tells a host that is about to migrate the guest which memory is free and
//! need not be copied.
//!
//! The driver owns hinted frames until the host is done: first in the queue, as buffers that the device may write; then
//! *held*. A new round hints the held frames once more, because the host ignores hints between two rounds. Each run of
//! frames is a request of its own, because some devices read only the head of a chain.
//!
//! # Taking frames back early
//! The specification lets the driver take hinted frames back at any time if it writes to them first.
//! [`HintingQueue::relinquish`] does that for a kernel that runs out of memory, and takes only frames that the device
//! has returned. Some hosts discard hinted frames; they do so before they return the buffer. If a frame were taken
//! while in the queue, a later discard would destroy its new owner's data.

use super::poison::{self, Poison};
use super::{Maker, Vring};
use crate::balloon::error::BalloonError;
use crate::balloon::platform::BalloonPlatform;
use crate::balloon::policy::held_hints::{HeldHints, Hint};
use crate::balloon::policy::hint_plan::{HintAction, HintPlan, HintReport};
use crate::balloon::wire::{CMD_ID_SIZE, CMD_ID_STOP};
use crate::memory::{FrameRun, IdleRun, PageFrames, release_reported, take_idle};
use crate::platform::{DmaMemory, Platform};
use crate::virtio::{Chain, Completion, Kick, QueueError, QueueIndex, Quiesced, Segment, TransportKind};

/// The most frames in a hint: 64 MiB.
const HINT_FRAMES: u32 = 16384;
/// The most hints per poll.
const HINTS: usize = 256;
/// The most frames released per poll: 128 MiB, which may have to be filled.
const RELEASE_FRAMES: u64 = 32768;
/// The guest keeps one free frame per this many hinted ones.
const HINTED_PER_FRAME_KEPT: u64 = 15;

/// Offsets of the commands that open and close a round.
const OPENING: usize = 0;
const CLOSING: usize = CMD_ID_SIZE;

/// A buffer in the queue.
#[derive(Debug)]
pub(crate) enum Buffer {
    /// The command that opens a round.
    Opening,
    /// The command that closes a round.
    Closing,
    /// Free memory.
    Memory(Hint),
}

/// The outcome of [`HintingQueue::send`].
pub(crate) struct HintsSent {
    /// The kick that the device wants.
    pub(crate) kick: Option<Kick>,
    /// The round that ended.
    pub(crate) report: Option<HintReport>,
}

/// The queue, its buffers, and the hinted frames that the driver holds.
pub(crate) struct HintingQueue<P: Platform> {
    queue: Vring<P, Buffer>,
    /// The two commands. The opening one changes only while the device does not have it.
    commands: P::Memory,
    transport: TransportKind,
    plan: HintPlan,
    held: HeldHints,
    /// Frames in the queue.
    queued: u64,
    /// The device has the command that opens a round.
    opening: bool,
    /// Kick the device although it does not ask for it.
    nudge: bool,
    poison: Option<Poison>,
}

impl<P: BalloonPlatform> HintingQueue<P> {
    /// Creates the queue and its commands.
    pub(crate) fn make(
        maker: &mut Maker<'_, P>,
        index: QueueIndex,
        poison: Option<Poison>,
    ) -> Result<Self, BalloonError> {
        let transport = maker.setup.device.transport().kind();
        let mut commands = maker.platform.allocate_dma(2 * CMD_ID_SIZE, CMD_ID_SIZE)?;
        commands.write_bytes(CLOSING, &command_bytes(transport, CMD_ID_STOP));
        let (plan, held) = (HintPlan::new(), HeldHints::default());
        match maker.simple_queue(index, Some("hinting")) {
            Ok(queue) => {
                Ok(Self { queue, commands, transport, plan, held, queued: 0, opening: false, nudge: false, poison })
            }
            Err(error) => {
                maker.made.memory = Some(commands);
                Err(error)
            }
        }
    }

    /// Takes the buffers that the device has returned; their frames are held from now on. Returns their number.
    pub(crate) fn complete(&mut self) -> Result<u64, QueueError> {
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

    /// Sends what is due, as far as there is room, with one index store. At most one round ends.
    pub(crate) fn send(&mut self, platform: &mut P) -> Result<HintsSent, QueueError> {
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

    /// The next hint: frames held from earlier rounds, then free memory, except what the guest needs to keep running.
    fn next_hint(&mut self, platform: &mut P) -> Option<Hint> {
        // Room for all buffers in flight, so that their return allocates nothing.
        let runs = usize::from(self.queue.outstanding()) + 1;
        let round = self.plan.round().filter(|_| self.held.reserve(runs))?;
        if let Some(stale) = self.held.take_stale() {
            return Some(Hint { round, ..stale });
        }
        let idle = take_idle(platform.frames(), HINT_FRAMES, self.hinted() / HINTED_PER_FRAME_KEPT)?;
        assert!(idle.run.count() <= HINT_FRAMES, "the platform returned {}, not {HINT_FRAMES} at most", idle.run);
        Some(Hint { idle, round })
    }

    fn hint(&mut self, platform: &mut P, hint: Hint) -> Result<(), QueueError> {
        let (run, frames) = (hint.run(), hint.frames());
        // A hint is less than 2^32 bytes long.
        let segment = Segment { address: platform.frames().device_address(run), length: run.bytes() as u32 };
        if self.queue.add(Chain::writable(&[segment]), Buffer::Memory(hint)).is_err() {
            // Only a broken queue refuses a hint that fits.
            self.release_early(platform.frames(), run);
            return self.queue.poisoned().map_or(Ok(()), Err);
        }
        self.queued += frames;
        self.plan.sent(frames);
        Ok(())
    }

    /// If the host is done, releases held frames, up to the limit per poll. Returns their number.
    pub(crate) fn give_back(&mut self, platform: &mut P) -> u64 {
        let mut frames = 0;
        while self.plan.is_done() && frames < RELEASE_FRAMES {
            let Some(hint) = self.held.take() else { break };
            frames += hint.frames();
            match (self.poison, hint.idle) {
                (None, IdleRun { run, reported: true }) => release_reported(platform.frames(), run),
                (poison, IdleRun { run, .. }) => poison::release(poison, platform.frames(), run),
            }
        }
        frames
    }

    /// Releases `frames` held frames to a kernel that runs out of memory, although the host is not done: fewer if the
    /// device has returned fewer, none if the platform cannot fill them, and up to a region more. Returns how many.
    /// Allocates nothing. Nothing more is hinted in this round.
    pub(crate) fn relinquish(&mut self, platform: &mut P, frames: u64) -> u64 {
        if platform.frames().contents().is_none() || self.hinted() == 0 {
            return 0;
        }
        // The next poll reports a broken queue.
        let _ = self.complete();
        let mut back = 0;
        while back < frames {
            let Some(run) = self.held.take_part(frames - back) else { break };
            self.release_early(platform.frames(), run);
            back += u64::from(run.count());
        }
        if back > 0 {
            self.plan.exhausted();
        }
        back
    }

    /// Releases hinted frames that the host may still consider free. Their contents matter from now on, so they are
    /// written first (5.5.6.5.1).
    fn release_early(&self, frames: &mut P::Frames, run: FrameRun) {
        release_early(frames, run, self.poison);
    }

    /// Releases the queue and all frames. The device no longer uses them, but the host may still skip them in its copy.
    /// Returns the number of frames.
    pub(crate) fn release(mut self, platform: &mut P, proof: &Quiesced) -> u64 {
        let frames = self.hinted();
        while let Some(hint) = self.held.take() {
            self.release_early(platform.frames(), hint.run());
        }
        let poison = self.poison;
        for buffer in self.queue.release(platform, proof) {
            if let Buffer::Memory(hint) = buffer {
                release_early(platform.frames(), hint.run(), poison);
            }
        }
        platform.release_dma(self.commands);
        frames
    }
}

fn release_early<F: PageFrames>(frames: &mut F, run: FrameRun, poison: Option<Poison>) {
    poison::fill(frames, run, poison.map_or(0, Poison::byte));
    frames.release(run);
}

impl<P: Platform> HintingQueue<P> {
    /// The queue.
    pub(crate) fn queue(&self) -> &Vring<P, Buffer> {
        &self.queue
    }

    /// Hinted frames that have not returned to the kernel.
    pub(crate) fn hinted(&self) -> u64 {
        self.held.frames() + self.queued
    }

    /// The host's command is now `command`. Returns whether it changed.
    ///
    /// A migrated guest may see DONE first, and QEMU does not migrate an unserved kick: without another kick the
    /// buffers would stay in the queue.
    pub(crate) fn set_command(&mut self, command: u32) -> bool {
        let changed = self.plan.set_command(command);
        self.nudge |= changed && self.plan.is_done();
        changed
    }

    /// Asks for no interrupt until [`HintingQueue::arm`].
    pub(crate) fn disarm(&mut self) {
        if self.queue.outstanding() > 0 {
            self.queue.disarm();
        }
    }

    /// Asks for an interrupt when enough is done to send more. `false` if that is already the case.
    pub(crate) fn arm(&mut self) -> bool {
        let outstanding = self.queue.outstanding();
        let more = self.plan.next() != HintAction::Rest;
        outstanding == 0 || self.queue.arm(if more { outstanding.div_ceil(2) } else { outstanding })
    }

    /// Whether there is something to do that needs nothing from the device.
    pub(crate) fn is_due(&self) -> bool {
        let sends = match self.plan.next() {
            HintAction::Rest => false,
            HintAction::Open(_) => self.can_open(),
            HintAction::Hint => self.can_hint(),
            HintAction::Close => self.queue.has_room(1),
        };
        sends || self.plan.is_done() && self.held.frames() > 0
    }

    /// A round opens once the command that opened the last one has returned.
    fn can_open(&self) -> bool {
        !self.opening && self.can_hint()
    }

    /// One descriptor is reserved for closing the round.
    fn can_hint(&self) -> bool {
        self.queue.free() > 1
    }

    /// Closes the round, if it is over.
    fn close(&mut self) -> Result<Option<HintReport>, QueueError> {
        if self.plan.next() != HintAction::Close || !self.queue.has_room(1) {
            return Ok(None);
        }
        self.send_command(CLOSING, Buffer::Closing)?;
        Ok(self.plan.closed())
    }

    /// Opens a round, if one is due. It hints all held frames once more.
    fn open(&mut self) -> Result<(), QueueError> {
        let HintAction::Open(id) = self.plan.next() else { return Ok(()) };
        if !self.can_open() {
            return Ok(());
        }
        self.commands.write_bytes(OPENING, &command_bytes(self.transport, id));
        self.send_command(OPENING, Buffer::Opening)?;
        self.opening = true;
        self.held.begin_round();
        self.plan.opened(id);
        Ok(())
    }

    /// Adds the command at `offset` to the queue, which has room.
    fn send_command(&mut self, offset: usize, buffer: Buffer) -> Result<(), QueueError> {
        let address = self.commands.device_address() + offset as u64;
        let segment = Segment { address, length: CMD_ID_SIZE as u32 };
        match self.queue.add(Chain::readable(&[segment]), buffer) {
            Ok(()) => Ok(()),
            Err(_) => self.queue.poisoned().map_or(Ok(()), Err),
        }
    }
}

/// A command in its buffer: in the guest's byte order for a legacy device (5.5.6.5.3).
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
