//! The device's ceiling: how fast it inflates and deflates, with pre-filled rings and an idle guest.
//!
//! Before the clock starts, the frames are allocated, their numbers are written, and the queue is filled. Then the
//! whole queue is published. With indirect tables, requests are so long that all of them fit, and the guest has nothing
//! to do until the device is done. Without them, each half of the queue that returns is refilled with requests that are
//! already written.
//! Reporting memory as free before inflating may be faster than inflating alone. So every strategy that the driver
//! may use is tried, and the best of them is the ceiling.

use alloc::vec::Vec;

use super::Surroundings;
use super::bed::{Bed, BedOptions, Offer, QueueAccess, REPORTING};
use super::error::BenchError;
use super::rate::Rate;
use ballonet::balloon::BalloonPlatform;
use ballonet::balloon::RequestShape;
use ballonet::balloon::wire::{PAGE_REPORTING, PFN_SIZE, write_pfns};
use ballonet::memory::{FRAME_SIZE, FrameRun, PageFrames};
use ballonet::platform::{DmaMemory, Platform};
use ballonet::virtio::spec::Features;
use ballonet::virtio::{Chain, InterruptMode, RingFormat, Segment, Virtqueue};

/// The longest that the device may take to return anything, in nanoseconds.
const LIMIT: u64 = 5_000_000_000;
/// When to poll again if no interrupt comes, in nanoseconds: 100 ms.
const POLL: u64 = 100_000_000;
/// The same for a device that has no interrupts: 100 µs.
const POLL_WITHOUT_INTERRUPTS: u64 = 100_000;

/// Frame numbers in a piece of a request: a size that no known device drops.
const PIECE: u32 = RequestShape::FRAMES_MAX as u32;
/// Frames in a run of a report: 8 MiB.
const RUN: u32 = 2048;
/// The most runs in a report: no device of today has fewer descriptors.
const REPORT_RUNS: usize = 16;

/// How rings are filled beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strategy {
    /// By requests of one descriptor.
    Direct,
    /// By requests so long that all fit into the queue, which requires indirect tables.
    Indirect,
    /// All frames are reported as free first.
    Reported,
}

impl Strategy {
    pub(super) const ALL: [Self; 3] = [Self::Direct, Self::Indirect, Self::Reported];

    /// Whether the device allows it with the offered features that remain.
    pub(super) fn is_possible(self, offer: &Offer) -> bool {
        match self {
            Self::Direct => true,
            Self::Indirect => offer.features.contains(Features::INDIRECT_DESC),
            Self::Reported => offer.features.contains(PAGE_REPORTING) && offer.reporting.is_some(),
        }
    }

    /// What the device is brought up with for it: the same rings as the driver has.
    pub(super) fn bed_options(self, offer: &Offer, ring: Option<RingFormat>) -> BedOptions {
        let tables = self != Self::Direct && offer.features.contains(Features::INDIRECT_DESC);
        let mut wanted = Features::EVENT_IDX | Features::IN_ORDER;
        wanted.set(Features::RING_PACKED, ring != Some(RingFormat::Split));
        wanted.set(Features::INDIRECT_DESC, tables);
        wanted.set(PAGE_REPORTING, self == Self::Reported);
        BedOptions {
            features: wanted & offer.features,
            indirect_entries: if tables { RequestShape::DESCRIPTORS_MAX } else { 0 },
            reporting: offer.reporting.filter(|_| self == Self::Reported),
        }
    }

    /// The queues of a bed by which frames are inflated, in order.
    pub(super) const fn there(self) -> &'static [usize] {
        if matches!(self, Self::Reported) { &[REPORTING, 0] } else { &[0] }
    }
}

/// The queue of a bed by which frames are deflated.
pub(super) const BACK: &[usize] = &[1];

