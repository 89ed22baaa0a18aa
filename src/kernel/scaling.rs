//! The rate at which several CPUs together allocate and free page frames: with magazines, and behind one lock.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::console::count;
use crate::console::events::{self, Decimal};
use crate::machine::smp::{self, Cpu};
use crate::machine::{clock, frames, log as serial};
use ballonet::memory::{FrameRun, REGION_FRAMES};
use log::info;

/// The numbers of CPUs to compare, as far as the machine has them.
const CPUS: [usize; 4] = [1, 2, 4, 8];
/// Single frames that a CPU allocates before it frees them: twice the size of a magazine.
const SINGLE: usize = 256;
/// Likewise, for runs of a whole region.
const REGIONS: usize = 2;
/// The length of a measurement, in nanoseconds.
const TIME: u64 = 50_000_000;

/// Measures and reports. Does nothing on a machine with one CPU.
pub(super) fn run() {
    let others: Vec<u32> = smp::all().filter(|cpu| !cpu.is_boot()).map(Cpu::number).collect();
    if others.is_empty() {
        return;
    }
    let has_magazines = frames::is_caching();
    for magazines in [false, true].into_iter().filter(|&magazines| !magazines || has_magazines) {
        if magazines {
            // They already exist.
            let _ = frames::enable_caches(1 + others.len());
        } else {
            frames::disable_caches();
        }
        for (what, count, length) in [("single", SINGLE, 1), ("region", REGIONS, REGION_FRAMES)] {
            for cpus in CPUS.into_iter().filter(|&cpus| cpus <= 1 + others.len()) {
                report(magazines, what, cpus, rate(&others[..cpus - 1], count, length));
            }
        }
    }
}

/// Runs that the boot CPU and `others` together allocate and free per second.
fn rate(others: &[u32], count: usize, length: u32) -> u64 {
    let total = Arc::new(AtomicU64::new(0));
    let ready = Arc::new(AtomicU32::new(0));
    // Timed by the boot CPU's clock: the others' may differ.
    let (begun, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut started = 0;
    for &cpu in others {
        let (total, ready) = (Arc::clone(&total), Arc::clone(&ready));
        let (begun, ended) = (Arc::clone(&begun), Arc::clone(&ended));
        let job = move || {
            ready.fetch_add(1, Ordering::SeqCst);
            while !begun.load(Ordering::SeqCst) {
                core::hint::spin_loop();
            }
            let done = take_and_give(count, length, || ended.load(Ordering::Relaxed));
            total.fetch_add(done, Ordering::SeqCst);
        };
        // No other jobs run meanwhile.
        started += u32::from(smp::run(cpu, Box::new(job)).is_ok());
    }
    while ready.load(Ordering::SeqCst) < started {
        core::hint::spin_loop();
    }
    let until = clock::nanoseconds() + TIME;
    begun.store(true, Ordering::SeqCst);
    let done = take_and_give(count, length, || clock::nanoseconds() >= until);
    ended.store(true, Ordering::SeqCst);
    total.fetch_add(done, Ordering::SeqCst);
    while others.iter().any(|&cpu| smp::get(cpu).is_some_and(Cpu::is_busy)) {
        core::hint::spin_loop();
    }
    total.load(Ordering::SeqCst) * 1_000_000_000 / TIME
}

/// Allocates and frees runs until the time is up. Returns the number of runs.
fn take_and_give(count: usize, length: u32, is_over: impl Fn() -> bool) -> u64 {
    let mut runs: Vec<FrameRun> = Vec::with_capacity(count);
    let mut done = 0;
    while !is_over() {
        runs.extend((0..count).filter_map(|_| frames::allocate(length, length).ok()));
        done += runs.len() as u64;
        for run in runs.drain(..) {
            // This run was just allocated.
            let _ = frames::free(run);
        }
    }
    done
}

fn report(magazines: bool, what: &str, cpus: usize, rate: u64) {
    let through = if magazines { "magazines" } else { "lock" };
    info!(
        "frames: {what:<7} by {}, {through:<9} {:>9}.{:03} M/s",
        count(cpus, "CPU"),
        rate / 1_000_000,
        rate / 1000 % 1000
    );
    let name = alloc::format!("{through}.{what}.{cpus}");
    serial::emit(&events::Bench { device: "frames", name: &name, value: Decimal::Whole(rate), unit: "1/s" });
}
