//! How often a device that needs resets is started again.

use alloc::vec::Vec;

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
    pub(crate) fn admit(&mut self, now: u64) -> bool {
        self.times.retain(|time| now.saturating_sub(*time) < self.window);
        let admitted = self.times.len() < self.most as usize;
        if admitted {
            self.times.push(now);
        }
        admitted
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
        assert_eq!([0, 10, 20, 30, 99].map(|now| recoveries.admit(now)), [true, true, true, false, false]);
        assert!(recoveries.admit(100), "the first is forgotten");
        assert!(!recoveries.admit(109));
        assert!(recoveries.admit(1000));
    }

    #[test]
    fn a_limit_of_none_admits_none() {
        let mut never = Recoveries::new(0, u64::MAX);
        assert!(!never.admit(0) && !never.admit(u64::MAX));
    }

    #[test]
    fn forgiven_recoveries_do_not_count() {
        let mut recoveries = Recoveries::new(1, u64::MAX);
        assert!(recoveries.admit(5) && !recoveries.admit(6));
        recoveries.forgive();
        assert!(recoveries.admit(7));
    }
}
