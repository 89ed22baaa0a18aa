//! Free page hinting: a migrating host learns in rounds which memory is free. The driver keeps hinted frames until the
//! host is done; a kernel out of memory can reclaim them earlier.

use ballonet::balloon::{BalloonQueue, Changes, HintOutcome, HintReport};
use proptest::prelude::*;

use super::guest::{Guest, bring_up, bring_up_as, bring_up_sized};
use super::reclaim::recover;
use ballonet_models::{Behaviour, Handling, Schedule, feature};

const STOP: u32 = 0;
const DONE: u32 = 1;

fn offering(behaviour: Behaviour) -> Behaviour {
    let features = behaviour.features | feature::FREE_PAGE_HINT;
    behaviour.with_features(features)
}

/// Every device by name, and each with only its legacy interface.
fn every_device() -> Vec<(String, Behaviour)> {
    let modern = Behaviour::every_device();
    let legacy = [Behaviour::conforming(), Behaviour::qemu_7_2()].map(|b| ("legacy".to_string(), b.legacy()));
    modern.into_iter().chain(legacy).map(|(name, behaviour)| (name, offering(behaviour))).collect()
}

fn command(guest: &mut Guest, command: u32) {
    guest.device(|balloon, bus| balloon.command_hints(command, bus));
    guest.run();
    guest.machine.expect_no_missteps();
}

/// The commands that the driver has sent since the last call.
fn said(guest: &Guest) -> Vec<u32> {
    guest.device(|balloon, _| std::mem::take(&mut balloon.hints.commands))
}

fn last(guest: &Guest) -> Option<(u32, HintOutcome)> {
    guest.driver().status().last_hints.map(|HintReport { id, outcome, .. }| (id, outcome))
}

fn heeded(guest: &Guest) -> u64 {
    guest.device(|balloon, _| balloon.hints.heeded)
}

/// Panics unless all hinted frames are free again.
#[track_caller]
fn expect_all_back(guest: &Guest) {
    assert_eq!((guest.driver().status().hinted, guest.platform.frames.in_flight()), (0, 0));
    guest.platform.frames.expect_whole();
}

#[test]
fn each_round_hints_nearly_all_free_memory_once_and_returns_it_when_done() {
    for (name, behaviour) in every_device() {
        let mut guest = bring_up(behaviour);
        guest.run();
        let free = guest.platform.frames.free();
        command(&mut guest, 7);
        let hinted = guest.driver().status().hinted;
        assert_eq!((said(&guest), last(&guest)), (vec![7, STOP], Some((7, HintOutcome::Complete))), "{name}");
        assert_eq!((heeded(&guest), guest.platform.frames.in_flight()), (hinted, hinted), "{name}");
        let kept = free - hinted;
        assert!(kept >= free / 16 && kept <= free / 16 + 1024, "{name}: {kept} of {free} frames stay with the guest");
        assert!(!guest.changes.contains(Changes::UNHINTED));
        command(&mut guest, DONE);
        assert!(guest.changes.contains(Changes::HINTED | Changes::UNHINTED), "{name}");
        expect_all_back(&guest);
        assert_eq!((said(&guest), guest.platform.frames.free()), (vec![], free), "{name}");
        let counters = guest.driver().counters();
        assert_eq!((counters.hint_rounds, counters.hinted_frames, counters.relinquished_frames), (1, hinted, 0));
        guest.follow(1000);
        guest.finish();
    }
}

#[test]
fn hints_are_the_longest_runs_of_free_memory() {
    let mut guest = bring_up_sized(512, offering(Behaviour::conforming()));
    command(&mut guest, 2);
    assert_eq!(guest.device(|b, _| b.hints.longest), 16384, "64 MiB in a buffer");
    let hints = guest.device(|b, _| b.queue_of(ballonet_models::Purpose::Hint).map(|queue| b.queue(queue).completed));
    assert!(hints.unwrap() < 40, "{hints:?} buffers for half a gigabyte");
    guest.finish();
}

