//! Time since entry, read from the TSC.

use core::sync::atomic::{AtomicU64, Ordering};

use spin::Once;

use crate::machine::time::tsc;

pub(crate) use crate::machine::time::tsc::{now as tsc, now_in_order as tsc_in_order};

/// In a second.
pub(super) const NANOSECONDS: u64 = 1_000_000_000;

/// The TSC at entry.
static ENTRY: AtomicU64 = AtomicU64::new(0);
static RATE: Once<Rate> = Once::new();

/// The rates of the clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// TSC ticks a second.
    pub tsc_hz: u64,
    /// Local APIC timer ticks (divided by 16) a second; 0 if it could not be measured.
    pub apic_hz: u64,
    /// The source of the TSC's rate.
    pub source: &'static str,
    /// Nanoseconds a TSC tick, times 2^32.
    multiplier: u64,
}

/// Notes the moment from which time is counted.
pub(crate) fn start(entry_tsc: u64) {
    ENTRY.store(entry_tsc, Ordering::Relaxed);
}

/// Nanoseconds since entry; 0 until the rate is known.
pub(crate) fn nanoseconds() -> u64 {
    duration(tsc::now().saturating_sub(ENTRY.load(Ordering::Relaxed)))
}

/// `ticks` of the TSC in nanoseconds; 0 until the rate is known.
pub(crate) fn duration(ticks: u64) -> u64 {
    let multiplier = RATE.get().map_or(0, |rate| rate.multiplier);
    ((u128::from(ticks) * u128::from(multiplier)) >> 32) as u64
}

/// What the TSC is taken for until its rate is known: more than any runs at, so that waits are long enough.
const FASTEST_MHZ: u64 = 6000;

/// Nanoseconds since entry, of which those before the rate was known may be too few. For waits that have to end: asking is no sign of
/// life.
pub(crate) fn rough_nanoseconds() -> u64 {
    let ticks = tsc::now().saturating_sub(ENTRY.load(Ordering::Relaxed));
    if RATE.is_completed() { duration(ticks) } else { ticks.saturating_mul(1000) / FASTEST_MHZ }
}

/// Milliseconds since entry.
pub(crate) fn milliseconds() -> u64 {
    nanoseconds() / 1_000_000
}

/// The rates, once known.
pub(crate) fn rate() -> Option<Rate> {
    RATE.get().copied()
}

/// The TSC's value at a moment given in nanoseconds since entry.
pub(crate) fn tsc_at(nanoseconds: u64) -> u64 {
    let hz = rate().map_or(NANOSECONDS, |rate| rate.tsc_hz);
    let ticks = u128::from(nanoseconds) * u128::from(hz) / u128::from(NANOSECONDS);
    ENTRY.load(Ordering::Relaxed).saturating_add(ticks as u64)
}

/// Sets the rates; `source` gave that of the TSC.
pub(super) fn set_rates(tsc_hz: u64, apic_hz: u64, source: &'static str) -> Rate {
    let multiplier = ((u128::from(NANOSECONDS) << 32) / u128::from(tsc_hz)) as u64;
    *RATE.call_once(|| Rate { tsc_hz, apic_hz, source, multiplier })
}
