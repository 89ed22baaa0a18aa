//! The kernel's spin lock, without its interrupt handling, and with counts of waits and of the time spent waiting.

use std::time::{Duration, Instant};

use ballonet::memory::Exclusive;
use spin::{Mutex, MutexGuard};

/// How often locks were taken.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) taken: u64,
    /// Of these, how often the lock was held by another thread.
    pub(crate) waited: u64,
    /// Total time spent waiting.
    pub(crate) waiting: Duration,
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |sum, one| Self {
            taken: sum.taken + one.taken,
            waited: sum.waited + one.waited,
            waiting: sum.waiting + one.waiting,
        })
    }
}

/// A spin lock.
#[derive(Debug)]
pub(crate) struct Lock<T> {
    /// The counts are behind the lock too, so that counting costs no further synchronization.
    inner: Mutex<(T, Tally)>,
}

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { inner: Mutex::new((value, Tally { taken: 0, waited: 0, waiting: Duration::ZERO })) }
    }

    fn wait(&self) -> MutexGuard<'_, (T, Tally)> {
        let begin = Instant::now();
        let mut guard = self.inner.lock();
        guard.1.waited += 1;
        guard.1.waiting += begin.elapsed();
        guard
    }

    pub(crate) fn tally(&self) -> Tally {
        self.inner.lock().1
    }
}

impl<T> Exclusive<T> for Lock<T> {
    fn with<R>(&self, action: impl FnOnce(&mut T) -> R) -> R {
        let mut guard = match self.inner.try_lock() {
            Some(guard) => guard,
            None => self.wait(),
        };
        guard.1.taken += 1;
        action(&mut guard.0)
    }
}
