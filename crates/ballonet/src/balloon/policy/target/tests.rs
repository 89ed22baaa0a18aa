//! The plan reaches every target, one direction at a time, whatever the host does meanwhile.

use proptest::prelude::*;

use super::*;

/// A plan with a host that completes all requests, and a platform with `free` frames.
#[derive(Debug)]
struct World {
    plan: TargetPlan,
    free: u64,
    /// Requests the host has not finished, in order.
    flight: Vec<(bool, u32)>,
    /// Times that a shortage was news.
    news: u32,
}

impl World {
    fn new(free: u64) -> Self {
        Self { plan: TargetPlan::new(0), free, flight: Vec::new(), news: 0 }
    }

    /// Sends one request of at most `most` frames, if the plan asks for it. Returns whether it did.
    fn send(&mut self, most: u32) -> bool {
        let (inflate, count) = match self.plan.next() {
            Action::Inflate(count) => (true, count.min(self.free)),
            Action::Deflate(count) => (false, count),
            Action::Rest | Action::Wait => return false,
        };
        let count = count.min(most.into()) as u32;
        if count == 0 {
            self.news += u32::from(self.plan.ran_short());
            return false;
        }
        if inflate {
            self.free -= u64::from(count);
            self.plan.inflate_sent(count);
        } else {
            self.plan.deflate_sent(count);
        }
        self.flight.push((inflate, count));
        self.check();
        true
    }

    /// The host finishes a request in flight, any of them.
    fn complete(&mut self, which: usize) {
        if self.flight.is_empty() {
            return;
        }
        let (inflate, count) = self.flight.remove(which % self.flight.len());
        if inflate {
            self.plan.inflated(count);
        } else {
            self.plan.deflated(count);
            self.free += u64::from(count);
        }
        self.check();
    }

    fn check(&self) {
        assert!(self.plan.inflating() == 0 || self.plan.deflating() == 0, "both directions at once: {self:?}");
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            let sent = self.send(256);
            if !sent && self.flight.is_empty() {
                return;
            }
            self.complete(0);
        }
        panic!("the plan does not settle: {self:?}");
    }
}

#[test]
fn a_target_below_the_frames_in_flight_waits_for_them_and_then_turns_around() {
    let mut plan = TargetPlan::new(0);
    assert!(plan.set_target(1000));
    assert_eq!(plan.next(), Action::Inflate(1000));
    plan.inflate_sent(256);
    assert_eq!(plan.next(), Action::Inflate(744));
    assert!(plan.set_target(100));
    assert_eq!(plan.next(), Action::Wait);
    plan.inflated(256);
    assert_eq!(plan.next(), Action::Deflate(156));
    plan.deflate_sent(156);
    assert_eq!(plan.next(), Action::Wait);
    assert!(plan.set_target(300));
    assert_eq!(plan.next(), Action::Wait);
    plan.deflated(156);
    assert_eq!((plan.actual(), plan.next()), (100, Action::Inflate(200)));
}

#[test]
fn a_repeated_target_changes_nothing() {
    let mut plan = TargetPlan::new(7);
    assert!(!plan.set_target(7));
    assert!(plan.is_settled());
    assert_eq!(plan.next(), Action::Rest);
}

#[test]
fn a_shortage_is_reported_once_per_target_and_does_not_spin() {
    let mut plan = TargetPlan::new(0);
    plan.set_target(u32::MAX);
    assert!(plan.ran_short());
    assert_eq!(plan.next(), Action::Rest);
    assert!(plan.memory_freed());
    assert!(matches!(plan.next(), Action::Inflate(_)));
    assert!(!plan.ran_short(), "the second time for this target is no news");
    assert_eq!(plan.next(), Action::Rest);
    plan.set_target(u32::MAX - 1);
    assert!(plan.ran_short(), "a new target makes it news again");
}

#[test]
fn freed_memory_does_not_concern_a_balloon_at_its_target() {
    let mut plan = TargetPlan::new(5);
    assert!(!plan.memory_freed());
    plan.set_target(6);
    assert!(!plan.memory_freed(), "it was not short");
}

#[test]
fn a_short_balloon_follows_a_lower_target() {
    let mut world = World::new(1000);
    world.plan.set_target(5000);
    world.settle();
    assert_eq!((world.plan.actual(), world.news), (1000, 1));
    assert!(world.plan.is_short());
    world.plan.set_target(300);
    world.settle();
    assert_eq!(world.plan.actual(), 300);
    assert!(!world.plan.is_short() && world.plan.is_settled());
}

