//! The quirks of real VMMs, each shown on its model, and how the driver handles them.

use ballonet::balloon::{BalloonError, Options};
use ballonet::memory::PageFrames;
use ballonet::virtio::TransportError;
use ballonet::virtio::spec::{Features, Status};

use super::guest::{Guest, bring_up, expect_up, try_chosen};
use super::manual::Hand;
use ballonet_models::feature::{FREE_PAGE_HINT, PAGE_POISON, PAGE_REPORTING, STATS_VQ};
use ballonet_models::{Behaviour, Bus, HostSide, Machine, Purpose, Quirks};

/// Purpose and size of each queue of a device.
type Queues = Vec<(Purpose, u16)>;

fn offering(behaviour: Behaviour, more: u64, less: u64) -> Behaviour {
    let features = (behaviour.features | more) & !less;
    behaviour.with_features(features)
}

fn queues(guest: &Guest) -> Queues {
    guest.device(|b, _| b.common.queues.iter().map(|queue| (queue.purpose, queue.max_size)).collect())
}

#[test]
fn the_driver_finds_its_queues_in_each_vmms_numbering() {
    use Purpose::{Deflate, Hint, Inflate, Missing, Own, Reporting, Statistics};
    let pair = |size| vec![(Inflate, size), (Deflate, size)];
    let table: [(Behaviour, u16, Queues); 13] = [
        (Behaviour::qemu_7_2(), 128, vec![(Statistics, 128)]),
        (offering(Behaviour::qemu_7_2(), PAGE_REPORTING, 0), 128, vec![(Statistics, 128), (Reporting, 32)]),
        (offering(Behaviour::qemu_10(6), FREE_PAGE_HINT, 0), 128, vec![(Statistics, 128), (Hint, 1024)]),
        (
            offering(Behaviour::qemu_10(2), FREE_PAGE_HINT | PAGE_REPORTING, 0),
            128,
            vec![(Statistics, 128), (Hint, 1024), (Reporting, 32)],
        ),
        (offering(Behaviour::cloud_hypervisor(), 0, STATS_VQ), 128, vec![(Reporting, 32)]),
        (Behaviour::firecracker(), 256, vec![(Statistics, 256), (Hint, 256), (Reporting, 256)]),
        (Behaviour::crosvm(), 128, vec![(Statistics, 128), (Reporting, 128), (Own, 128), (Own, 128)]),
        (Behaviour::crosvm_before_2025(), 128, vec![(Statistics, 128), (Own, 128)]),
        (Behaviour::stratovirt(), 256, vec![(Reporting, 256), (Own, 256)]),
        (Behaviour::dragonball(), 128, vec![(Reporting, 128)]),
        (Behaviour::kvmtool(), 128, vec![(Statistics, 128)]),
        (Behaviour::libkrun(), 128, vec![(Statistics, 128), (Hint, 128), (Reporting, 128)]),
        (
            offering(Behaviour::conforming(), PAGE_REPORTING, STATS_VQ),
            64,
            vec![(Missing, 1), (Missing, 1), (Reporting, 32)],
        ),
    ];
    for (behaviour, size, others) in table {
        let mut guest = bring_up(behaviour);
        assert_eq!(queues(&guest), [pair(size), others.clone()].concat());
        let mut expected = vec![("inflate", size), ("deflate", size)];
        let of = |purpose| others.iter().find(|(other, _)| *other == purpose).map(|(_, size)| *size);
        expected.extend(of(Statistics).map(|size| ("stats", size)));
        expected.extend(of(Hint).map(|size| ("hinting", size)));
        expected.extend(of(Reporting).map(|size| ("reporting", size)));
        assert_eq!(guest.driver_mut().queues().collect::<Vec<_>>(), expected);
        guest.run();
        let used = guest.device(|b, _| b.common.queues.iter().filter(|queue| queue.enabled).count());
        assert_eq!(used, expected.len(), "queues of features unknown to the driver stay unused");
        guest.finish();
    }
}