#[test]
fn a_stopped_round_is_closed_and_its_id_opens_no_other() {
    let mut guest = bring_up(offering(Behaviour { service: 4_000_000, ..Behaviour::conforming() }));
    guest.run();
    guest.device(|b, bus| b.command_hints(5, bus));
    guest.run_steps(3);
    command(&mut guest, STOP);
    assert_eq!(said(&guest), [5, STOP]);
    let hinted = guest.driver().status().hinted;
    assert!(hinted > 0, "the driver keeps hinted frames");
    command(&mut guest, 5);
    assert_eq!((said(&guest), guest.driver().status().hinted), (vec![], hinted));
    command(&mut guest, 6);
    assert_eq!((said(&guest), last(&guest)), (vec![6, STOP], Some((6, HintOutcome::Complete))));
    command(&mut guest, DONE);
    expect_all_back(&guest);
    command(&mut guest, 6);
    assert_eq!(said(&guest), [6, STOP], "the host was done with that ID");
    guest.finish();
}

#[test]
fn a_new_round_closes_the_open_one_and_hints_everything_again() {
    for service in [0, 300_000] {
        let mut guest = bring_up(offering(Behaviour { service, queue_size: 8, ..Behaviour::conforming() }));
        guest.run();
        command(&mut guest, 0x8000_0000);
        let (hinted, first) = (guest.driver().status().hinted, heeded(&guest));
        guest.device(|b, bus| b.command_hints(0x8000_0001, bus));
        guest.run_steps(2);
        command(&mut guest, u32::MAX);
        let said = said(&guest);
        assert_eq!(said.first_chunk(), Some(&[0x8000_0000, STOP]));
        assert_eq!(said.last_chunk(), Some(&[u32::MAX, STOP]));
        assert!(heeded(&guest) >= first + hinted, "held frames are hinted in the new round");
        assert_eq!(guest.driver().status().hinted, hinted);
        command(&mut guest, DONE);
        expect_all_back(&guest);
        guest.finish();
    }
}

#[test]
fn done_during_a_round_closes_it() {
    let mut guest = bring_up(offering(Behaviour { service: 4_000_000, ..Behaviour::conforming() }));
    guest.run();
    guest.device(|b, bus| b.command_hints(9, bus));
    guest.run_steps(3);
    command(&mut guest, DONE);
    assert_eq!(said(&guest), [9, STOP]);
    expect_all_back(&guest);
    guest.finish();
}

/// QEMU's command field reads STOP while a round is open, even if it is read for another reason.
#[test]
fn a_target_set_during_a_round_is_followed() {
    for (name, behaviour) in every_device() {
        let mut guest = bring_up(Behaviour { service: 200_000, ..behaviour });
        guest.run();
        guest.device(|b, bus| b.command_hints(3, bus));
        guest.run_steps(2);
        guest.follow_to(4000);
        guest.follow_to(100);
        assert_eq!(said(&guest), [3, STOP], "{name}");
        command(&mut guest, DONE);
        guest.expect_balloon(100);
        guest.finish();
    }
}

#[test]
fn a_growing_balloon_takes_hinted_frames() {
    let mut guest = bring_up(offering(Behaviour::conforming()));
    guest.run();
    let free = guest.platform.frames.free();
    command(&mut guest, 3);
    let hinted = guest.driver().status().hinted;
    guest.follow_to(free / 2);
    assert!(guest.driver().status().hinted < hinted);
    assert!(guest.driver().counters().relinquished_frames > 0);
    command(&mut guest, DONE);
    guest.expect_balloon(free / 2);
    guest.finish();
}

#[test]
fn reports_and_hints_never_cover_the_same_memory() {
    let behaviour = offering(Behaviour::conforming());
    let features = behaviour.features | feature::PAGE_REPORTING;
    let mut guest = bring_up(behaviour.with_features(features));
    guest.run();
    let reported = guest.device(|b, _| b.reported);
    for round in 2..5 {
        command(&mut guest, round);
        assert!(guest.driver().status().hinted > reported / 10 * 9);
        guest.driver_mut().report_now();
        guest.run();
        command(&mut guest, DONE);
        expect_all_back(&guest);
        guest.driver_mut().report_now();
        guest.wait(2_000_000_000);
    }
    assert_eq!(guest.device(|b, _| b.reported), reported, "hinted regions still count as reported");
    guest.finish();
}

