//! Deflate on OOM: a guest out of memory reclaims from the balloon in bounded time, whatever the device does.

use ballonet::balloon::{Changes, Options, ReclaimError};
use ballonet::virtio::InterruptMode;

use super::guest::{Guest, bring_up, bring_up_as, expect_up, try_forced};
use ballonet_models::feature::{DEFLATE_ON_OOM, MUST_TELL_HOST, PAGE_REPORTING};
use ballonet_models::{Behaviour, Handling, Lie};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

fn offering(behaviour: Behaviour) -> Behaviour {
    let features = behaviour.features | DEFLATE_ON_OOM;
    behaviour.with_features(features)
}

fn refusing(behaviour: Behaviour) -> Behaviour {
    let features = behaviour.features & !DEFLATE_ON_OOM;
    behaviour.with_features(features)
}

/// A guest with a balloon of `pages` that uses all its other memory.
fn short_of_memory(behaviour: Behaviour, pages: u32) -> Guest {
    let mut guest = bring_up(behaviour);
    guest.follow(pages);
    guest.hold_all();
    assert_eq!(guest.platform.frames.free(), 0);
    guest
}

/// Frees everything that the guest uses, and waits until the balloon may grow again.
pub(super) fn recover(guest: &mut Guest) {
    while guest.platform.frames.held() > 0 {
        guest.platform.frames.unhold();
    }
    guest.driver_mut().memory_freed();
    guest.wait(5 * SECOND);
}

#[test]
fn memory_is_reclaimed_from_every_vmm_and_returned_later() {
    let mut every = Behaviour::every_device();
    every.push((String::from("conforming, packed"), Behaviour::conforming().packed()));
    every.push((String::from("conforming, legacy"), Behaviour::conforming().legacy()));
    every.push((String::from("conforming, in order"), Behaviour::conforming().in_order(true)));
    for (name, behaviour) in every {
        let mut guest = short_of_memory(offering(behaviour), 8000);
        let relief = guest.reclaim(1000);
        assert_eq!(relief.error, None, "{name}");
        assert!(relief.frames >= 1000 && relief.asked >= relief.frames, "{name}: {relief:?}");
        assert_eq!(guest.platform.frames.free(), relief.frames, "{name}: the reported frames are free");
        guest.run();
        guest.expect_balloon(8000 - relief.asked);
        guest.hold_all();
        guest.platform.frames.expect_patterns();
        recover(&mut guest);
        guest.expect_balloon(8000);
        guest.finish();
    }
}

#[test]
fn reclaim_works_without_interrupts_and_beside_other_requests() {
    for mode in [InterruptMode::PerQueue, InterruptMode::Shared, InterruptMode::Line, InterruptMode::Polling] {
        let mut guest = expect_up(try_forced(offering(Behaviour::conforming()), mode, |_| {}));
        guest.follow(8000);
        guest.hold_all();
        guest.device(ballonet_models::Balloon::request_statistics);
        assert_eq!(guest.reclaim(700).error, None, "{mode:?}");
        guest.run();
        assert_eq!(guest.device(|b, _| b.reports.len()), 2, "statistics are answered afterwards");
        recover(&mut guest);
        guest.expect_balloon(8000);
        guest.finish();
    }
}

#[test]
fn reclaim_steps_grow_while_memory_stays_short() {
    let mut guest = short_of_memory(offering(Behaviour::conforming()), 14_000);
    let mut reliefs = 0;
    while guest.driver().status().actual > 4000 {
        assert_eq!(guest.reclaim(1).error, None);
        reliefs += 1;
        guest.run();
        guest.hold_all();
    }
    assert!(reliefs <= 12, "{reliefs} times for 10000 frames, one at a time");
    recover(&mut guest);
    guest.expect_balloon(14_000);
    guest.finish();
}

#[test]
fn without_deflate_on_oom_reclaim_stops_at_the_target() {
    let mut guest = short_of_memory(refusing(Behaviour::conforming()), 8000);
    let relief = guest.reclaim(100);
    assert_eq!((relief.frames, relief.asked, relief.error), (0, 0, Some(ReclaimError::Forbidden)));
    guest.run();
    guest.expect_balloon(8000);
    // The interrupt is lost: the driver must poll.
    guest.device(|b, _| b.set_target_silently(7000));
    let relief = guest.reclaim(400);
    assert!(relief.frames >= 400 && relief.error.is_none(), "{relief:?}");
    let relief = guest.reclaim(2000);
    assert_eq!(relief.error, Some(ReclaimError::Forbidden), "{relief:?}");
    guest.run();
    guest.expect_balloon(7000);
    guest.device(|b, bus| b.set_target(7500, bus));
    guest.platform.frames.unhold();
    guest.run();
    guest.expect_balloon(7000);
    recover(&mut guest);
    guest.expect_balloon(7500);
    guest.finish();
}

