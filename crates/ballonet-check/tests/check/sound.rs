//! Devices without a bug, and devices as found in the field.

use ballonet_check::{Outcome, Severity};

use super::run::{QUICK, sound, test, with_access};
use ballonet_models::{Behaviour, Handling, RegisterQuirks};

#[test]
fn a_device_that_follows_the_letter_passes_every_check() {
    for handling in [Handling::Later(20_000), Handling::AtOnce] {
        // It is in no slot.
        let report = test(Behaviour { handling, ..sound() }, "*,-hot-plug", |_| {});
        assert_eq!(report.failed(), [], "{handling:?}");
        assert!(report.summary.is_success() && report.summary.ended.is_none());
        // What does not apply to a device of this kind.
        let skipped =
            ["transitional-subsystem-is-the-device-type", "transitional-revision-is-0", "hint-command-holds-still"];
        assert_eq!(report.skipped(), skipped);
    }
}

#[test]
fn every_vmm_fails_only_its_known_checks() {
    for (name, behaviour) in Behaviour::every_vmm() {
        // Those that fail more are in `vmms`, with the names of what they fail.
        if behaviour.quirks.registers != RegisterQuirks::NONE {
            continue;
        }
        // The window is there in all of them; the models leave it out.
        let report = test(with_access(behaviour.clone()), QUICK, |_| {});
        let must = report.failed_of(Severity::Must);
        // The device does not serve its queues.
        if behaviour.quirks.ignores_inflate {
            assert!(must.contains(&"inflate-completes"), "{name}: {must:?}");
            continue;
        }
        let unexpected: Vec<_> = report.failed().into_iter().filter(|(n, _)| must.contains(n)).collect();
        assert_eq!(unexpected, [], "{name}");
        assert_eq!(report.summary.ended, None, "{name}");
    }
}

#[test]
fn without_vectors_or_line_the_checks_that_need_them_are_skipped() {
    let report = test(sound().with_vectors(None), QUICK, |machine| machine.limit(200, false, false));
    assert_eq!(report.failed(), []);
    let skipped = report.skipped();
    for name in ["interrupts-arrive-by-queue", "interrupts-arrive-by-line", "vectors-read-back"] {
        assert!(skipped.contains(&name), "{name} was not skipped: {skipped:?}");
    }
}

#[test]
fn a_device_that_stalls_fails_by_name_and_the_run_goes_on() {
    let report = test(Behaviour { stalls_after: Some(0), ..sound() }, QUICK, |_| {});
    let failed: Vec<_> = report.failed();
    let detail = failed.iter().find(|(name, _)| *name == "inflate-completes").map(|(_, detail)| *detail);
    assert!(detail.is_some_and(|detail| detail.contains("not returned within 3 ms")), "{failed:?}");
    assert_eq!(report.summary.ended, None);
    // Registers still work, and in order.
    assert!(report.outcomes.contains(&("actual-is-kept", Severity::Must, Outcome::Ok)));
}

#[test]
fn a_removed_device_ends_the_run_by_name() {
    for accesses in [400, 3000, 20_000] {
        let report = test(Behaviour { removed_after: Some(accesses), ..sound() }, QUICK, |_| {});
        let ended = report.summary.ended.as_deref();
        assert_eq!(ended, Some("the device is gone: its registers read as all ones"), "after {accesses}");
        assert!(!report.summary.is_success());
    }
}

#[test]
fn a_device_that_does_not_finish_a_reset_ends_the_run_by_name() {
    let report = test(Behaviour { reset_time: u64::MAX, ..sound() }, QUICK, |_| {});
    let ended = report.summary.ended.as_deref().unwrap_or_default();
    assert!(ended.contains("a reset did not finish within 3 ms"), "{ended}");
    assert_eq!(report.failed_of(Severity::Must), ["reset-clears-status"]);
}

/// A host that moves the target this often at most, with a seed for when: nanoseconds in the model's time, in which
/// 300,000 are a quiet moment to the tester.
fn restless(behaviour: Behaviour, longest: u64, seed: u64) -> Behaviour {
    Behaviour { moves: Some((longest, seed)), ..behaviour }
}

#[test]
fn a_host_that_moves_the_target_convicts_no_sound_device() {
    let both_bits = |mut behaviour: Behaviour| {
        behaviour.quirks.changes_set_both_bits = true;
        behaviour
    };
    let line = sound().with_vectors(None);
    for (device, behaviour) in
        [("with messages", sound()), ("by the line", line.clone()), ("by QEMU's line", both_bits(line))]
    {
        for longest in [20_000, 300_000, 5_000_000] {
            for seed in 1..=2 {
                let report = test(restless(behaviour.clone(), longest, seed), QUICK, |_| {});
                assert_eq!(report.failed(), [], "{device}, moved within {longest} ns, seed {seed}");
                assert!(report.summary.is_success(), "{device}: {:?}", report.summary);
                let quiet = report.outcomes.iter().filter(|(.., o)| matches!(o, Outcome::Skipped(r) if disturbed(r)));
                let skipped = quiet.count();
                // With a host that is sometimes silent for a moment, nothing is skipped.
                assert!(if longest < 5_000_000 { skipped < 12 } else { skipped == 0 }, "{device}: {skipped} skipped");
            }
        }
    }
}

fn disturbed(reason: &str) -> bool {
    reason.starts_with("the host changes the configuration all the time, so this proves nothing: ")
}

#[test]
fn a_host_that_is_never_silent_has_a_check_skipped_with_the_reason() {
    let report = test(restless(sound(), 20_000, 1), "nothing-interrupts-while-idle", |_| {});
    let [(_, _, Outcome::Skipped(reason))] = &report.outcomes[..] else { panic!("{:?}", report.outcomes) };
    assert!(disturbed(reason) && reason.ends_with("interrupts came while the device was idle"), "{reason}");
}