#[test]
fn hinted_frames_are_reclaimed_once_returned_and_written() {
    let mut guest = bring_up(offering(Behaviour::conforming()));
    guest.run();
    command(&mut guest, 3);
    let (free, hinted) = (guest.platform.frames.free(), guest.driver().status().hinted);
    assert_eq!(guest.relinquish(1), 512, "a region");
    assert_eq!(guest.relinquish(1025), 1536);
    assert_eq!((guest.platform.frames.free(), guest.driver().status().hinted), (free + 2048, hinted - 2048));
    assert!(guest.platform.frames.hold(512), "it belongs to the kernel");
    guest.run();
    assert_eq!(guest.relinquish(u64::MAX), hinted - 2048);
    assert_eq!((guest.relinquish(1), guest.driver().counters().relinquished_frames), (0, hinted));
    guest.machine.expect_no_missteps();
    command(&mut guest, DONE);
    expect_all_back(&guest);
    guest.platform.frames.expect_patterns();
    guest.finish();
}

#[test]
fn a_failing_allocation_reclaims_hinted_before_ballooned_memory() {
    let behaviour = offering(Behaviour::conforming());
    let features = behaviour.features | feature::DEFLATE_ON_OOM;
    let mut guest = bring_up(behaviour.with_features(features));
    guest.follow(4000);
    command(&mut guest, 3);
    guest.hold_all();
    let hinted = guest.driver().status().hinted;
    let relief = guest.reclaim(1000);
    assert_eq!((relief.frames, relief.asked, relief.error), (1024, 0, None), "two regions, and none of the balloon's");
    assert_eq!(guest.driver().status().hinted, hinted - 1024);
    let relief = guest.reclaim(hinted);
    assert!(relief.frames >= hinted && relief.asked > 0 && relief.error.is_none(), "{relief:?}");
    assert_eq!(guest.driver().status().hinted, 0);
    guest.run();
    guest.hold_all();
    guest.platform.frames.expect_patterns();
    command(&mut guest, DONE);
    recover(&mut guest);
    guest.expect_balloon(4000);
    guest.finish();
}

#[test]
fn hints_still_in_the_queue_are_not_reclaimed() {
    let mut guest = bring_up(offering(Behaviour::conforming()));
    guest.run();
    guest.device(|b, bus| {
        b.stall_from_now(true);
        b.command_hints(3, bus);
    });
    guest.run();
    let hinted = guest.driver().status().hinted;
    assert_eq!((hinted > 0, guest.relinquish(u64::MAX)), (true, 0));
    guest.device(|b, _| b.stall_from_now(false));
    guest.machine.pass(1_000_000);
    assert_eq!(guest.relinquish(u64::MAX), hinted, "without a poll");
    guest.run();
    guest.finish();
}

#[test]
fn a_round_ends_when_the_kernel_runs_out_of_memory() {
    let mut guest = bring_up(offering(Behaviour { service: 2_000_000, queue_size: 4, ..Behaviour::conforming() }));
    guest.run();
    guest.device(|b, bus| b.command_hints(3, bus));
    while guest.relinquish(512) == 0 {
        guest.run_steps(1);
    }
    let left = guest.driver().status().hinted;
    guest.run();
    assert_eq!((last(&guest), guest.driver().status().hinted), (Some((3, HintOutcome::Complete)), left));
    command(&mut guest, DONE);
    expect_all_back(&guest);
    guest.finish();
}

