//! The pages against a hypervisor that rewrites them while they are read.

use core::sync::atomic::AtomicBool;
use std::thread;

use proptest::prelude::*;

use super::*;

impl KvmPage {
    /// Writes it as KVM does: the version is odd meanwhile.
    fn write(&self, timestamp: u64, system_time: u64, multiplier: u32, shift: i8, flags: u8) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.tsc_timestamp.store(timestamp, Ordering::Relaxed);
        self.system_time.store(system_time, Ordering::Relaxed);
        self.tsc_to_system_mul.store(multiplier, Ordering::Relaxed);
        self.tsc_shift.store(shift, Ordering::Relaxed);
        self.flags.store(flags, Ordering::Relaxed);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }
}

impl HyperVPage {
    /// Writes it as Hyper-V does: the sequence is 0 meanwhile, and then another one.
    fn write(&self, scale: u64, offset: i64) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        self.scale.store(scale, Ordering::Relaxed);
        self.offset.store(offset, Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1).max(1), Ordering::Release);
    }
}

/// The factors by which KVM makes nanoseconds of a TSC of this rate.
fn factors(hz: u64) -> (u32, i8) {
    // The multiplier has its highest bit set, as KVM's has.
    let mut shift = 0i8;
    let scaled = |shift: i8| shifted(u128::from(NANOSECONDS) << 32, -shift) / u128::from(hz);
    while scaled(shift) >= 1 << 32 {
        shift += 1;
    }
    while scaled(shift - 1) < 1 << 32 {
        shift -= 1;
    }
    (u32::try_from(scaled(shift)).unwrap(), shift)
}

#[test]
fn a_page_that_nobody_wrote_is_no_clock() {
    assert_eq!(KvmPage::new().read(|| 5), None);
    assert_eq!(HyperVPage::new().read(|| 5), None);
}

#[test]
fn a_page_that_never_settles_is_given_up() {
    let page = KvmPage::new();
    page.write(0, 0, 1 << 31, 0, 0);
    page.version.store(7, Ordering::Relaxed);
    assert_eq!(page.read(|| 5), None);
    // One that changes under each reading.
    page.version.store(8, Ordering::Relaxed);
    let change = || {
        page.version.fetch_add(2, Ordering::Relaxed);
        5
    };
    assert_eq!(page.read(change), None);
}

/// A KVM guest on a host of 2.1 GHz.
#[test]
fn kvms_factors_give_the_rate_and_the_time() {
    let page = KvmPage::new();
    let (multiplier, shift) = factors(2_100_000_000);
    assert_eq!(shift, -1);
    page.write(1_000_000_000, 77_000, multiplier, shift, KvmPage::STABLE);
    let reading = page.read(|| 1_000_000_000 + 2_100_000_000).unwrap();
    assert!(reading.tsc_hz.abs_diff(2_100_000_000) < 3, "{reading:?}");
    assert!(reading.nanoseconds.abs_diff(1_000_077_000) < 3, "{reading:?}");
    assert!(reading.is_stable);
    // Before the timestamp, as on a CPU whose TSC was set back, time stands still.
    assert_eq!(page.read(|| 5).unwrap().nanoseconds, 77_000);
    // Without the promise it is a rate only.
    page.write(0, 0, multiplier, shift, 0);
    assert!(!page.read(|| 5).unwrap().is_stable);
}

#[test]
fn hyper_vs_scale_gives_the_rate_and_the_time() {
    let page = HyperVPage::new();
    let scale = ((10_000_000u128 << 64) / 2_500_000_000) as u64;
    page.write(scale, 3);
    let reading = page.read(|| 5_000_000_000).unwrap();
    assert!(reading.tsc_hz.abs_diff(2_500_000_000) < 3, "{reading:?}");
    assert!(reading.nanoseconds.abs_diff(2_000_000_300) <= 100, "{reading:?}");
}

/// Readers never see parts of two states: the writer's every state makes the same time of the TSC's value.
#[test]
fn a_page_that_changes_while_it_is_read_is_read_as_a_whole() {
    const READINGS: usize = 200_000;
    let (kvm, hyper_v, over) = (KvmPage::new(), HyperVPage::new(), AtomicBool::new(false));
    // State by state the multiplier doubles and the timestamp moves so that tick 1 << 40 is the same moment.
    let state = |step: u64| {
        let multiplier = 1u32 << (8 + step % 8);
        let timestamp = (1 << 40) - ((1 << 36) >> (step % 8));
        (timestamp, 1_000_000 + step % 8, multiplier)
    };
    let expected = |step: u64| {
        let (timestamp, base, multiplier) = state(step);
        base + ((((1u128 << 40) - u128::from(timestamp)) * u128::from(multiplier)) >> 32) as u64
    };
    let allowed: Vec<u64> = (0..8).map(expected).collect();
    let units = |scale: u64| ((u128::from(1u64 << 40) * u128::from(scale)) >> 64) as u64;
    kvm.write(state(0).0, state(0).1, state(0).2, 0, 0);
    hyper_v.write(1 << 40, 1000);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut step = 0u64;
            while !over.load(Ordering::Relaxed) {
                step += 1;
                let (timestamp, system_time, multiplier) = state(step);
                kvm.write(timestamp, system_time, multiplier, 0, 0);
                // The offset makes up for the scale, so that the time is the same in each state.
                let scale = 1 << (40 + step % 4);
                hyper_v.write(scale, 1000 + (units(1 << 40) as i64) - units(scale) as i64);
                if step.is_multiple_of(64) {
                    thread::yield_now();
                }
            }
        });
        let (mut read, mut settled) = (0, 0);
        for _ in 0..READINGS {
            if let Some(reading) = kvm.read(|| 1 << 40) {
                assert!(allowed.contains(&reading.nanoseconds), "{reading:?} of {allowed:?}");
                read += 1;
            }
            if let Some(reading) = hyper_v.read(|| 1 << 40) {
                assert_eq!(reading.nanoseconds, (1000 + units(1 << 40)) * 100, "{reading:?}");
                settled += 1;
            }
        }
        over.store(true, Ordering::Relaxed);
        assert!(read > READINGS / 100 && settled > 0, "{read} and {settled} readings");
    });
}

proptest! {
    #[test]
    fn any_page_can_be_read(
        timestamp: u64, system_time: u64, multiplier: u32, shift: i8, flags: u8, scale: u64, offset: i64, now: u64,
    ) {
        let (kvm, hyper_v) = (KvmPage::new(), HyperVPage::new());
        kvm.write(timestamp, system_time, multiplier, shift, flags);
        hyper_v.write(scale, offset);
        prop_assert!(kvm.read(|| now).is_none_or(|reading| reading.tsc_hz > 0));
        hyper_v.read(|| now);
    }

    #[test]
    fn the_rate_that_kvm_meant_is_found(mhz in 100u64..10_000) {
        let page = KvmPage::new();
        let (multiplier, shift) = factors(mhz * 1_000_000);
        page.write(0, 0, multiplier, shift, 0);
        let found = page.read(|| 0).unwrap().tsc_hz;
        prop_assert!(found.abs_diff(mhz * 1_000_000) <= 1 + mhz / 1000, "{found}");
    }
}
