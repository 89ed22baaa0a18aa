//! How fast memory is inflated and deflated: the device's ceiling, and the driver.

use alloc::vec::Vec;

use super::bed::{Bed, Offer};
use super::ceiling::{BACK, Batch, Strategy};
use super::error::BenchError;
use super::rate::{Rate, faster, median};
use super::{Bench, Surroundings};
use ballonet::balloon::BalloonPlatform;
use ballonet::balloon::wire::PAGE_REPORTING;
use ballonet::balloon::{Balloon, Changes, Next, Progress, ReportPolicy};
use ballonet::memory::FRAME_SIZE;
use ballonet::platform::Platform;
use ballonet::virtio::InterruptMode;

/// The longest that the driver may go without progress, in nanoseconds.
const LIMIT: u64 = 5_000_000_000;
/// When to poll again if no interrupt comes, in nanoseconds: 100 ms, or 100 µs without interrupts.
const POLL: u64 = 100_000_000;
const POLL_WITHOUT_INTERRUPTS: u64 = 100_000;

/// One direction of the driver: inflating or deflating.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Journey {
    /// How fast.
    pub rate: Rate,
    /// Kicks made.
    pub kicks: u64,
    /// Interrupts taken.
    pub interrupts: u64,
    /// Nanoseconds that the CPU was awake.
    pub awake: u64,
}

/// How fast memory is inflated and deflated: by pre-filled rings, the best of all passes for each method, and by
/// the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throughput {
    /// By requests of one descriptor each, as many as the queue holds.
    pub direct: [Rate; 2],
    /// By requests so long that all fit into the queue at once; `None` without indirect tables.
    pub indirect: Option<[Rate; 2]>,
    /// After all of it was reported as free, whose time counts too; `None` without reporting.
    pub reported: Option<[Rate; 2]>,
    /// By the driver; the pass with the median rate.
    pub driver: [Journey; 2],
    /// By the driver; the best of all passes.
    pub fastest: [Rate; 2],
}

impl Throughput {
    /// The device's best with pre-filled rings.
    pub fn prepared(&self) -> [Rate; 2] {
        [self.indirect, self.reported].into_iter().flatten().fold(self.direct, best)
    }

    /// The best pass of all. If other work on the host disturbs passes, that may be one of the driver's.
    pub fn ceiling(&self) -> [Rate; 2] {
        best(self.prepared(), self.fastest)
    }
}

/// The faster one in each direction.
fn best(some: [Rate; 2], others: [Rate; 2]) -> [Rate; 2] {
    [0, 1].map(|way| faster(some[way], others[way]))
}

impl Bench<'_> {
    /// Measures how fast `frames` page frames are inflated and deflated: by the driver `passes` times, and before
    /// and after each time by rings that are pre-filled by every method. Before each time all free memory is reported,
    /// if the host takes reports, and then touched.
    ///
    /// # Errors
    /// When the device cannot be brought up, does not return requests, or there are too few frames. As with
    /// [`Bench::measure`], the device has been reset then, and its memory freed.
    pub fn throughput<P, S>(
        &self,
        platform: &mut P,
        surroundings: &mut S,
        frames: u32,
        passes: usize,
    ) -> Result<Throughput, BenchError>
    where
        P: BalloonPlatform,
        S: Surroundings,
    {
        let mut offer = Offer::read(platform, self.device, self.options)?;
        offer.features = offer.features.difference(self.options.declined);
        let (mut prepared, mut driver) = ([None; Strategy::ALL.len()], Vec::new());
        let passes = passes.max(1);
        for pass in 0..=passes {
            for (so_far, strategy) in prepared.iter_mut().zip(Strategy::ALL) {
                if strategy.is_possible(&offer) {
                    let rates = self.ceiling(platform, surroundings, frames, (&offer, strategy))?;
                    *so_far = Some(so_far.map_or(rates, |so_far| best(so_far, rates)));
                }
            }
            if pass < passes {
                driver.push(self.drive(platform, surroundings, frames)?);
            }
        }
        let rates = driver.iter().map(|both: &[Journey; 2]| both.map(|journey| journey.rate));
        let fastest = rates.reduce(best);
        let journeys = [0, 1].map(|way| median(&driver, |both: &[Journey; 2]| both[way].rate).map(|both| both[way]));
        let ([Some(there), Some(back)], Some(fastest), [Some(direct), indirect, reported]) =
            (journeys, fastest, prepared)
        else {
            unreachable!("there was a pass at least")
        };
        Ok(Throughput { direct, indirect, reported, driver: [there, back], fastest })
    }

    /// One pass by pre-filled rings.
    fn ceiling<P, S>(
        &self,
        platform: &mut P,
        surroundings: &mut S,
        frames: u32,
        (offer, strategy): (&Offer, Strategy),
    ) -> Result<[Rate; 2], BenchError>
    where
        P: BalloonPlatform,
        S: Surroundings,
    {
        if offer.features.contains(PAGE_REPORTING) {
            // A plain method path has one lifetime; this must work for any.
            #[allow(clippy::redundant_closure_for_method_calls)]
            self.with_driver(platform, surroundings, |drive| drive.begin())?;
        }
        let wanted = strategy.bed_options(offer, self.options.ring);
        let mut bed = Bed::open(platform, self.device, self.options, wanted)?;
        surroundings.touch_free_memory(platform.frames());
        let mut batch = match Batch::allocate(platform, frames, wanted.indirect_entries) {
            Ok(batch) => batch,
            Err(error) => {
                bed.close(platform);
                return Err(error);
            }
        };
        let there = batch.send(platform, surroundings, &mut bed, strategy.there());
        let back = there.is_ok().then(|| batch.send(platform, surroundings, &mut bed, BACK));
        if bed.close(platform) {
            batch.free(platform);
        } else {
            batch.leak();
        }
        let there = there?;
        Ok([there, back.unwrap_or(Ok(there))?])
    }

    /// One pass by the driver.
    fn drive<P, S>(&self, platform: &mut P, surroundings: &mut S, frames: u32) -> Result<[Journey; 2], BenchError>
    where
        P: BalloonPlatform,
        S: Surroundings,
    {
        self.with_driver(platform, surroundings, |drive| drive.there_and_back(frames))
    }

    /// Starts a driver, does something with it, and ends it.
    fn with_driver<P, S, T>(
        &self,
        platform: &mut P,
        surroundings: &mut S,
        act: impl FnOnce(&mut Drive<'_, P, S>) -> Result<T, BenchError>,
    ) -> Result<T, BenchError>
    where
        P: BalloonPlatform,
        S: Surroundings,
    {
        let never = ReportPolicy { age: u64::MAX, threshold: u64::MAX, ..ReportPolicy::default() };
        let mut options = self.options.clone();
        options.reporting = never;
        let balloon = Balloon::probe(platform, self.device, options)?;
        let mut drive = Drive { balloon, platform, surroundings };
        let outcome = act(&mut drive);
        let Drive { balloon, platform, .. } = drive;
        balloon.shutdown(platform);
        outcome
    }
}

