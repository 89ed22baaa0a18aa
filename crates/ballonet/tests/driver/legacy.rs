//! Devices with a legacy interface, alone or beside a modern one: which interface is chosen, and how it differs.

use ballonet::balloon::BalloonError;
use ballonet::virtio::TransportKind::{Legacy, Modern};
use ballonet::virtio::{InterfaceError, InterruptMode};

use super::guest::{Failure, Guest, bring_up, expect_up, try_by, try_with};
use ballonet_models::feature::{ANY_LAYOUT, EVENT_IDX, INDIRECT_DESC, STATS_VQ};
use ballonet_models::{Bar, Behaviour, Lie};

/// A strict legacy device with MSI-X.
fn conforming() -> Behaviour {
    Behaviour::conforming().legacy()
}

/// Checks that the balloon works and that shutdown leaves nothing behind.
#[track_caller]
fn works(mut guest: Guest) {
    for pages in [1000, 300, 0] {
        guest.follow(pages);
    }
    guest.finish();
}

fn interface_error(outcome: Result<Guest, Box<Failure>>) -> InterfaceError {
    let failure = outcome.err().expect("no driver");
    println!("{}", failure.error);
    failure.expect_clean(true);
    match failure.error {
        BalloonError::Interface(error) => error,
        error => panic!("{error}"),
    }
}

#[test]
fn a_device_without_virtio_capabilities_is_driven_by_its_ports() {
    for behaviour in [Behaviour::qemu_7_2(), Behaviour::qemu_10(2), Behaviour::qemu_10(6), Behaviour::conforming()] {
        let guest = bring_up(behaviour.legacy());
        assert_eq!(guest.transport(), Legacy);
        works(guest);
    }
}

#[test]
fn a_transitional_device_is_driven_by_its_modern_interface_by_default() {
    for behaviour in [Behaviour::qemu_7_2(), Behaviour::qemu_10(6)] {
        let guest = bring_up(behaviour.clone().transitional());
        assert_eq!(guest.transport(), Modern);
        works(guest);
        for transport in [Modern, Legacy] {
            let guest = expect_up(try_by(behaviour.clone().transitional(), transport, |_| {}));
            assert_eq!(guest.transport(), transport);
            works(guest);
        }
    }
}

#[test]
fn with_unusable_structures_a_transitional_device_is_driven_by_its_ports() {
    let mut behaviour = Behaviour::qemu_10(6).transitional();
    behaviour.layout = behaviour.layout.without(1);
    let guest = bring_up(behaviour);
    assert_eq!(guest.transport(), Legacy);
    works(guest);
}

#[test]
fn a_transport_that_the_device_does_not_have_is_an_error() {
    assert!(matches!(interface_error(try_by(Behaviour::conforming(), Legacy, |_| {})), InterfaceError::Legacy(_)));
    assert!(matches!(interface_error(try_by(conforming(), Modern, |_| {})), InterfaceError::NoModern(_)));
    let revised = Behaviour { revision: 1, ..conforming() };
    assert!(matches!(interface_error(try_with(revised, |_| {})), InterfaceError::Neither(_)));
}

#[test]
fn ports_that_are_missing_too_few_or_memory_end_in_an_error() {
    for bar in [Bar::None, Bar::Io(16), Bar::Memory32(0x1000)] {
        let mut behaviour = conforming();
        behaviour.layout.bars[0] = bar;
        assert!(matches!(interface_error(try_with(behaviour, |_| {})), InterfaceError::Neither(_)), "{bar:?}");
    }
}

#[test]
fn status_grows_without_features_ok() {
    let mut guest = bring_up(conforming());
    assert_eq!(guest.device(|b, _| b.common.status_writes.clone()), [0, 1, 3, 7]);
    guest.shut_down();
    assert_eq!(guest.device(|b, _| b.common.status_writes.last().copied()), Some(0));
    guest.finish();
}

#[test]
fn any_layout_is_accepted_and_bit_30_is_not_whatever_is_offered() {
    let guest = bring_up(conforming().with_features(u64::MAX));
    let accepted = guest.device(|b, _| b.common.accepted());
    assert_eq!(accepted & !(0b10_1111 | ANY_LAYOUT | INDIRECT_DESC | EVENT_IDX), 0, "accepted {accepted:#x}");
    assert_eq!(accepted & (ANY_LAYOUT | EVENT_IDX | STATS_VQ), ANY_LAYOUT | EVENT_IDX | STATS_VQ);
    works(guest);
}

