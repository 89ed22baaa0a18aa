//! The balloon follows its target: exactly, whatever happens on the way, without harm to memory in use.

use super::guest::{bring_up, bring_up_sized};
use crate::models::{Behaviour, Handling, Schedule};

/// A small generator (xorshift), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % u64::from(bound)) as u32
    }
}

#[test]
fn a_balloon_reaches_sizes_around_a_request_exactly() {
    let mut guest = bring_up(Behaviour::letter());
    for pages in [1, 2, 255, 256, 257, 511, 512, 513, 8000, 7999, 256, 0] {
        guest.follow(pages);
    }
    guest.finish();
}

#[test]
fn requests_carry_as_many_pfns_as_every_device_takes_and_no_more() {
    let mut guest = bring_up(Behaviour::letter());
    guest.follow(8192);
    assert_eq!(guest.device(|b, _| b.largest_request), 256);
    guest.finish();
}

#[test]
fn several_requests_are_in_flight_at_once() {
    let mut guest = bring_up(Behaviour { service: 1_000_000, ..Behaviour::letter() });
    guest.device(|b, bus| {
        b.stall_from_now(true);
        b.set_target(8192, bus);
    });
    guest.run();
    let outstanding = guest.device(|b, bus| b.outstanding(bus));
    assert!(outstanding > 1, "{outstanding} requests in flight");
    guest.device(|b, _| b.stall_from_now(false));
    guest.run();
    guest.expect_balloon(8192);
    guest.finish();
}

#[test]
fn a_target_set_before_the_driver_comes_is_followed_at_once() {
    let mut guest = super::guest::bring_up_with(Behaviour::letter(), |machine| {
        machine.each_balloon(|b, bus| b.set_target(600, bus));
    });
    guest.run();
    guest.expect_balloon(600);
    guest.finish();
}

#[test]
fn a_target_that_changes_in_mid_course_is_followed() {
    let behaviour = Behaviour { handling: Handling::Later(200_000), ..Behaviour::letter() };
    for second in [0, 100, 3000, 6000] {
        let mut guest = bring_up(behaviour.clone());
        guest.device(|b, bus| b.set_target(4000, bus));
        guest.run_steps(3);
        guest.device(|b, bus| b.set_target(second, bus));
        guest.run();
        guest.expect_balloon(second.into());
        guest.finish();
    }
}

#[test]
fn a_hundred_random_targets_leave_memory_in_use_alone() {
    let mut random = Random(0x5eed);
    for (name, behaviour) in Behaviour::every_vmm() {
        let mut guest = bring_up_sized(32, behaviour);
        (0..8).for_each(|_| assert!(guest.platform.frames.hold(128)));
        for round in 0..100 {
            let pages = random.below(5000);
            guest.device(|b, bus| b.set_target(pages, bus));
            guest.run_steps(random.below(6));
            if round % 5 == 0 {
                guest.platform.frames.expect_patterns();
                guest.platform.frames.unhold();
                let _ = guest.platform.frames.hold(1 + random.below(100));
            }
        }
        guest.run();
        let target = guest.device(|b, _| b.target());
        println!("{name}: {target}");
        guest.expect_balloon(target.into());
        guest.platform.frames.expect_patterns();
        guest.finish();
    }
}

#[test]
fn an_absurd_target_is_met_as_far_as_the_floor_allows() {
    for target in [1 << 20, u32::MAX - 1, u32::MAX] {
        let mut guest = bring_up_sized(32, Behaviour::letter());
        guest.platform.frames.set_floor(1000);
        let all = guest.platform.frames.total() - 1000;
        guest.device(|b, bus| b.set_target(target, bus));
        guest.run();
        guest.expect_balloon(all);
        guest.device(|b, bus| b.set_target(10, bus));
        guest.run();
        guest.expect_balloon(10);
        guest.finish();
    }
}

#[test]
fn requests_completed_out_of_order_are_told_apart() {
    let choices = (0..64_u32).map(|i| (i.wrapping_mul(40_503) % 65_536) as u16).collect();
    let behaviour = Behaviour { service: 3_000_000, schedule: Schedule::new(choices), ..Behaviour::letter() };
    let mut guest = bring_up(behaviour);
    for pages in [8000, 100, 5000, 0] {
        guest.follow(pages);
    }
    guest.finish();
}

#[test]
fn a_small_queue_is_enough() {
    for queue_size in [1, 2, 4] {
        let mut guest = bring_up(Behaviour { queue_size, ..Behaviour::letter() });
        guest.follow(3000);
        guest.follow(0);
        guest.finish();
    }
}

#[test]
fn the_configuration_that_changes_while_it_is_read_is_read_again() {
    let mut guest = bring_up(Behaviour { churn: 7, ..Behaviour::letter() });
    guest.device(|b, bus| b.set_target(1000, bus));
    guest.run();
    let target = guest.device(|b, _| b.target());
    assert!(target > 1000, "the configuration should have changed on the way");
    guest.expect_balloon(target.into());
    guest.finish();
}

#[test]
fn more_than_65536_requests_wrap_the_ring_index_without_harm() {
    let mut guest = bring_up_sized(16, Behaviour { handling: Handling::AtOnce, ..Behaviour::letter() });
    for _ in 0..33_000 {
        guest.device(|b, bus| b.set_target(1, bus));
        guest.run();
        guest.device(|b, bus| b.set_target(2, bus));
        guest.run();
        guest.device(|b, bus| b.set_target(0, bus));
        guest.run();
    }
    guest.expect_balloon(0);
    assert!(guest.device(|b, _| b.queue(0).completed) > 65_536);
    guest.finish();
}

#[test]
fn no_kick_is_made_for_nothing() {
    let mut guest = bring_up(Behaviour::letter());
    guest.follow(4000);
    guest.follow(0);
    assert_eq!(guest.device(|b, _| b.needless_kicks), 0);
    guest.finish();
}

#[test]
fn a_balloon_that_ran_short_goes_on_when_memory_is_freed() {
    let mut guest = bring_up_sized(32, Behaviour::letter());
    let total = guest.platform.frames.total();
    assert!(guest.platform.frames.hold(2000));
    guest.device(|b, bus| b.set_target(total as u32, bus));
    guest.run();
    guest.expect_balloon(total - 2000);
    guest.platform.frames.unhold();
    assert!(guest.driver_mut().memory_freed());
    guest.run();
    guest.expect_balloon(total);
    guest.finish();
}

#[test]
fn a_later_driver_takes_the_balloon_over_and_empties_it() {
    for (name, behaviour) in Behaviour::every_vmm() {
        println!("{name}");
        let mut guest = bring_up(behaviour);
        guest.follow(3000);
        guest.shut_down();
        guest.start_again();
        guest.run();
        guest.expect_balloon(3000);
        guest.follow(10);
        guest.follow(0);
        guest.finish();
    }
}

#[test]
fn a_driver_taken_away_at_any_moment_leaves_every_frame_accounted_for() {
    for rounds in 0..12 {
        for turn in [None, Some(0)] {
            let mut guest = bring_up(Behaviour { service: 400_000, ..Behaviour::qemu_10(6) });
            guest.device(|b, bus| b.set_target(9000, bus));
            guest.run_steps(rounds);
            if let Some(pages) = turn {
                guest.run_steps(20);
                guest.device(|b, bus| b.set_target(pages, bus));
                guest.run_steps(rounds);
            }
            guest.shut_down();
            guest.finish();
        }
    }
}
