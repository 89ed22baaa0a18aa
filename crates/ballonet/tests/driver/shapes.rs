//! Requests of several descriptors, chained and through indirect tables, and queues that the driver makes smaller.

use ballonet::balloon::RequestShape;
use ballonet::virtio::TransportKind;
use ballonet::virtio::spec::Features;

use super::guest::{bring_up_as, expect_up, try_by};
use ballonet_models::feature::{EVENT_IDX, INDIRECT_DESC};
use ballonet_models::{Balloon, Behaviour};

/// A device that takes requests of any shape.
fn device() -> Behaviour {
    Behaviour::conforming()
}

fn shape(frames: u16, descriptors: u16) -> RequestShape {
    RequestShape::new(frames, descriptors).expect("a shape")
}

#[test]
fn requests_have_the_shape_that_was_chosen_chained_or_through_a_table() {
    for (frames, descriptors) in [(256, 2), (64, 4), (1, 1), (1, 16), (100, 3)] {
        for indirect in [false, true] {
            for behaviour in [device(), device().packed(), device().in_order(true), device().in_order(true).packed()] {
                let mut guest = bring_up_as(behaviour, |options| {
                    options.shape = Some(shape(frames, descriptors));
                    options.declined = if indirect { Features::empty() } else { Features::INDIRECT_DESC };
                });
                assert_eq!(guest.device(|b, _| b.common.accepted()) & INDIRECT_DESC != 0, indirect);
                for pages in [6000, 10, 2000, 0] {
                    guest.follow(pages);
                }
                let frames = usize::from(frames) * usize::from(descriptors);
                assert_eq!(guest.device(|b, _| b.largest_request), frames);
                assert_eq!(guest.device(|b, _| b.tables > 0), indirect && descriptors > 1);
                guest.finish();
            }
        }
    }
}

#[test]
fn a_table_is_used_only_if_offered_and_never_for_one_descriptor() {
    let without = device().with_features(device().features & !INDIRECT_DESC);
    for (behaviour, shape) in [(without, Some(shape(64, 4))), (device(), None)] {
        let mut guest = bring_up_as(behaviour, |options| options.shape = shape);
        guest.follow(6000);
        assert_eq!(guest.device(|b, _| b.tables), 0);
        guest.finish();
    }
}

#[test]
fn no_request_is_longer_than_its_queue() {
    for queue_size in [1, 2, 3, 8] {
        for behaviour in [device(), device().packed()] {
            for indirect in [false, true] {
                let mut guest = bring_up_as(behaviour.clone(), |options| {
                    (options.shape, options.queue_size) = (Some(shape(32, 5)), queue_size);
                    options.declined = if indirect { Features::empty() } else { Features::INDIRECT_DESC };
                });
                for pages in [3000, 10, 2000, 0] {
                    guest.follow(pages);
                }
                guest.finish();
            }
        }
    }
}

#[test]
fn queues_have_the_requested_size_and_statistics_work_at_every_size() {
    for queue_size in [1, 2, 3, 5, 16, 48, 64, 1000] {
        for event_idx in [false, true] {
            let features = if event_idx { device().features } else { device().features & !EVENT_IDX };
            let split = device().with_features(features);
            for (behaviour, expected) in
                [(split.clone(), 1 << queue_size.min(64_u16).ilog2()), (split.packed(), queue_size.min(64))]
            {
                let mut guest = bring_up_as(behaviour, |options| options.queue_size = queue_size);
                let sizes: Vec<_> = guest.driver_mut().queues().map(|(_, size)| size).collect();
                assert_eq!(sizes, [expected; 3]);
                assert_eq!(guest.device(|b, _| b.queue(2).size()), expected, "the device has the size");
                for pages in [3000, 10, 4000, 0] {
                    guest.follow(pages);
                    let reports = guest.device(|b, _| b.reports.len());
                    assert!(guest.device(Balloon::request_statistics));
                    guest.run();
                    assert_eq!(guest.device(|b, _| b.reports.len()), reports + 1);
                }
                guest.finish();
            }
        }
    }
}

#[test]
fn a_legacy_device_keeps_its_own_queue_size() {
    let behaviour = Behaviour { queue_size: 64, ..device() }.legacy();
    let mut guest = expect_up(try_by(behaviour, TransportKind::Legacy, |options| {
        (options.queue_size, options.shape) = (8, Some(shape(64, 4)));
    }));
    assert!(guest.driver_mut().queues().all(|(_, size)| size == 64));
    guest.follow(4000);
    guest.follow(0);
    guest.finish();
}