#[test]
fn every_end_of_the_driver_writes_and_returns_all_hinted_frames() {
    type End = fn(&mut Guest);
    let ends: [(&str, End); 4] = [
        ("reset", |guest| guest.reset().unwrap()),
        ("freeze", |guest| guest.freeze().unwrap()),
        ("need", |guest| {
            guest.device(ballonet_models::Balloon::raise_needs_reset);
            guest.run();
        }),
        ("shut down", Guest::shut_down),
    ];
    for (name, end) in ends {
        for stalls in [false, true] {
            let mut guest = bring_up(offering(Behaviour::conforming()));
            guest.run();
            let free = guest.platform.frames.free();
            guest.device(|b, bus| {
                b.stall_from_now(stalls);
                b.command_hints(3, bus);
            });
            guest.run();
            assert!(guest.platform.frames.in_flight() > 0, "{name}");
            guest.device(|b, _| b.stall_from_now(false));
            end(&mut guest);
            assert_eq!((guest.platform.frames.in_flight(), guest.platform.frames.free()), (0, free), "{name}");
            assert_eq!(guest.machine.bus(|bus| bus.ram.count_untouched()), 0, "{name}: contents that a copy may lack");
            guest.finish();
        }
    }
}

#[test]
fn after_a_reset_the_host_may_reuse_a_round_id() {
    let mut guest = bring_up(offering(Behaviour::conforming()));
    command(&mut guest, 3);
    guest.reset().unwrap();
    said(&guest);
    command(&mut guest, 3);
    assert_eq!(said(&guest), [3, STOP]);
    guest.freeze().unwrap();
    guest.device(|b, bus| b.command_hints(4, bus));
    guest.restore().unwrap();
    guest.run();
    assert!(guest.driver().status().hinted == 0, "the host asked without a driver, and a reset ended that");
    guest.finish();
}

#[test]
fn hinted_frames_return_when_the_device_is_gone() {
    for steps in 0..8 {
        let mut guest = bring_up(offering(Behaviour::qemu_10(6)));
        guest.device(|b, bus| b.command_hints(3, bus));
        guest.run_steps(steps);
        guest.device(|b, _| b.unplug());
        let _ = guest.try_run();
        guest.shut_down();
        guest.platform.frames.expect_whole();
        assert_eq!(guest.platform.frames.in_flight(), 0);
    }
}

#[test]
fn a_reset_that_never_ends_withholds_hinted_frames() {
    let mut guest = bring_up(offering(Behaviour::conforming()));
    command(&mut guest, 3);
    let hinted = guest.driver().status().hinted;
    guest.device(|b, _| b.behaviour.reset_time = u64::MAX);
    assert!(guest.reset().is_err());
    assert_eq!((guest.driver().status().withheld, guest.platform.frames.in_flight()), (hinted, hinted));
}

#[test]
fn other_queues_can_be_reset_during_a_round() {
    let behaviour = offering(Behaviour { service: 300_000, ..Behaviour::conforming() });
    let features = behaviour.features | feature::RING_RESET;
    let mut guest = bring_up(behaviour.with_features(features));
    guest.run();
    guest.device(|b, bus| {
        b.set_target(3000, bus);
        b.command_hints(3, bus);
    });
    for queue in [BalloonQueue::Inflate, BalloonQueue::Deflate, BalloonQueue::Statistics] {
        guest.run_steps(2);
        guest.reset_queue(queue).unwrap();
    }
    guest.run();
    assert_eq!(said(&guest), [3, STOP]);
    command(&mut guest, DONE);
    guest.expect_balloon(3000);
    guest.finish();
}

#[test]
fn hint_queues_of_any_size_work_and_one_too_small_for_a_round_is_unused() {
    for size in [1, 2, 3, 4, 8] {
        let mut guest = bring_up_as(offering(Behaviour::conforming().packed()), |options| options.queue_size = size);
        command(&mut guest, 3);
        assert_eq!((said(&guest).is_empty(), heeded(&guest) == 0), (size == 1, size == 1), "{size}");
        command(&mut guest, DONE);
        expect_all_back(&guest);
        guest.finish();
    }
}

