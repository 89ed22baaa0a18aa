//! Memory reclaimed for failing allocations: how much at a time, and how long the balloon stays smaller afterwards. A
//! state machine without I/O.
//!
//! A program that lacks a little memory mostly lacks more the next moment, so each reclaim soon after the last one
//! takes twice as much, up to a bound. The host may keep asking for the memory; inflating at once would only swap
//! frames back and forth. So the balloon stays small for a *cooldown* after the last reclaim. If memory runs short
//! again soon after the cooldown, the next one is twice as long.

use crate::memory::REGION_FRAMES;

/// Memory is reclaimed in whole regions of 2 MiB, which hosts handle as one.
const REGION: u64 = REGION_FRAMES as u64;
/// The most frames that are reclaimed beyond the need: 128 MiB.
const LARGEST_STEP: u64 = 32768;
/// How often the cooldown doubles.
const BACKOFF: u32 = 6;

/// Where memory is reclaimed from, the cheapest for the host first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OomSource {
    /// Free memory in reports, which returns without a request.
    Reports,
    /// Hinted free memory that the device has returned.
    Hints,
    /// The balloon.
    Balloon,
}

impl OomSource {
    /// All sources in the order in which they are tried.
    pub(crate) const ORDER: [Self; 3] = [Self::Reports, Self::Hints, Self::Balloon];
}

/// How long the balloon stays smaller than the host wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OomPolicy {
    /// Time after the last reclaim before the balloon grows again, in nanoseconds. It doubles up to six times while
    /// memory keeps running short.
    pub cooldown: u64,
}

impl Default for OomPolicy {
    /// A second.
    fn default() -> Self {
        Self { cooldown: 1_000_000_000 }
    }
}

/// The state of reclaiming. Counts are in 4 KiB frames, times in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OomPlan {
    policy: OomPolicy,
    /// Frames of the last reclaim in this episode; 0 outside of one.
    step: u64,
    /// How often the cooldown has doubled.
    backoff: u32,
    /// When the balloon may grow again; `None` while nothing keeps it small.
    until: Option<u64>,
    /// When the last cooldown was over.
    lifted: Option<u64>,
    /// The device's answers at the time a wait for a source was given up.
    gave_up_at: [Option<u64>; OomSource::ORDER.len()],
}

impl OomPlan {
    /// Memory is not short.
    pub(crate) const fn new(policy: OomPolicy) -> Self {
        Self { policy, step: 0, backoff: 0, until: None, lifted: None, gave_up_at: [None; OomSource::ORDER.len()] }
    }

    /// Memory is short at `now`: the balloon does not grow until the cooldown is over.
    pub(crate) fn begin(&mut self, now: u64) {
        if self.until.is_none() {
            let soon = self.lifted.is_some_and(|lifted| now.saturating_sub(lifted) <= self.cooldown());
            self.backoff = if soon { (self.backoff + 1).min(BACKOFF) } else { 0 };
            self.step = 0;
        }
        self.until = Some(now.saturating_add(self.cooldown()));
    }

    /// How many frames to deflate when `lacking` are needed and the host has `ballooned`: at least the need if the host
    /// has as many, whole regions, twice the last step, but no more than an eighth of the balloon beyond the need.
    pub(crate) fn step(&mut self, lacking: u64, ballooned: u64) -> u64 {
        let generous = (self.step * 2).clamp(REGION, LARGEST_STEP).min(ballooned / 8);
        let frames = lacking.max(generous);
        self.step = frames.min(LARGEST_STEP);
        frames.checked_next_multiple_of(REGION).unwrap_or(frames).min(ballooned)
    }

    /// Whether the cooldown is over at `now`; `true` once.
    pub(crate) fn is_over(&mut self, now: u64) -> bool {
        let over = self.until.is_some_and(|until| now >= until);
        if over {
            (self.until, self.lifted, self.step) = (None, Some(now), 0);
        }
        over
    }

    /// Whether a cooldown keeps the balloon from growing.
    pub(crate) const fn is_cooling(&self) -> bool {
        self.until.is_some()
    }

    /// When the balloon may grow again.
    pub(crate) const fn deadline(&self) -> Option<u64> {
        self.until
    }