#[test]
fn a_device_without_features_is_still_driven() {
    let guest = bring_up(Behaviour { legacy_features: 0, ..conforming().with_features(0) });
    assert_eq!(guest.device(|b, _| b.common.accepted()), 0);
    works(guest);
}

#[test]
fn each_step_of_the_ladder_finds_the_configuration_at_its_offset() {
    use InterruptMode::{Line, PerQueue, Polling, Shared};
    for mode in [PerQueue, Shared, Line, Polling] {
        let guest = expect_up(try_by(conforming(), Legacy, |options| options.interrupts = Some(mode)));
        assert_eq!(guest.mode(), mode);
        works(guest);
    }
    for (vectors, mode) in [(Some(8), PerQueue), (Some(2), Shared), (Some(1), Line), (None, Line)] {
        let guest = bring_up(Behaviour::conforming().with_vectors(vectors).legacy());
        assert_eq!(guest.mode(), mode, "{vectors:?}");
        works(guest);
    }
}

#[test]
fn refused_vectors_lead_down_the_ladder_and_the_configuration_moves_back() {
    for (refused, mode) in [(vec![0], InterruptMode::Shared), ((0..16).collect(), InterruptMode::Line)] {
        let guest = bring_up(Behaviour { refused_vectors: refused, ..conforming() });
        assert_eq!(guest.mode(), mode);
        works(guest);
    }
}

#[test]
fn legacy_queues_have_the_size_that_the_device_dictates() {
    for queue_size in [1, 2, 128, 2048, 4096] {
        let guest = bring_up(Behaviour { queue_size, ..conforming() });
        works(guest);
    }
    let failure = try_with(Behaviour { size_lie: Some(48), ..conforming() }, |_| {}).err().expect("no power of two");
    assert!(matches!(failure.error, BalloonError::Transport(_)), "{}", failure.error);
    failure.expect_clean(true);
}

#[test]
fn a_used_length_is_ignored() {
    for claims in [1, 4, 1024, u32::MAX] {
        works(bring_up(Behaviour { claims, ..conforming() }));
    }
}

#[test]
fn a_lie_in_the_used_ring_ends_in_an_error_a_reset_and_an_intact_guest() {
    for lie in [Lie::IdOutOfRange, Lie::IdNotInFlight, Lie::IdRepeated, Lie::IndexJumps] {
        let mut guest = bring_up(Behaviour { lie: Some((3, lie)), ..conforming() });
        guest.device(|b, bus| b.set_target(6000, bus));
        let error = guest.try_run().expect_err("the lie is noticed");
        println!("{lie:?}: {error}");
        guest.expect_given_up();
    }
}

#[test]
fn a_long_reset_is_awaited_and_one_that_never_ends_is_given_up() {
    works(bring_up(Behaviour { reset_time: 200_000_000, ..conforming() }));
    let failure = try_with(Behaviour { reset_time: u64::MAX, ..conforming() }, |_| {}).err().expect("no reset");
    failure.expect_clean(false);
}

#[test]
fn a_driver_that_runs_out_of_dma_memory_releases_everything() {
    for allocations in 0..40 {
        match try_with(conforming(), |machine| machine.limit_dma(allocations)) {
            Ok(guest) => return guest.finish(),
            Err(failure) => failure.expect_clean(true),
        }
    }
    panic!("40 allocations should be enough");
}

#[test]
fn a_device_that_vanishes_at_any_access_is_released() {
    for accesses in 0..2000 {
        match try_with(Behaviour { removed_after: Some(accesses), ..conforming() }, |_| {}) {
            Ok(mut guest) => {
                guest.device(|b, bus| b.set_target(200, bus));
                let _ = guest.try_run();
                let survived = !guest.device(|b, _| b.gone());
                guest.finish();
                if survived {
                    return;
                }
            }
            Err(failure) => failure.expect_clean(false),
        }
    }
    panic!("2000 accesses should be enough");
}

#[test]
fn a_driver_of_the_other_kind_takes_the_balloon_over() {
    let mut guest = bring_up(Behaviour::qemu_10(6).transitional());
    guest.follow(3000);
    for transport in [Legacy, Modern, Legacy] {
        guest.shut_down();
        guest.start_again_by(Some(transport));
        assert_eq!(guest.transport(), transport);
        guest.run();
        guest.expect_balloon(3000);
    }
    guest.follow(0);
    guest.finish();
}