#[test]
fn queues_of_declined_features_keep_their_numbers() {
    let firecracker = Behaviour::firecracker();
    let firecracker = Behaviour { quirks: Quirks { wants_every_queue: false, ..firecracker.quirks }, ..firecracker };
    for behaviour in [firecracker, offering(Behaviour::qemu_10(6), FREE_PAGE_HINT | PAGE_REPORTING, 0)] {
        let mut guest = expect_up(try_chosen(behaviour, declining(STATS_VQ)));
        assert_eq!(queues(&guest)[2].0, Purpose::Statistics);
        guest.run();
        let reporting = guest.device(|b, _| (b.queue_of(Purpose::Reporting), b.reported));
        assert!(reporting.0 == Some(4) && reporting.1 > 0, "{reporting:?}");
        guest.follow(500);
        assert!(!guest.device(|b, _| b.queue(2).enabled));
        guest.finish();
    }
}

fn declining(features: u64) -> impl FnOnce(&mut Options) {
    move |options| options.declined = Features::from_bits_retain(features)
}

/// How often the driver has started the device.
fn starts(guest: &Guest) -> usize {
    let driver_ok = |status: &&u8| **status & 0x84 == 4;
    guest.device(|b, _| b.common.status_writes.iter().filter(driver_ok).count())
}

#[test]
fn a_device_that_needs_every_queue_gets_them_at_the_second_start() {
    for (vmm, declined) in [
        (Behaviour::firecracker(), STATS_VQ),
        (Behaviour::firecracker(), STATS_VQ | FREE_PAGE_HINT | PAGE_REPORTING),
        (Behaviour::firecracker_1_16(), FREE_PAGE_HINT),
        (Behaviour::firecracker().packed(), STATS_VQ | PAGE_REPORTING),
    ] {
        let mut guest = expect_up(try_chosen(vmm.clone(), declining(declined)));
        assert_eq!((starts(&guest), guest.device(|b, _| b.common.needs_reset())), (2, false));
        guest.run();
        assert_eq!(guest.device(|b, _| b.common.accepted() & declined), 0);
        assert!(guest.device(|b, _| b.common.queues.iter().all(|queue| queue.enabled)));
        guest.follow(500);
        guest.follow(0);
        guest.finish();
    }
    let mut guest = expect_up(try_chosen(Behaviour::libkrun(), declining(FREE_PAGE_HINT)));
    guest.run();
    assert!(guest.device(|b, _| b.reported) > 0 && starts(&guest) == 2);
    guest.finish();
    let mut guest = bring_up(Behaviour::firecracker());
    assert_eq!(starts(&guest), 1, "with every feature accepted there is no trial");
    guest.follow(500);
    guest.finish();
}

#[test]
fn a_device_that_starts_neither_way_is_retried_once() {
    let behaviour = Behaviour { needs_reset_after: Some(0), needs_resets: u32::MAX, ..Behaviour::firecracker() };
    let mut guest = expect_up(try_chosen(behaviour, |options| {
        (options.declined, options.recoveries) = (Features::from_bits_retain(STATS_VQ), 0);
    }));
    assert_eq!(starts(&guest), 2);
    let outcome = guest.try_run_steps(2);
    assert!(matches!(outcome, Err(BalloonError::NeedsReset(_))), "{outcome:?}");
    guest.finish();
}

#[test]
fn a_device_that_cannot_be_reset_after_the_first_start_reports_that() {
    let Err(failure) = try_chosen(Behaviour::firecracker_failing(), declining(STATS_VQ)) else {
        panic!("it cannot be reset");
    };
    assert!(matches!(failure.error, BalloonError::Transport(TransportError::ResetTimeout { .. })), "{}", failure.error);
}

#[test]
fn bars_that_return_bare_sizes_are_sized_correctly() {
    let mut guest = bring_up(Behaviour::firecracker());
    guest.follow(100);
    guest.finish();
}

