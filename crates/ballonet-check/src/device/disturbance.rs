//! Interference by the host, which may change the configuration at any time, during any check: a failure counts
//! against the device only if the host changed nothing.

use alloc::string::String;
use core::mem::offset_of;

use super::{BALLOON, TestDevice};
use crate::verdict::{Stop, Verdict};
use ballonet::balloon::wire::BalloonConfig;
use ballonet::platform::Registers;
use ballonet::virtio::spec::ISR_CONFIG;

/// The most attempts at a check while the host keeps changing the configuration.
const ATTEMPTS: u32 = 16;
/// Passes that outweigh a failure.
const PASSES: u32 = 3;
/// For a check that may change the target itself: how much longer than an attempt the target is watched, as a
/// factor.
const WATCH: u64 = 4;

/// What a check tests, and what therefore cannot show whether the host interfered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// Interrupts, the ISR byte, fields of the configuration beside the target.
    Signals,
    /// `num_pages`: whether the host changes it shows in a watch after the attempt.
    Target,
    /// `config_generation`, with MSI-X off: that the host changed something shows in the ISR byte.
    Generation,
}

impl About {
    /// Failures without interference that count against the device. A coincidence does not repeat; where the target is
    /// watched after the attempt, not during it, it may repeat once or twice.
    const fn failures(self) -> u32 {
        if matches!(self, Self::Target) { 5 } else { 2 }
    }
}

/// The configuration at one moment, without the fields that the check may change.
#[derive(Debug)]
struct Glimpse {
    target: u32,
    generation: u32,
    told: bool,
}

impl Glimpse {
    fn of(device: &TestDevice<'_>, about: About) -> Self {
        let of_generation = about == About::Generation;
        Self {
            target: target(device),
            generation: if of_generation { 0 } else { device.generation().unwrap_or(0) },
            told: of_generation && device.isr.take() & ISR_CONFIG != 0,
        }
    }
}

/// Runs a check that needs an unchanged configuration, and repeats it while the host interferes. Each attempt
/// starts the device again. If the host interferes every time, the check is skipped.
pub(crate) fn undisturbed(
    device: &mut TestDevice<'_>,
    about: About,
    mut ask: impl FnMut(&mut TestDevice<'_>) -> Verdict,
) -> Verdict {
    let (mut failures, mut passes, mut last) = (0, 0, String::new());
    for _ in 0..ATTEMPTS {
        // Some devices restart the generation count.
        device.stop()?;
        let (before, start) = (Glimpse::of(device, about), device.platform.now());
        match ask(device) {
            Err(stop) if stop.is_failed() => last = stop.reason(),
            Ok(()) if failures > 0 && passes + 1 < PASSES => {
                passes += 1;
                continue;
            }
            outcome => return outcome,
        }
        let moved = if about == About::Target {
            let attempt = device.platform.now().saturating_sub(start);
            is_moving(device, attempt)?
        } else {
            let now = Glimpse::of(device, about);
            now.told || now.target != before.target || now.generation != before.generation
        };
        failures += u32::from(!moved);
        if failures == about.failures() {
            return Err(Stop::failed(format_args!("{last}")));
        }
    }
    Err(Stop::skipped(format_args!("the host changes the configuration all the time, so this proves nothing: {last}")))
}

/// The balloon's target; 0 of every other device.
fn target(device: &TestDevice<'_>) -> u32 {
    if device.kind.number == BALLOON { device.config.read32(offset_of!(BalloonConfig, num_pages)) } else { 0 }
}

/// Whether the target changes by itself, watched for longer than an attempt took.
fn is_moving(device: &mut TestDevice<'_>, attempt: u64) -> Verdict<bool> {
    let before = target(device);
    let limit = (attempt * WATCH).clamp(device.patience.quiet, device.patience.stall);
    device.wait(limit, |device| Ok(target(device) != before))
}
