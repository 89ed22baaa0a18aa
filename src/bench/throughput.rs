//! How fast memory moves there and back: by the device's ceiling, and by the driver.

use alloc::vec::Vec;

use super::bed::{self, Bed};
use super::ceiling::{self, Convoy};
use super::error::BenchError;
use super::rate::{Rate, median};
use super::{Bench, Surroundings};
use crate::balloon::wire::PAGE_REPORTING;
use crate::balloon::{Balloon, Changes, MemoryStatistics, Next, Options, Progress, ReportPolicy};
use crate::memory::FRAME_SIZE;
use crate::platform::{PageFrames, Platform};
use crate::virtio::InterruptMode;
use crate::virtio::spec::Features;

/// How long the driver may go without getting on, in nanoseconds.
const LIMIT: u64 = 5_000_000_000;
/// When to look again if no interrupt comes, in nanoseconds: 100 ms, or 100 µs where none can come.
const GLANCE: u64 = 100_000_000;
const GLANCE_POLLED: u64 = 100_000;

/// One way, there or back, of the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Journey {
    /// How fast.
    pub rate: Rate,
    /// Kicks made.
    pub kicks: u64,
    /// Interrupts taken.
    pub interrupts: u64,
    /// Nanoseconds that the CPU did not rest.
    pub awake: u64,
}

/// How fast memory moves: medians, there and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throughput {
    /// By requests of one descriptor each, as many as the queue holds.
    pub direct: [Rate; 2],
    /// By requests so long that all fit into the queue at once, which takes tables; `None` where there are none.
    pub indirect: Option<[Rate; 2]>,
    /// By the driver; that of the passes which has the median rate.
    pub driver: [Journey; 2],
}

impl Throughput {
    /// The best that the device does by prepared rings.
    pub fn ceiling(&self) -> [Rate; 2] {
        let best = |way: usize| {
            let indirect = self.indirect.map(|rates| rates[way]);
            let better = indirect.filter(|rate| rate.milli_gib_per_second() > self.direct[way].milli_gib_per_second());
            better.unwrap_or(self.direct[way])
        };
        [best(0), best(1)]
    }
}

impl Bench<'_> {
    /// Measures how fast `frames` page frames go to the host and come back, `passes` times in turn: by prepared rings, and by
    /// the driver. All of them are free and touched before each time.
    ///
    /// # Errors
    /// When the device cannot be brought up, does not do its part, or there are too few frames. As with
    /// [`Bench::measure`], it has been reset then, and what it was lent has been given back.
    pub fn throughput<P, S>(
        &self,
        platform: &mut P,
        surroundings: &mut S,
        frames: u32,
        passes: usize,
    ) -> Result<Throughput, BenchError>
    where
        P: Platform + PageFrames + MemoryStatistics,
        S: Surroundings,
    {
        let (_, offered) = bed::offered(platform, self.function, self.options)?;
        let offered = offered.difference(self.options.declined);
        let tables = offered.contains(Features::INDIRECT_DESC);
        let (mut direct, mut indirect, mut driver) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..passes.max(1) {
            direct.push(self.ceiling(platform, surroundings, frames, (offered, false))?);
            if tables {
                indirect.push(self.ceiling(platform, surroundings, frames, (offered, true))?);
            }
            driver.push(self.drive(platform, surroundings, frames)?);
        }
        let way = |rates: &[[Rate; 2]], way: usize| median(rates, |both| both[way]).map(|both| both[way]);
        let both = |rates: &[[Rate; 2]]| Some([way(rates, 0)?, way(rates, 1)?]);
        let journeys = [0, 1].map(|way| median(&driver, |both: &[Journey; 2]| both[way].rate).map(|both| both[way]));
        let ([Some(there), Some(back)], Some(direct)) = (journeys, both(&direct)) else {
            unreachable!("there was a pass at least")
        };
        Ok(Throughput { direct, indirect: both(&indirect), driver: [there, back] })
    }

    /// One pass by prepared rings.
    fn ceiling<P, S>(
        &self,
        platform: &mut P,
        surroundings: &mut S,
        frames: u32,
        (offered, indirect): (Features, bool),
    ) -> Result<[Rate; 2], BenchError>
    where
        P: Platform + PageFrames,
        S: Surroundings,
    {
        let mut bed = Bed::make(platform, self.function, self.options, ceiling::setup(offered, indirect))?;
        surroundings.touch_free_memory();
        let mut convoy = match Convoy::gather(platform, frames) {
            Ok(convoy) => convoy,
            Err(error) => {
                bed.unmake(platform);
                return Err(error);
            }
        };
        let most = ceiling::most_pieces(indirect);
        let there = convoy.travel(platform, surroundings, &mut bed, (0, most));
        let back = there.is_ok().then(|| convoy.travel(platform, surroundings, &mut bed, (1, most)));
        if bed.unmake(platform) {
            convoy.come_home(platform);
        } else {
            convoy.stay_away();
        }
        let there = there?;
        Ok([there, back.unwrap_or(Ok(there))?])
    }

    /// One pass by the driver.
    fn drive<P, S>(&self, platform: &mut P, surroundings: &mut S, frames: u32) -> Result<[Journey; 2], BenchError>
    where
        P: Platform + PageFrames + MemoryStatistics,
        S: Surroundings,
    {
        let never = ReportPolicy { age: u64::MAX, threshold: u64::MAX, ..ReportPolicy::default() };
        let options = Options { reporting: never, ..self.options.clone() };
        let balloon = Balloon::probe(platform, self.function, options)?;
        let mut drive = Drive { balloon, platform, surroundings };
        let outcome = drive.there_and_back(frames);
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

impl<P: Platform + PageFrames + MemoryStatistics, S: Surroundings> Drive<'_, P, S> {
    fn there_and_back(&mut self, frames: u32) -> Result<[Journey; 2], BenchError> {
        // What the host wants is not what is measured. Where it wants to know what is free, it is told of all of that first.
        self.balloon.pin(0);
        let mut told = !self.balloon.features().contains(PAGE_REPORTING);
        self.until(&mut |progress, _| {
            told |= progress.changes.contains(Changes::FLUSHED);
            told && progress.next == Next::Idle
        })?;
        self.surroundings.touch_free_memory();
        Ok([self.journey(frames, frames)?, self.journey(0, frames)?])
    }

    /// From here to a balloon of `target` frames, which are `frames` on the way.
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

    /// Serves the balloon until that is so of what came last and of its size. Returns for how long the CPU rested.
    fn until(&mut self, is_so: &mut dyn FnMut(Progress, u64) -> bool) -> Result<u64, BenchError> {
        let polled = self.balloon.interrupt_mode() == InterruptMode::Polling;
        let glance = if polled { GLANCE_POLLED } else { GLANCE };
        let (mut rested, mut heard, mut last) = (0, self.platform.now(), u64::MAX);
        loop {
            if polled {
                self.balloon.look();
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
            self.surroundings.idle(glance, &|| balloon.is_pending());
            rested += self.platform.now().saturating_sub(now);
        }
    }
}
