//! Time since entry, read from the TSC, whose rate is told by CPUID or measured against a timer of known rate.

use core::arch::x86_64::{_mm_lfence, _rdtsc};
use core::sync::atomic::{AtomicU64, Ordering};

use spin::Once;
use x86_64::instructions::port::Port;

use super::cpu::{self, Features};
use super::mmio::Window;
use super::paging::{self, Access};
use super::{frames, local_apic, vectors};
use crate::acpi::{Acpi, AddressSpace};
use crate::platform::Registers;

const NANOSECONDS: u64 = 1_000_000_000;

/// The TSC at entry.
static ENTRY: AtomicU64 = AtomicU64::new(0);
static RATE: Once<Rate> = Once::new();

/// The rates of the clocks.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
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
pub fn tsc() -> u64 {
    // SAFETY: every x86-64 CPU has a TSC, and ring 0 may read it.
    unsafe { _rdtsc() }
}

/// The TSC once all instructions before have been executed, and before any that follows is (SDM vol. 2, RDTSC).
pub fn tsc_in_order() -> u64 {
    // SAFETY: every x86-64 CPU has SSE2, and with it LFENCE, which touches nothing.
    unsafe { _mm_lfence() };
    let ticks = tsc();
    // SAFETY: as above.
    unsafe { _mm_lfence() };
    ticks
}

/// Notes the moment from which time is counted.
pub fn start(entry_tsc: u64) {
    ENTRY.store(entry_tsc, Ordering::Relaxed);
}

/// Nanoseconds since entry; 0 until the rate is known.
///
/// Whoever asks for the time gets along, which is a sign of life to those who ration interrupts.
pub fn nanoseconds() -> u64 {
    vectors::sign_of_life();
    duration(tsc().saturating_sub(ENTRY.load(Ordering::Relaxed)))
}

/// So many ticks of the TSC in nanoseconds; 0 until the rate is known.
pub fn duration(ticks: u64) -> u64 {
    let multiplier = RATE.get().map_or(0, |rate| rate.multiplier);
    ((u128::from(ticks) * u128::from(multiplier)) >> 32) as u64
}

/// Milliseconds since entry.
pub fn milliseconds() -> u64 {
    nanoseconds() / 1_000_000
}

/// The rates, once known.
pub fn rate() -> Option<Rate> {
    RATE.get().copied()
}

/// The TSC's value at a moment given in nanoseconds since entry.
pub(super) fn tsc_at(nanoseconds: u64) -> u64 {
    let hz = rate().map_or(NANOSECONDS, |rate| rate.tsc_hz);
    let ticks = u128::from(nanoseconds) * u128::from(hz) / u128::from(NANOSECONDS);
    ENTRY.load(Ordering::Relaxed).saturating_add(ticks as u64)
}

/// A counter of known rate that something else than the TSC drives.
enum Reference {
    /// ACPI's timer at a port, and its mask.
    PmTimerPort(u16, u32),
    /// The main counter of the event timers, and its period in femtoseconds.
    Hpet(Window, u32),
    /// Channel 2 of the 8254, which drives the speaker.
    Pit,
}

const PM_TIMER_HZ: u64 = 3_579_545;
const PIT_HZ: u64 = 1_193_182;
const FEMTOSECONDS: u64 = 1_000_000_000_000_000;

const HPET_PERIOD: usize = 0x04;
const HPET_CONFIGURATION: usize = 0x10;
const HPET_COUNTER: usize = 0xF0;
/// The longest period that the specification allows: 100 ns.
const HPET_SLOWEST: u32 = 100_000_000;

const PIT_CHANNEL_2: u16 = 0x42;
const PIT_COMMAND: u16 = 0x43;
/// Port 61h: gate of channel 2 (bit 0), speaker (bit 1).
const SPEAKER: u16 = 0x61;
/// Channel 2, low then high byte, rate generator, binary.
const PIT_RATE_CHANNEL_2: u8 = 0b1011_0100;
/// Latch channel 2.
const PIT_LATCH_CHANNEL_2: u8 = 0b1000_0000;