#[test]
fn the_device_configuration_is_as_long_as_the_offered_features_make_it() {
    let qemu = Behaviour::qemu_10(2);
    for (behaviour, length) in [
        (offering(qemu.clone(), 0, PAGE_POISON), 8),
        (offering(qemu.clone(), FREE_PAGE_HINT, PAGE_POISON), 12),
        (qemu, 16),
        (Behaviour { layout: Behaviour::conforming().layout, ..Behaviour::cloud_hypervisor() }, 8),
        (
            Behaviour {
                layout: Behaviour::conforming().layout,
                ..offering(Behaviour::firecracker(), 0, FREE_PAGE_HINT)
            },
            12,
        ),
        (Behaviour::kvmtool(), 16),
    ] {
        let mut guest = bring_up(behaviour);
        guest.follow(10);
        // Its configuration is the third structure in BAR 4.
        let read = |at: u64| guest.device(|b, bus| b.bar_read(4, 0x2000 + at, 4, bus));
        read(length - 4);
        guest.machine.expect_no_missteps();
        read(length);
        assert_eq!(guest.machine.missteps()[0].clause, "CFG-04", "{length} bytes");
    }
}

#[test]
fn actual_written_in_pieces_is_kept_by_qemu_and_dropped_by_others() {
    let layout = || Behaviour::conforming().layout;
    for (behaviour, kept) in [
        (Behaviour::qemu_10(2), 0x102),
        (Behaviour { layout: layout(), ..Behaviour::cloud_hypervisor() }, 0),
        (Behaviour { layout: layout(), ..Behaviour::libkrun() }, 0),
    ] {
        let guest = bring_up(behaviour);
        guest.device(|b, bus| {
            b.bar_write(4, 0x2004, 1, 2, bus);
            b.bar_write(4, 0x2005, 1, 1, bus);
        });
        assert_eq!(guest.device(|b, _| b.actual()), kept);
        assert_eq!(guest.machine.missteps()[0].clause, "BAL-ACTUAL");
        let whole = guest.device(|b, bus| {
            b.bar_write(4, 0x2004, 4, 77, bus);
            b.actual()
        });
        assert_eq!(whole, if guest.device(|b, _| b.behaviour.quirks == Behaviour::libkrun().quirks) { 0 } else { 77 });
    }
}

/// Sends `count` frames manually, in a chain of `parts` descriptors, to a device with these quirks. Returns the number
/// of completed requests, of frames taken by the host, and of discards.
fn send(vmm: &Behaviour, count: u32, parts: usize, backwards: bool) -> (u64, u64, u64) {
    let quirks = Quirks { wants_every_queue: false, ..vmm.quirks };
    let behaviour = Behaviour { quirks, ..Behaviour::conforming() };
    let mut hand = Hand::right(behaviour);
    let (mut inflate, _deflate) = hand.start();
    let run = hand.platform.frames.take_free(count).expect("a run of free frames");
    assert_eq!(run.count(), count);
    let mut pfns: Vec<u32> = run.pfns().map(|pfn| pfn.0).collect();
    if backwards {
        pfns.reverse();
    }
    let chain: Vec<&[u32]> = pfns.chunks((count as usize).div_ceil(parts)).collect();
    hand.send_chain(&mut inflate, &chain);
    hand.machine.balloon(hand.at, |b, bus: &mut Bus| {
        (b.queue(0).completed, bus.ram.count_host(HostSide::Ballooned), b.discards)
    })
}

#[test]
fn a_descriptor_of_more_than_256_frames_is_served_skipped_or_lost() {
    for (vmm, most, more) in [
        (Behaviour::qemu_7_2(), (1, 256), (1, 257)),
        (Behaviour::cloud_hypervisor(), (1, 256), (1, 0)),
        (Behaviour::firecracker(), (1, 256), (0, 0)),
        (Behaviour::crosvm(), (1, 256), (1, 257)),
        (Behaviour::libkrun(), (0, 0), (0, 0)),
    ] {
        let outcome = |count| {
            let (completed, taken, _) = send(&vmm, count, 1, false);
            (completed, taken)
        };
        assert_eq!((outcome(256), outcome(257)), (most, more), "{:?}", vmm.quirks);
    }
}

