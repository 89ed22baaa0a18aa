//! The rates of the clocks: CPUID gives the TSC's, or it is measured against a timer of known rate.

use super::clock::{self, NANOSECONDS, Rate};
use super::measurement::{self, Counters, Rates};
use super::reference::Reference;
use super::tsc;
use crate::acpi::Acpi;
use crate::machine::cpu::cpuid::{self, Features};
use crate::machine::interrupts::local_apic;

/// How fast the clocks run, as far as anything tells.
fn find_rates(features: &Features, acpi: Option<&Acpi>) -> (Rates, &'static str) {
    local_apic::start_measuring();
    let measured = Reference::all(acpi).find_map(|reference| {
        let name = reference.name();
        Some((measurement::rates(&mut Clocks(reference))?, name))
    });
    let by_tsc = |tsc_hz| Rates { tsc_hz, apic_hz: measurement::apic_hz(&mut Clocks(Reference::None), tsc_hz) };
    match (cpuid::tsc_hz(features), measured) {
        (Some(tsc_hz), Some((rates, _))) => (Rates { tsc_hz, ..rates }, "told by CPUID"),
        (Some(tsc_hz), None) => (by_tsc(tsc_hz), "told by CPUID"),
        (None, Some(found)) => found,
        (None, None) => match cpuid::base_hz() {
            Some(hz) => (by_tsc(hz), "taken for the CPU's base frequency: no timer of known rate was found"),
            None => (by_tsc(NANOSECONDS), "guessed: no timer of known rate was found"),
        },
    }
}

/// Finds the rates of the TSC and of the local APIC's timer, and returns them.
pub(crate) fn calibrate(features: &Features, acpi: Option<&Acpi>) -> Rate {
    let (Rates { tsc_hz, apic_hz }, source) = find_rates(features, acpi);
    clock::set_rates(tsc_hz, apic_hz, source)
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
        tsc::now()
    }

    fn apic(&mut self) -> u32 {
        local_apic::measured()
    }
}
