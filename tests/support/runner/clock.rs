//! The clock for tests' waits. It runs slower where the machine is slow or overloaded.
//!
//! A limit of 60 s is 60 s on an idle reference machine, and some four minutes if four programs compete for each CPU.
//! The clock never runs slower than [`SLOWEST`], so every wait ends.

use std::fs;
use std::hint::black_box;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The most real seconds per second of this clock.
pub(crate) const SLOWEST: f64 = 20.0;

/// How often the load is sampled.
const LOOK: Duration = Duration::from_millis(250);
/// The weight of the last sample in the estimated load.
const WEIGHT: f64 = 0.2;

/// The time of [`work`] on the reference machine, a vCPU of an AMD EPYC.
const REFERENCE: Duration = Duration::from_micros(850);

/// A clock with a pace.
#[derive(Debug)]
pub(crate) struct Clock {
    /// The clock's time at `looked`.
    shown: Duration,
    looked: Instant,
    /// Real seconds per second of this clock.
    pace: f64,
}

impl Clock {
    pub(crate) fn new(start: Instant) -> Self {
        Self { shown: Duration::ZERO, looked: start, pace: 1.0 }
    }

    /// The clock's time at a real time.
    pub(crate) fn at(&self, time: Instant) -> Duration {
        self.shown + time.saturating_duration_since(self.looked).div_f64(self.pace)
    }

    /// Changes the pace from `time` on, within the bounds.
    pub(crate) fn set_pace(&mut self, time: Instant, pace: f64) {
        self.shown = self.at(time);
        self.looked = time;
        self.pace = if pace.is_finite() { pace.clamp(1.0, SLOWEST) } else { 1.0 };
    }
}

/// The tests' time.
pub(crate) fn now() -> Duration {
    clock().at(Instant::now())
}

/// Real seconds per second of the tests' clock, at present.
pub(crate) fn pace() -> f64 {
    clock().pace
}

fn clock() -> MutexGuard<'static, Clock> {
    static CLOCK: OnceLock<Mutex<Clock>> = OnceLock::new();
    let clock = CLOCK.get_or_init(|| {
        let mut machine = Machine { slowness: slowness(quickest()), load: None };
        let mut clock = Clock::new(Instant::now());
        clock.set_pace(Instant::now(), machine.pace());
        thread::spawn(move || {
            loop {
                thread::sleep(LOOK);
                let pace = machine.pace();
                self::clock().set_pace(Instant::now(), pace);
            }
        });
        Mutex::new(clock)
    });
    clock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The causes of slowness on this machine.
struct Machine {
    slowness: f64,
    /// Threads per CPU, averaged over the last samples; `None` at first.
    load: Option<f64>,
}

impl Machine {
    /// Samples the load and returns the pace for a clock on this machine.
    fn pace(&mut self) -> f64 {
        if let Some(running) = fs::read_to_string("/proc/loadavg").ok().as_deref().and_then(running) {
            let now = overload(running);
            let load = self.load.get_or_insert(now);
            *load += WEIGHT * (now - *load);
        }
        self.slowness * self.load.unwrap_or(1.0)
    }
}

/// Number of runnable threads, from the text of `/proc/loadavg`, without the reading one.
pub(crate) fn running(text: &str) -> Option<u32> {
    let count: u32 = text.split(' ').nth(3)?.split_once('/')?.0.parse().ok()?;
    Some(count.saturating_sub(1))
}

/// Threads per CPU, at least 1.
fn overload(running: u32) -> f64 {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    (f64::from(running) / cpus as f64).max(1.0)
}

/// How many times slower than the reference a machine is that needs `time` for [`work`].
fn slowness(time: Duration) -> f64 {
    (time.as_secs_f64() / REFERENCE.as_secs_f64()).max(1.0)
}

/// The shortest time measured for [`work`].
fn quickest() -> Duration {
    let once = || {
        let start = Instant::now();
        black_box(work());
        start.elapsed()
    };
    (0..20).map(|_| once()).min().unwrap_or(REFERENCE)
}

/// A fixed amount of work, independent of caches, memory and the optimizer.
fn work() -> u64 {
    (0..500_000_u64).fold(1, |state, step| black_box(state.rotate_left(5) ^ step).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}