#[test]
fn a_device_that_returns_no_hints_delays_nothing_else() {
    let mut guest = bring_up(offering(Behaviour::conforming()));
    guest.run();
    guest.device(|b, bus| {
        b.stall_from_now(true);
        b.command_hints(3, bus);
    });
    guest.run();
    for command in [4, STOP, 5, DONE, 6] {
        guest.device(|b, bus| b.command_hints(command, bus));
        guest.run();
    }
    assert_eq!(said(&guest), [3, STOP], "the device still has the command that opened the round");
    guest.device(|b, _| b.stall_from_now(false));
    guest.machine.pass(1_000_000);
    guest.run();
    assert_eq!(said(&guest), [6, STOP]);
    guest.follow_to(500);
    command(&mut guest, DONE);
    guest.expect_balloon(500);
    guest.finish();
}

/// QEMU behaves like this when the guest migrates.
#[test]
fn a_lost_kick_is_repeated_when_the_host_is_done() {
    for behaviour in [Behaviour::conforming(), Behaviour::conforming().packed(), Behaviour::qemu_10(2)] {
        let mut guest = bring_up(offering(behaviour));
        guest.run();
        guest.device(|b, bus| b.command_hints(3, bus));
        guest.driver_mut().recheck();
        guest.poll_once();
        let queue = guest.device(|b, _| b.queue_of(ballonet_models::Purpose::Hint)).unwrap();
        let kick = guest.device(|b, _| b.common.queues[usize::from(queue)].kicked.take());
        assert!(kick.is_some() && guest.platform.frames.in_flight() > 0);
        command(&mut guest, DONE);
        assert_eq!(said(&guest), [3, STOP]);
        expect_all_back(&guest);
        guest.finish();
    }
}

/// The device takes the request that opens a round only after the driver has read DONE; the ID is still free again.
#[test]
fn an_id_can_be_reused_after_done_even_if_its_first_opening_was_read_late() {
    let behaviour = Behaviour { handling: Handling::Later(2_000_000), service: 500_000, ..Behaviour::conforming() };
    let mut guest = bring_up_sized(32, offering(behaviour));
    for word in [3, DONE, 3] {
        guest.device(|b, bus| b.command_hints(word, bus));
        guest.driver_mut().recheck();
        guest.poll_once();
    }
    guest.run();
    assert_eq!(said(&guest).iter().filter(|word| **word == 3).count(), 2);
    command(&mut guest, DONE);
    expect_all_back(&guest);
    guest.finish();
}

#[test]
fn a_configuration_that_is_too_short_for_the_command_leaves_the_feature_out() {
    use ballonet_models::Capability;
    let mut behaviour = offering(Behaviour::conforming());
    let Capability::Virtio { length, .. } = behaviour.layout.capability(4) else { unreachable!() };
    *length = 8;
    let mut guest = bring_up(behaviour);
    assert_eq!(guest.device(|b, _| b.common.accepted()) & feature::FREE_PAGE_HINT, 0);
    guest.follow(100);
    guest.finish();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Commands at any time, a target, a kernel that reclaims, and hints that return in any order.
    #[test]
    fn any_host_commands_keep_the_protocol_and_lose_no_frame(
        steps in prop::collection::vec((0..7u32, 0..6u32, 0..6000u32), 1..30),
        choices in prop::collection::vec(any::<u16>(), 1..20),
        kind in 0..3usize,
    ) {
        let kinds = [Behaviour::conforming(), Behaviour::conforming().packed(), Behaviour::qemu_10(2)];
        let handling = if kind == 0 { Handling::AtOnce } else { Handling::Later(20_000) };
        let behaviour = Behaviour { service: 500_000, schedule: Schedule::new(choices), handling, ..kinds[kind].clone() };
        let mut guest = bring_up_sized(32, offering(behaviour));
        prop_assert!(guest.platform.frames.hold(300));
        for (command, rounds, pages) in steps {
            guest.device(|b, bus| b.command_hints(command, bus));
            guest.run_steps(rounds);
            match pages % 3 {
                0 => guest.device(|b, bus| b.set_target(pages, bus)),
                1 => drop(guest.relinquish(u64::from(pages))),
                _ => {}
            }
            guest.platform.frames.expect_whole();
        }
        guest.run();
        command(&mut guest, DONE);
        expect_all_back(&guest);
        guest.platform.frames.expect_patterns();
        guest.machine.expect_no_missteps();
        guest.finish();
    }
}