    /// The current length of the cooldown.
    pub(crate) const fn cooldown(&self) -> u64 {
        self.policy.cooldown.saturating_mul(1 << self.backoff)
    }

    /// A wait for a source was given up, after `answers` returned requests in total.
    pub(crate) const fn gave_up(&mut self, source: OomSource, answers: u64) {
        self.gave_up_at[source as usize] = Some(answers);
    }

    /// Whether to wait for a source, after `answers` returned requests in total. `false` if there were none since a
    /// wait was given up: failing early is better than failing late.
    pub(crate) fn may_wait(&self, source: OomSource, answers: u64) -> bool {
        self.gave_up_at[source as usize] != Some(answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const POLICY: OomPolicy = OomPolicy { cooldown: 100 * MS };
    const MUCH: u64 = 1 << 20;

    #[test]
    fn steps_cover_the_need_and_double_within_an_episode() {
        let mut plan = OomPlan::new(POLICY);
        plan.begin(0);
        let steps = [(); 9].map(|()| plan.step(1, MUCH));
        assert_eq!(steps, [512, 1024, 2048, 4096, 8192, 16384, 32768, 32768, 32768]);
        assert_eq!(plan.step(40_000, MUCH), 40_448, "the need, in whole regions");
        assert_eq!(plan.step(1, MUCH), 32768);
        assert!(plan.is_over(100 * MS));
        plan.begin(1000 * MS);
        assert_eq!(plan.step(1, MUCH), 512, "a new episode starts small");
    }

    #[test]
    fn no_step_exceeds_the_need_by_more_than_an_eighth_nor_the_balloon() {
        let mut plan = OomPlan::new(POLICY);
        plan.begin(0);
        for _ in 0..10 {
            plan.step(1, MUCH);
        }
        assert_eq!(plan.step(1, 8192), 1024);
        assert_eq!(plan.step(5, 100), 100);
        assert_eq!(plan.step(5000, 3000), 3000);
        assert_eq!(plan.step(5, 0), 0);
        assert_eq!(plan.step(u64::MAX, u64::MAX), u64::MAX);
    }

    #[test]
    fn the_balloon_may_grow_once_the_cooldown_is_over() {
        let mut plan = OomPlan::new(POLICY);
        assert_eq!((plan.is_cooling(), plan.deadline(), plan.is_over(u64::MAX)), (false, None, false));
        plan.begin(0);
        plan.begin(90 * MS);
        assert_eq!(plan.deadline(), Some(190 * MS));
        assert!(!plan.is_over(190 * MS - 1));
        assert!(plan.is_over(190 * MS) && !plan.is_over(190 * MS));
        assert!(!plan.is_cooling());
    }

    #[test]
    fn repeated_shortage_lengthens_the_cooldown_up_to_a_bound() {
        let mut plan = OomPlan::new(POLICY);
        let mut now = 0;
        let mut lengths = Vec::new();
        for _ in 0..9 {
            plan.begin(now);
            lengths.push(plan.cooldown() / MS);
            now = plan.deadline().unwrap();
            assert!(plan.is_over(now));
            now += 10 * MS;
        }
        assert_eq!(lengths, [100, 200, 400, 800, 1600, 3200, 6400, 6400, 6400]);
        plan.begin(now + 6400 * MS);
        assert_eq!(plan.cooldown(), 100 * MS, "a long pause resets it");
    }

    #[test]
    fn a_silent_device_is_waited_for_once() {
        use OomSource::{Balloon, Reports};
        let mut plan = OomPlan::new(POLICY);
        assert!(plan.may_wait(Balloon, 0) && plan.may_wait(Balloon, 7));
        plan.gave_up(Balloon, 7);
        assert!(!plan.may_wait(Balloon, 7));
        assert!(plan.may_wait(Reports, 7), "the other queue counts for itself");
        assert!(plan.may_wait(Balloon, 8), "it answers again");
    }

    #[test]
    fn the_longest_cooldown_does_not_overflow() {
        let mut plan = OomPlan::new(OomPolicy { cooldown: u64::MAX });
        for now in [0, u64::MAX / 2, u64::MAX] {
            plan.begin(now);
            assert_eq!(plan.deadline(), Some(u64::MAX));
        }
        assert!(plan.is_over(u64::MAX));
    }
}
