//! Checks of hot-plug, against a device in the slot of a model port: each defect is found by the check that is meant for it,
//! and the checks that follow have their device.

use ballonet::pci::Bdf;
use ballonet_check::{HostAction, Outcome};
use ballonet_models::{Behaviour, Machine, feature};

use super::run::{PlugAct, Report, sound, test, test_in_slot};

/// Only the chapter of hot-plug.
const HOT_PLUG: &str = "hot-plug";

/// A host that unplugs the device, and plugs in the same.
fn obedient(machine: &Machine, _: Bdf, action: HostAction, behaviour: Behaviour) {
    match action {
        HostAction::Unplug => machine.press_button(),
        HostAction::Plug => drop(machine.insert(behaviour)),
        other => panic!("{other:?} is not for a slot"),
    }
}

#[test]
fn a_sound_device_passes_with_and_without_messages() {
    for behaviour in [sound(), sound().with_vectors(None)] {
        let report = test_in_slot(obedient, &behaviour, HOT_PLUG);
        assert_eq!((report.failed(), report.skipped()), (vec![], vec![]));
        assert!(report.summary.is_success() && report.summary.ok == 6, "{:?}", report.outcomes);
    }
}

#[test]
fn without_a_host_the_checks_are_skipped_with_the_reason() {
    let report = test(sound(), HOT_PLUG, |_| {});
    for (name, _, outcome) in &report.outcomes {
        let reason = matches!(outcome, Outcome::Skipped(reason) if reason.contains("no host program unplugs"));
        assert!(reason, "{name}: {outcome:?}");
    }
    assert_eq!(report.outcomes.len(), 6);
}

/// What is wrong with the device or its slot, and the checks that find it: no other does.
const WRONG: &[(&str, PlugAct, &[&str])] = &[
    (
        "the request to unplug stops the device",
        |machine, at, action, behaviour| {
            if action == HostAction::Unplug {
                machine.balloon(at, |device, _| device.stall_from_now(true));
            }
            obedient(machine, at, action, behaviour);
        },
        &["an-unplug-request-changes-nothing"],
    ),
    (
        "the slot's power stays on",
        |machine, at, action, behaviour| {
            machine.stick_power();
            obedient(machine, at, action, behaviour);
        },
        &["an-unplugged-device-is-gone"],
    ),
    (
        "the new device has the state of the old one",
        |machine, at, action, behaviour| match action {
            HostAction::Plug => {
                let before = machine.insert(behaviour);
                machine.balloon(at, |device, _| device.common = before.common);
            }
            _ => obedient(machine, at, action, behaviour),
        },
        &["a-plugged-device-is-reset"],
    ),
    (
        "the new function has the configuration space of the old one",
        |machine, at, action, behaviour| match action {
            HostAction::Plug => {
                let before = machine.insert(behaviour);
                machine.balloon(at, |device, _| device.config = before.config);
            }
            _ => obedient(machine, at, action, behaviour),
        },
        &["a-plugged-function-is-off"],
    ),
    (
        "the new device offers other features",
        |machine, at, action, mut behaviour| {
            behaviour.features &= !feature::PAGE_POISON;
            obedient(machine, at, action, behaviour);
        },
        &["a-plugged-device-is-the-same"],
    ),
    (
        "the new device is of another revision",
        |machine, at, action, mut behaviour| {
            behaviour.revision += 1;
            obedient(machine, at, action, behaviour);
        },
        &["a-plugged-device-is-the-same"],
    ),
    (
        "the new device serves nothing",
        |machine, at, action, behaviour| {
            obedient(machine, at, action, behaviour);
            if action == HostAction::Plug {
                machine.balloon(at, |device, _| device.stall_from_now(true));
            }
        },
        &["a-plugged-device-works"],
    ),
];