#[test]
fn adopted_frames_can_be_deflated() {
    let mut world = World::new(0);
    world.plan = TargetPlan::new(700);
    world.plan.set_target(0);
    world.settle();
    assert_eq!((world.plan.actual(), world.free), (0, 700));
}

#[test]
fn after_a_reset_nothing_is_in_flight_and_a_shortage_is_tried_again() {
    let mut plan = TargetPlan::new(100);
    plan.set_target(500);
    plan.inflate_sent(50);
    assert!(plan.ran_short());
    plan.stopped();
    assert_eq!((plan.inflating(), plan.actual(), plan.next()), (0, 100, Action::Inflate(400)));
    assert!(!plan.ran_short(), "the shortage has been reported");
}

#[test]
fn frames_withheld_by_a_device_count_on_neither_side() {
    let mut plan = TargetPlan::new(100);
    plan.set_target(40);
    plan.deflate_sent(60);
    assert_eq!(plan.lost(), 60);
    assert_eq!((plan.actual(), plan.deflating()), (40, 0));
}

#[test]
fn while_the_guest_is_short_of_memory_the_balloon_shrinks_whatever_the_host_wants() {
    let mut plan = TargetPlan::new(100);
    plan.set_target(500);
    assert_eq!(plan.next(), Action::Inflate(400));
    plan.limit(plan.expected());
    assert_eq!(plan.next(), Action::Rest);
    plan.limit(60);
    assert_eq!(plan.next(), Action::Deflate(40));
    plan.deflate_sent(40);
    plan.limit(plan.expected() + 10);
    assert_eq!((plan.next(), plan.expected()), (Action::Wait, 60), "the earlier limit stands");
    plan.deflated(40);
    plan.set_target(600);
    assert_eq!((plan.next(), plan.is_settled()), (Action::Rest, false));
    plan.set_target(50);
    assert_eq!(plan.next(), Action::Deflate(10));
    plan.set_target(600);
    assert!(plan.lift() && !plan.lift());
    assert_eq!(plan.next(), Action::Inflate(540));
}

#[test]
fn inflating_frames_are_confirmed_before_they_are_deflated() {
    let mut plan = TargetPlan::new(0);
    plan.set_target(500);
    plan.inflate_sent(300);
    plan.limit(100);
    assert_eq!(plan.next(), Action::Wait);
    plan.inflated(300);
    assert_eq!(plan.next(), Action::Deflate(200));
}

#[test]
fn a_balloon_that_had_run_short_can_shrink_for_the_guest() {
    let mut plan = TargetPlan::new(100);
    plan.set_target(500);
    assert!(plan.ran_short());
    plan.limit(90);
    assert_eq!(plan.next(), Action::Deflate(10));
}

#[test]
fn the_guest_s_own_target_overrides_the_host_s() {
    let mut plan = TargetPlan::new(0);
    plan.set_target(10);
    plan.pin(300);
    assert!(!plan.set_target(5), "the host's targets are ignored");
    assert_eq!(plan.next(), Action::Inflate(300));
    plan.inflate_sent(300);
    plan.inflated(300);
    plan.pin(0);
    assert_eq!((plan.target(), plan.next()), (0, Action::Deflate(300)));
}

#[derive(Debug, Clone)]
enum Event {
    Target(u32),
    Send(u32),
    Complete(usize),
    Free(u64),
    Limit(u64),
    Lift,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        prop_oneof![0..5000u32, Just(u32::MAX), Just(0)].prop_map(Event::Target),
        (1..=256u32).prop_map(Event::Send),
        any::<usize>().prop_map(Event::Complete),
        (0..1000u64).prop_map(Event::Free),
        (0..3000u64).prop_map(Event::Limit),
        Just(Event::Lift),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_directions_never_mix_and_the_last_target_is_met(
        events in prop::collection::vec(event(), 0..200),
        last in 0..2000u32,
    ) {
        let mut world = World::new(2500);
        let total = |world: &World| world.free + world.plan.actual() + world.plan.inflating();
        let mut frames = total(&world);
        for event in events {
            match event {
                Event::Target(target) => _ = world.plan.set_target(target),
                Event::Send(most) => _ = world.send(most),
                Event::Complete(which) => world.complete(which),
                Event::Limit(most) => world.plan.limit(most),
                Event::Lift => _ = world.plan.lift(),
                Event::Free(count) => {
                    world.free += count;
                    frames += count;
                    world.plan.memory_freed();
                }
            }
            prop_assert_eq!(total(&world), frames, "no frame is lost or made");
        }
        world.plan.lift();
        world.plan.set_target(last);
        world.plan.memory_freed();
        world.settle();
        prop_assert_eq!(world.plan.actual(), u64::from(last));
        prop_assert!(world.plan.is_settled());
    }
}
