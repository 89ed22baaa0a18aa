//! The hypervisor's clock page for this machine: turned on, and read.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::choice::ClockSource;
use super::paravirtual::{HyperVPage, KvmPage, Reading};
use super::tsc;
use crate::machine::cpu::msr;
use crate::machine::start::image::Image;

/// The pages. In the image, so that they exist before any allocation, and as long as the kernel runs.
static KVM: KvmPage = KvmPage::new();
static HYPER_V: HyperVPage = HyperVPage::new();

/// The page from which time is read: one of the numbers below.
static KEPT: AtomicU8 = AtomicU8::new(NONE);
const NONE: u8 = 0;
const BY_KVM: u8 = 1;
const BY_HYPER_V: u8 = 2;
/// Its time at entry, in nanoseconds; it need not start at 0.
static ENTRY: AtomicU64 = AtomicU64::new(0);

/// `HV_X64_MSR_REFERENCE_TSC` takes the page's address (TLFS 6.0, 12.7).
const HYPER_V_REFERENCE_TSC: u32 = 0x4000_0021;
/// Both MSRs: the page is in use.
const ON: u64 = 1;
/// How often a page is read until the hypervisor has written it, which it does at the CPU's next exit at the latest.
const LOOKS: u32 = 1000;

fn read_kvm() -> Option<Reading> {
    KVM.read(tsc::now_in_order)
}

fn read_hyper_v() -> Option<Reading> {
    HYPER_V.read(tsc::now_in_order)
}

/// Turns a source on, if it is a hypervisor's clock, and returns the TSC's rate by it. From then on time is read from
/// it, if it is valid on every CPU. `None` if it does not work.
pub(super) fn turn_on(source: ClockSource, image: &Image) -> Option<u64> {
    let (register, page, number, read): (_, _, _, fn() -> Option<Reading>) = match source {
        ClockSource::KvmClock { msr, .. } => (msr, &raw const KVM as u64, BY_KVM, read_kvm),
        ClockSource::HyperV => (HYPER_V_REFERENCE_TSC, &raw const HYPER_V as u64, BY_HYPER_V, read_hyper_v),
        _ => return None,
    };
    // SAFETY: the hypervisor offers the register, and writes to the page from now on: a static of the image with atomic
    // fields, which holds nothing else and stays until the machine is reset.
    if !unsafe { msr::write(register, image.physical(page) | ON) } {
        return None;
    }
    let Some(reading) = (0..LOOKS).find_map(|_| read()) else {
        // SAFETY: tells the hypervisor to stop using the page.
        unsafe { msr::write(register, 0) };
        return None;
    };
    let may_be_kept = !matches!(source, ClockSource::KvmClock { is_stable: false, .. });
    if may_be_kept && reading.is_stable {
        let ago = u128::from(tsc::now().saturating_sub(tsc::entry())) * 1_000_000_000 / u128::from(reading.tsc_hz);
        ENTRY.store(reading.nanoseconds.wrapping_sub(ago as u64), Ordering::Relaxed);
        KEPT.store(number, Ordering::Release);
    }
    Some(reading.tsc_hz)
}

/// A reading of the page, if time is read from one.
fn reading() -> Option<Reading> {
    match KEPT.load(Ordering::Acquire) {
        BY_KVM => read_kvm(),
        BY_HYPER_V => read_hyper_v(),
        _ => None,
    }
}

/// Nanoseconds since entry by it; `None` if time is read from the TSC alone, which costs no call.
#[inline]
pub(super) fn nanoseconds() -> Option<u64> {
    if KEPT.load(Ordering::Relaxed) == NONE {
        return None;
    }
    Some(reading()?.nanoseconds.wrapping_sub(ENTRY.load(Ordering::Relaxed)))
}

/// The TSC's rate by it, which changes when the machine migrates to another host; `None` in the same case.
pub(super) fn tsc_hz() -> Option<u64> {
    Some(reading()?.tsc_hz)
}
