//! Page poison: the driver announces the value of free frames, and the frames hold it whenever the specification
//! requires that.

use ballonet::balloon::Options;
use ballonet::virtio::spec::Features;

use super::guest::{Guest, bring_up, bring_up_as};
use ballonet_models::{Behaviour, feature};

/// Devices that offer it, together with reports and hints.
fn devices() -> Vec<(String, Behaviour)> {
    let all = feature::PAGE_POISON | feature::PAGE_REPORTING | feature::FREE_PAGE_HINT;
    let legacy = ("legacy".to_string(), Behaviour::conforming().legacy());
    let offering = |(name, behaviour): (String, Behaviour)| {
        let features = behaviour.features | all;
        (name, behaviour.with_features(features))
    };
    Behaviour::every_device().into_iter().chain([legacy]).map(offering).collect()
}

fn poisoned(behaviour: Behaviour, byte: u8) -> Guest {
    bring_up_as(behaviour, |options: &mut Options| options.poison = Some(byte))
}

fn accepts(guest: &Guest) -> bool {
    guest.driver().status().features.bits() & feature::PAGE_POISON != 0
}

/// The announced poison value, if any.
fn told(guest: &Guest) -> Option<u32> {
    guest.machine.bus(|bus| bus.ram.poison)
}

#[test]
fn poison_val_is_written_before_driver_ok_and_returned_frames_are_filled() {
    for (name, behaviour) in devices() {
        for byte in [0, 0xa5, 0xff] {
            let mut guest = poisoned(behaviour.clone(), byte);
            assert!(accepts(&guest), "{name}");
            assert_eq!(told(&guest), Some(u32::from_ne_bytes([byte; 4])), "{name}");
            for pages in [1000, 300, 4000, 0] {
                guest.follow_to(pages);
            }
            guest.run();
            guest.expect_balloon(0);
            guest.finish();
        }
    }
}

#[test]
fn frames_are_filled_before_they_are_reported_and_stay_filled() {
    for (name, behaviour) in devices() {
        let mut guest = poisoned(behaviour, 0x5a);
        guest.run();
        let reported = guest.device(|b, _| b.reported);
        assert_eq!(reported, guest.platform.frames.whole_regions() * 512, "{name}: all free memory is still reported");
        assert!(guest.platform.frames.hold(2048));
        guest.platform.frames.unhold();
        guest.driver_mut().report_now();
        guest.run();
        assert!(guest.device(|b, _| b.reported) > reported, "{name}: used frames hold something else, and are filled");
        guest.expect_balloon(0);
        guest.finish();
    }
}

#[test]
fn hinted_frames_are_filled_when_done_and_when_reclaimed_early() {
    let (_, behaviour) = devices().swap_remove(0);
    for early in [0, 2048] {
        let behaviour = behaviour.clone();
        let features = behaviour.features & !feature::PAGE_REPORTING;
        let mut guest = poisoned(behaviour.with_features(features), 0x5a);
        guest.run();
        guest.device(|b, bus| b.command_hints(3, bus));
        guest.run();
        assert!(guest.machine.bus(|bus| bus.ram.count_untouched()) > 4096, "the host reclaims hinted frames");
        assert_eq!(guest.relinquish(early), early);
        guest.device(|b, bus| b.command_hints(1, bus));
        guest.run();
        assert_eq!(guest.machine.bus(|bus| bus.ram.count_untouched()), 0);
        guest.expect_balloon(0);
        guest.finish();
    }
}

#[test]
fn frames_in_flight_to_the_host_are_filled_when_a_reset_returns_them() {
    let (_, behaviour) = devices().swap_remove(0);
    let features = behaviour.features & !feature::PAGE_REPORTING;
    let mut guest = poisoned(Behaviour { service: 10_000_000, ..behaviour.with_features(features) }, 0x5a);
    guest.run();
    guest.device(|b, bus| {
        b.stall_from_now(true);
        b.set_target(2000, bus);
    });
    guest.run();
    assert!(guest.driver().status().inflating > 0 && guest.machine.bus(|bus| bus.ram.count_untouched()) > 0);
    guest.device(|b, _| b.stall_from_now(false));
    guest.freeze().unwrap();
    assert_eq!(guest.machine.bus(|bus| bus.ram.count_untouched()), 0);
    guest.restore().unwrap();
    assert_eq!(told(&guest), Some(0x5a5a_5a5a), "it is announced again after each reset");
    guest.run();
    guest.expect_balloon(2000);
    guest.follow(0);
    guest.finish();
}

#[test]
fn a_poison_value_is_announced_only_if_frames_hold_it() {
    for (name, behaviour) in devices() {
        let guest = bring_up(behaviour.clone());
        assert!(!accepts(&guest) && told(&guest).is_none(), "{name}: no value was chosen");
        guest.finish();
        let declining = bring_up_as(behaviour, |options: &mut Options| {
            options.poison = Some(1);
            options.declined = Features::from_bits_retain(feature::PAGE_POISON);
        });
        assert!(!accepts(&declining) && told(&declining).is_none(), "{name}: it is declined");
        declining.finish();
    }
    let mut without = poisoned(Behaviour::conforming(), 1);
    assert!(!accepts(&without), "it is not offered");
    without.follow(100);
    without.finish();
}
