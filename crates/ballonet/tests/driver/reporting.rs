//! Free page reporting: all free memory is reported, each region once, and is not used while its report is in flight.

use ballonet::balloon::{Next, Options, ReportPolicy};

use super::guest::{Guest, bring_up, expect_up, try_chosen};
use ballonet_models::{Behaviour, Lie, feature};

const MS: u64 = 1_000_000;

fn offering(behaviour: Behaviour) -> Behaviour {
    let features = behaviour.features | feature::PAGE_REPORTING;
    behaviour.with_features(features)
}

fn reported(guest: &Guest) -> u64 {
    guest.device(|balloon, _| balloon.reported)
}

/// A guest whose balloon reports by this policy, after everything has been reported.
fn with_policy(reporting: ReportPolicy) -> Guest {
    let choose = |options: &mut Options| options.reporting = reporting;
    let mut guest = expect_up(try_chosen(offering(Behaviour::conforming()), choose));
    guest.run();
    guest
}

#[test]
fn all_free_memory_is_reported_at_the_start_and_none_twice() {
    for (name, behaviour) in Behaviour::every_device() {
        let mut guest = bring_up(offering(behaviour));
        guest.run();
        let whole = guest.platform.frames.whole_regions() * 512;
        assert!(whole * 10 >= guest.platform.frames.total() * 9, "{name}: most of memory is in whole regions");
        assert_eq!(reported(&guest), whole, "{name}");
        assert_eq!(guest.driver_mut().counters().reported_frames, whole, "{name}");
        guest.driver_mut().report_now();
        guest.run();
        assert_eq!(reported(&guest), whole, "{name}: nothing is reported twice");
        guest.expect_balloon(0);
        guest.finish();
    }
}

#[test]
fn used_and_freed_memory_is_reported_again_when_old_enough() {
    let policy = ReportPolicy { age: 100 * MS, threshold: 512, budget: 1 << 20 };
    let mut guest = with_policy(policy);
    let before = reported(&guest);
    assert!(guest.platform.frames.hold(1024));
    guest.wait(300 * MS);
    assert_eq!(reported(&guest), before, "memory in use is not reported");
    guest.platform.frames.unhold();
    guest.wait(90 * MS);
    assert_eq!(reported(&guest), before, "too young");
    guest.wait(60 * MS);
    assert_eq!(reported(&guest), before + 1024);
    guest.wait(1000 * MS);
    assert_eq!(reported(&guest), before + 1024);
    guest.finish();
}

#[test]
fn briefly_freed_memory_is_not_reported() {
    let mut guest = with_policy(ReportPolicy { age: 100 * MS, threshold: 512, budget: 1 << 20 });
    let before = reported(&guest);
    for _ in 0..50 {
        assert!(guest.platform.frames.hold(2048));
        guest.wait(20 * MS);
        guest.platform.frames.unhold();
        guest.wait(50 * MS);
    }
    assert_eq!(reported(&guest), before);
    guest.finish();
}

#[test]
fn memory_below_the_threshold_waits_for_more() {
    let mut guest = with_policy(ReportPolicy { age: 100 * MS, threshold: 2048, budget: 1 << 20 });
    let before = reported(&guest);
    assert!(guest.platform.frames.hold(1024) && guest.platform.frames.hold(1024));
    guest.platform.frames.unhold();
    guest.wait(1000 * MS);
    assert_eq!(reported(&guest), before);
    guest.platform.frames.unhold();
    guest.wait(300 * MS);
    assert_eq!(reported(&guest), before + 2048);
    guest.finish();
}

#[test]
fn a_balloon_follows_its_target_while_memory_is_reported() {
    for (name, behaviour) in Behaviour::every_device() {
        let mut guest = bring_up(offering(behaviour));
        let total = guest.platform.frames.total() as u32;
        for target in [total / 2, 100, total / 4 * 3, 0] {
            guest.driver_mut().report_now();
            guest.run_steps(3);
            guest.device(|balloon, bus| balloon.set_target(target, bus));
            guest.run();
            guest.expect_balloon(target.into());
        }
        assert!(reported(&guest) > 0, "{name}");
        guest.finish();
    }
}

#[test]
fn frames_in_a_report_that_never_returns_are_free_only_after_a_reset() {
    let behaviour = Behaviour { stalls_after: Some(0), ..offering(Behaviour::conforming()) };
    let mut guest = bring_up(behaviour);
    guest.run();
    assert!(guest.platform.frames.in_flight() > 0, "reports are in flight");
    guest.shut_down();
    assert_eq!(guest.platform.frames.in_flight(), 0);
    guest.finish();
}

#[test]
fn reports_that_do_not_return_count_as_requests_in_flight() {
    let behaviour = Behaviour { stalls_after: Some(0), ..offering(Behaviour::conforming()) };
    let mut guest = bring_up(behaviour);
    guest.run();
    let in_flight = guest.platform.frames.in_flight();
    assert_ne!(in_flight, 0);
    assert_eq!(guest.driver().status().reporting, in_flight);
    assert_eq!(guest.poll_once(), Next::Soon, "the driver must check whether the device still works");
    guest.device(|balloon, _| balloon.stall_from_now(false));
    guest.reset().unwrap();
    guest.run();
    assert_eq!((guest.driver().status().reporting, guest.poll_once()), (0, Next::Idle));
    guest.finish();
}

#[test]
fn a_lying_device_that_does_not_reset_withholds_reported_frames() {
    for (name, behaviour) in [("conforming", Behaviour::conforming()), ("QEMU 7.2", Behaviour::qemu_7_2())] {
        for after in [1, 2, 5] {
            let lying = Behaviour { lie: Some((after, Lie::IdOutOfRange)), ..offering(behaviour.clone()) };
            let mut guest = bring_up(lying);
            guest.device(|balloon, _| balloon.behaviour.reset_time = u64::MAX);
            guest.try_run().expect_err(name);
            let (withheld, in_flight) = (guest.driver().status().withheld, guest.platform.frames.in_flight());
            assert_eq!(withheld, in_flight, "{name}, after {after} completions");
            guest.platform.frames.expect_whole();
        }
    }
}

#[test]
fn nothing_is_reported_without_the_feature() {
    let mut guest = bring_up(Behaviour::conforming());
    guest.run();
    assert!(!guest.driver_mut().report_now());
    assert_eq!(reported(&guest), 0);
    guest.finish();
}
