//! The device's ceiling: how fast it takes frames, and gives them back, when all that the guest does is to ask.
//!
//! The frames are taken, their numbers written, and the queue filled before the clock starts. Then the queue is shown to
//! the device as a whole. Where requests may go through tables, they are made so long that all of them fit: nothing is
//! left for the guest to do until the device is done. Where not, each half of the queue that comes back is filled
//! again with what is already written.

use alloc::vec::Vec;

use super::Surroundings;
use super::bed::{Bed, Lane, Setup};
use super::error::BenchError;
use super::rate::Rate;
use crate::balloon::RequestShape;
use crate::balloon::wire::{PFN_SIZE, write_pfns};
use crate::memory::{FRAME_SIZE, FrameRun};
use crate::platform::{DmaMemory, PageFrames, Platform};
use crate::virtio::spec::Features;
use crate::virtio::{Chain, InterruptMode, Queue, Segment};

/// How long the device may take to return anything, in nanoseconds.
const LIMIT: u64 = 5_000_000_000;
/// When to look again if no interrupt comes, in nanoseconds: 100 ms.
const GLANCE: u64 = 100_000_000;
/// The same for a device that has no interrupts: 100 µs.
const GLANCE_POLLED: u64 = 100_000;

/// Frame numbers in a piece of a request: no device of today drops so many.
const PIECE: u32 = RequestShape::FRAMES_MAX as u32;
/// The most pieces of a request that goes through a table, and of any other.
pub(super) const fn most_pieces(indirect: bool) -> u16 {
    if indirect { RequestShape::DESCRIPTORS_MAX } else { 1 }
}

/// How the device is brought up, with what of this it `offers`.
pub(super) fn setup(offers: Features, indirect: bool) -> Setup {
    let features = if indirect { Features::EVENT_IDX | Features::INDIRECT_DESC } else { Features::EVENT_IDX };
    Setup { features: features & offers, indirect_entries: if indirect { most_pieces(true) } else { 0 } }
}

/// Frames, and everything that the device needs to be told of them.
pub(super) struct Convoy<M> {
    runs: Vec<FrameRun>,
    memory: M,
    pieces: Vec<Segment>,
    frames: u32,
    /// The host may have the frames.
    away: bool,
}

impl<M: DmaMemory> Convoy<M> {
    /// Takes `wanted` frames and writes down their numbers.
    pub(super) fn gather<P>(platform: &mut P, wanted: u32) -> Result<Self, BenchError>
    where
        P: Platform<Memory = M> + PageFrames,
    {
        let memory = platform.allocate_dma(wanted as usize * PFN_SIZE, FRAME_SIZE as usize)?;
        let mut convoy = Self { runs: Vec::new(), memory, pieces: Vec::new(), frames: 0, away: false };
        while convoy.frames < wanted {
            let Some(run) = platform.take_free((wanted - convoy.frames).min(PIECE)) else {
                let free = convoy.frames as usize;
                convoy.come_home(platform);
                return Err(BenchError::Frames { needed: wanted as usize, free });
            };
            convoy.take_along(run);
        }
        convoy.cut();
        Ok(convoy)
    }

    fn take_along(&mut self, run: FrameRun) {
        let mut numbers = [0; PIECE as usize * PFN_SIZE];
        let length = write_pfns(run, &mut numbers);
        self.memory.write_bytes(self.frames as usize * PFN_SIZE, &numbers[..length]);
        self.frames += run.count();
        self.runs.push(run);
    }

    /// Lays the pieces of requests over the numbers.
    fn cut(&mut self) {
        let (start, bytes) = (self.memory.device_address(), self.frames * PFN_SIZE as u32);
        let piece = PIECE * PFN_SIZE as u32;
        let place = |at: u32| Segment { address: start + u64::from(at), length: piece.min(bytes - at) };
        self.pieces.extend((0..bytes).step_by(piece as usize).map(place));
    }

    /// Sends all of it by the queue of this number, in requests of at most so many pieces, and waits for all of it. Returns
    /// how fast that was.
    pub(super) fn travel<P, S>(
        &mut self,
        platform: &P,
        surroundings: &mut S,
        bed: &mut Bed<P>,
        (queue, most): (usize, u16),
    ) -> Result<Rate, BenchError>
    where
        P: Platform<Memory = M>,
        S: Surroundings,
    {
        self.away = true;
        let Lane { device, interrupts, queue: vring, doorbell } = bed.lane(queue);
        let each = self.pieces.len().div_ceil(vring.size().into()).clamp(1, most.into());
        let mut rest = self.pieces.as_slice();
        let glance = if interrupts.mode() == InterruptMode::Polling { GLANCE_POLLED } else { GLANCE };
        fill(vring, &mut rest, each)?;
        let start = platform.now();
        let mut heard = start;
        while vring.outstanding() > 0 {
            if let Some(kick) = vring.publish() {
                device.kick(doorbell, kick);
            }
            let outstanding = vring.outstanding();
            let share = if rest.is_empty() { outstanding } else { outstanding.div_ceil(2) };
            if vring.arm(share) {
                surroundings.idle(glance, &|| interrupts.events().is_pending());
            }
            let _ = interrupts.take();
            vring.disarm();
            let now = platform.now();
            while vring.pop()?.is_some() {
                heard = now;
            }
            if now.saturating_sub(heard) > LIMIT {
                return Err(BenchError::Silence { waited_ms: now.saturating_sub(heard) / 1_000_000 });
            }
            fill(vring, &mut rest, each)?;
        }
        let time = platform.now().saturating_sub(start);
        self.away = queue == 0;
        Ok(Rate { bytes: u64::from(self.frames) * FRAME_SIZE, time })
    }

    /// Gives everything back. The device does not look at it any more: it was never told, or has been reset.
    pub(super) fn come_home<P>(self, platform: &mut P)
    where
        P: Platform<Memory = M> + PageFrames,
    {
        for run in self.runs {
            if self.away { platform.confirm_ballooned(run) } else { platform.release(run) }
        }
        platform.release_dma(self.memory);
    }

    /// Gives nothing back: the device would not stop, and may go on using it.
    pub(super) fn stay_away(self) {
        // Dropping it could give it back.
        core::mem::forget(self);
    }
}

/// Adds requests of `each` pieces as long as there is room for them.
fn fill(queue: &mut impl Queue<()>, rest: &mut &[Segment], each: usize) -> Result<(), BenchError> {
    while !rest.is_empty() && queue.has_room(each.min(rest.len())) {
        let (request, later) = rest.split_at(each.min(rest.len()));
        queue.add(Chain::readable(request), ()).map_err(|rejected| rejected.reason)?;
        *rest = later;
    }
    Ok(())
}
