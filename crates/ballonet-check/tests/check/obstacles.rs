//! A defect that blocks other checks fails one check, with the cause; those that depend on it are skipped, with the
//! reason.

use ballonet_check::Outcome;

use super::run::{QUICK, Report, sound, test};
use ballonet_models::{Behaviour, Quirks, RegisterQuirks, Resets, feature};

fn with(change: impl FnOnce(&mut Quirks)) -> Behaviour {
    let mut device = sound();
    change(&mut device.quirks);
    device
}

/// How many checks were skipped for a reason that holds these words.
fn skipped_for(report: &Report, words: &str) -> usize {
    let skipped =
        |(_, _, outcome): &&(_, _, Outcome)| matches!(outcome, Outcome::Skipped(reason) if reason.contains(words));
    report.outcomes.iter().filter(skipped).count()
}

fn names(report: &Report) -> Vec<&'static str> {
    report.failed().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn registers_are_read_in_the_order_of_initialization() {
    let silent = RegisterQuirks { silent_until_driver: true, ..RegisterQuirks::NONE };
    let report = test(with(|quirks| quirks.registers = silent), QUICK, |_| {});
    assert_eq!((report.failed(), report.skipped().len()), (vec![], test(sound(), QUICK, |_| {}).skipped().len()));
}

#[test]
fn a_device_that_wants_every_queue_fails_one_check_and_is_tested_with_every_queue() {
    let device = with(|quirks| quirks.wants_every_queue = true);
    let features = device.features | feature::FREE_PAGE_HINT;
    let report = test(device.with_features(features), QUICK, |_| {});
    let failed = report.failed();
    assert_eq!(names(&report), ["queues-of-declined-features-may-be-left-out"]);
    assert!(
        failed[0].1.contains("does not start with the queues [0, 1] set up") && failed[0].1.contains("with all of")
    );
    assert!(report.summary.is_success(), "nobody says that a device must start without");
}

#[test]
fn a_device_that_does_not_start_is_reported_once() {
    let device = Behaviour { needs_reset_after: Some(0), needs_resets: u32::MAX, ..sound() };
    let report = test(device, QUICK, |_| {});
    let failed = report.failed();
    assert_eq!(names(&report), ["driver-ok-sticks"], "{failed:?}");
    assert!(failed[0].1.contains("does not start") && skipped_for(&report, "does not start") > 60);
    // Checks that need no start still run.
    assert!(report.outcomes.iter().any(|(name, _, outcome)| *name == "vectors-read-back" && *outcome == Outcome::Ok));
}

#[test]
fn a_device_that_cannot_be_reset_is_reported_once() {
    for (resets, check, words) in [
        (Resets::EndInFailed, "reset-clears-status", "a reset did not finish within 3 ms"),
        (Resets::LockUp, "driver-ok-sticks", "accepts no status after a reset"),
    ] {
        let report = test(with(|quirks| quirks.resets = resets), QUICK, |_| {});
        assert_eq!(names(&report), [check], "{resets:?}");
        assert!(report.summary.ended.as_ref().is_some_and(|reason| reason.contains(words)), "{:?}", report.summary);
        assert!(skipped_for(&report, words) > 60, "{resets:?}");
    }
}

#[test]
fn a_queue_that_never_returns_a_request_is_reported_once() {
    let report = test(with(|quirks| quirks.ignores_inflate = true), QUICK, |_| {});
    let failed = report.failed();
    assert_eq!(names(&report), ["inflate-completes"], "{failed:?}");
    assert!(skipped_for(&report, "queue never returned a request") > 40);
}
