//! The device's ceiling: how fast it takes frames, and gives them back, when all that the guest does is to ask.
//!
//! The frames are taken, their numbers written, and the queue filled before the clock starts. Then the queue is shown to
//! the device as a whole. Where requests may go through tables, they are made so long that all of them fit: nothing is
//! left for the guest to do until the device is done. Where not, each half of the queue that comes back is filled
//! again with what is already written.
//!
//! Where memory can be reported as free, that may be the faster way to have it taken away, with inflating after it: so all
//! that the driver may do is among the strategies, and the best of them is the ceiling.

use alloc::vec::Vec;

use super::Surroundings;
use super::bed::{Bed, Lane, Offer, REPORTING, Setup};
use super::error::BenchError;
use super::rate::Rate;
use ballonet::balloon::BalloonPlatform;
use ballonet::balloon::RequestShape;
use ballonet::balloon::wire::{PAGE_REPORTING, PFN_SIZE, write_pfns};
use ballonet::memory::PageFrames;
use ballonet::memory::{FRAME_SIZE, FrameRun};
use ballonet::platform::{DmaMemory, Platform};
use ballonet::virtio::spec::Features;
use ballonet::virtio::{Chain, InterruptMode, RingFormat, Segment, Virtqueue};

/// How long the device may take to return anything, in nanoseconds.
const LIMIT: u64 = 5_000_000_000;
/// When to look again if no interrupt comes, in nanoseconds: 100 ms.
const GLANCE: u64 = 100_000_000;
/// The same for a device that has no interrupts: 100 µs.
const GLANCE_POLLED: u64 = 100_000;

/// Frame numbers in a piece of a request: a size that no known device drops.
const PIECE: u32 = RequestShape::FRAMES_MAX as u32;
/// Frames in a run of a report: 8 MiB.
const RUN: u32 = 2048;
/// The most runs in a report: no device of today has fewer descriptors.
const REPORT_RUNS: usize = 16;

/// How rings are prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strategy {
    /// By requests of one descriptor.
    Direct,
    /// By requests so long that all fit into the queue, which takes tables.
    Indirect,
    /// All frames are reported as free first.
    Reported,
}

impl Strategy {
    pub(super) const ALL: [Self; 3] = [Self::Direct, Self::Indirect, Self::Reported];

    /// Whether it can be taken with what is left of an offer.
    pub(super) fn is_possible(self, offer: &Offer) -> bool {
        match self {
            Self::Direct => true,
            Self::Indirect => offer.features.contains(Features::INDIRECT_DESC),
            Self::Reported => offer.features.contains(PAGE_REPORTING) && offer.reporting.is_some(),
        }
    }

    /// How the device is brought up for it: with the rings that the driver has, too.
    pub(super) fn setup(self, offer: &Offer, ring: Option<RingFormat>) -> Setup {
        let tables = self != Self::Direct && offer.features.contains(Features::INDIRECT_DESC);
        let mut wanted = Features::EVENT_IDX | Features::IN_ORDER;
        wanted.set(Features::RING_PACKED, ring != Some(RingFormat::Split));
        wanted.set(Features::INDIRECT_DESC, tables);
        wanted.set(PAGE_REPORTING, self == Self::Reported);
        Setup {
            features: wanted & offer.features,
            indirect_entries: if tables { RequestShape::DESCRIPTORS_MAX } else { 0 },
            reporting: offer.reporting.filter(|_| self == Self::Reported),
        }
    }

    /// The queues of a bed by which frames go to the host, in turn.
    pub(super) const fn there(self) -> &'static [usize] {
        if matches!(self, Self::Reported) { &[REPORTING, 0] } else { &[0] }
    }
}

/// The queue of a bed by which frames come back.
pub(super) const BACK: &[usize] = &[1];

/// Frames, and everything that the device needs to be told of them.
pub(super) struct Convoy<M> {
    runs: Vec<FrameRun>,
    memory: M,
    /// The most pieces of a request.
    most: u16,
    pieces: Vec<Segment>,
    /// The frames themselves, as they are reported.
    extents: Vec<Segment>,
    frames: u32,
    /// The host may have the frames.
    away: bool,
}

/// Requests that are still to be added to a queue.
struct Requests<'a> {
    rest: &'a [Segment],
    /// Segments of a request.
    each: usize,
    is_report: bool,
}

impl<M: DmaMemory> Convoy<M> {
    /// Takes `wanted` frames and writes down their numbers, for requests of at most the given number of pieces.
    pub(super) fn gather<P>(platform: &mut P, wanted: u32, most: u16) -> Result<Self, BenchError>
    where
        P: BalloonPlatform<Memory = M>,
    {
        let memory = platform.allocate_dma(wanted as usize * PFN_SIZE, FRAME_SIZE as usize)?;
        let (pieces, extents) = (Vec::new(), Vec::new());
        let mut convoy = Self { runs: Vec::new(), memory, most: most.max(1), pieces, extents, frames: 0, away: false };
        while convoy.frames < wanted {
            let most = (wanted - convoy.frames).min(RUN);
            // As the driver takes what it reports first.
            let frames = platform.frames();
            let backed = frames.reporting().and_then(|books| books.take_backed(most));
            let Some(run) = backed.or_else(|| frames.take_free(most)) else {
                let free = convoy.frames as usize;
                convoy.come_home(platform);
                return Err(BenchError::Frames { needed: wanted as usize, free });
            };
            let extent = Segment { address: platform.frames().device_address(run), length: run.bytes() as u32 };
            convoy.extents.push(extent);
            convoy.take_along(run);
        }
        convoy.cut();
        Ok(convoy)
    }