#[test]
fn each_defect_is_found_by_the_check_that_is_meant_for_it() {
    for (defect, act, names) in WRONG {
        for name in *names {
            let report = test_in_slot(*act, &sound(), name);
            let [(_, detail)] = report.failed()[..] else { panic!("{defect}: {:?}", report.outcomes) };
            println!("{defect}: {name}: {detail}");
        }
    }
}

/// The reason of the one check that has no verdict; no other lacks one, and none failed.
fn only_trouble<'r>(report: &'r Report, name: &str) -> &'r str {
    let troubled = |(_, _, outcome): &&(_, _, Outcome)| matches!(outcome, Outcome::Trouble(_));
    let troubles: Vec<_> = report.outcomes.iter().filter(troubled).collect();
    let [(of, _, Outcome::Trouble(reason))] = troubles[..] else { panic!("{:?}", report.outcomes) };
    assert_eq!((*of, report.failed()), (name, vec![]));
    reason
}

/// A host that does not plug the device in, once.
#[test]
fn a_device_that_is_left_unplugged_is_plugged_in_for_the_next_check() {
    let lazy: PlugAct = |machine, at, action, behaviour| {
        // A device that was plugged in has no addresses at first; the first one gets that mark here.
        let comes = action == HostAction::Unplug
            || machine.balloon(at, |device, _| std::mem::replace(&mut device.behaviour.unplaced, true));
        if comes {
            obedient(machine, at, action, behaviour);
        }
    };
    let report = test_in_slot(lazy, &sound(), "a-plugged-device-is-reset,a-plugged-function-is-off,inflate-completes");
    let detail = only_trouble(&report, "a-plugged-device-is-reset");
    assert!(detail.contains("the host was to plug the device in, and it did not come"), "{detail}");
    assert!(report.summary.ended.is_none() && report.skipped().is_empty(), "{:?}", report.outcomes);
}

/// A host that never brings the device back ends the run: the checks that follow say why.
#[test]
fn a_device_that_stays_unplugged_ends_the_run_with_the_reason() {
    let thief: PlugAct = |machine, at, action, behaviour| {
        if action == HostAction::Unplug {
            obedient(machine, at, action, behaviour);
        }
    };
    let report = test_in_slot(thief, &sound(), "a-plugged-device-is-reset,a-plugged-function-is-off");
    let ended = report.summary.ended.clone().expect("an end");
    assert!(ended.contains("stays unplugged") && ended.contains("did not come"), "{ended}");
    let [(.., first), (.., second)] = &report.outcomes[..] else { panic!("{:?}", report.outcomes) };
    assert!(matches!(first, Outcome::Trouble(_)) && *second == Outcome::Skipped(ended), "{:?}", report.outcomes);
}

/// A host that plugs in what is not the device: the tester gives that no addresses.
#[test]
fn a_function_of_another_vendor_is_not_judged() {
    let swapper: PlugAct = |machine, at, action, mut behaviour| {
        behaviour.config_patches = vec![(0, 0x86), (1, 0x80)];
        obedient(machine, at, action, behaviour);
    };
    let report = test_in_slot(swapper, &sound(), "a-plugged-device-is-reset,a-plugged-function-is-off");
    let ended = report.summary.ended.clone().expect("an end");
    assert!(ended.contains("stays unplugged: a function of vendor 0x8086 was plugged in, not of 0x1af4"), "{ended}");
    let [(.., first), (.., second)] = &report.outcomes[..] else { panic!("{:?}", report.outcomes) };
    assert!(matches!(first, Outcome::Trouble(_)) && *second == Outcome::Skipped(ended), "{:?}", report.outcomes);
}

/// A host that takes the request and does nothing: the device is still there.
#[test]
fn a_request_that_nobody_serves_is_trouble_and_costs_one_check() {
    let report = test_in_slot(|_, _, _, _| {}, &sound(), "a-plugged-device-is-reset,inflate-completes");
    let detail = only_trouble(&report, "a-plugged-device-is-reset");
    assert!(detail.contains("nobody pressed the slot's button"), "{detail}");
}
