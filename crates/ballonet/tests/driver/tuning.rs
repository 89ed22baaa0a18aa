//! Inflating adapts to the device: chains if the device reads them, reports first if that is faster, and smaller
//! batches if kicks are synchronous. All of this is measured, and loses no frame.

use ballonet::balloon::{BalloonQueue, ChainSupport, Options, Path, RequestShape, ResetReason};
use ballonet::memory::REGION_FRAMES;

use super::guest::{Guest, expect_up, try_options};
use ballonet_models::feature::{PAGE_REPORTING, RING_RESET};
use ballonet_models::{Behaviour, Costs, Handling, Quirks, Schedule};

const MS: u64 = 1_000_000;

/// A host that reclaims written memory more slowly frame by frame than by reports of ranges.
const SLOW_FRAMES: Costs = Costs { written: 1600, empty: 600, region: 170_000 };
/// A host with expensive reports.
const SLOW_REPORTS: Costs = Costs { written: 700, empty: 600, region: 900_000 };

/// A guest with this many MiB in which frames can be marked.
fn marking(ram: u32, behaviour: Behaviour, choose: impl FnOnce(&mut Options)) -> Guest {
    let mut options = Options::default();
    choose(&mut options);
    let mut guest = expect_up(try_options(ram, behaviour, options));
    guest.platform.frames.marking = true;
    guest
}

/// The device with other quirks, on which the driver tries chains.
fn with(behaviour: Behaviour, change: impl FnOnce(&mut Quirks)) -> Behaviour {
    let mut behaviour = behaviour;
    behaviour.quirks.forgives_chains = true;
    change(&mut behaviour.quirks);
    behaviour
}

fn set(guest: &Guest, pages: u32) {
    guest.device(|balloon, bus| balloon.set_target(pages, bus));
}

fn chains(guest: &Guest) -> ChainSupport {
    guest.driver().status().strategy.chains
}

#[test]
fn chain_support_is_measured_once() {
    for (name, behaviour) in Behaviour::every_device() {
        let head_only = behaviour.quirks.chains == ballonet_models::Chains::HeadOnly;
        let (known, request) = if head_only {
            (ChainSupport::HeadOnly, RequestShape::default())
        } else {
            (ChainSupport::Read, RequestShape::new(256, 2).expect("a shape"))
        };
        let mut guest = marking(64, with(behaviour, |_| {}), |_| {});
        guest.run();
        assert_eq!(chains(&guest), ChainSupport::Untried, "{name}: nothing is tried before the first target");
        for pages in [511, 6000, 10, 7000, 0] {
            guest.follow(pages);
        }
        let manner = guest.driver().status().strategy;
        assert_eq!((manner.chains, manner.request), (known, request), "{name}");
        let (skipped, largest) = guest.device(|b, _| (b.skipped, b.largest_request));
        let expected = if head_only { (1, 256) } else { (0, 512) };
        assert_eq!((skipped, largest), expected, "{name}");
        guest.finish();
    }
}

#[test]
fn a_host_with_huge_pages_reclaims_every_one_that_is_inflated() {
    for reporting in [0, PAGE_REPORTING] {
        for ring in [Behaviour::qemu_10(6), Behaviour::qemu_7_2(), Behaviour::qemu_10(2).packed()] {
            let features = ring.features | reporting;
            let huge = with(ring.with_features(features), |quirks| quirks.huge_pages = true);
            let taken_away = |shape| {
                let mut guest = marking(64, huge.clone(), |options| options.shape = shape);
                guest.follow(20 * REGION_FRAMES);
                let taken_away = guest.machine.bus(|bus| bus.ram.taken_away());
                guest.follow(0);
                guest.finish();
                taken_away
            };
            assert_eq!(taken_away(None), u64::from(20 * REGION_FRAMES));
            assert_eq!(taken_away(Some(RequestShape::default())), 0, "half a huge page at a time frees nothing");
        }
    }
}

#[test]
fn a_host_that_discards_nothing_gets_requests_that_every_device_reads() {
    let head_only =
        |quirks: &mut Quirks| (quirks.huge_pages, quirks.chains) = (true, ballonet_models::Chains::HeadOnly);
    let mut guest = marking(64, with(Behaviour::firecracker(), head_only), |_| {});
    guest.follow(8000);
    assert_eq!(
        (chains(&guest), guest.driver().status().strategy.request),
        (ChainSupport::Unclear, RequestShape::default())
    );
    guest.follow(0);
    guest.finish();
}

