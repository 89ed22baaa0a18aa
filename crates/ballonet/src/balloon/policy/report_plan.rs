//! When free memory is reported, and how much of it: a state machine without I/O.
//!
//! At the start, and on request, all free memory is reported at once. After that, memory is reported once it has been
//! free for a given *age*, so that memory freed only briefly stays with the guest. Two limits keep programs that churn
//! memory from paying repeatedly: a *threshold* of unreported free memory that triggers a report, and a *budget* per
//! second.

use crate::memory::REGION_FRAMES;

/// Ticks per age. More ticks make the age more exact.
const AGE_TICKS: u64 = 4;

/// The smallest report, in frames: a 2 MiB region.
const LEAST: u64 = REGION_FRAMES as u64;

/// When free memory is reported. Counts are in 4 KiB frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportPolicy {
    /// How long memory must have been free, in nanoseconds. The report may come a quarter later.
    pub age: u64,
    /// Unreported free memory that triggers a report.
    pub threshold: u64,
    /// The most that is reported per second.
    pub budget: u64,
}

impl Default for ReportPolicy {
    /// A quarter of a second, 8 MiB, 4 GiB per second.
    fn default() -> Self {
        Self { age: 250_000_000, threshold: 2048, budget: 1 << 20 }
    }
}

/// A permission to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The most frames.
    pub frames: u64,
    /// Ticks for which they must have been free.
    pub age: u32,
}

/// The state of reporting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReportPlan {
    policy: ReportPolicy,
    /// The time of the next tick, in nanoseconds.
    next_tick: u64,
    /// Report everything at once.
    flushing: bool,
    /// Memory that is old enough is being reported.
    draining: bool,
    /// Frames left in the budget.
    allowance: u64,
}

impl ReportPlan {
    /// Nothing has been reported yet: report everything.
    pub(crate) const fn new(policy: ReportPolicy, now: u64) -> Self {
        Self { policy, next_tick: now, flushing: true, draining: false, allowance: policy.budget }
    }

    /// Reports all free memory at once, whatever its age.
    pub(crate) const fn flush(&mut self) {
        self.flushing = true;
    }

    /// Whether everything is being reported.
    pub(crate) const fn is_flushing(&self) -> bool {
        self.flushing
    }

    /// Advances to `now`. `unreported` is called once a tick. Returns whether free memory ages by a tick: at most one
    /// at a time, because memory freed since the last tick must not age by more.
    pub(crate) fn advance(&mut self, now: u64, unreported: impl FnOnce() -> u64) -> bool {
        if now < self.next_tick {
            return false;
        }
        let elapsed = (now - self.next_tick).saturating_add(self.tick());
        let earned = u128::from(self.policy.budget) * u128::from(elapsed) / 1_000_000_000;
        let earned = u64::try_from(earned).unwrap_or(u64::MAX);
        self.allowance = self.allowance.saturating_add(earned).min(self.policy.budget.max(LEAST));
        self.draining |= unreported() >= self.policy.threshold.max(LEAST);
        self.next_tick = now.saturating_add(self.tick());
        true
    }

    /// What may be reported now; `None` for nothing.
    pub(crate) const fn next(&self) -> Option<Grant> {
        if self.flushing {
            Some(Grant { frames: u64::MAX, age: 0 })
        } else if self.draining && self.allowance >= LEAST {
            // Memory freed right before a tick has not aged by a whole one.
            Some(Grant { frames: self.allowance, age: AGE_TICKS as u32 + 1 })
        } else {
            None
        }
    }

    /// A report of `frames` was sent.
    pub(crate) const fn sent(&mut self, frames: u64) {
        if !self.flushing {
            self.allowance = self.allowance.saturating_sub(frames);
        }
    }

    /// Nothing is left to report.
    pub(crate) const fn exhausted(&mut self) {
        self.flushing = false;
        self.draining = false;
    }

    /// When to advance next, in nanoseconds, with `unreported` frames free; `None` while there is nothing to wait for.
    pub(crate) fn deadline(&self, unreported: u64) -> Option<u64> {
        let waits = self.draining || unreported >= self.policy.threshold.max(LEAST);
        waits.then_some(self.next_tick)
    }

    fn tick(&self) -> u64 {
        (self.policy.age / AGE_TICKS).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const POLICY: ReportPolicy = ReportPolicy { age: 400 * MS, threshold: 2048, budget: 10 * 1024 };

    /// A plan that has reported everything.
    fn settled() -> ReportPlan {
        let mut plan = ReportPlan::new(POLICY, 0);
        plan.exhausted();
        plan
    }

    #[test]
    fn everything_is_reported_at_the_start_and_on_request() {
        let mut plan = ReportPlan::new(POLICY, 0);
        let all = Some(Grant { frames: u64::MAX, age: 0 });
        assert_eq!(plan.next(), all);
        plan.sent(1 << 30);
        assert_eq!(plan.next(), all, "a flush is not on the budget");
        plan.exhausted();
        assert_eq!((plan.next(), plan.is_flushing()), (None, false));
        plan.flush();
        assert_eq!(plan.next(), all);
    }

    #[test]
    fn free_memory_waits_for_the_threshold_and_its_age() {
        let mut plan = settled();
        assert!(plan.advance(0, || 2047));
        assert_eq!((plan.next(), plan.deadline(2047)), (None, None));
        assert_eq!(plan.deadline(2048), Some(100 * MS), "a quarter of the age is a tick");
        assert!(!plan.advance(100 * MS - 1, || 2048));
        assert!(plan.advance(100 * MS, || 2048));
        assert_eq!(plan.next().map(|grant| grant.age), Some(5));
        plan.exhausted();
        assert_eq!(plan.next(), None);
    }

    #[test]
    fn reporting_that_has_begun_continues_below_the_threshold() {
        let mut plan = settled();
        plan.advance(0, || 4096);
        plan.advance(100 * MS, || 512);
        assert!(plan.next().is_some());
        assert!(plan.deadline(512).is_some());
        plan.exhausted();
        assert_eq!((plan.next(), plan.deadline(512)), (None, None));
    }

    #[test]
    fn memory_ages_by_one_tick_at_a_time_however_late() {
        let mut plan = settled();
        assert!(plan.advance(0, || 0));
        assert!(plan.advance(3_600_000 * MS, || 0));
        assert!(!plan.advance(3_600_000 * MS, || 0));
        assert!(!plan.advance(3_600_000 * MS + 99 * MS, || 0));
    }

    #[test]
    fn no_more_than_the_budget_is_reported_a_second() {
        let mut plan = settled();
        let mut sent = 0;
        for step in 0..100 {
            plan.advance(step * 100 * MS, || 1 << 30);
            while let Some(grant) = plan.next() {
                let frames = grant.frames.min(4096);
                plan.sent(frames);
                sent += frames;
            }
        }
        // Ten seconds, and the budget left at the start.
        let budget = POLICY.budget;
        assert!((10 * budget..=11 * budget + 1024).contains(&sent), "{sent}");
    }

    #[test]
    fn extreme_policies_do_not_overflow() {
        for policy in [
            ReportPolicy { age: 0, threshold: 0, budget: 0 },
            ReportPolicy { age: u64::MAX, threshold: u64::MAX, budget: u64::MAX },
        ] {
            let mut plan = ReportPlan::new(policy, 0);
            plan.exhausted();
            plan.advance(0, || u64::MAX);
            plan.advance(u64::MAX / 2, || u64::MAX);
            plan.next();
            plan.deadline(u64::MAX);
        }
    }
}
