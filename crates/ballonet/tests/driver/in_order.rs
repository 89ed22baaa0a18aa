//! Devices that use requests in order, one by one or several by one used entry.

use ballonet::balloon::BalloonError;
use ballonet::virtio::QueueError;
use ballonet::virtio::spec::Features;

use super::guest::{bring_up, bring_up_as};
use ballonet_models::feature::{EVENT_IDX, IN_ORDER};
use ballonet_models::{Behaviour, Handling, Lie, Schedule};

/// Each kind of in-order device.
fn in_order() -> Vec<(String, Behaviour)> {
    let mut devices = Vec::new();
    for (name, base) in [("conforming", Behaviour::conforming()), ("QEMU 10", Behaviour::qemu_10(2))] {
        for batches in [false, true] {
            for event_idx in [false, true] {
                let split = base.clone().in_order(batches);
                let split = if event_idx { split } else { split.clone().with_features(split.features & !EVENT_IDX) };
                devices.push((format!("{name}, split, batches {batches}, event_idx {event_idx}"), split.clone()));
                devices.push((format!("{name}, packed, batches {batches}, event_idx {event_idx}"), split.packed()));
            }
        }
    }
    devices
}

#[test]
fn the_balloon_follows_devices_that_use_requests_in_order() {
    for (name, behaviour) in in_order() {
        println!("{name}");
        let mut guest = bring_up(behaviour);
        assert_ne!(guest.device(|b, _| b.common.accepted()) & IN_ORDER, 0);
        for pages in [9000, 10, 4000, 0] {
            guest.follow(pages);
        }
        guest.finish();
    }
}

#[test]
fn slow_requests_are_used_in_batches_of_every_size_at_every_queue_size() {
    let choices: Vec<u16> = (0..64_u32).map(|i| (i.wrapping_mul(40_503) % 65_536) as u16).collect();
    for batches in [false, true] {
        for queue_size in [1, 2, 4, 64] {
            let base = Behaviour { service: 300_000, queue_size, ..Behaviour::conforming().in_order(batches) };
            for base in [base.clone(), base.packed()] {
                let mut guest = bring_up(Behaviour { schedule: Schedule::new(choices.clone()), ..base });
                for pages in [8000, 100, 5000, 0] {
                    guest.follow(pages);
                }
                guest.finish();
            }
        }
    }
}

#[test]
fn requests_in_order_cost_no_more_kicks_and_interrupts_than_in_any_order() {
    let cost = |behaviour: Behaviour| {
        let mut guest = bring_up(behaviour);
        guest.follow(8192);
        guest.follow(0);
        let counters = guest.driver_mut().counters();
        guest.finish();
        (counters.kicks, counters.vring_interrupts)
    };
    for base in [Behaviour::conforming(), Behaviour::conforming().packed()] {
        let any = cost(base.clone());
        for batches in [false, true] {
            let ordered = cost(base.clone().in_order(batches));
            assert!(
                ordered.0 <= any.0 && ordered.1 <= any.1,
                "kicks and interrupts: {ordered:?} in order, else {any:?}"
            );
        }
    }
}

#[test]
fn in_order_can_be_declined() {
    let mut guest =
        bring_up_as(Behaviour::conforming().in_order(true), |options| options.declined = Features::IN_ORDER);
    assert_eq!(guest.device(|b, _| b.common.accepted()) & IN_ORDER, 0);
    guest.follow(4000);
    guest.finish();
}

#[test]
fn a_request_out_of_order_ends_in_a_specific_error_a_reset_and_an_intact_guest() {
    let handling = Handling::Later(200_000);
    // Nothing follows the lie, so it cannot become a batch.
    let (lie, stalls_after) = (Some((2, Lie::OutOfOrder)), Some(3));
    let behaviour = Behaviour { handling, lie, stalls_after, ..Behaviour::conforming().in_order(false) };
    let mut guest = bring_up(behaviour);
    guest.device(|b, bus| b.set_target(8000, bus));
    let error = guest.try_run().expect_err("a device that lies");
    let BalloonError::Queue { queue: "inflate", error: QueueError::OutOfOrder { requests, most: 1, .. } } = error
    else {
        panic!("{error}");
    };
    assert!(requests > 1);
    guest.expect_given_up();
}

#[test]
fn other_lies_of_an_in_order_device_are_detected_too() {
    for lie in [Lie::IdOutOfRange, Lie::IdNotInFlight, Lie::IndexJumps] {
        for base in [Behaviour::conforming().in_order(true), Behaviour::conforming().in_order(true).packed()] {
            let mut guest = bring_up(Behaviour { lie: Some((3, lie)), ..base });
            guest.device(|b, bus| b.set_target(8000, bus));
            let error = guest.try_run().expect_err("a device that lies");
            println!("{lie:?}: {error}");
            guest.expect_given_up();
        }
    }
}
