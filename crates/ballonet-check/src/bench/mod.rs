//! What a request costs, from the kick to the interrupt, and how fast memory moves: `mode=bench`.
//!
//! The balloon in front of us is brought up once for each [`Case`]: queue format, shape of a request, way to ask for
//! notifications. One request at a time goes there and back, giving a few frames to the host or asking for them again, and
//! each leg is timed. The clock is the caller's ([`Stopwatch`]): cycles on a CPU; instructions in an emulator that
//! counts those.
//!
//! How fast memory moves is measured in turn: the device's *ceiling*, from rings prepared beforehand by a guest that does
//! nothing else, in every way that the driver may take, before and after the driver; and the driver on its normal way. All
//! move as many frames, and find memory in the same state.

#![forbid(unsafe_code)]

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
use ballonet::pci::Bdf;
use ballonet::platform::Platform;
use ballonet::virtio::InterruptMode;
use bed::Bed;
use trip::Traveller;

/// A clock, and power over interrupts.
pub trait Stopwatch {
    /// The time, in the unit of the clock. What comes before in the program is done by then, and what follows is not begun.
    fn ticks(&self) -> u64;

    /// Keeps interrupts out.
    fn hold_interrupts(&mut self);

    /// Lets those in that wait, and keeps further ones out.
    fn admit_interrupts(&mut self);

    /// Ends [`Stopwatch::hold_interrupts`].
    fn release_interrupts(&mut self);
}

/// What the guest does beside moving memory.
pub trait Surroundings {
    /// Lets the CPU sleep until `is_pending`, or for about this many nanoseconds at most. It may return early.
    fn idle(&mut self, longest: u64, is_pending: &dyn Fn() -> bool);

    /// Writes to every free page frame of `frames`, so that the host has memory behind each.
    fn touch_free_memory(&mut self, frames: &mut impl PageFrames);
}

/// What to measure, and how often.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The balloon.
    pub function: Bdf,
    /// Its name, and what is left of its offer.
    pub options: &'a Options,
    /// How many requests to time in each direction. A few go ahead that are not timed.
    pub rounds: usize,
}

impl Bench<'_> {
    /// What there is to measure: the cases that the device offers and the options leave.
    ///
    /// # Errors
    /// When the device cannot be asked. It has been reset.
    pub fn cases<P: Platform>(&self, platform: &mut P) -> Result<Vec<Case>, BenchError> {
        let bed::Offer { transport, features, .. } = bed::offered(platform, self.function, self.options)?;
        let offered = features.difference(self.options.declined);
        let is_wanted = |case: &Case| self.options.ring.is_none_or(|ring| ring == case.ring);
        Ok(Case::ALL.into_iter().filter(|case| case.is_possible(transport, offered) && is_wanted(case)).collect())
    }

    /// Measures one case. Returns how the device interrupts, and the figures.
    ///
    /// # Errors
    /// When the device cannot be brought up, or does not do its part. It has been reset, and what it was lent has been
    /// given back; but frames that it would not return stay ballooned.
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
        let mut bed = Bed::make(platform, self.function, self.options, case.setup())?;
        let mode = bed.interrupt_mode();
        // Only now: the reset at the start would leave it open who has the frames that a driver holds.
        let mut traveller = match Traveller::set_out(platform, case) {
            Ok(traveller) => traveller,
            Err(error) => {
                bed.unmake(platform);
                return Err(error);
            }
        };
        let outcome = traveller.travel(platform, watch, &mut bed, self.rounds);
        if bed.unmake(platform) {
            traveller.come_home(platform);
        } else {
            traveller.stay_away();
        }
        outcome.map(|figures| (mode, figures))
    }
}
