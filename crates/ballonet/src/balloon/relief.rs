//! Memory reclaimed from the host because the guest runs out: how much at a time, and how long the balloon stays smaller
//! afterwards. A state machine without I/O.
//!
//! An allocation that would fail says what it lacks. A program that lacks a little mostly lacks more the next moment, so
//! each relief soon after the last one takes twice as much back, up to a bound. The host may go on asking for the
//! memory all the while; were it given at once, the two would chase each other. So the balloon keeps its smaller size for
//! a *cooldown* after the last relief. If memory runs short again soon after it has grown, the next cooldown is twice as long.

/// Memory is reclaimed in multiples of this many frames: 2 MiB, which hosts handle as one.
const REGION: u64 = 512;
/// The most frames that are reclaimed beyond the need: 128 MiB.
const LARGEST_STEP: u64 = 32768;
/// How often the cooldown doubles.
const BACKOFF: u32 = 6;

/// Where memory comes from, in the order in which it is tried: what costs the host least comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReliefSource {
    /// Free memory that is being reported, and comes back by itself.
    Reports,
    /// Free memory that was hinted, and of which the device has let go.
    Hints,
    /// What the balloon holds.
    Balloon,
}

impl ReliefSource {
    /// All of them, the first to be tried first. How each is asked and waited for is in `relieve.rs`.
    pub const ORDER: [Self; 3] = [Self::Reports, Self::Hints, Self::Balloon];
}

/// What decides how long the balloon stays smaller than the host wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReliefPolicy {
    /// Time after the last relief before the balloon grows again, in nanoseconds. It doubles up to six times while memory
    /// lacks again and again.
    pub cooldown: u64,
}

impl Default for ReliefPolicy {
    /// A second.
    fn default() -> Self {
        Self { cooldown: 1_000_000_000 }
    }
}

/// The state. Counts are in 4 KiB frames, times in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReliefPlan {
    policy: ReliefPolicy,
    /// What the last relief of this episode took; 0 outside of one.
    step: u64,
    /// How often the cooldown has doubled.
    backoff: u32,
    /// When the balloon may grow again; `None` while nothing keeps it small.
    until: Option<u64>,
    /// When the last cooldown was over.
    lifted: Option<u64>,
    /// How much the device had answered when a wait for a source was given up.
    gave_up_at: [Option<u64>; ReliefSource::ORDER.len()],
}

impl ReliefPlan {
    /// Nothing lacks.
    pub const fn new(policy: ReliefPolicy) -> Self {
        Self { policy, step: 0, backoff: 0, until: None, lifted: None, gave_up_at: [None; ReliefSource::ORDER.len()] }
    }

    /// Memory lacks at `now`: the balloon keeps from growing until the cooldown is over.
    pub fn begin(&mut self, now: u64) {
        if self.until.is_none() {
            let soon = self.lifted.is_some_and(|lifted| now.saturating_sub(lifted) <= self.cooldown());
            self.backoff = if soon { (self.backoff + 1).min(BACKOFF) } else { 0 };
            self.step = 0;
        }
        self.until = Some(now.saturating_add(self.cooldown()));
    }

    /// How many frames to ask back where `lacking` are needed and the host has `ballooned`: at least what lacks if there is
    /// so much, whole regions, twice as much as before, but no more than an eighth of the balloon for good measure.
    pub fn step(&mut self, lacking: u64, ballooned: u64) -> u64 {
        let generous = (self.step * 2).clamp(REGION, LARGEST_STEP).min(ballooned / 8);
        let frames = lacking.max(generous);
        self.step = frames.min(LARGEST_STEP);
        frames.checked_next_multiple_of(REGION).unwrap_or(frames).min(ballooned)
    }

    /// Whether the cooldown is over at `now`; it is `true` once.
    pub fn is_over(&mut self, now: u64) -> bool {
        let over = self.until.is_some_and(|until| now >= until);
        if over {
            (self.until, self.lifted, self.step) = (None, Some(now), 0);
        }
        over
    }

