//! Resets that a balloon comes through: which, why, and how often.

use alloc::vec::Vec;

use super::queues::BalloonQueue;

/// Why a device was reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetReason {
    /// It said that it needs a reset (`DEVICE_NEEDS_RESET`, virtio 1.4, 2.1.1).
    NeedsReset,
    /// Its owner asked for it.
    Asked,
    /// It did not give a request of several descriptors back, and gets none any more.
    Unanswered,
}

impl ResetReason {
    /// The word for it: `needs-reset`, `asked` or `unanswered`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NeedsReset => "needs-reset",
            Self::Asked => "asked",
            Self::Unanswered => "unanswered",
        }
    }
}

/// A reset, and what was in flight when it came. Counts are in 4 KiB frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetReport {
    /// Why.
    pub reason: ResetReason,
    /// The queue that was reset; `None` for the whole device.
    pub queue: Option<BalloonQueue>,
    /// Frames on their way to the host. After a reset of the device they are free again; after one of a queue they are
    /// still on their way.
    pub inflating: u64,
    /// Frames on their way back. After a reset of the device they are still ballooned; after one of a queue they are still
    /// on their way.
    pub deflating: u64,
}

/// Bounds how often a device is started again that needs resets.
#[derive(Debug)]
pub(super) struct Recoveries {
    most: u32,
    window: u64,
    /// When those were that still count, the oldest first.
    times: Vec<u64>,
}

impl Recoveries {
    /// At most `most` within `window` nanoseconds.
    pub(super) const fn new(most: u32, window: u64) -> Self {
        Self { most, window, times: Vec::new() }
    }

    /// Whether there may be one more at `now`, in nanoseconds; it counts from then on.
    pub(super) fn admit(&mut self, now: u64) -> bool {
        self.times.retain(|time| now.saturating_sub(*time) < self.window);
        let admitted = self.times.len() < self.most as usize;
        if admitted {
            self.times.push(now);
        }
        admitted
    }

    /// Lets those so far count no more.
    pub(super) fn forgive(&mut self) {
        self.times.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_admitted_as_the_window_allows_and_later_ones_again() {
        let mut recoveries = Recoveries::new(3, 100);
        assert_eq!([0, 10, 20, 30, 99].map(|now| recoveries.admit(now)), [true, true, true, false, false]);
        assert!(recoveries.admit(100), "the first is forgotten");
        assert!(!recoveries.admit(109));
        assert!(recoveries.admit(1000));
    }

    #[test]
    fn none_is_admitted_where_there_are_to_be_none() {
        let mut never = Recoveries::new(0, u64::MAX);
        assert!(!never.admit(0) && !never.admit(u64::MAX));
    }

    #[test]
    fn forgiven_ones_do_not_count() {
        let mut recoveries = Recoveries::new(1, u64::MAX);
        assert!(recoveries.admit(5) && !recoveries.admit(6));
        recoveries.forgive();
        assert!(recoveries.admit(7));
    }
}