#[test]
fn no_frame_is_used_before_the_device_has_returned_it() {
    // For each frame that returns too early, the model notes a misstep, which `expect_balloon` reports.
    for features in [0, MUST_TELL_HOST] {
        let behaviour = offering(Behaviour::conforming());
        let bits = behaviour.features & !MUST_TELL_HOST | features;
        let slow = Behaviour { handling: Handling::Later(5 * MS), service: 20 * MS, ..behaviour.with_features(bits) };
        let mut guest = short_of_memory(slow, 8000);
        let before = guest.machine.now();
        let relief = guest.reclaim(3000);
        assert!(relief.error.is_none() && relief.frames >= 3000, "{relief:?}");
        assert!(guest.machine.now() - before >= 5 * MS, "it cannot have been answered yet");
        guest.run();
        guest.expect_balloon(8000 - relief.asked);
        guest.finish();
    }
}

#[test]
fn inflate_requests_in_flight_complete_before_reclaim() {
    let mut guest = bring_up(offering(Behaviour::conforming()));
    guest.follow(1000);
    for pages in [9000, 12_000] {
        guest.device(|b, bus| b.set_target(pages, bus));
        while guest.driver().status().inflating == 0 {
            guest.poll_once();
        }
        guest.hold_all();
        let relief = guest.reclaim(600);
        assert!(relief.error.is_none() && relief.frames >= 600, "{relief:?}");
        guest.run();
        assert!(guest.driver().status().actual < u64::from(pages));
        recover(&mut guest);
        guest.expect_balloon(pages.into());
    }
    guest.finish();
}

#[test]
fn a_silent_device_is_awaited_once_and_works_again_when_it_answers() {
    for behaviour in [Behaviour::conforming(), Behaviour::qemu_7_2(), Behaviour::conforming().packed()] {
        let mut guest = short_of_memory(Behaviour { stolen: MS, ..offering(behaviour) }, 8000);
        guest.device(|b, _| b.stall_from_now(true));
        let before = guest.machine.now();
        let relief = guest.reclaim(1000);
        assert_eq!((relief.frames, relief.error), (0, Some(ReclaimError::Late)));
        assert!(guest.machine.now() - before < 11 * SECOND, "every wait is bounded");
        let before = guest.machine.now();
        assert_eq!(guest.reclaim(1000).error, Some(ReclaimError::Late));
        assert!(guest.machine.now() - before < SECOND / 10, "the driver does not wait for it twice");
        assert_eq!(guest.platform.frames.free(), 0, "frames that the device has not returned are not used");
        guest.device(|b, _| b.stall_from_now(false));
        guest.run();
        assert!(guest.platform.frames.free() >= 1000, "the requested frames come late");
        guest.hold_all();
        assert_eq!(guest.reclaim(1000).error, None);
        recover(&mut guest);
        guest.expect_balloon(8000);
        guest.finish();
    }
}

#[test]
fn a_device_that_stops_answering_yields_what_it_answered() {
    let mut guest = short_of_memory(Behaviour { stolen: MS, ..offering(Behaviour::conforming()) }, 8000);
    guest.device(|b, _| b.behaviour.stalls_after = Some(b.completions_so_far() + 2));
    let relief = guest.reclaim(2000);
    assert_eq!((relief.frames, relief.error), (512, Some(ReclaimError::Late)));
    assert_eq!(guest.platform.frames.free(), 512);
    guest.shut_down();
    guest.finish();
}

#[test]
fn a_lie_during_reclaim_ends_in_a_specific_error_and_an_intact_guest() {
    for lie in [Lie::IdOutOfRange, Lie::IdNotInFlight, Lie::IdRepeated, Lie::IndexJumps] {
        for base in [Behaviour::conforming(), Behaviour::qemu_7_2(), Behaviour::conforming().packed()] {
            let mut guest = short_of_memory(Behaviour { stolen: MS, ..offering(base) }, 8000);
            guest.device(|b, _| b.behaviour.lie = Some((b.completions_so_far() + 1, lie)));
            let relief = guest.reclaim(3000);
            assert!(matches!(relief.error, Some(ReclaimError::Device(_))), "{lie:?}: {relief:?}");
            let error = guest.try_run().expect_err("the driver gives up");
            assert_eq!(Some(ReclaimError::Device(error)), relief.error, "{lie:?}");
            guest.expect_given_up();
            assert_eq!(guest.reclaim(1).error, Some(ReclaimError::Stopped));
        }
    }
}

#[test]
fn nothing_is_reclaimed_from_a_removed_or_frozen_device() {
    let mut guest = short_of_memory(Behaviour { stolen: MS, ..offering(Behaviour::conforming()) }, 8000);
    guest.freeze().expect("it can be frozen");
    assert_eq!(guest.reclaim(100).error, Some(ReclaimError::Stopped));
    guest.restore().expect("it can be restored");
    assert_eq!(guest.reclaim(100).error, None);
    guest.run();
    guest.device(|b, _| b.unplug());
    let relief = guest.reclaim(5000);
    assert!(relief.error.is_some() && relief.frames < 5000, "{relief:?}");
    guest.try_run().expect_err("the device is gone");
    guest.expect_given_up();
}