    /// Whether something keeps the balloon from growing.
    pub const fn is_cooling(&self) -> bool {
        self.until.is_some()
    }

    /// When the balloon may grow again.
    pub const fn deadline(&self) -> Option<u64> {
        self.until
    }

    /// The present length of the cooldown.
    pub const fn cooldown(&self) -> u64 {
        self.policy.cooldown.saturating_mul(1 << self.backoff)
    }

    /// A wait for a source failed; by then the device had returned `answers` of its requests.
    pub const fn gave_up(&mut self, source: ReliefSource, answers: u64) {
        self.gave_up_at[source as usize] = Some(answers);
    }

    /// Whether it makes sense to wait for a source, of whose requests the device has answered `answers`. Not if it has
    /// answered none since a wait was given up: an allocation that fails late is worse than one that fails.
    pub fn may_wait(&self, source: ReliefSource, answers: u64) -> bool {
        self.gave_up_at[source as usize] != Some(answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const POLICY: ReliefPolicy = ReliefPolicy { cooldown: 100 * MS };
    const MUCH: u64 = 1 << 20;

    #[test]
    fn steps_cover_what_lacks_and_double_while_it_goes_on() {
        let mut plan = ReliefPlan::new(POLICY);
        plan.begin(0);
        let steps = [(); 9].map(|()| plan.step(1, MUCH));
        assert_eq!(steps, [512, 1024, 2048, 4096, 8192, 16384, 32768, 32768, 32768]);
        assert_eq!(plan.step(40_000, MUCH), 40_448, "what lacks, in whole regions");
        assert_eq!(plan.step(1, MUCH), 32768);
        assert!(plan.is_over(100 * MS));
        plan.begin(1000 * MS);
        assert_eq!(plan.step(1, MUCH), 512, "another time it starts small again");
    }

    #[test]
    fn no_more_than_an_eighth_is_taken_for_good_measure_and_never_more_than_there_is() {
        let mut plan = ReliefPlan::new(POLICY);
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
    fn the_balloon_may_grow_when_the_cooldown_after_the_last_relief_is_over() {
        let mut plan = ReliefPlan::new(POLICY);
        assert_eq!((plan.is_cooling(), plan.deadline(), plan.is_over(u64::MAX)), (false, None, false));
        plan.begin(0);
        plan.begin(90 * MS);
        assert_eq!(plan.deadline(), Some(190 * MS));
        assert!(!plan.is_over(190 * MS - 1));
        assert!(plan.is_over(190 * MS) && !plan.is_over(190 * MS));
        assert!(!plan.is_cooling());
    }

    #[test]
    fn a_shortage_that_comes_again_and_again_makes_the_cooldown_longer_up_to_a_bound() {
        let mut plan = ReliefPlan::new(POLICY);
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
        assert_eq!(plan.cooldown(), 100 * MS, "after a long peace all is forgotten");
    }

    #[test]
    fn a_device_that_does_not_answer_is_waited_for_once() {
        use ReliefSource::{Balloon, Reports};
        let mut plan = ReliefPlan::new(POLICY);
        assert!(plan.may_wait(Balloon, 0) && plan.may_wait(Balloon, 7));
        plan.gave_up(Balloon, 7);
        assert!(!plan.may_wait(Balloon, 7));
        assert!(plan.may_wait(Reports, 7), "the other queue is another matter");
        assert!(plan.may_wait(Balloon, 8), "it answers again");
    }

    #[test]
    fn the_longest_cooldown_is_survived() {
        let mut plan = ReliefPlan::new(ReliefPolicy { cooldown: u64::MAX });
        for now in [0, u64::MAX / 2, u64::MAX] {
            plan.begin(now);
            assert_eq!(plan.deadline(), Some(u64::MAX));
        }
        assert!(plan.is_over(u64::MAX));
    }
}