#[test]
fn firecracker_reads_only_the_head_of_a_chain_and_other_vmms_all_of_it() {
    for (vmm, taken) in [
        (Behaviour::qemu_7_2(), 8),
        (Behaviour::cloud_hypervisor(), 8),
        (Behaviour::firecracker(), 4),
        (Behaviour::crosvm(), 8),
        (Behaviour::kvmtool(), 4),
        (Behaviour::dragonball(), 4),
        (Behaviour::stratovirt(), 8),
    ] {
        assert_eq!(send(&vmm, 8, 2, false).1, taken, "{:?}", vmm.quirks);
    }
}

#[test]
fn frames_are_discarded_one_by_one_or_in_ranges() {
    for (vmm, forwards, backwards) in [
        (Behaviour::qemu_7_2(), 64, 64),
        (Behaviour::cloud_hypervisor(), 64, 64),
        (Behaviour::firecracker(), 1, 1),
        (Behaviour::crosvm(), 1, 64),
        (Behaviour::kvmtool(), 64, 64),
        (Behaviour::stratovirt(), 1, 1),
    ] {
        let discards = [false, true].map(|order| send(&vmm, 64, 1, order).2);
        assert_eq!(discards, [forwards, backwards], "{:?}", vmm.quirks);
    }
}

#[test]
fn frames_are_sent_so_that_a_host_can_discard_ranges() {
    for (vmm, most) in [(Behaviour::qemu_10(6), 8192), (Behaviour::firecracker(), 64), (Behaviour::crosvm(), 64)] {
        let mut guest = bring_up(vmm);
        guest.follow(8192);
        let (discards, requests) = guest.device(|b, _| (b.discards, b.queue(0).completed));
        assert!(discards <= most.max(2 * requests) && discards >= requests.min(most), "{discards} for {requests}");
        assert_eq!(guest.device(|b, _| (b.skipped, b.largest_request)), (0, 256));
        guest.finish();
    }
}

#[test]
fn a_kick_is_handled_before_its_store_returns_or_later() {
    let after_a_round = |behaviour| {
        let mut guest = bring_up(behaviour);
        guest.device(|b, bus| b.set_target(4096, bus));
        guest.driver_mut().recheck();
        let _ = guest.poll_once();
        let completed = guest.device(|b, _| b.queue(0).completed);
        guest.run();
        guest.expect_balloon(4096);
        guest.finish();
        completed
    };
    assert!(after_a_round(Behaviour::qemu_7_2()) > 0);
    assert_eq!(after_a_round(Behaviour::qemu_10(6)), 0);
}

/// Bit 6 has had several meanings, of crosvm, of StratoVirt and of drafts; none is accepted.
#[test]
fn private_features_are_declined_and_their_queues_stay_unused() {
    const PRIVATE: u64 = 0x00ff_ffc0;
    for (behaviour, own) in [
        (Behaviour::crosvm(), 2),
        (Behaviour::crosvm_before_2025(), 1),
        (Behaviour::stratovirt(), 1),
        (Behaviour::stratovirt_before_2023(), 1),
        (offering(Behaviour::conforming(), PRIVATE, 0), 0),
    ] {
        let reports = behaviour.features & PAGE_REPORTING != 0;
        let mut guest = bring_up(behaviour);
        assert_eq!(guest.device(|b, _| b.common.accepted()) & PRIVATE, 0);
        let queues = guest.device(|b, _| {
            let own = b.common.queues.iter().filter(|queue| queue.purpose == Purpose::Own);
            own.map(|queue| queue.enabled).collect::<Vec<_>>()
        });
        assert_eq!(queues, vec![false; own]);
        guest.run();
        assert_eq!(guest.device(|b, _| b.reported) > 0, reports);
        guest.follow(300);
        guest.follow(0);
        guest.finish();
    }
}

