//! Time since entry, read from the TSC, or by a hypervisor's clock page.

use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use spin::Once;

use super::NANOSECONDS;
use super::choice::ClockSource;
use crate::machine::time::{hypervisor, tsc};

pub(crate) use crate::machine::time::tsc::{now as tsc, now_in_order as tsc_in_order};

/// The rates found so far. Each is written once, before [`NEWEST`] points to it, so that reading needs no lock, even
/// when it interrupts a write.
static SCALES: [Once<Scale>; 2] = [const { Once::new() }; 2];
/// The number of rates.
static NEWEST: AtomicUsize = AtomicUsize::new(0);

/// The rates of the clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// TSC ticks per second.
    pub tsc_hz: u64,
    /// Its error bound in parts per million; `None` if it was given or guessed.
    pub ppm: Option<u32>,
    /// Local APIC timer ticks (divided by 16) per second; 0 if not needed or not measurable.
    pub apic_hz: u64,
    /// The source of the TSC's rate.
    pub source: ClockSource,
}

/// `2299 MHz, measured by the PM timer to 0.13 %`
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MHz, {}", self.tsc_hz / 1_000_000, self.source.about())?;
        match self.ppm {
            Some(ppm @ 100..) => write!(f, " to {}.{:02} %", ppm / 10_000, ppm % 10_000 / 100),
            Some(ppm) => write!(f, " to {ppm} ppm"),
            None => Ok(()),
        }
    }
}

/// A rate, and the moment from which it holds.
struct Scale {
    rate: Rate,
    /// Nanoseconds per TSC tick, times 2^32.
    multiplier: u64,
    tsc: u64,
    nanoseconds: u64,
}

impl Scale {
    /// Nanoseconds since entry at a value of the TSC.
    fn at(&self, tsc: u64) -> u64 {
        self.nanoseconds + self.duration(tsc.saturating_sub(self.tsc))
    }

    fn duration(&self, ticks: u64) -> u64 {
        ((u128::from(ticks) * u128::from(self.multiplier)) >> 32) as u64
    }
}

/// The newest scale.
fn scale() -> Option<&'static Scale> {
    SCALES.get(NEWEST.load(Ordering::Acquire).checked_sub(1)?)?.get()
}

/// Records the moment from which time is counted.
pub(crate) fn start(entry_tsc: u64) {
    tsc::note_entry(entry_tsc);
}

/// Nanoseconds since entry; 0 until the rate is known.
pub(crate) fn nanoseconds() -> u64 {
    hypervisor::nanoseconds().unwrap_or_else(|| scale().map_or(0, |scale| scale.at(tsc::now())))
}

/// `ticks` of the TSC in nanoseconds; 0 until the rate is known.
pub(crate) fn duration(ticks: u64) -> u64 {
    scale().map_or(0, |scale| scale.duration(ticks))
}

/// The assumed TSC rate until it is known: faster than any real one, so that waits are long enough.
const FASTEST_MHZ: u64 = 6000;

/// Nanoseconds since entry, too few while the rate is unknown. For waits that must end: reading this does not count as
/// progress.
pub(crate) fn rough_nanoseconds() -> u64 {
    let ticks = tsc::now().saturating_sub(tsc::entry());
    if scale().is_some() { nanoseconds() } else { ticks.saturating_mul(1000) / FASTEST_MHZ }
}

/// Gives the hardware some time to act, at any stage of the kernel.
pub(crate) fn wait_some_ms(count: u32) {
    let end = rough_nanoseconds() + u64::from(count) * 1_000_000;
    while rough_nanoseconds() < end {
        core::hint::spin_loop();
    }
}

/// Milliseconds since entry.
pub(crate) fn milliseconds() -> u64 {
    nanoseconds() / 1_000_000
}

/// The rates, once known.
pub(crate) fn rate() -> Option<Rate> {
    scale().map(|scale| scale.rate)
}

/// The TSC's value at a moment given in nanoseconds since entry.
pub(crate) fn tsc_at(nanoseconds: u64) -> u64 {
    let hz = hypervisor::tsc_hz().or_else(|| rate().map(|rate| rate.tsc_hz)).unwrap_or(NANOSECONDS);
    let (now, wait) = (tsc::now(), nanoseconds.saturating_sub(self::nanoseconds()));
    let ticks = u128::from(wait) * u128::from(hz) / u128::from(NANOSECONDS);
    now.saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX))
}

/// Sets the rates, or replaces them by better ones. Time continues without a jump. Ignored after the second time.
pub(super) fn set_rate(rate: Rate) {
    let (tsc, nanoseconds) = match scale() {
        None => (tsc::entry(), 0),
        Some(scale) => {
            let now = tsc::now();
            (now, scale.at(now))
        }
    };
    let multiplier = ((u128::from(NANOSECONDS) << 32) / u128::from(rate.tsc_hz.max(1))) as u64;
    let next = NEWEST.load(Ordering::Relaxed);
    if let Some(slot) = SCALES.get(next) {
        slot.call_once(|| Scale { rate, multiplier, tsc, nanoseconds });
        NEWEST.store(next + 1, Ordering::Release);
    }
}
