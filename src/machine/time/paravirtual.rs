//! Clocks that a hypervisor keeps in a page of the guest's memory: KVM's and Hyper-V's. The page has the factors that
//! convert the TSC to time; the hypervisor may rewrite it, for example after a migration to a host with another TSC
//! rate.
//!
//! One page serves all CPUs. Hyper-V has one per partition. KVM has one for each CPU that requests it, and in this
//! kernel only the boot CPU does: time is read from its page only if KVM promises synchronized TSCs
//! (`PVCLOCK_TSC_STABLE_BIT`), since then all CPUs' pages are equal. Otherwise only the rate is taken from the page.

use core::sync::atomic::{AtomicI8, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

use super::NANOSECONDS;

/// How often a page is reread if it changes during a read. Changes are rare.
const TRIES: u32 = 1000;

/// A consistent reading of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Its time in nanoseconds.
    pub(crate) nanoseconds: u64,
    /// The TSC ticks per second that it implies.
    pub(crate) tsc_hz: u64,
    /// It is valid on every CPU.
    pub(crate) is_stable: bool,
}

/// KVM's page (`struct pvclock_vcpu_time_info`): 4-byte aligned, and within one page.
#[repr(C, align(64))]
pub(crate) struct KvmPage {
    /// Odd while the page changes.
    version: AtomicU32,
    reserved: u32,
    tsc_timestamp: AtomicU64,
    system_time: AtomicU64,
    tsc_to_system_mul: AtomicU32,
    tsc_shift: AtomicI8,
    flags: AtomicU8,
    padding: [u8; 2],
}

const _: () = assert!(core::mem::offset_of!(KvmPage, flags) == 29);

impl KvmPage {
    /// `PVCLOCK_TSC_STABLE_BIT`.
    const STABLE: u8 = 1 << 0;

    /// An unwritten page.
    pub(crate) const fn new() -> Self {
        Self {
            version: AtomicU32::new(0),
            reserved: 0,
            tsc_timestamp: AtomicU64::new(0),
            system_time: AtomicU64::new(0),
            tsc_to_system_mul: AtomicU32::new(0),
            tsc_shift: AtomicI8::new(0),
            flags: AtomicU8::new(0),
            padding: [0; 2],
        }
    }

    /// Reads it, with the TSC that `tsc` reads. `None` if it is unwritten, or keeps changing.
    pub(crate) fn read(&self, mut tsc: impl FnMut() -> u64) -> Option<Reading> {
        for _ in 0..TRIES {
            let version = self.version.load(Ordering::Acquire);
            if version & 1 != 0 {
                core::hint::spin_loop();
                continue;
            }
            let now = tsc();
            let timestamp = self.tsc_timestamp.load(Ordering::Relaxed);
            let system_time = self.system_time.load(Ordering::Relaxed);
            let multiplier = self.tsc_to_system_mul.load(Ordering::Relaxed);
            let shift = self.tsc_shift.load(Ordering::Relaxed);
            let flags = self.flags.load(Ordering::Relaxed);
            // The version is read again after all of that.
            fence(Ordering::Acquire);
            if self.version.load(Ordering::Relaxed) != version {
                continue;
            }
            let tsc_hz = Self::hz(multiplier, shift)?;
            // A TSC that the host has set back counts as standing still.
            let ticks = u128::from(now.saturating_sub(timestamp));
            let elapsed = (shifted(ticks, shift) * u128::from(multiplier)) >> 32;
            let nanoseconds = system_time.wrapping_add(elapsed as u64);
            return Some(Reading { nanoseconds, tsc_hz, is_stable: flags & Self::STABLE != 0 });
        }
        None
    }

    /// The TSC rate that these factors imply; `None` if they are invalid.
    fn hz(multiplier: u32, shift: i8) -> Option<u64> {
        let a_second = u128::from(NANOSECONDS) << 32;
        let ticks = a_second.checked_div(multiplier.into())?;
        let hz = u64::try_from(shifted(ticks, shift.checked_neg()?)).ok()?;
        (hz > 0).then_some(hz)
    }
}

/// `value` shifted left; by a negative number, right.
fn shifted(value: u128, by: i8) -> u128 {
    let places = u32::from(by.unsigned_abs());
    if by >= 0 { value.checked_shl(places).unwrap_or(0) } else { value.checked_shr(places).unwrap_or(0) }
}

/// Hyper-V's page (`HV_REFERENCE_TSC_PAGE`; TLFS 6.0, 12.7).
#[repr(C, align(4096))]
pub(crate) struct HyperVPage {
    /// 0 while the page is invalid.
    sequence: AtomicU32,
    reserved: u32,
    scale: AtomicU64,
    offset: AtomicI64,
    rest: [u8; 4096 - 24],
}

impl HyperVPage {
    /// An unwritten page.
    pub(crate) const fn new() -> Self {
        Self {
            sequence: AtomicU32::new(0),
            reserved: 0,
            scale: AtomicU64::new(0),
            offset: AtomicI64::new(0),
            rest: [0; 4096 - 24],
        }
    }

    /// Reads it, with the TSC that `tsc` reads. `None` if it is invalid, or keeps changing.
    pub(crate) fn read(&self, mut tsc: impl FnMut() -> u64) -> Option<Reading> {
        /// Its time is in units of 100 ns.
        const UNIT: u64 = 100;
        for _ in 0..TRIES {
            let sequence = self.sequence.load(Ordering::Acquire);
            if sequence == 0 {
                return None;
            }
            let now = tsc();
            let scale = self.scale.load(Ordering::Relaxed);
            let offset = self.offset.load(Ordering::Relaxed);
            // The sequence is read again after both.
            fence(Ordering::Acquire);
            if self.sequence.load(Ordering::Relaxed) != sequence {
                continue;
            }
            let units = ((u128::from(now) * u128::from(scale)) >> 64) as u64;
            let tsc_hz = (u128::from(NANOSECONDS / UNIT) << 64).checked_div(scale.into())?;
            let nanoseconds = units.wrapping_add_signed(offset).wrapping_mul(UNIT);
            let tsc_hz = u64::try_from(tsc_hz).ok()?;
            return Some(Reading { nanoseconds, tsc_hz, is_stable: true });
        }
        None
    }
}

#[cfg(test)]
mod tests;
