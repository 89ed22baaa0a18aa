//! Clauses of the specification that no other test covers, one by one.

use ballonet::balloon::BalloonError;
use ballonet::virtio::{NegotiationError, TransportError};

use super::guest::{bring_up, bring_up_with, try_with};
use ballonet_models::feature::{
    ACCESS_PLATFORM, FREE_PAGE_HINT, MUST_TELL_HOST, NOTIF_CONFIG_DATA, NOTIFICATION_DATA, ORDER_PLATFORM, PAGE_POISON,
    RING_PACKED, VERSION_1,
};
use ballonet_models::{Behaviour, Capability, Machine};

const FAILED: u8 = 128;

/// Makes the device claim a configuration of this many bytes.
fn set_config_length(behaviour: &mut Behaviour, bytes: u32) {
    let Capability::Virtio { length, .. } = behaviour.layout.capability(4) else { unreachable!() };
    *length = bytes;
}

#[test]
fn a_balloon_is_recognized_by_vendor_and_device_alone() {
    for device_id in [0x1045, 0x1002] {
        for revision in [0, 1, 2, 0xff] {
            for subsystem in [0, 0x1100_1af4, 0xffff_ffff] {
                let behaviour = Behaviour { device_id, revision, ..Behaviour::conforming() };
                let mut guest = bring_up_with(behaviour, |machine: &Machine| {
                    machine.each_balloon(|b, _| b.config.set_subsystem(subsystem));
                });
                guest.follow(10);
                guest.finish();
            }
        }
    }
    for device_id in [0x1000, 0x1001, 0x1003, 0x1044, 0x1046, 0x104d, 0x1005] {
        let failure = try_with(Behaviour { device_id, ..Behaviour::conforming() }, |_| {}).err().expect("no balloon");
        assert!(matches!(failure.error, BalloonError::NotABalloon { device, .. } if device == device_id));
        failure.expect_clean(true);
    }
}

#[test]
fn features_that_should_be_accepted_are() {
    for feature in [
        ACCESS_PLATFORM,
        RING_PACKED,
        ORDER_PLATFORM,
        NOTIFICATION_DATA,
        NOTIF_CONFIG_DATA,
        MUST_TELL_HOST,
        FREE_PAGE_HINT,
    ] {
        let mut guest = bring_up(Behaviour::conforming().with_features(VERSION_1 | feature));
        assert_eq!(guest.device(|b, _| b.common.accepted()), VERSION_1 | feature);
        guest.follow(500);
        guest.follow(0);
        guest.finish();
    }
}

/// The driver does not implement them; accepting them would impose rules that it does not follow.
#[test]
fn features_of_later_versions_are_not_accepted() {
    // SR_IOV, ADMIN_VQ and SUSPEND; and PAGE_POISON without a chosen value.
    let later = 1 << 37 | 1 << 41 | 1 << 43 | PAGE_POISON;
    let conforming = Behaviour::conforming();
    for behaviour in [conforming.clone(), conforming.clone().transitional(), conforming.legacy()] {
        let features = behaviour.features | later;
        let mut guest = bring_up(behaviour.with_features(features));
        assert_eq!(guest.device(|b, _| b.common.accepted()) & later, 0);
        guest.follow(500);
        guest.follow(0);
        guest.finish();
    }
}

#[test]
fn a_configuration_of_any_size_with_both_fields_is_enough() {
    for (length, enough) in
        [(0, false), (1, false), (4, false), (7, false), (8, true), (9, true), (12, true), (16, true), (4096, true)]
    {
        let mut behaviour = Behaviour::conforming();
        set_config_length(&mut behaviour, length);
        match try_with(behaviour, |_| {}) {
            Ok(mut guest) => {
                assert!(enough, "{length} bytes");
                guest.follow(100);
                guest.finish();
            }
            Err(failure) => {
                assert!(!enough, "{length} bytes: {}", failure.error);
                assert!(matches!(failure.error, BalloonError::ShortConfig { .. }), "{}", failure.error);
                failure.expect_clean(true);
            }
        }
    }
}

/// Whichever step of the start fails, the last status written is FAILED, unless a reset does not complete.
#[test]
fn a_failed_start_sets_failed_and_stops_using_the_device() {
    let conforming = Behaviour::conforming;
    let mut short = conforming();
    set_config_length(&mut short, 4);
    let cases = [
        ("no VERSION_1", conforming().with_features(0)),
        ("features refused", Behaviour { refuses_features: true, ..conforming() }),
        ("no queue", Behaviour { num_queues: Some(0), ..conforming() }),
        ("a configuration that is too short", short),
        ("kicks beyond the doorbells", Behaviour { notify_off: Some(0x2000), ..conforming() }),
    ];
    for (name, behaviour) in cases {
        let failure = try_with(behaviour, |_| {}).err().unwrap_or_else(|| panic!("{name}: no error"));
        failure.expect_clean(true);
        let writes = failure.status_writes();
        assert_eq!(writes.last().map(|status| status & FAILED), Some(FAILED), "{name}: {writes:?}");
    }
    let stuck =
        try_with(Behaviour { reset_time: u64::MAX, ..conforming() }, |_| {}).err().expect("no reset, no driver");
    assert!(matches!(stuck.error, BalloonError::Transport(TransportError::ResetTimeout { .. })), "{}", stuck.error);
    assert_eq!(stuck.status_writes(), [0, 0x0f | FAILED]);
}

#[test]
fn the_next_driver_resets_a_device_that_was_given_up() {
    let failure =
        try_with(Behaviour { refuses_features: true, ..Behaviour::conforming() }, |_| {}).err().expect("refused");
    assert!(matches!(failure.error, BalloonError::Negotiation(NegotiationError::Refused { .. })));
    let mut guest = failure.try_again(|behaviour| behaviour.refuses_features = false);
    assert_eq!(guest.device(|b, _| b.common.status_writes.clone()), [0, 1, 3, 11, 139, 0, 1, 3, 11, 15]);
    guest.follow(100);
    guest.finish();
}

#[test]
fn actual_is_written_less_often_than_requests_are_made() {
    let mut guest = bring_up(Behaviour::qemu_7_2());
    guest.follow(8000);
    let counters = guest.driver_mut().counters();
    assert!(counters.inflate_requests >= 8000 / 256);
    assert!(counters.actual_writes < counters.inflate_requests, "{counters:?}");
    guest.finish();
}