#[test]
fn a_device_that_needs_a_reset_gets_it_after_reclaim() {
    let mut guest = short_of_memory(Behaviour { stolen: MS, ..offering(Behaviour::conforming()) }, 8000);
    guest.device(|b, _| b.behaviour.needs_reset_after = Some(b.completions_so_far() + 1));
    let relief = guest.reclaim(3000);
    assert!(relief.error.is_some(), "{relief:?}");
    recover(&mut guest);
    assert!(guest.changes.contains(Changes::RESET));
    guest.expect_balloon(8000);
    guest.finish();
}

#[test]
fn reclaim_waits_for_reports_in_flight_before_it_deflates() {
    let behaviour = offering(Behaviour::conforming());
    let features = behaviour.features | PAGE_REPORTING;
    let slow = Behaviour { handling: Handling::Later(2 * MS), ..behaviour.with_features(features) };
    let mut guest = bring_up(slow);
    guest.follow(2000);
    assert!(guest.platform.frames.hold(4096));
    guest.platform.frames.unhold();
    guest.driver_mut().report_now();
    guest.poll_once();
    guest.hold_all();
    assert!(guest.platform.frames.in_flight() >= 512, "reports are in flight");
    let relief = guest.reclaim(512);
    assert!(relief.error.is_none() && relief.frames >= 512, "{relief:?}");
    assert_eq!((relief.asked, guest.driver().status().actual), (0, 2000));
    recover(&mut guest);
    guest.expect_balloon(2000);
    guest.finish();
}

#[test]
fn reports_that_never_return_do_not_block_reclaim() {
    let behaviour = offering(Behaviour::conforming());
    let features = behaviour.features | PAGE_REPORTING;
    let mut guest = bring_up(Behaviour { stolen: MS, ..behaviour.with_features(features) });
    guest.follow(4000);
    assert!(guest.platform.frames.hold(4096));
    guest.platform.frames.unhold();
    guest.driver_mut().report_now();
    guest.device(|b, _| b.stall_from_now(true));
    guest.poll_once();
    guest.hold_all();
    assert_eq!(guest.reclaim(100).error, Some(ReclaimError::Late), "the device does not respond");
    guest.shut_down();
    guest.finish();
}

/// The host keeps asking for all memory while a program allocates all of it: the program gets it, the balloon does
/// not thrash, and in the end the host reaches its target.
#[test]
fn a_host_with_the_opposite_target_does_not_starve_reclaim() {
    let choose = |options: &mut Options| options.oom.cooldown = 50 * MS;
    let mut guest = bring_up_as(offering(Behaviour::conforming()), choose);
    let total = guest.platform.frames.total();
    guest.platform.frames.set_floor(256);
    let polls = guest.driver().counters().polls;
    for round in 0..40_u32 {
        if guest.platform.frames.held() > total / 4 * 3 {
            guest.platform.frames.expect_patterns();
            while guest.platform.frames.held() > 0 {
                guest.platform.frames.unhold();
            }
            guest.driver_mut().memory_freed();
        }
        // Alternating values, so that each is a new target.
        guest.device(|b, bus| b.set_target(total as u32 - round % 2, bus));
        guest.run_steps(20);
        for _ in 0..8 {
            if !guest.platform.frames.hold(128) {
                let relief = guest.reclaim(128);
                assert!(relief.error.is_none() && relief.frames >= 128, "round {round}: {relief:?}");
                // Contiguous frames may still be lacking.
                for _ in 0..128 {
                    assert!(guest.platform.frames.hold(1), "round {round}");
                }
            }
        }
        guest.wait(7 * MS);
    }
    let counters = guest.driver().counters();
    assert!(counters.reclaimed_frames > 0 && counters.failed_reclaims == 0);
    let moved = counters.inflate_frames + counters.deflate_frames;
    assert!(moved < 8 * total, "{moved} frames were moved for a program of {total}");
    assert!(counters.polls - polls < 10_000, "{} polls", counters.polls - polls);
    while guest.platform.frames.held() > 0 {
        guest.platform.frames.unhold();
    }
    guest.device(|b, bus| b.set_target(9000, bus));
    guest.wait(100 * SECOND);
    guest.expect_balloon(9000);
    guest.finish();
}

#[test]
fn changes_during_reclaim_are_reported_by_the_next_poll() {
    let mut guest = short_of_memory(offering(Behaviour::conforming()), 8000);
    guest.changes = Changes::empty();
    guest.reclaim(100);
    guest.run();
    assert!(guest.changes.contains(Changes::ACTUAL));
    assert!(guest.driver().status().cooling.is_some());
    guest.changes = Changes::empty();
    recover(&mut guest);
    assert!(guest.changes.contains(Changes::SETTLED), "the target is reached again");
    assert_eq!(guest.driver().status().cooling, None);
    guest.finish();
}
