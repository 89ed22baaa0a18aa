//! How often a device that needs resets is started again.

use alloc::vec::Vec;

use crate::bus::{OutOfMemory, heap};

/// The recent recoveries, bounded in number and time.
#[derive(Debug)]
pub(crate) struct Recoveries {
    most: u32,
    window: u64,
    /// The times of those that still count, the oldest first.
    times: Vec<u64>,
}

impl Recoveries {
    /// At most `most` within `window` nanoseconds.
    pub(crate) const fn new(most: u32, window: u64) -> Self {
        Self { most, window, times: Vec::new() }
    }

    /// Whether one more is allowed at `now`, in nanoseconds; it then counts.
    ///
    /// # Errors
    /// When there is no memory to count it, and so none for a recovery either.
    pub(crate) fn admit(&mut self, now: u64) -> Result<bool, OutOfMemory> {
        self.times.retain(|time| now.saturating_sub(*time) < self.window);
        let admitted = self.times.len() < self.most as usize;
        if admitted {
            heap::push(&mut self.times, now)?;
        }
        Ok(admitted)
    }

    /// Forgets all recoveries so far.
    pub(crate) fn forgive(&mut self) {
        self.times.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_bounds_recoveries_and_forgets_old_ones() {
        let mut recoveries = Recoveries::new(3, 100);
        assert_eq!([0, 10, 20, 30, 99].map(|now| recoveries.admit(now).unwrap()), [true, true, true, false, false]);
        assert!(recoveries.admit(100).unwrap(), "the first is forgotten");
        assert!(!recoveries.admit(109).unwrap());
        assert!(recoveries.admit(1000).unwrap());
    }

    #[test]
    fn a_limit_of_none_admits_none() {
        let mut never = Recoveries::new(0, u64::MAX);
        assert!(!never.admit(0).unwrap() && !never.admit(u64::MAX).unwrap());
    }

    #[test]
    fn forgiven_recoveries_do_not_count() {
        let mut recoveries = Recoveries::new(1, u64::MAX);
        assert!(recoveries.admit(5).unwrap() && !recoveries.admit(6).unwrap());
        recoveries.forgive();
        assert!(recoveries.admit(7).unwrap());
    }
}
