//! Requests that are timed, one at a time.

use alloc::vec::Vec;

use super::Stopwatch;
use super::bed::{Bed, QueueAccess};
use super::case::Case;
use super::error::BenchError;
use super::figures::Figures;
use ballonet::balloon::BalloonPlatform;
use ballonet::balloon::wire::{PFN_SIZE, write_pfns};
use ballonet::memory::{FrameRun, PageFrames};
use ballonet::platform::{DmaMemory, Platform};
use ballonet::virtio::{Chain, InterruptMode, Segment};

/// Untimed trips in each direction before the timed ones.
const WARM_UP: usize = 16;
/// The longest that a request may take, in nanoseconds.
const LIMIT: u64 = 2_000_000_000;
/// Pairs of clock readings that measure the cost of reading.
const READINGS: usize = 64;

/// The numbers of the inflate and the deflate queue.
const THERE_AND_BACK: [usize; 2] = [0, 1];

/// One request: a few frames, and memory with their numbers in it.
pub(super) struct Probe<M> {
    frames: Vec<FrameRun>,
    memory: M,
    segments: Vec<Segment>,
    /// The host may have the frames.
    away: bool,
}

/// The times of one trip.
struct Trip {
    add_kick: u64,
    interrupt_pop: u64,
    round_trip: u64,
}

impl<M: DmaMemory> Probe<M> {
    /// Takes one frame for each piece of a request.
    pub(super) fn allocate<P>(platform: &mut P, case: Case) -> Result<Self, BenchError>
    where
        P: BalloonPlatform<Memory = M>,
    {
        let needed = case.shape.segments();
        let memory = platform.allocate_dma(needed * PFN_SIZE, PFN_SIZE)?;
        let mut probe = Self { frames: Vec::new(), memory, segments: Vec::new(), away: false };
        while probe.segments.len() < needed {
            let Some(run) = platform.frames().take_free(1) else {
                let free = probe.segments.len();
                probe.free(platform);
                return Err(BenchError::Frames { needed, free });
            };
            probe.add(run);
        }
        Ok(probe)
    }

    fn add(&mut self, run: FrameRun) {
        let offset = self.segments.len() * PFN_SIZE;
        let mut number = [0; PFN_SIZE];
        write_pfns(run, &mut number);
        self.memory.write_bytes(offset, &number);
        let address = self.memory.device_address() + offset as u64;
        self.segments.push(Segment { address, length: PFN_SIZE as u32 });
        self.frames.push(run);
    }

    /// Gives everything back. The device does not use the memory: it never had it, or has been reset.
    pub(super) fn free<P>(self, platform: &mut P)
    where
        P: BalloonPlatform<Memory = M>,
    {
        for run in self.frames {
            if self.away { platform.frames().confirm_ballooned(run) } else { platform.frames().release(run) }
        }
        platform.release_dma(self.memory);
    }

    /// Gives nothing back: the device did not stop, and may go on using it.
    pub(super) fn leak(self) {
        // Dropping it could give it back.
        core::mem::forget(self);
    }

    /// Makes all trips, of which the last `rounds` in each direction are timed.
    pub(super) fn measure<P, W>(
        &mut self,
        platform: &mut P,
        watch: &mut W,
        bed: &mut Bed<P>,
        rounds: usize,
    ) -> Result<Figures, BenchError>
    where
        P: Platform<Memory = M>,
        W: Stopwatch,
    {
        let mut figures = Figures::with_capacity(rounds * THERE_AND_BACK.len());
        let reading = (0..READINGS).map(|_| watch.ticks().abs_diff(watch.ticks())).min().unwrap_or_default();
        for round in 0..WARM_UP + rounds {
            for queue in THERE_AND_BACK {
                self.away = true;
                watch.hold_interrupts();
                let trip = self.trip(platform, watch, bed, queue);
                watch.release_interrupts();
                let trip = trip?;
                self.away = queue == THERE_AND_BACK[0];
                if round >= WARM_UP {
                    figures.add_kick.note(trip.add_kick.saturating_sub(reading));
                    figures.interrupt_pop.note(trip.interrupt_pop.saturating_sub(reading));
                    figures.round_trip.note(trip.round_trip.saturating_sub(reading));
                }
            }
        }
        Ok(figures.sorted())
    }

    /// One request in each direction. Interrupts are disabled except where one is expected.
    ///
    /// A function of its own, so that its duration does not depend on the surrounding code's registers.
    #[inline(never)]
    fn trip<P, W>(&self, platform: &P, watch: &mut W, bed: &mut Bed<P>, queue: usize) -> Result<Trip, BenchError>
    where
        P: Platform<Memory = M>,
        W: Stopwatch,
    {
        let QueueAccess { running, queue, doorbell } = bed.queue(queue);
        let polled = running.interrupts.mode() == InterruptMode::Polling;
        // Nothing is outstanding: the next request to be used is the one that is added now.
        let _ = queue.arm(1);
        let since = platform.now();
        let start = watch.ticks();
        queue.add(Chain::readable(&self.segments), ()).map_err(|rejected| rejected.reason)?;
        if let Some(kick) = queue.publish() {
            running.device.kick(doorbell, kick);
        }
        let kicked = watch.ticks();

        loop {
            let before = watch.ticks();
            watch.admit_interrupts();
            if polled || running.interrupts.events().is_pending() {
                let _ = running.interrupts.take();
                if queue.pop()?.is_some() {
                    let popped = watch.ticks();
                    return Ok(Trip {
                        add_kick: kicked.saturating_sub(start),
                        interrupt_pop: popped.saturating_sub(before),
                        round_trip: popped.saturating_sub(start),
                    });
                }
            }
            let waited = platform.now().saturating_sub(since);
            if waited > LIMIT {
                return Err(BenchError::Silence { waited_ms: waited / 1_000_000 });
            }
            platform.relax();
        }
    }
}