    fn take_along(&mut self, run: FrameRun) {
        let mut numbers = [0; PIECE as usize * PFN_SIZE];
        let mut rest = Some(run);
        while let Some(run) = rest {
            let (piece, later) = run.split(PIECE.min(run.count()));
            let length = write_pfns(piece, &mut numbers);
            self.memory.write_bytes(self.frames as usize * PFN_SIZE, &numbers[..length]);
            self.frames += piece.count();
            rest = later;
        }
        self.runs.push(run);
    }

    /// Lays the pieces of requests over the numbers.
    fn cut(&mut self) {
        let (start, bytes) = (self.memory.device_address(), self.frames * PFN_SIZE as u32);
        let piece = PIECE * PFN_SIZE as u32;
        let place = |at: u32| Segment { address: start + u64::from(at), length: piece.min(bytes - at) };
        self.pieces.extend((0..bytes).step_by(piece as usize).map(place));
    }

    /// Sends all of it by these queues of the bed, one after the other, and waits for all of it. Returns how fast that was.
    pub(super) fn travel<P, S>(
        &mut self,
        platform: &P,
        surroundings: &mut S,
        bed: &mut Bed<P>,
        lanes: &[usize],
    ) -> Result<Rate, BenchError>
    where
        P: Platform<Memory = M>,
        S: Surroundings,
    {
        self.away = true;
        let mut requests = Vec::with_capacity(lanes.len());
        for lane in lanes {
            let queue = bed.lane(*lane).queue;
            let mut prepared = self.requests(*lane, queue.size());
            prepared.fill(queue)?;
            requests.push(prepared);
        }
        let start = platform.now();
        for (lane, requests) in lanes.iter().zip(requests) {
            serve(platform, surroundings, bed.lane(*lane), requests)?;
        }
        let time = platform.now().saturating_sub(start);
        self.away = lanes.last() == Some(&0);
        Ok(Rate { bytes: u64::from(self.frames) * FRAME_SIZE, time })
    }

    fn requests(&self, lane: usize, queue_size: u16) -> Requests<'_> {
        if lane == REPORTING {
            return Requests { rest: &self.extents, each: REPORT_RUNS.min(queue_size.into()), is_report: true };
        }
        let each = self.pieces.len().div_ceil(queue_size.into()).clamp(1, self.most.into());
        Requests { rest: &self.pieces, each, is_report: false }
    }

    /// Gives everything back. The device does not look at it any more: it was never told, or has been reset.
    pub(super) fn come_home<P>(self, platform: &mut P)
    where
        P: BalloonPlatform<Memory = M>,
    {
        for run in self.runs {
            let frames = platform.frames();
            if self.away { frames.confirm_ballooned(run) } else { frames.release(run) }
        }
        platform.release_dma(self.memory);
    }

    /// Gives nothing back: the device would not stop, and may go on using it.
    pub(super) fn stay_away(self) {
        // Dropping it could give it back.
        core::mem::forget(self);
    }
}

/// Shows the device what is in the queue, adds the rest as there is room, and waits until all of it is back.
fn serve<P, S>(
    platform: &P,
    surroundings: &mut S,
    lane: Lane<'_, P>,
    mut requests: Requests<'_>,
) -> Result<(), BenchError>
where
    P: Platform,
    S: Surroundings,
{
    let Lane { running, queue, doorbell } = lane;
    let glance = if running.interrupts().mode() == InterruptMode::Polling { GLANCE_POLLED } else { GLANCE };
    let mut heard = platform.now();
    while queue.outstanding() > 0 {
        if let Some(kick) = queue.publish() {
            running.device().kick(doorbell, kick);
        }
        let interrupts = running.interrupts();
        let outstanding = queue.outstanding();
        let share = if requests.rest.is_empty() { outstanding } else { outstanding.div_ceil(2) };
        if queue.arm(share) {
            surroundings.idle(glance, &|| interrupts.events().is_pending());
        }
        let _ = interrupts.take();
        queue.disarm();
        let now = platform.now();
        while queue.pop()?.is_some() {
            heard = now;
        }
        if now.saturating_sub(heard) > LIMIT {
            return Err(BenchError::Silence { waited_ms: now.saturating_sub(heard) / 1_000_000 });
        }
        requests.fill(queue)?;
    }
    Ok(())
}

impl Requests<'_> {
    /// Adds as many as there is room for.
    fn fill(&mut self, queue: &mut Virtqueue<impl DmaMemory, ()>) -> Result<(), BenchError> {
        while !self.rest.is_empty() && queue.has_room(self.each.min(self.rest.len())) {
            let (request, later) = self.rest.split_at(self.each.min(self.rest.len()));
            let chain = if self.is_report { Chain::writable(request) } else { Chain::readable(request) };
            queue.add(chain, ()).map_err(|rejected| rejected.reason)?;
            self.rest = later;
        }
        Ok(())
    }
}
