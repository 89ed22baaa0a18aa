//! Time since entry, read from the TSC, whose rate is told by CPUID or measured against a timer of known rate.

mod measurement;
mod reference;

use core::arch::x86_64::{_mm_lfence, _rdtsc};
use core::sync::atomic::{AtomicU64, Ordering};

use spin::Once;

use self::measurement::{Counters, Rates};
use self::reference::Reference;
use super::cpu::{self, Features};
use super::{local_apic, vectors};
use crate::acpi::Acpi;

const NANOSECONDS: u64 = 1_000_000_000;

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
    /// What told the TSC's rate.
    pub source: &'static str,
    /// Nanoseconds a TSC tick, times 2^32.
    multiplier: u64,
}

/// The TSC now.
pub(crate) fn tsc() -> u64 {
    // SAFETY: every x86-64 CPU has a TSC, and ring 0 may read it.
    unsafe { _rdtsc() }
}

/// The TSC once all instructions before have been executed, and before any that follows is (SDM vol. 2, RDTSC).
pub(crate) fn tsc_in_order() -> u64 {
    // SAFETY: every x86-64 CPU has SSE2, and with it LFENCE, which touches nothing.
    unsafe { _mm_lfence() };
    let ticks = tsc();
    // SAFETY: as above.
    unsafe { _mm_lfence() };
    ticks
}

/// Notes the moment from which time is counted.
pub(crate) fn start(entry_tsc: u64) {
    ENTRY.store(entry_tsc, Ordering::Relaxed);
}

/// Nanoseconds since entry; 0 until the rate is known.
///
/// Whoever asks for the time gets along, which is a sign of life to those who ration interrupts.
pub(crate) fn nanoseconds() -> u64 {
    vectors::sign_of_life();
    duration(tsc().saturating_sub(ENTRY.load(Ordering::Relaxed)))
}

/// So many ticks of the TSC in nanoseconds; 0 until the rate is known.
pub(crate) fn duration(ticks: u64) -> u64 {
    let multiplier = RATE.get().map_or(0, |rate| rate.multiplier);
    ((u128::from(ticks) * u128::from(multiplier)) >> 32) as u64
}

/// What the TSC is taken for until its rate is known: more than any runs at, so that waits are long enough.
const FASTEST_MHZ: u64 = 6000;

/// Nanoseconds since entry, of which those before the rate was known may be too few. For waits that have to end: asking is no sign of
/// life.
pub(super) fn rough_nanoseconds() -> u64 {
    let ticks = tsc().saturating_sub(ENTRY.load(Ordering::Relaxed));
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
pub(super) fn tsc_at(nanoseconds: u64) -> u64 {
    let hz = rate().map_or(NANOSECONDS, |rate| rate.tsc_hz);
    let ticks = u128::from(nanoseconds) * u128::from(hz) / u128::from(NANOSECONDS);
    ENTRY.load(Ordering::Relaxed).saturating_add(ticks as u64)
}

/// How fast the clocks run, as far as anything tells.
fn find_rates(features: &Features, acpi: Option<&Acpi>) -> (Rates, &'static str) {
    local_apic::start_measuring();
    let measured = Reference::all(acpi).find_map(|reference| {
        let name = reference.name();
        Some((measurement::rates(&mut Clocks(reference))?, name))
    });
    let by_tsc = |tsc_hz| Rates { tsc_hz, apic_hz: measurement::apic_hz(&mut Clocks(Reference::None), tsc_hz) };
    match (cpu::tsc_hz(features), measured) {
        (Some(tsc_hz), Some((rates, _))) => (Rates { tsc_hz, ..rates }, "told by CPUID"),
        (Some(tsc_hz), None) => (by_tsc(tsc_hz), "told by CPUID"),
        (None, Some(found)) => found,
        (None, None) => match cpu::base_hz() {
            Some(hz) => (by_tsc(hz), "taken for the CPU's base frequency: no timer of known rate was found"),
            None => (by_tsc(NANOSECONDS), "guessed: no timer of known rate was found"),
        },
    }
}

/// Finds out how fast the TSC and the local APIC's timer run. Returns what was found.
pub(crate) fn calibrate(features: &Features, acpi: Option<&Acpi>) -> Rate {
    let (Rates { tsc_hz, apic_hz }, source) = find_rates(features, acpi);
    let multiplier = ((u128::from(NANOSECONDS) << 32) / u128::from(tsc_hz)) as u64;
    *RATE.call_once(|| Rate { tsc_hz, apic_hz, source, multiplier })
}

/// The clocks of this machine, to be measured.
struct Clocks(Reference);

impl Counters for Clocks {
    fn reference_hz(&self) -> u64 {
        self.0.hz()
    }

    fn mask(&self) -> u32 {
        self.0.mask()
    }

    fn reference(&mut self) -> u32 {
        self.0.read()
    }

    fn tsc(&mut self) -> u64 {
        tsc()
    }

    fn apic(&mut self) -> u32 {
        local_apic::measured()
    }
}
