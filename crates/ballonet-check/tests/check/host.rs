//! Checks of what the host does: without a host they are skipped; each defect is found by the check that is meant for it.

use super::run::{Act, obedient, sound, test_with};
use ballonet_check::{HostAction, Outcome};
use ballonet_models::{Behaviour, Handling};

/// Only the host's chapter.
const HOST: &str = "host";

#[test]
fn without_a_host_the_checks_are_skipped_with_the_reason() {
    let report = test_with(None, sound(), HOST, |_| {});
    for (name, _, outcome) in &report.outcomes {
        let reason = matches!(outcome, Outcome::Skipped(reason) if reason.contains("no host program performs"));
        assert!(reason, "{name}: {outcome:?}");
    }
    assert!(report.summary.is_success() && report.outcomes.len() >= 10);
}

#[test]
fn a_sound_device_passes_with_every_ring_and_interrupt() {
    for behaviour in [sound(), sound().with_vectors(None), Behaviour { handling: Handling::AtOnce, ..sound() }] {
        let report = test_with(Some(obedient), behaviour, HOST, |_| {});
        assert_eq!(report.failed(), []);
        assert!(report.summary.ok >= 9, "{:?}", report.outcomes);
    }
}

/// What the device does when its virtual machine is paused or restored, and the checks that find it.
const WRONG: &[(&str, Act, &[&str])] = &[
    (
        "it is paused and serves no more",
        |balloon, bus, action, pages| {
            balloon.stall_from_now(action == HostAction::Pause);
            obedient(balloon, bus, action, pages);
        },
        &["a-pause-changes-nothing"],
    ),
    (
        "it is restored and serves no more",
        |balloon, bus, action, pages| {
            balloon.stall_from_now(action == HostAction::Restore);
            obedient(balloon, bus, action, pages);
        },
        RESTORES,
    ),
    (
        "it is restored and needs a reset",
        |balloon, bus, action, pages| {
            if action == HostAction::Restore {
                balloon.raise_needs_reset(bus);
            }
            obedient(balloon, bus, action, pages);
        },
        RESTORES,
    ),
];

const RESTORES: &[&str] =
    &["a-restore-changes-nothing", "a-restore-keeps-packed-rings", "a-restore-keeps-every-feature"];

#[test]
fn each_defect_is_found_by_the_checks_that_are_meant_for_it() {
    for (defect, act, names) in WRONG {
        let report = test_with(Some(*act), sound(), HOST, |_| {});
        let failed: Vec<_> = report.failed().iter().map(|(name, _)| *name).collect();
        for name in *names {
            assert!(failed.contains(name), "{defect}: {name} is not in {failed:?}");
        }
    }
}

/// A host that takes a request and does nothing is named, with what was asked for.
#[test]
fn a_host_that_does_nothing_fails_the_check_by_name() {
    let report = test_with(Some(|_, _, _, _| {}), sound(), "a-new-target-interrupts", |_| {});
    let [(_, detail)] = report.failed()[..] else { panic!("{:?}", report.outcomes) };
    assert!(
        detail.contains("a target of 291 pages was requested from the host") && detail.contains("num_pages is 0"),
        "{detail}"
    );
}
