//! Which clock to use: a function of CPUID's answers and of the tables; without I/O.
//!
//! The best comes first: the hypervisor's clock page, then the TSC rate by the hypervisor's or the CPU's CPUID leaves,
//! then timers against which the TSC is measured. The hypervisor's leaves come before the CPU's, since a host may pass
//! leaves of its own CPU that are wrong for the guest.

use super::NANOSECONDS;
use crate::acpi::{AddressSpace, PmTimer};

/// The source of the TSC's rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClockSource {
    /// KVM's clock, by the MSR that takes the page's address.
    KvmClock {
        /// The MSR.
        msr: u32,
        /// Time is read from the page; else only the rate.
        is_stable: bool,
    },
    /// Hyper-V's reference TSC page.
    HyperV,
    /// CPUID gives the rate in Hz: leaf 0x15.
    Crystal(u64),
    /// CPUID gives the rate in Hz: leaf 0x40000010 of hypervisors.
    HypervisorLeaf(u64),
    /// ACPI's timer at a port, with this mask.
    PmTimer(u16, u32),
    /// The high precision event timer.
    Hpet,
    /// Channel 2 of the 8254.
    Pit,
    /// The CPU's base frequency in Hz, which is near the TSC's: leaf 0x16.
    Base(u64),
    /// No source: a guess.
    Guess,
}

impl ClockSource {
    /// Its word in events.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::KvmClock { .. } => "kvmclock",
            Self::HyperV => "hyper-v",
            Self::Crystal(_) => "cpuid-0x15",
            Self::HypervisorLeaf(_) => "cpuid-0x40000010",
            Self::PmTimer(..) => "pm-timer",
            Self::Hpet => "hpet",
            Self::Pit => "pit",
            Self::Base(_) => "cpuid-0x16",
            Self::Guess => "guess",
        }
    }

    /// How the log names it, after the rate.
    pub(crate) const fn about(self) -> &'static str {
        match self {
            Self::KvmClock { .. } => "told by kvmclock",
            Self::HyperV => "told by Hyper-V's reference TSC",
            Self::Crystal(_) => "told by CPUID",
            Self::HypervisorLeaf(_) => "told by the hypervisor's CPUID",
            Self::PmTimer(..) => "measured by the PM timer",
            Self::Hpet => "measured by the HPET",
            Self::Pit => "measured by the PIT",
            Self::Base(_) => "assumed to be the CPU's base frequency: no timer of known rate was found",
            Self::Guess => "guessed: no timer of known rate was found",
        }
    }
}

/// A CPUID leaf's answer: EAX, EBX, ECX, EDX.
pub(crate) type Leaf = [u32; 4];

/// CPUID's leaves about clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ClockLeaves {
    kvm: Option<ClockSource>,
    hyper_v: bool,
    crystal_hz: Option<u64>,
    told_hz: Option<u64>,
    base_hz: Option<u64>,
}

/// The first hypervisor leaf: the highest of its range, and its signature. Further interfaces are 0x100 apart.
const HYPERVISOR: u32 = 0x4000_0000;
/// The most interfaces that are tried.
const INTERFACES: u32 = 2;

/// KVM's features, the leaf after its first: the clock by the old MSRs, by the new ones; stable TSCs.
const CLOCK: u32 = 1 << 0;
const CLOCK_2: u32 = 1 << 3;
const CLOCK_IS_STABLE: u32 = 1 << 24;
/// `MSR_KVM_SYSTEM_TIME` and `MSR_KVM_SYSTEM_TIME_NEW`.
const SYSTEM_TIME: u32 = 0x12;
const SYSTEM_TIME_NEW: u32 = 0x4B56_4D01;

/// Hyper-V's privileges, the third leaf after its first: the reference TSC page.
const REFERENCE_TSC: u32 = 1 << 9;

