//! The balloon follows its target exactly, whatever happens on the way, and leaves memory in use unchanged.

use super::guest::{self, Guest};
use ballonet_models::{Behaviour, Handling, Schedule};

/// Turns any device into one of a certain kind.
type Kind = fn(Behaviour) -> Behaviour;

#[track_caller]
fn bring_up(kind: Kind, behaviour: Behaviour) -> Guest {
    guest::bring_up(kind(behaviour))
}

#[track_caller]
fn bring_up_sized(ram: u32, kind: Kind, behaviour: Behaviour) -> Guest {
    guest::bring_up_sized(ram, kind(behaviour))
}

/// Generates a test of each function for each kind of device.
macro_rules! on_each_kind {
    ($($test:ident)*) => {
        mod modern {
            $(#[test] fn $test() { super::$test(|behaviour| behaviour); })*
        }
        mod legacy {
            $(#[test] fn $test() { super::$test(ballonet_models::Behaviour::legacy); })*
        }
        mod mmio {
            $(#[test] fn $test() { super::$test(ballonet_models::Behaviour::on_mmio); })*
        }
        mod mmio_legacy {
            $(#[test] fn $test() { super::$test(ballonet_models::Behaviour::on_legacy_mmio); })*
        }
    };
}

on_each_kind! {
    a_balloon_reaches_sizes_around_a_request_exactly
    requests_carry_at_most_as_many_pfns_as_every_device_accepts
    several_requests_are_in_flight_at_once
    a_target_set_before_the_driver_starts_is_followed_at_once
    a_target_that_changes_midway_is_followed
    a_hundred_random_targets_leave_memory_in_use_unchanged
    an_absurd_target_is_met_as_far_as_the_floor_allows
    requests_completed_out_of_order_are_distinguished
    a_small_queue_is_enough
    the_configuration_that_changes_while_it_is_read_is_read_again
    more_than_65536_requests_wrap_the_ring_index_without_harm
    there_is_no_useless_kick
    a_balloon_short_of_memory_resumes_when_some_is_freed
    a_later_driver_takes_over_the_balloon_and_empties_it
    a_driver_shut_down_at_any_moment_leaves_every_frame_accounted_for
}

/// A small random generator (xorshift): failures are reproducible.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % u64::from(bound)) as u32
    }
}

fn a_balloon_reaches_sizes_around_a_request_exactly(kind: Kind) {
    let mut guest = bring_up(kind, Behaviour::conforming());
    for pages in [1, 2, 255, 256, 257, 511, 512, 513, 8000, 7999, 256, 0] {
        guest.follow(pages);
    }
    guest.finish();
}

fn requests_carry_at_most_as_many_pfns_as_every_device_accepts(kind: Kind) {
    let mut guest = bring_up(kind, Behaviour::conforming());
    guest.follow(8192);
    assert_eq!(guest.device(|b, _| b.largest_request), 256);
    guest.finish();
}

fn several_requests_are_in_flight_at_once(kind: Kind) {
    let mut guest = bring_up(kind, Behaviour { service: 1_000_000, ..Behaviour::conforming() });
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

fn a_target_set_before_the_driver_starts_is_followed_at_once(kind: Kind) {
    let mut guest = guest::bring_up_with(kind(Behaviour::conforming()), |machine| {
        machine.each_balloon(|b, bus| b.set_target(600, bus));
    });
    guest.run();
    guest.expect_balloon(600);
    guest.finish();
}

fn a_target_that_changes_midway_is_followed(kind: Kind) {
    let behaviour = Behaviour { handling: Handling::Later(200_000), ..Behaviour::conforming() };
    for second in [0, 100, 3000, 6000] {
        let mut guest = bring_up(kind, behaviour.clone());
        guest.device(|b, bus| b.set_target(4000, bus));
        guest.run_steps(3);
        guest.device(|b, bus| b.set_target(second, bus));
        guest.run();
        guest.expect_balloon(second.into());
        guest.finish();
    }
}

fn a_hundred_random_targets_leave_memory_in_use_unchanged(kind: Kind) {
    let mut random = Random(0x5eed);
    for (name, behaviour) in Behaviour::every_device() {
        let mut guest = bring_up_sized(32, kind, behaviour);
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

fn an_absurd_target_is_met_as_far_as_the_floor_allows(kind: Kind) {
    for target in [1 << 20, u32::MAX - 1, u32::MAX] {
        let mut guest = bring_up_sized(32, kind, Behaviour::conforming());
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

fn requests_completed_out_of_order_are_distinguished(kind: Kind) {
    let choices = (0..64_u32).map(|i| (i.wrapping_mul(40_503) % 65_536) as u16).collect();
    let behaviour = Behaviour { service: 3_000_000, schedule: Schedule::new(choices), ..Behaviour::conforming() };
    let mut guest = bring_up(kind, behaviour);
    for pages in [8000, 100, 5000, 0] {
        guest.follow(pages);
    }
    guest.finish();
}

fn a_small_queue_is_enough(kind: Kind) {
    for queue_size in [1, 2, 4] {
        let mut guest = bring_up(kind, Behaviour { queue_size, ..Behaviour::conforming() });
        guest.follow(3000);
        guest.follow(0);
        guest.finish();
    }
}

fn the_configuration_that_changes_while_it_is_read_is_read_again(kind: Kind) {
    let mut guest = bring_up(kind, Behaviour { churn: 7, ..Behaviour::conforming() });
    guest.device(|b, bus| b.set_target(1000, bus));
    guest.run();
    let target = guest.device(|b, _| b.target());
    assert!(target > 1000, "the configuration should have changed on the way");
    guest.expect_balloon(target.into());
    guest.finish();
}

fn more_than_65536_requests_wrap_the_ring_index_without_harm(kind: Kind) {
    let mut guest = bring_up_sized(16, kind, Behaviour { handling: Handling::AtOnce, ..Behaviour::conforming() });
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

fn there_is_no_useless_kick(kind: Kind) {
    let mut guest = bring_up(kind, Behaviour::conforming());
    guest.follow(4000);
    guest.follow(0);
    assert_eq!(guest.device(|b, _| b.needless_kicks), 0);
    guest.finish();
}

fn a_balloon_short_of_memory_resumes_when_some_is_freed(kind: Kind) {
    let mut guest = bring_up_sized(32, kind, Behaviour::conforming());
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

fn a_later_driver_takes_over_the_balloon_and_empties_it(kind: Kind) {
    for (name, behaviour) in Behaviour::every_device() {
        println!("{name}");
        let mut guest = bring_up(kind, behaviour);
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

fn a_driver_shut_down_at_any_moment_leaves_every_frame_accounted_for(kind: Kind) {
    for rounds in 0..12 {
        for turn in [None, Some(0)] {
            let mut guest = bring_up(kind, Behaviour { service: 400_000, ..Behaviour::qemu_10(6) });
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