#[test]
fn no_chain_trial_without_marks_or_with_a_chosen_shape() {
    let mut plain = marking(64, Behaviour::conforming(), |_| {});
    plain.platform.frames.marking = false;
    plain.follow(8000);
    plain.platform.frames.marking = true;
    plain.follow(0);
    plain.follow(8000);
    assert_eq!((chains(&plain), plain.device(|b, _| b.largest_request)), (ChainSupport::Unclear, 256));
    plain.finish();
    let mut chosen = marking(64, Behaviour::conforming(), |options| options.shape = RequestShape::new(256, 4));
    chosen.follow(8000);
    assert_eq!((chains(&chosen), chosen.device(|b, _| b.largest_request)), (ChainSupport::Untried, 1024));
    chosen.finish();
}

#[test]
fn a_device_that_never_returns_a_chain_is_reset_and_gets_no_other() {
    for reporting in [0, PAGE_REPORTING] {
        let features = Behaviour::conforming().features | reporting;
        let lost = with(Behaviour::conforming().with_features(features), |q| q.chains = ballonet_models::Chains::Lost);
        let mut guest = marking(64, lost, |_| {});
        set(&guest, 8000);
        guest.wait(1900 * MS);
        assert_eq!((guest.driver().counters().resets, guest.driver().status().inflating), (0, 512), "it may be slow");
        guest.wait(200 * MS);
        guest.expect_balloon(8000);
        let report = guest.driver().status().last_reset.expect("a reset");
        assert_eq!((report.reason, report.inflating), (ResetReason::Unanswered, 512));
        guest.follow(0);
        guest.follow(6000);
        assert_eq!((chains(&guest), guest.driver().counters().resets), (ChainSupport::Unanswered, 1));
        guest.finish();
    }
}

#[test]
fn a_slow_device_is_waited_for() {
    for seed in 0..8 {
        let schedule = Schedule::new(vec![u16::MAX / 8 * seed, 40_000, 100, 60_000, 20_000]);
        let slow = Behaviour { service: 300 * MS, schedule, ..Behaviour::conforming() };
        let mut guest = marking(64, slow, |_| {});
        guest.follow(8000);
        assert_eq!((chains(&guest), guest.driver().counters().resets), (ChainSupport::Read, 0));
        guest.finish();
    }
}

/// A device that reads chains, offers reports, and has `RING_RESET`.
fn able() -> Behaviour {
    let features = Behaviour::conforming().features | PAGE_REPORTING | RING_RESET;
    Behaviour { costs: Some(SLOW_FRAMES), ..Behaviour::conforming().with_features(features) }
}

#[test]
fn a_reversed_target_during_a_trial_is_followed() {
    for steps in 0..16 {
        for target in [0, 100, 512, 9000] {
            let mut guest = marking(64, able(), |_| {});
            set(&guest, 8000);
            guest.run_steps(steps);
            set(&guest, target);
            guest.run();
            guest.expect_balloon(target.into());
            guest.follow(0);
            guest.finish();
        }
    }
}

#[test]
fn any_event_during_a_trial_leaves_every_frame_accounted_for() {
    type Blow = fn(&mut Guest);
    let blows: [Blow; 5] = [
        |guest| guest.reset().expect("it starts again"),
        |guest| {
            guest.freeze().expect("it stops");
            guest.restore().expect("it starts");
        },
        |guest| guest.reset_queue(BalloonQueue::Inflate).expect("it can"),
        |guest| guest.reset_queue(BalloonQueue::Deflate).expect("it can"),
        |guest| {
            guest.shut_down();
            guest.start_again();
        },
    ];
    for steps in 0..16 {
        for blow in blows {
            let mut guest = marking(64, able(), |_| {});
            set(&guest, 8000);
            guest.run_steps(steps);
            blow(&mut guest);
            guest.run();
            guest.expect_balloon(8000);
            assert_eq!(chains(&guest), ChainSupport::Read);
            guest.follow(0);
            guest.finish();
        }
    }
}

#[test]
fn a_device_removed_during_a_trial_leaves_all_memory_to_the_guest() {
    for steps in 0..16 {
        let features = able().features & !ballonet_models::feature::MUST_TELL_HOST;
        let mut guest = marking(64, able().with_features(features), |_| {});
        set(&guest, 8000);
        guest.run_steps(steps);
        guest.device(|b, _| b.unplug());
        guest.driver_mut().recheck();
        assert!(guest.try_run().is_err());
        assert_eq!(guest.platform.frames.free(), guest.platform.frames.total());
        guest.expect_given_up();
    }
}

