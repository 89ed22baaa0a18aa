//! Each request to the platform is refused in turn: the driver works without it, or fails, restores the initial state
//! and sets FAILED.

use ballonet::balloon::Options;

use super::guest::try_choosing;
use ballonet_models::{Behaviour, Machine};

/// The devices and how they are driven: each transport, each step of the ladder, both ways to reach registers.
fn devices() -> Vec<(&'static str, Behaviour, bool)> {
    vec![
        ("a vector per queue", Behaviour::conforming(), false),
        ("a vector for all queues", Behaviour::qemu_10(2), false),
        ("a line", Behaviour::qemu_7_2(), false),
        ("packed", Behaviour::conforming().packed(), false),
        ("legacy with MSI-X", Behaviour::conforming().legacy(), false),
        ("legacy with a line", Behaviour::qemu_7_2().legacy(), false),
        ("both interfaces", Behaviour::qemu_10(6).transitional(), false),
        ("a window beside mappings", Behaviour::conforming().with_pci_access(), false),
        ("a window instead of mappings", Behaviour::conforming().with_pci_access(), true),
    ]
}

/// Starts a driver, uses it and shuts it down, while the platform refuses requests as set by `prepare`. Returns whether
/// it started, and the number of requests to the platform.
fn live(behaviour: &Behaviour, through_config: bool, prepare: impl FnOnce(&Machine)) -> (bool, u64) {
    let choose = |options: &mut Options| options.through_config = through_config;
    match try_choosing(behaviour.clone(), choose, prepare) {
        Ok(mut guest) => {
            let asked = guest.machine.asked();
            for pages in [700, 0] {
                guest.follow(pages);
            }
            let machine = guest.machine.clone();
            guest.finish();
            assert_eq!(machine.asked(), asked, "a driver that runs or shuts down requests nothing that can be refused");
            (true, asked)
        }
        Err(failure) => {
            failure.expect_clean(true);
            (false, failure.asked())
        }
    }
}

#[test]
fn any_refusal_is_worked_around_or_undone() {
    for (name, behaviour, through_config) in devices() {
        // Off, or on, as firmware may leave it.
        for command in [0, 7] {
            let behaviour = Behaviour { command, ..behaviour.clone() };
            let (_, asked) = live(&behaviour, through_config, |machine| machine.refuse(0..0));
            let mut up = 0;
            for first in 0..asked {
                let (one, _) = live(&behaviour, through_config, |machine| machine.refuse(first..first + 1));
                let (_, _) = live(&behaviour, through_config, |machine| machine.refuse(first..u64::MAX));
                up += u64::from(one);
            }
            println!("{name}: {asked} requests, {up} of them not needed");
            assert!(asked > 6 && up < asked, "{name}: {up} of {asked}");
        }
    }
}

/// Refusals and errors by the device itself during the start.
#[test]
fn a_device_that_fails_its_own_start_gets_failed() {
    let legacy = || Behaviour::conforming().legacy();
    for (name, behaviour) in [
        ("no VERSION_1", Behaviour::conforming().with_features(1)),
        ("features refused", Behaviour { refuses_features: true, ..Behaviour::conforming() }),
        ("no queue", Behaviour { num_queues: Some(0), ..Behaviour::conforming() }),
        ("an invalid size", Behaviour { size_lie: Some(0xffff), ..Behaviour::conforming() }),
        ("a doorbell out of range", Behaviour { notify_off: Some(0x2000), ..Behaviour::conforming() }),
        ("a legacy queue of an odd size", Behaviour { size_lie: Some(48), ..legacy() }),
        ("a reset that never ends", Behaviour { reset_time: u64::MAX, ..Behaviour::conforming() }),
        ("a legacy reset that never ends", Behaviour { reset_time: u64::MAX, ..legacy() }),
    ] {
        for command in [0, 7] {
            let behaviour = Behaviour { command, ..behaviour.clone() };
            let failure = try_choosing(behaviour, |_| {}, |_| {}).err().unwrap_or_else(|| panic!("{name}: no error"));
            println!("{name}: {}", failure.error);
            failure.expect_clean(true);
            assert!(failure.was_told(), "{name}: FAILED was not set");
        }
    }
}
