//! What a request costs, from the kick to the interrupt: `mode=bench`.
//!
//! The balloon in front of us is brought up once for each [`Case`]: queue format, shape of a request, way to ask for
//! notifications. One request at a time goes there and back, giving a few frames to the host or asking for them again, and
//! each leg is timed. The clock is the caller's ([`Stopwatch`]): cycles on a CPU; instructions in an emulator that
//! counts those.

#![forbid(unsafe_code)]

mod bed;
mod case;
mod error;
mod figures;
mod trip;

pub use case::{Case, Shape};
pub use error::BenchError;
pub use figures::{Figures, Series};

use alloc::vec::Vec;

use crate::balloon::Options;
use crate::pci::Bdf;
use crate::platform::{PageFrames, Platform};
use crate::virtio::InterruptMode;
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

/// Requests timed in each direction, after some that are not.
const ROUNDS: usize = 256;
const WARM_UP: usize = 32;

/// What there is to measure: the cases that the device at `function` offers and `options` leave.
///
/// # Errors
/// When the device cannot be asked. It has been reset.
pub fn cases<P>(platform: &mut P, function: Bdf, options: &Options) -> Result<Vec<Case>, BenchError>
where
    P: Platform,
{
    let (transport, offered) = bed::offered(platform, function, options)?;
    let offered = offered.difference(options.declined);
    let formats = |case: &Case| options.ring.is_none_or(|ring| ring == case.ring);
    Ok(Case::ALL.into_iter().filter(|case| case.is_possible(transport, offered) && formats(case)).collect())
}

/// Measures one case on the device at `function`. Returns how it interrupts, and the figures.
///
/// # Errors
/// When the device cannot be brought up, or does not do its part. It has been reset, and what it was lent has been given
/// back; but frames that it would not return stay ballooned.
pub fn measure<P, W>(
    platform: &mut P,
    watch: &mut W,
    function: Bdf,
    options: &Options,
    case: Case,
) -> Result<(InterruptMode, Figures), BenchError>
where
    P: Platform + PageFrames,
    W: Stopwatch,
{
    let mut traveller = Traveller::set_out(platform, case)?;
    match Bed::make(platform, function, options, case) {
        Ok(mut bed) => {
            let mode = bed.interrupt_mode();
            let outcome = traveller.travel(platform, watch, &mut bed);
            if bed.unmake(platform) {
                traveller.come_home(platform);
            } else {
                traveller.stay_away();
            }
            outcome.map(|figures| (mode, figures))
        }
        Err(error) => {
            traveller.come_home(platform);
            Err(error)
        }
    }
}