impl Reference {
    fn name(&self) -> &'static str {
        match self {
            Self::PmTimerPort(..) => "measured by the PM timer",
            Self::Hpet(..) => "measured by the HPET",
            Self::Pit => "measured by the PIT",
        }
    }

    fn hz(&self) -> u64 {
        match self {
            Self::PmTimerPort(..) => PM_TIMER_HZ,
            Self::Hpet(_, period) => FEMTOSECONDS / u64::from(*period),
            Self::Pit => PIT_HZ,
        }
    }

    /// The counter's bits that count.
    fn mask(&self) -> u32 {
        match self {
            Self::PmTimerPort(_, mask) => *mask,
            Self::Hpet(..) => u32::MAX,
            Self::Pit => 0xFFFF,
        }
    }

    /// The counter, counting up.
    fn read(&self) -> u32 {
        match self {
            // SAFETY: the FADT says that the PM timer is at this port; reading it has no effect.
            Self::PmTimerPort(port, _) => unsafe { Port::<u32>::new(*port).read() },
            Self::Hpet(window, _) => window.read32(HPET_COUNTER),
            // SAFETY: channel 2 is ours: it drives nothing but the speaker, which is off.
            Self::Pit => unsafe {
                Port::<u8>::new(PIT_COMMAND).write(PIT_LATCH_CHANNEL_2);
                let mut data = Port::<u8>::new(PIT_CHANNEL_2);
                let (low, high) = (data.read(), data.read());
                0xFFFF - u32::from(u16::from_le_bytes([low, high]))
            },
        }
    }

    fn pm_timer(acpi: Option<&Acpi>) -> Option<Self> {
        let timer = acpi?.fadt.as_ref()?.pm_timer?;
        if timer.register.space != AddressSpace::Io {
            return None;
        }
        let mask = if timer.bits >= 32 { u32::MAX } else { (1 << timer.bits) - 1 };
        Some(Self::PmTimerPort(u16::try_from(timer.register.address).ok()?, mask))
    }

    fn hpet(acpi: Option<&Acpi>) -> Option<Self> {
        const LENGTH: u64 = 1024;
        let base = acpi?.hpet.as_ref()?.base.as_u64();
        let start =
            paging::with(|space| space.open_window(base, LENGTH, Access::Device, &mut frames::ForTables)).ok()?;
        // SAFETY: just mapped for ever; the HPET's counter touches no memory.
        let mut window = unsafe { Window::memory(start, LENGTH as usize) };
        let period = window.read32(HPET_PERIOD);
        if period == 0 || period > HPET_SLOWEST {
            return None;
        }
        let configuration = window.read32(HPET_CONFIGURATION);
        window.write32(HPET_CONFIGURATION, configuration | 1);
        Some(Self::Hpet(window, period))
    }

    fn pit() -> Self {
        // SAFETY: opens the gate of channel 2 with the speaker off, and lets it count down from 65536 over and over.
        unsafe {
            let mut speaker = Port::<u8>::new(SPEAKER);
            let former = speaker.read();
            speaker.write(former & !0b11 | 0b01);
            Port::<u8>::new(PIT_COMMAND).write(PIT_RATE_CHANNEL_2);
            let mut data = Port::<u8>::new(PIT_CHANNEL_2);
            data.write(0);
            data.write(0);
        }
        Self::Pit
    }
}

/// How long each measurement takes, in fractions of a second: 3 ms.
const WINDOWS_A_SECOND: u64 = 333;
/// Measurements made. The slowest rate counts: what disturbs a measurement (firmware's interrupts, a host that takes the
/// CPU away) makes a reference go round unseen, and so the TSC look faster, never slower.
const MEASUREMENTS: usize = 3;
/// TSC ticks without progress after which a reference counts as dead: tens of milliseconds on any CPU.
const DEAD: u64 = 200_000_000;
/// TSC ticks after which a measurement of 3 ms is given up, although the reference moves: it does not count.
const ENDLESS: u64 = 20 * DEAD;

/// The three counters at one moment.
struct Sample {
    reference: u32,
    tsc: u64,
    apic: u32,
}

impl Sample {
    /// Reads the counters as close together as they come in a few tries.
    fn take(reference: &Reference) -> Self {
        let mut best = (u64::MAX, Self { reference: 0, tsc: 0, apic: 0 });
        for _ in 0..4 {
            let before = tsc();
            let value = reference.read();
            let after = tsc();
            // The host may set the TSC back at any time.
            let taken = after.saturating_sub(before);
            if taken < best.0 {
                best = (taken, Self { reference: value, tsc: before + taken / 2, apic: local_apic::measured() });
            }
        }
        best.1
    }
}

/// Measures TSC and APIC timer rates once. `None` if the reference stands still.
fn measure(reference: &Reference) -> Option<(u64, u64)> {
    let window = (reference.hz() / WINDOWS_A_SECOND) as u32;
    let first = Sample::take(reference);
    let mut last_progress = (first.reference, first.tsc);
    loop {
        let now = reference.read();
        if now.wrapping_sub(first.reference) & reference.mask() >= window {
            break;
        }
        let ticks = tsc();
        if now != last_progress.0 {
            last_progress = (now, ticks);
        } else if ticks.saturating_sub(last_progress.1) > DEAD {
            return None;
        }
        if ticks.saturating_sub(first.tsc) > ENDLESS {
            return None;
        }
    }
    let second = Sample::take(reference);
    let elapsed = u64::from(second.reference.wrapping_sub(first.reference) & reference.mask());
    let rate = |ticks: u64| u128::from(ticks) * u128::from(reference.hz()) / u128::from(elapsed.max(1));
    let apic = u64::from(second.apic.wrapping_sub(first.apic));
    Some((rate(second.tsc.saturating_sub(first.tsc)) as u64, rate(apic) as u64))
}

/// Finds out how fast the TSC and the local APIC's timer run. Returns what was found.
pub fn calibrate(features: &Features, acpi: Option<&Acpi>) -> Rate {
    let told = cpu::tsc_hz(features);
    local_apic::start_measuring();
    let measured = [Reference::pm_timer(acpi), Reference::hpet(acpi), Some(Reference::pit())]
        .into_iter()
        .flatten()
        .find_map(|reference| {
            let mut results: [(u64, u64); MEASUREMENTS] = [(0, 0); MEASUREMENTS];
            for result in &mut results {
                *result = measure(&reference)?;
            }
            results.sort_unstable();
            let (tsc_hz, apic_hz) = results[0];
            (tsc_hz > 0).then_some((tsc_hz, apic_hz, reference.name()))
        });
    let (tsc_hz, apic_hz, source) = match (told, measured) {
        (Some(hz), Some((_, apic_hz, _))) => (hz, apic_hz, "told by CPUID"),
        (Some(hz), None) => (hz, 0, "told by CPUID"),
        (None, Some(found)) => found,
        (None, None) => (NANOSECONDS, 0, "guessed: no timer of known rate was found"),
    };
    let multiplier = ((u128::from(NANOSECONDS) << 32) / u128::from(tsc_hz)) as u64;
    *RATE.call_once(|| Rate { tsc_hz, apic_hz, source, multiplier })
}
