//! A balloon survives resets by either side at any moment, a freeze, and the removal of its device: every frame is
//! accounted for, and work continues while there is a device.

use ballonet::balloon::{BalloonError, BalloonQueue, Changes, Options, ResetReason};
use ballonet::virtio::TransportError;

use super::guest::{Guest, expect_up, try_options};
use ballonet_models::{Balloon, Behaviour, HostSide, Lie, feature};

mod removal;

/// RAM of the guests, in MiB.
const RAM: u32 = 24;

/// Devices that differ in what a reset must handle: rings, interrupts, service times.
fn kinds() -> [(&'static str, Behaviour); 6] {
    [
        ("conforming", Behaviour::conforming()),
        ("conforming, packed", Behaviour::conforming().packed()),
        ("QEMU 7.2", Behaviour::qemu_7_2()),
        ("QEMU 10, vectors=2", Behaviour::qemu_10(2)),
        ("slow", Behaviour { service: 400_000, reset_time: 50_000, ..Behaviour::qemu_10(6) }),
        ("legacy", Behaviour::conforming().legacy()),
    ]
}

/// Starts the driver with few requests in flight, so that little memory makes long traffic.
#[track_caller]
fn bring_up(behaviour: Behaviour) -> Guest {
    expect_up(try_options(RAM, behaviour, few_in_flight()))
}

fn few_in_flight() -> Options {
    let mut options = Options::default();
    options.window = 3;
    options
}

/// Without `MUST_TELL_HOST`, which requires telling the host before frames are used again.
fn lenient(behaviour: Behaviour) -> Behaviour {
    let features = behaviour.features & !feature::MUST_TELL_HOST;
    behaviour.with_features(features)
}

// DEVICE_NEEDS_RESET.

/// The last reset: its reason, its queue, and the frames that were inflating and deflating.
fn last_reset(guest: &Guest) -> Option<(ResetReason, Option<BalloonQueue>, u64, u64)> {
    guest.driver().status().last_reset.map(|report| (report.reason, report.queue, report.inflating, report.deflating))
}

#[test]
fn a_device_that_needs_a_reset_after_any_completion_gets_one_and_the_target_is_met() {
    for (name, kind) in kinds() {
        for after in 0..18 {
            let mut guest = bring_up(Behaviour { needs_reset_after: Some(after), ..kind.clone() });
            for pages in [1500, 100, 2000] {
                guest.follow(pages);
            }
            let resets = u64::from(guest.device(|b, _| b.behaviour.needs_resets == 0));
            assert_eq!(guest.driver().counters().resets, resets, "{name}, after {after}");
            assert_eq!(guest.changes.contains(Changes::RESET), resets == 1);
            guest.finish();
        }
    }
}

#[test]
fn a_needed_reset_is_reported_with_the_frames_in_flight() {
    let mut guest = bring_up(Behaviour { service: 1_000_000, ..Behaviour::conforming() });
    guest.device(|b, bus| {
        b.stall_from_now(true);
        b.set_target(4000, bus);
    });
    guest.run();
    let inflating = guest.driver().status().inflating;
    assert_ne!(inflating, 0);
    assert_eq!(guest.driver().status().last_reset, None);
    guest.device(|b, bus| {
        b.stall_from_now(false);
        b.raise_needs_reset(bus);
    });
    guest.run();
    assert_eq!(last_reset(&guest), Some((ResetReason::NeedsReset, None, inflating, 0)));
    guest.expect_balloon(4000);
    guest.finish();
}

#[test]
fn a_needed_reset_without_an_interrupt_is_found_by_polling() {
    let mut guest = bring_up(Behaviour::conforming());
    guest.run();
    guest.device(|b, bus| {
        b.common.need_reset();
        b.set_target_silently(500);
        b.work(bus);
    });
    guest.run();
    assert_eq!(guest.driver().counters().resets, 0);
    guest.driver_mut().recheck();
    guest.run();
    assert_eq!(guest.driver().counters().resets, 1);
    guest.expect_balloon(500);
    guest.finish();
}

#[test]
fn a_device_that_always_needs_a_reset_is_given_up_on() {
    for (name, kind) in kinds() {
        for after in [0, 1, 2] {
            let mut guest =
                bring_up(Behaviour { needs_reset_after: Some(after), needs_resets: u32::MAX, ..kind.clone() });
            guest.device(|b, bus| b.set_target(3000, bus));
            let error = guest.try_run().expect_err(name);
            assert!(matches!(error, BalloonError::ResetsInVain { resets: 3, window_ms: 60_000, .. }), "{error}");
            println!("{name}: {error}");
            guest.expect_given_up();
            assert!(guest.device(|b, _| b.common.failed()));
            assert_eq!(guest.driver().counters().resets, 3);
            guest.shut_down();
            guest.finish();
        }
    }
}

#[test]
fn a_device_that_occasionally_needs_a_reset_is_never_given_up_on() {
    let mut guest = bring_up(Behaviour { needs_resets: u32::MAX, ..Behaviour::conforming() });
    for round in 1..10 {
        guest.device(|b, _| b.behaviour.needs_reset_after = Some(3));
        guest.device(|b, bus| b.set_target(1200 * (round % 2), bus));
        while guest.driver().counters().resets < u64::from(round) {
            guest.run_steps(1);
        }
        guest.device(|b, _| b.behaviour.needs_reset_after = None);
        guest.run();
        guest.expect_balloon((1200 * (round % 2)).into());
        guest.machine.pass(25_000_000_000);
    }
    guest.finish();
}

#[test]
fn a_driver_without_recoveries_gives_up_at_once() {
    let mut options = few_in_flight();
    options.recoveries = 0;
    let behaviour = Behaviour { needs_reset_after: Some(2), ..Behaviour::conforming() };
    let mut guest = expect_up(try_options(RAM, behaviour, options));
    guest.device(|b, bus| b.set_target(3000, bus));
    assert!(matches!(guest.try_run(), Err(BalloonError::NeedsReset(_))));
    guest.expect_given_up();
    guest.shut_down();
    guest.finish();
}

#[test]
fn a_device_that_does_not_start_again_is_given_up_on_without_loss() {
    let broken: [fn(&mut Behaviour); 3] =
        [|b| b.refuses_features = true, |b| b.num_queues = Some(0), |b| b.notify_off = Some(0x2000)];
    for break_it in broken {
        let mut guest = bring_up(Behaviour { needs_reset_after: Some(5), ..Behaviour::conforming() });
        guest.device(|b, bus| {
            break_it(&mut b.behaviour);
            b.set_target(3000, bus);
        });
        let error = guest.try_run().unwrap_err();
        println!("{error}");
        guest.expect_given_up();
        assert_eq!(guest.driver().status().failed, Some(error));
        guest.shut_down();
        guest.finish();
    }
}

// Resets by the driver.

#[test]
fn a_reset_at_any_point_of_the_traffic_loses_no_frame_and_the_target_is_met() {
    for (name, kind) in kinds() {
        for steps in 0..16 {
            for turn in [None, Some(700)] {
                let mut guest = bring_up(kind.clone());
                assert!(guest.platform.frames.hold(64));
                guest.device(|b, bus| b.set_target(3000, bus));
                guest.run_steps(steps);
                if let Some(pages) = turn {
                    guest.run();
                    guest.device(|b, bus| b.set_target(pages, bus));
                    guest.run_steps(steps);
                }
                let before = guest.driver().status();
                guest.reset().unwrap_or_else(|error| panic!("{name}: {error}"));
                guest.platform.frames.expect_whole();
                assert_eq!(guest.platform.frames.in_flight(), 0, "nothing is in flight after a reset");
                assert_eq!(guest.platform.frames.ballooned_frames(), before.actual);
                let report = guest.driver().status().last_reset.unwrap();
                assert_eq!((report.inflating, report.deflating), (before.inflating, before.deflating));
                guest.run();
                guest.expect_balloon(turn.unwrap_or(3000).into());
                guest.platform.frames.expect_patterns();
                guest.finish();
            }
        }
    }
}

#[test]
fn two_hundred_resets_during_traffic_leave_counters_and_memory_correct() {
    let mut guest = bring_up(Behaviour { service: 200_000, ..Behaviour::qemu_10(6) });
    assert!(guest.platform.frames.hold(64));
    let allocated = guest.machine.allocated();
    let mut interrupts = 0;
    for round in 0..200_u32 {
        guest.device(|b, bus| b.set_target(round.wrapping_mul(7919) % 4000, bus));
        guest.run_steps(round % 9);
        match round % 4 {
            0 | 2 => guest.reset().unwrap(),
            1 => guest.reset_queue(BalloonQueue::Inflate).unwrap(),
            _ => guest.reset_queue(BalloonQueue::Deflate).unwrap(),
        }
        assert_eq!(guest.machine.allocated(), allocated, "reset {round}");
        let counters = guest.driver().counters();
        let so_far = counters.config_interrupts + counters.vring_interrupts;
        assert!(so_far >= interrupts, "counts continue across resets");
        interrupts = so_far;
    }
    let counters = guest.driver().counters();
    assert_eq!((counters.resets, counters.queue_resets), (100, 100));
    guest.follow(3210);
    guest.platform.frames.expect_patterns();
    guest.finish();
}

#[test]
fn a_driver_that_gave_up_on_a_lie_can_be_started_again() {
    let mut guest = bring_up(Behaviour { lie: Some((7, Lie::IdOutOfRange)), ..Behaviour::conforming() });
    guest.device(|b, bus| b.set_target(4000, bus));
    assert!(matches!(guest.try_run(), Err(BalloonError::Queue { queue: "inflate", .. })));
    guest.expect_given_up();
    assert!(guest.freeze().is_err() && guest.restore().is_err(), "neither repairs it");
    guest.reset().unwrap();
    assert_eq!(guest.driver().status().failed, None);
    guest.run();
    guest.expect_balloon(4000);
    guest.follow(0);
    guest.finish();
}

#[test]
fn queues_interrupt_the_same_cpus_after_a_reset() {
    let mut guest = bring_up(Behaviour::qemu_10(6));
    guest.move_queue("inflate", 2).unwrap();
    guest.move_queue("inflate", 3).unwrap();
    guest.reset().unwrap();
    assert_eq!(["inflate", "deflate"].map(|queue| guest.cpu_of(queue)), [Some(3), Some(0)]);
    guest.follow(3000);
    guest.finish();
}

#[test]
fn a_reset_that_never_ends_withholds_frames_in_flight_and_the_driver_gives_up() {
    let mut guest = bring_up(Behaviour::conforming());
    guest.follow(4000);
    guest.device(|b, bus| {
        b.stall_from_now(true);
        b.set_target(10, bus);
    });
    guest.run();
    let deflating = guest.driver().status().deflating;
    assert_ne!(deflating, 0);
    guest.device(|b, _| b.behaviour.reset_time = u64::MAX);
    assert!(matches!(guest.reset(), Err(BalloonError::Transport(TransportError::ResetTimeout { .. }))));
    let status = guest.driver().status();
    assert_eq!((status.withheld, status.actual), (deflating, 4000 - deflating));
    assert_eq!(guest.platform.frames.in_flight(), deflating, "they stay unused");
    assert!(guest.device(|b, _| b.common.failed() && !b.config.bus_master()));
    assert_eq!(guest.machine.allocated().vectors, 0, "no handler may stay");
    guest.machine.expect_no_missteps();
    guest.platform.frames.expect_whole();
}

#[test]
fn memory_of_a_slow_device_is_reclaimed_once_its_reset_completes() {
    for (first, then) in [(0, 4000), (4000, 10)] {
        // A reset that does not complete takes seconds of model time: test only the two most different kinds.
        for (name, kind) in kinds().into_iter().step_by(5) {
            let features = kind.features | feature::PAGE_REPORTING;
            let mut guest = bring_up(kind.with_features(features));
            guest.follow(first);
            guest.device(|b, bus| {
                b.stall_from_now(true);
                b.set_target(then, bus);
            });
            assert!(guest.platform.frames.hold(1024));
            guest.platform.frames.unhold();
            guest.driver_mut().report_now();
            guest.run();
            let in_flight = guest.platform.frames.in_flight();
            guest.device(|b, _| b.behaviour.reset_time = u64::MAX);
            for _ in 0..2 {
                guest.reset().expect_err("a device that is not seen to be reset");
                assert_eq!(guest.driver().status().withheld, in_flight, "{name}");
                assert_eq!(guest.platform.frames.in_flight(), in_flight, "{name}: they stay unused");
            }
            guest.device(|b, _| {
                b.stall_from_now(false);
                b.behaviour.reset_time = 0;
            });
            guest.reset().unwrap();
            guest.run();
            assert_eq!(guest.driver().status().withheld, 0, "{name}");
            guest.expect_balloon(then.into());
            guest.follow(first);
            guest.finish();
        }
    }
}

// Resets of queues.

/// Devices whose queues can be reset one by one.
fn resettable() -> impl Iterator<Item = (&'static str, Behaviour)> {
    kinds().into_iter().filter(|(name, _)| *name != "legacy").map(|(name, kind)| {
        let features = kind.features | feature::RING_RESET;
        (name, kind.with_features(features))
    })
}

#[test]
fn a_queue_reset_at_any_point_of_the_traffic_loses_no_frame_and_the_target_is_met() {
    for (name, kind) in resettable() {
        for steps in 0..12 {
            for queue in [BalloonQueue::Inflate, BalloonQueue::Deflate, BalloonQueue::Statistics] {
                let mut guest = bring_up(kind.clone());
                assert!(guest.platform.frames.hold(64));
                guest.device(|b, bus| b.set_target(3000, bus));
                guest.run_steps(steps);
                guest.reset_queue(queue).unwrap_or_else(|error| panic!("{name}: {error}"));
                guest.run();
                guest.expect_balloon(3000);
                guest.device(|b, bus| b.set_target(700, bus));
                guest.run_steps(steps);
                guest.reset_queue(queue).unwrap_or_else(|error| panic!("{name}: {error}"));
                guest.platform.frames.expect_whole();
                let in_flight = guest.driver().status().inflating + guest.driver().status().deflating;
                assert_eq!(guest.platform.frames.in_flight(), in_flight);
                guest.run();
                guest.expect_balloon(700);
                guest.platform.frames.expect_patterns();
                let counters = guest.driver().counters();
                assert_eq!((counters.queue_resets, counters.resets), (2, 0), "{name}, {queue}");
                let reports = guest.device(|b, _| b.reports.len());
                assert!(guest.device(Balloon::request_statistics), "{name}: a statistics buffer waits for the device");
                guest.run();
                assert_eq!(guest.device(|b, _| b.reports.len()), reports + 1);
                guest.finish();
            }
        }
    }
}

#[test]
fn unfinished_requests_are_sent_again_after_a_queue_reset_and_reported() {
    for (name, kind) in resettable() {
        for (queue, first, then) in [(BalloonQueue::Inflate, 0, 3000), (BalloonQueue::Deflate, 3000, 0)] {
            let mut guest = bring_up(kind.clone());
            guest.follow(first);
            guest.device(|b, bus| {
                b.stall_from_now(true);
                b.set_target(then, bus);
            });
            guest.run();
            let status = guest.driver().status();
            let expected = (ResetReason::Asked, Some(queue), status.inflating, status.deflating);
            assert_ne!(status.inflating + status.deflating, 0);
            guest.reset_queue(queue).unwrap();
            assert_eq!(last_reset(&guest), Some(expected), "{name}");
            let mut still = status;
            still.last_reset = guest.driver().status().last_reset;
            assert_eq!(guest.driver().status(), still, "everything is still in flight");
            guest.device(|b, _| b.stall_from_now(false));
            guest.run();
            guest.expect_balloon(then.into());
            guest.finish();
        }
    }
}

#[test]
fn a_queue_that_cannot_be_reset_alone_is_not_touched() {
    let mut guest = bring_up(Behaviour::conforming());
    guest.device(|b, bus| b.set_target(3000, bus));
    guest.run_steps(2);
    let accesses = guest.device(|b, _| b.accesses());
    let error = guest.reset_queue(BalloonQueue::Inflate).unwrap_err();
    assert!(matches!(error, BalloonError::Transport(TransportError::NoQueueReset { .. })), "{error}");
    assert_eq!(guest.device(|b, _| b.accesses()), accesses);
    guest.run();
    guest.expect_balloon(3000);
    guest.freeze().unwrap();
    assert!(matches!(guest.reset_queue(BalloonQueue::Inflate), Err(BalloonError::Frozen(_))));
    guest.finish();
}

#[test]
fn a_failed_queue_reset_leads_to_a_device_reset() {
    let broken: [fn(&mut Behaviour); 2] = [|b| b.queue_reset_time = u64::MAX, |b| b.size_lie = Some(16)];
    for break_it in broken {
        for (name, kind) in resettable() {
            let mut guest = bring_up(kind);
            guest.device(|b, bus| {
                b.set_target(3000, bus);
                break_it(&mut b.behaviour);
            });
            guest.run_steps(3);
            let error = guest.reset_queue(BalloonQueue::Inflate).unwrap_err();
            println!("{name}: {error}");
            assert_eq!((guest.driver().status().failed, guest.driver().counters().resets), (None, 1));
            guest.run();
            guest.expect_balloon(3000);
            guest.finish();
        }
    }
}

#[test]
fn a_queue_reset_without_memory_stops_the_driver_without_loss() {
    for (_, kind) in resettable() {
        let mut guest = bring_up(kind);
        guest.device(|b, bus| b.set_target(3000, bus));
        guest.run_steps(2);
        guest.machine.limit_dma(0);
        assert!(matches!(guest.reset_queue(BalloonQueue::Inflate), Err(BalloonError::Memory(_))));
        guest.expect_given_up();
        guest.machine.limit_dma(usize::MAX);
        guest.reset().unwrap();
        guest.run();
        guest.expect_balloon(3000);
        guest.finish();
    }
}

// Freezing.

#[test]
fn a_balloon_frozen_at_any_point_resumes_towards_the_current_target() {
    for (name, kind) in kinds() {
        for steps in 0..12 {
            let mut guest = bring_up(kind.clone());
            guest.device(|b, bus| b.set_target(3000, bus));
            guest.run_steps(steps);
            guest.freeze().unwrap();
            guest.expect_nothing_allocated();
            assert!(guest.driver().status().frozen && guest.device(|b, _| b.common.is_reset()), "{name}");
            let (actual, accesses) = (guest.driver().status().actual, guest.device(|b, _| b.accesses()));
            guest.device(|b, _| b.set_target_silently(834));
            guest.driver_mut().recheck();
            guest.run();
            guest.freeze().unwrap();
            assert_eq!(guest.device(|b, _| b.accesses()), accesses, "a frozen device is not accessed");
            assert_eq!(guest.platform.frames.ballooned_frames(), actual);
            guest.restore().unwrap();
            guest.restore().unwrap();
            guest.run();
            guest.expect_balloon(834);
            assert_eq!(guest.driver().counters().resets, 0);
            guest.finish();
        }
    }
}

#[test]
fn a_frozen_balloon_can_be_shut_down_but_refuses_other_requests() {
    let mut guest = bring_up(Behaviour::qemu_10(6));
    guest.follow(2000);
    guest.freeze().unwrap();
    assert!(matches!(guest.move_queue("inflate", 1), Err(BalloonError::Frozen(_))));
    guest.shut_down();
    guest.start_again();
    guest.run();
    guest.follow(0);
    guest.finish();
}

// Removal.