#[test]
fn kvmtool_counts_by_itself_and_agrees_with_the_driver() {
    let mut guest = bring_up(Behaviour::kvmtool());
    for target in [1000, 3000, 700, 0] {
        guest.follow(target);
    }
    assert!(guest.device(ballonet_models::Balloon::request_statistics));
    guest.run();
    assert_eq!(guest.device(|b, _| b.reports.len()), 2);
    guest.follow(400);
    guest.reset().unwrap_or_else(|error| panic!("{error}"));
    guest.run();
    guest.expect_balloon(400);
    guest.finish();
}

/// Firecracker up to 1.16: the balloon works; whatever needs a reset fails at once with an error, and no frame is lost.
#[test]
fn a_device_without_reset_works_until_it_needs_one() {
    for behaviour in [Behaviour::firecracker_1_16_on_mmio(), Behaviour::firecracker_failing()] {
        for step in [Guest::freeze, Guest::reset] {
            let mut guest = bring_up(behaviour.clone());
            guest.follow(1000);
            guest.follow(200);
            let error = step(&mut guest).expect_err("it cannot be reset");
            let BalloonError::Transport(TransportError::ResetTimeout { waited_ms, status, .. }) = error else {
                panic!("{error}");
            };
            assert!(status.contains(Status::FAILED) && waited_ms == 0, "{error}");
            let status = guest.driver().status();
            assert_eq!(
                (status.actual, status.withheld),
                (200, 0),
                "the host keeps its frames, and nothing was in flight"
            );
            guest.shut_down();
            let left = guest.machine.allocated();
            assert_eq!((left.vectors, left.mappings), (0, 0));
            assert!(left.dma > 0, "the device may still use its rings");
        }
    }
}

/// libkrun's host never inflates. If it did, nothing would happen and nothing would hang.
#[test]
fn a_device_that_does_not_inflate_blocks_nothing() {
    let mut guest = bring_up(Behaviour::libkrun());
    guest.run();
    assert!(guest.device(|b, _| b.reported) > 0, "it accepts reports");
    assert!(guest.device(ballonet_models::Balloon::request_statistics));
    guest.run();
    assert_eq!(guest.device(|b, _| b.reports.len()), 2);
    guest.device(|b, bus| b.set_target(1000, bus));
    guest.run_steps(50);
    let status = guest.driver_mut().status();
    assert_eq!((status.inflating, status.actual), (1000, 0));
    guest.shut_down();
    assert_eq!(guest.platform.frames.in_flight(), 0, "frames that were never taken are returned");
    guest.platform.frames.expect_whole();
    guest.expect_nothing_allocated();
}

#[test]
fn bit_30_makes_a_legacy_device_forget_all_features_and_frame_0_resets_it() {
    let (machine, at) = Machine::with_balloon(16, Behaviour::qemu_7_2().legacy());
    machine.balloon(at, |b, bus| {
        let mut write = |offset, width, value| b.bar_write(0, offset, width, value, bus);
        write(0x12, 1, 0);
        for status in [1, 3] {
            write(0x12, 1, status);
        }
    });
    machine.balloon(at, |b, bus| {
        // The reset takes effect when the status is read.
        b.bar_read(0, 0x12, 1, bus);
        for status in [1, 3] {
            b.bar_write(0, 0x12, 1, status, bus);
        }
        b.bar_write(0, 0x04, 4, 1 << 30 | 1 << 1, bus);
        assert_eq!(b.common.accepted(), 0, "not even the statistics");
        b.bar_write(0, 0x0e, 2, 0, bus);
        b.bar_write(0, 0x08, 4, 0, bus);
        assert_eq!(b.bar_read(0, 0x12, 1, bus), 0, "status after frame 0");
    });
    let clauses: Vec<_> = machine.missteps().into_iter().map(|misstep| misstep.clause).collect();
    assert!(clauses.contains(&"LEG-RSVD-02") && clauses.contains(&"LEG-VQ"), "{clauses:?}");
}
