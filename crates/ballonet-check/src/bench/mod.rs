//! What a request costs, from the kick to the interrupt, and how fast memory moves: `mode=bench`.
//!
//! The balloon is brought up once for each [`Case`]: queue format, shape of a request, notification by flags or event
//! index. One request at a time inflates or deflates a few frames, and each leg of its way is timed. The caller's clock
//! ([`Stopwatch`]) counts cycles on a CPU, or instructions in an emulator that counts those.
//!
//! Throughput is measured in turn: the device's *ceiling*, with pre-filled rings and an idle guest, by every strategy
//! that the driver may use, before and after the driver; and the driver itself. All move the same number of frames,
//! from memory in the same state.

mod bed;
mod case;
mod ceiling;
mod error;
mod figures;
mod histogram;
mod rate;
mod throughput;
mod trip;

pub use case::{Case, Shape};
pub use error::BenchError;
pub use figures::{Figures, Series};
pub use histogram::Histogram;
pub use rate::Rate;
pub use throughput::{Journey, Throughput};

use alloc::vec::Vec;

use ballonet::balloon::BalloonPlatform;
use ballonet::balloon::Options;
use ballonet::memory::PageFrames;
use ballonet::platform::Platform;
use ballonet::virtio::{DeviceHandle, InterruptMode};
use bed::{Bed, Offer};
use trip::Probe;

/// A clock, and power over interrupts.
pub trait Stopwatch {
    /// The time, in the unit of the clock. Everything before it in the program has completed, and nothing after it has
    /// begun.
    fn ticks(&self) -> u64;

    /// Disables interrupts.
    fn hold_interrupts(&mut self);

    /// Lets pending interrupts in, then disables them again.
    fn admit_interrupts(&mut self);

    /// Ends [`Stopwatch::hold_interrupts`].
    fn release_interrupts(&mut self);
}

/// What the guest does besides moving memory.
pub trait Surroundings {
    /// Lets the CPU sleep until `is_pending`, or for about this many nanoseconds at most. It may return early.
    fn idle(&mut self, longest: u64, is_pending: &dyn Fn() -> bool);

    /// Writes to every free page frame of `frames`, so that the host backs each.
    fn touch_free_memory(&mut self, frames: &mut impl PageFrames);
}

/// What to measure, and how often.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The balloon.
    pub device: DeviceHandle,
    /// Its name, and the offered features that remain.
    pub options: &'a Options,
    /// Requests to time in each direction, after a few that are not timed.
    pub rounds: usize,
}

impl Bench<'_> {
    /// The cases that the device offers and the options allow.
    ///
    /// # Errors
    /// When the device cannot be brought up. It has been reset.
    pub fn cases<P: Platform>(&self, platform: &mut P) -> Result<Vec<Case>, BenchError> {
        let Offer { transport, features, .. } = Offer::read(platform, self.device, self.options)?;
        let offered = features.difference(self.options.declined);
        let is_wanted = |case: &Case| self.options.ring.is_none_or(|ring| ring == case.ring);
        Ok(Case::ALL.into_iter().filter(|case| case.is_possible(transport, offered) && is_wanted(case)).collect())
    }

    /// Measures one case. Returns how the device interrupts, and the figures.
    ///
    /// # Errors
    /// When the device cannot be brought up, or stalls. It has been reset, and its memory has been freed; but frames
    /// that it did not return stay ballooned.
    pub fn measure<P, W>(
        &self,
        platform: &mut P,
        watch: &mut W,
        case: Case,
    ) -> Result<(InterruptMode, Figures), BenchError>
    where
        P: BalloonPlatform,
        W: Stopwatch,
    {
        let mut bed = Bed::open(platform, self.device, self.options, case.bed_options())?;
        let mode = bed.interrupt_mode();
        // Only now, after the reset: before it, the device might still hold frames of an earlier driver.
        let mut probe = match Probe::allocate(platform, case) {
            Ok(probe) => probe,
            Err(error) => {
                bed.close(platform);
                return Err(error);
            }
        };
        let outcome = probe.measure(platform, watch, &mut bed, self.rounds);
        if bed.close(platform) {
            probe.free(platform);
        } else {
            probe.leak();
        }
        outcome.map(|figures| (mode, figures))
    }
}