/// A driver at work.
struct Drive<'a, P: Platform, S> {
    balloon: Balloon<P>,
    platform: &'a mut P,
    surroundings: &'a mut S,
}

impl<P: BalloonPlatform, S: Surroundings> Drive<'_, P, S> {
    /// Reports all free memory, if the host takes reports.
    fn begin(&mut self) -> Result<(), BenchError> {
        // The host's target is not measured. If it takes reports, all free memory is reported.
        self.balloon.pin(0);
        let mut told = !self.balloon.status().features.contains(PAGE_REPORTING);
        self.until(&mut |progress, _| {
            told |= progress.changes.contains(Changes::FLUSHED);
            told && progress.next == Next::Idle
        })
        .map(drop)
    }

    fn there_and_back(&mut self, frames: u32) -> Result<[Journey; 2], BenchError> {
        self.begin()?;
        self.surroundings.touch_free_memory(self.platform.frames());
        Ok([self.journey(frames, frames)?, self.journey(0, frames)?])
    }

    /// Moves the balloon to `target` frames, a change of `frames`.
    fn journey(&mut self, target: u32, frames: u32) -> Result<Journey, BenchError> {
        let (before, start) = (self.balloon.counters(), self.platform.now());
        self.balloon.pin(target);
        let rested = self.until(&mut |_, actual| actual == u64::from(target))?;
        let time = self.platform.now().saturating_sub(start);
        let after = self.balloon.counters();
        Ok(Journey {
            rate: Rate { bytes: u64::from(frames) * FRAME_SIZE, time },
            kicks: after.kicks - before.kicks,
            interrupts: after.vring_interrupts - before.vring_interrupts,
            awake: time.saturating_sub(rested),
        })
    }

    /// Serves the balloon until `done` holds for its last progress and its size. Returns how long the CPU slept.
    fn until(&mut self, is_so: &mut dyn FnMut(Progress, u64) -> bool) -> Result<u64, BenchError> {
        let polled = self.balloon.status().interrupts == InterruptMode::Polling;
        let poll = if polled { POLL_WITHOUT_INTERRUPTS } else { POLL };
        let (mut rested, mut heard, mut last) = (0, self.platform.now(), u64::MAX);
        loop {
            if polled {
                self.balloon.recheck();
            }
            let progress = self.balloon.poll(self.platform)?;
            let status = self.balloon.status();
            if is_so(progress, status.actual) {
                return Ok(rested);
            }
            let now = self.platform.now();
            if status.short {
                return Err(BenchError::Frames { needed: status.target as usize, free: status.actual as usize });
            }
            if status.actual != last {
                (last, heard) = (status.actual, now);
            } else if now.saturating_sub(heard) > LIMIT {
                return Err(BenchError::Silence { waited_ms: now.saturating_sub(heard) / 1_000_000 });
            }
            let balloon = &self.balloon;
            self.surroundings.idle(poll, &|| balloon.is_pending());
            rested += self.platform.now().saturating_sub(now);
        }
    }
}