impl ClockLeaves {
    /// Reads CPUID through `cpuid`. The first leaves, of the CPU and of each hypervisor interface, give the number of
    /// leaves.
    pub(crate) fn read(cpuid: impl Fn(u32) -> Leaf) -> Self {
        let [most, ..] = cpuid(0);
        let mut leaves = Self::default();
        if most >= 0x15 {
            let [denominator, numerator, crystal, _] = cpuid(0x15);
            leaves.crystal_hz = (u64::from(crystal) * u64::from(numerator))
                .checked_div(denominator.into())
                .filter(|&hz| is_plausible(hz));
        }
        if most >= 0x16 {
            let [mhz, ..] = cpuid(0x16);
            leaves.base_hz = Some(u64::from(mhz & 0xFFFF) * 1_000_000).filter(|&hz| is_plausible(hz));
        }
        let [_, _, features, _] = cpuid(1);
        if features & 1 << 31 != 0 {
            leaves.ask_hypervisor(cpuid);
        }
        leaves
    }

    fn ask_hypervisor(&mut self, cpuid: impl Fn(u32) -> Leaf) {
        for base in (0..INTERFACES).map(|index| HYPERVISOR + 0x100 * index) {
            let [most, b, c, d] = cpuid(base);
            let has = |leaf: u32| (base + leaf..=base + 0xFF).contains(&most);
            let name = [b, c, d].map(u32::to_le_bytes);
            match name.as_flattened() {
                // The earliest KVMs report 0 as the highest leaf, but have the features leaf.
                b"KVMKVMKVM\0\0\0" => self.note_kvm(cpuid(base + 1)[0]),
                b"Microsoft Hv" if has(3) => self.hyper_v = cpuid(base + 3)[0] & REFERENCE_TSC != 0,
                // For a leaf that does not exist, the CPU returns its last one.
                _ if base != HYPERVISOR => continue,
                _ => {}
            }
            if has(0x10) && self.told_hz.is_none() {
                let [khz, ..] = cpuid(base + 0x10);
                self.told_hz = Some(u64::from(khz) * 1000).filter(|&hz| is_plausible(hz));
            }
        }
    }

    fn note_kvm(&mut self, features: u32) {
        let is_stable = features & CLOCK_IS_STABLE != 0;
        let clock = |msr| Some(ClockSource::KvmClock { msr, is_stable });
        self.kvm = match features {
            features if features & CLOCK_2 != 0 => clock(SYSTEM_TIME_NEW),
            features if features & CLOCK != 0 => clock(SYSTEM_TIME),
            _ => None,
        };
    }

    /// The possible clocks, the best first, given the timers in the tables. The last is a guess, so there is always
    /// one.
    ///
    /// No table says whether there is an 8254: it is tried when all else fails.
    pub(crate) fn sources(self, pm_timer: Option<PmTimer>, hpet: bool) -> impl Iterator<Item = ClockSource> {
        let timer = pm_timer.and_then(port_of);
        [
            self.kvm,
            self.hyper_v.then_some(ClockSource::HyperV),
            self.told_hz.map(ClockSource::HypervisorLeaf),
            self.crystal_hz.map(ClockSource::Crystal),
            timer.map(|(port, mask)| ClockSource::PmTimer(port, mask)),
            hpet.then_some(ClockSource::Hpet),
            Some(ClockSource::Pit),
            self.base_hz.map(ClockSource::Base),
            Some(ClockSource::Guess),
        ]
        .into_iter()
        .flatten()
    }
}

/// Whether a TSC can run at this rate: all x86-64 CPUs run at some hundred MHz to some GHz.
pub(super) const fn is_plausible(hz: u64) -> bool {
    hz >= NANOSECONDS / 20 && hz <= 20 * NANOSECONDS
}

/// The port of a PM timer, and its mask; `None` for one in memory, which no known machine has.
fn port_of(timer: PmTimer) -> Option<(u16, u32)> {
    let port = u16::try_from(timer.register.address).ok().filter(|_| timer.register.space == AddressSpace::Io)?;
    Some((port, if timer.bits >= 32 { u32::MAX } else { (1 << timer.bits) - 1 }))
}

#[cfg(test)]
mod tests;