/// Frames, and all requests that name them.
pub(super) struct Batch<M> {
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

impl<M: DmaMemory> Batch<M> {
    /// Takes `wanted` frames and writes their numbers, for requests of at most `most` pieces.
    pub(super) fn allocate<P>(platform: &mut P, wanted: u32, most: u16) -> Result<Self, BenchError>
    where
        P: BalloonPlatform<Memory = M>,
    {
        let memory = platform.allocate_dma(wanted as usize * PFN_SIZE, FRAME_SIZE as usize)?;
        let (pieces, extents) = (Vec::new(), Vec::new());
        let mut batch = Self { runs: Vec::new(), memory, most: most.max(1), pieces, extents, frames: 0, away: false };
        while batch.frames < wanted {
            let most = (wanted - batch.frames).min(RUN);
            // In the order in which the driver takes what it reports.
            let frames = platform.frames();
            let backed = frames.reporting().and_then(|reporting| reporting.take_backed(most));
            let Some(run) = backed.or_else(|| frames.take_free(most)) else {
                let free = batch.frames as usize;
                batch.free(platform);
                return Err(BenchError::Frames { needed: wanted as usize, free });
            };
            let extent = Segment { address: platform.frames().device_address(run), length: run.bytes() as u32 };
            batch.extents.push(extent);
            batch.add(run);
        }
        batch.lay_out_requests();
        Ok(batch)
    }

    fn add(&mut self, run: FrameRun) {
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
    fn lay_out_requests(&mut self) {
        let (start, bytes) = (self.memory.device_address(), self.frames * PFN_SIZE as u32);
        let piece = PIECE * PFN_SIZE as u32;
        let place = |at: u32| Segment { address: start + u64::from(at), length: piece.min(bytes - at) };
        self.pieces.extend((0..bytes).step_by(piece as usize).map(place));
    }

    /// Sends all of it through these queues of the bed in turn, and waits until it is used. Returns the rate.
    pub(super) fn send<P, S>(
        &mut self,
        platform: &P,
        surroundings: &mut S,
        bed: &mut Bed<P>,
        places: &[usize],
    ) -> Result<Rate, BenchError>
    where
        P: Platform<Memory = M>,
        S: Surroundings,
    {
        self.away = true;
        let mut requests = Vec::with_capacity(places.len());
        for place in places {
            let queue = bed.queue(*place).queue;
            let mut prepared = self.requests(*place, queue.size());
            prepared.fill(queue)?;
            requests.push(prepared);
        }
        let start = platform.now();
        for (place, requests) in places.iter().zip(requests) {
            serve(platform, surroundings, bed.queue(*place), requests)?;
        }
        let time = platform.now().saturating_sub(start);
        self.away = places.last() == Some(&0);
        Ok(Rate { bytes: u64::from(self.frames) * FRAME_SIZE, time })
    }

    fn requests(&self, place: usize, queue_size: u16) -> Requests<'_> {
        if place == REPORTING {
            return Requests { rest: &self.extents, each: REPORT_RUNS.min(queue_size.into()), is_report: true };
        }
        let each = self.pieces.len().div_ceil(queue_size.into()).clamp(1, self.most.into());
        Requests { rest: &self.pieces, each, is_report: false }
    }

    /// Gives everything back. The device does not use the memory: it never had it, or has been reset.
    pub(super) fn free<P>(self, platform: &mut P)
    where
        P: BalloonPlatform<Memory = M>,
    {
        for run in self.runs {
            if self.away { platform.frames().confirm_ballooned(run) } else { platform.frames().release(run) }
        }
        platform.release_dma(self.memory);
    }

    /// Gives nothing back: the device did not stop, and may go on using it.
    pub(super) fn leak(self) {
        // Dropping it could give it back.
        core::mem::forget(self);
    }
}

/// Publishes the queue, adds the rest as there is room, and waits until all of it is used.
fn serve<P, S>(
    platform: &P,
    surroundings: &mut S,
    queue: QueueAccess<'_, P>,
    mut requests: Requests<'_>,
) -> Result<(), BenchError>
where
    P: Platform,
    S: Surroundings,
{
    let QueueAccess { running, queue, doorbell } = queue;
    let poll = if running.interrupts.mode() == InterruptMode::Polling { POLL_WITHOUT_INTERRUPTS } else { POLL };
    let mut last_used = platform.now();
    while queue.outstanding() > 0 {
        if let Some(kick) = queue.publish() {
            running.device.kick(doorbell, kick);
        }
        let outstanding = queue.outstanding();
        let share = if requests.rest.is_empty() { outstanding } else { outstanding.div_ceil(2) };
        if queue.arm(share) {
            surroundings.idle(poll, &|| running.interrupts.events().is_pending());
        }
        let _ = running.interrupts.take();
        queue.disarm();
        let now = platform.now();
        while queue.pop()?.is_some() {
            last_used = now;
        }
        if now.saturating_sub(last_used) > LIMIT {
            return Err(BenchError::Silence { waited_ms: now.saturating_sub(last_used) / 1_000_000 });
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