/// A guest in which, since everything was reported, this many frames were written and freed, and twice as many were
/// not.
fn with_written(behaviour: Behaviour, frames: u32) -> Guest {
    let mut guest = marking(frames * 3 / 256, behaviour, |options| options.reporting.threshold = 1 << 40);
    guest.run();
    for _ in 0..2 {
        assert!(guest.platform.frames.hold(frames / 2));
    }
    guest.platform.frames.unhold();
    guest.platform.frames.unhold();
    guest
}

fn reported(guest: &Guest) -> u64 {
    guest.device(|b, _| b.reported)
}

#[test]
fn the_faster_path_is_measured_and_taken() {
    for (costs, way) in [(SLOW_FRAMES, Path::ReportFirst), (SLOW_REPORTS, Path::Direct)] {
        for handling in [Handling::AtOnce, Handling::Later(20_000)] {
            let mut guest = with_written(Behaviour { costs: Some(costs), handling, ..able() }, 49_152);
            let before = reported(&guest);
            guest.follow(49_152);
            assert_eq!(guest.driver().status().strategy.path, Some(way), "{handling:?}");
            let first = reported(&guest) - before;
            // Two trials of 4096 frames on each path, and the region of the chain trial.
            let expected = if way == Path::ReportFirst { 49_152 - 8192 - 512 } else { 8192 };
            assert!(first.abs_diff(expected) <= 1024, "{first} of {expected} frames were reported first");
            guest.follow(0);
            guest.finish();
        }
    }
}

#[test]
fn used_memory_is_inflated_first_and_reported_first() {
    let mut guest = with_written(able(), 8192);
    assert_eq!(guest.platform.frames.unreported_regions(), 16);
    guest.follow(8192);
    assert!(guest.platform.frames.unreported_regions() <= 2, "nearly all remaining memory is reported");
    guest.follow(0);
    guest.finish();
}

#[test]
fn a_reversed_target_while_frames_are_pre_reported_is_followed() {
    for steps in (0..36).step_by(3) {
        for target in [0, 700, 9000] {
            let mut guest = with_written(able(), 8192);
            set(&guest, 8000);
            guest.run_steps(steps);
            set(&guest, target);
            guest.run();
            guest.expect_balloon(target.into());
            guest.finish();
        }
    }
}

#[test]
fn a_reset_while_frames_are_reported_first_loses_none() {
    for steps in (0..36).step_by(3) {
        let mut guest = with_written(able(), 8192);
        set(&guest, 8000);
        guest.run_steps(steps);
        guest.reset().expect("it starts again");
        guest.run();
        guest.expect_balloon(8000);
        guest.finish();
    }
}

#[test]
fn inflating_does_not_wait_for_reports_that_do_not_return() {
    let mut guest = with_written(able(), 8192);
    guest.device(|b, _| b.behaviour.quirks.ignores_reports = true);
    set(&guest, 10_000);
    guest.wait(900 * MS);
    let status = guest.driver().status();
    assert!(status.actual < 10_000 && status.reporting > 0, "{status:?}");
    guest.wait(2000 * MS);
    let status = guest.driver().status();
    assert_eq!(status.actual + status.reporting, 10_000, "all frames except those in reports");
    assert!(status.actual > 0, "{status:?}");
    guest.shut_down();
    guest.platform.frames.expect_whole();
    guest.expect_nothing_allocated();
}

#[test]
fn a_synchronous_kick_blocks_the_cpu_for_a_few_milliseconds() {
    let largest = |handling| {
        let features = able().features & !PAGE_REPORTING;
        let device =
            Behaviour { handling, costs: Some(SLOW_FRAMES), queue_size: 256, ..able().with_features(features) };
        let mut guest = marking(256, device, |_| {});
        guest.follow(49_152);
        let largest = guest.device(|b, _| b.largest_batch) as u64;
        guest.follow(0);
        guest.finish();
        largest
    };
    // A request of 512 frames takes 0.8 ms, and one of 256 half of that.
    let at_once = largest(Handling::AtOnce);
    assert!((4..=16).contains(&at_once), "{at_once} requests");
    let beside = largest(Handling::Later(20_000));
    assert!(beside >= 48, "{beside} requests");
}
