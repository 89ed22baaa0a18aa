//! The rates of the clocks: given by the hypervisor or CPUID, or measured against a timer of known rate.

use core::sync::atomic::{AtomicBool, Ordering};

use super::choice::{ClockLeaves, ClockSource};
use super::clock::{self, Rate};
use super::measurement::{self, Counters, Measured, Rates};
use super::reference::Reference;
use super::{NANOSECONDS, hypervisor, tsc};
use crate::acpi::Acpi;
use crate::console::events;
use crate::machine::cpu::cpuid::{self, Features};
use crate::machine::interrupts::local_apic;
use crate::machine::lock::Lock;
use crate::machine::start::image::Image;
use crate::machine::terminal::log;

/// The measurement that can still be refined, and its reference timer.
static IS_ROUGH: AtomicBool = AtomicBool::new(false);
static ROUGH: Lock<Option<(Measured, Reference)>> = Lock::new(None);

/// Finds the rates of the TSC and of the local APIC's timer, and returns them.
pub(crate) fn calibrate(features: &Features, acpi: Option<&Acpi>, image: &Image) -> Rate {
    // A timer with TSC deadlines needs no rate of its own.
    let apic = !features.tsc_deadline;
    if apic {
        local_apic::start_measuring();
    }
    let pm_timer = acpi.and_then(|acpi| acpi.fadt.as_ref()).and_then(|fadt| fadt.pm_timer);
    let hpet = acpi.and_then(|acpi| acpi.hpet.as_ref());
    let sources = ClockLeaves::read(cpuid::leaf).sources(pm_timer, hpet.is_some());
    let found = sources.into_iter().find_map(|source| {
        if let Some(reference) = Reference::open(source, hpet) {
            return measured(source, reference, apic);
        }
        let tsc_hz = match source {
            ClockSource::KvmClock { .. } | ClockSource::HyperV => hypervisor::turn_on(source, image)?,
            ClockSource::Crystal(hz) | ClockSource::HypervisorLeaf(hz) | ClockSource::Base(hz) => hz,
            ClockSource::Guess => NANOSECONDS,
            // It does not exist.
            ClockSource::PmTimer(..) | ClockSource::Hpet | ClockSource::Pit => return None,
        };
        let mut clocks = Clocks { reference: Reference::None, apic };
        let apic_hz = if apic { measurement::apic_hz(&mut clocks, tsc_hz) } else { 0 };
        Some(Rate { tsc_hz, ppm: None, apic_hz, source })
    });
    let guess = Rate { tsc_hz: NANOSECONDS, ppm: None, apic_hz: 0, source: ClockSource::Guess };
    let rate = found.unwrap_or(guess);
    clock::set_rate(rate);
    rate
}

fn measured(source: ClockSource, reference: Reference, apic: bool) -> Option<Rate> {
    let mut clocks = Clocks { reference, apic };
    let measured = measurement::measure(&mut clocks)?;
    let Rates { tsc_hz, apic_hz } = measured.rates;
    let rate = Rate { tsc_hz, ppm: Some(measured.ppm), apic_hz, source };
    IS_ROUGH.store(true, Ordering::Relaxed);
    ROUGH.with(|rough| *rough = Some((measured, clocks.reference)));
    Some(rate)
}

/// Time that must have passed before a measurement is refined: it is then accurate to some parts per million.
const LATER: u64 = NANOSECONDS;

/// Refines the rate of a TSC that was measured quickly, once, when there is time. The change is within the uncertainty,
/// and the clock continues without a jump. `now` in nanoseconds since entry.
pub(crate) fn refine(now: u64) {
    if now < LATER || !IS_ROUGH.swap(false, Ordering::Relaxed) {
        return;
    }
    let Some((measured, reference)) = ROUGH.with(Option::take) else { return };
    let refined = measurement::refine(&mut Clocks { reference, apic: false }, &measured);
    if let (Some((tsc_hz, ppm)), Some(rate)) = (refined, clock::rate()) {
        let rate = Rate { tsc_hz, ppm: Some(ppm), ..rate };
        clock::set_rate(rate);
        announce(&rate);
    }
}

/// Writes the `clock` event.
pub(crate) fn announce(rate: &Rate) {
    let certainty = match rate.source {
        ClockSource::Base(_) | ClockSource::Guess => "guessed",
        _ if rate.ppm.is_some() => "measured",
        _ => "told",
    };
    log::emit(&events::Clock { source: rate.source.word(), certainty, hz: rate.tsc_hz, ppm: rate.ppm });
}

/// The clocks of this machine, to be measured.
struct Clocks {
    reference: Reference,
    /// The local APIC's timer counts.
    apic: bool,
}

impl Counters for Clocks {
    fn reference_hz(&self) -> u64 {
        self.reference.hz()
    }

    fn mask(&self) -> u32 {
        self.reference.mask()
    }

    fn reference(&mut self) -> u32 {
        self.reference.read()
    }

    fn tsc(&mut self) -> u64 {
        tsc::now()
    }

    fn apic(&mut self) -> u32 {
        if self.apic { local_apic::measured() } else { 0 }
    }
}
