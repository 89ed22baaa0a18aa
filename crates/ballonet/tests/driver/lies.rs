//! Wrong register values at any time: no value from a device causes a panic, a hang or a lost frame.

use ballonet::balloon::BalloonError;
use ballonet::virtio::TransportError;
use proptest::prelude::*;

use super::guest::{bring_up, try_with};
use ballonet_models::{Behaviour, Lie};

fn devices() -> impl Strategy<Value = Behaviour> {
    let conforming = Behaviour::conforming;
    prop_oneof![
        Just(conforming()),
        Just(conforming().packed()),
        Just(conforming().legacy()),
        Just(conforming().on_mmio()),
        Just(conforming().packed().on_mmio()),
        Just(conforming().on_legacy_mmio()),
        Just(Behaviour::qemu_7_2()),
        Just(Behaviour::qemu_10(2)),
    ]
}

/// The bits to invert: one, all, or any.
fn bits() -> impl Strategy<Value = u32> {
    prop_oneof![(0..32u32).prop_map(|bit| 1 << bit), Just(u32::MAX), any::<u32>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_register_lie_loses_a_frame_or_leaks(
        behaviour in devices(),
        twists in prop::collection::vec((0..120u64, bits()), 1..5),
        target in 0..4000u32,
    ) {
        match try_with(Behaviour { twists, ..behaviour }, |_| {}) {
            Ok(mut guest) => {
                guest.device(|b, bus| b.set_target(target, bus));
                let _ = guest.try_run_steps(300);
                guest.shut_down();
                guest.platform.frames.expect_whole();
                let left = guest.machine.allocated();
                prop_assert_eq!((left.vectors, left.mappings), (0, 0));
            }
            Err(failure) => failure.expect_nothing_mapped(),
        }
    }
}

#[test]
fn a_configuration_that_keeps_changing_ends_in_an_error_and_a_reset() {
    for base in [Behaviour::conforming(), Behaviour::qemu_7_2(), Behaviour::conforming().legacy()] {
        let mut guest = bring_up(base);
        guest.device(|b, bus| {
            b.behaviour.churn = u32::MAX;
            b.set_target(100, bus);
        });
        let error = guest.try_run_steps(100).unwrap_err();
        assert!(matches!(error, BalloonError::Transport(TransportError::ConfigUnstable { .. })), "{error}");
        guest.expect_given_up();
    }
}

#[test]
fn a_num_queues_beyond_any_device_is_ignored() {
    let mut guest = bring_up(Behaviour { num_queues: Some(u16::MAX), ..Behaviour::conforming() });
    guest.follow(100);
    guest.finish();
}

#[test]
fn a_queue_of_any_size_is_used_or_refused_with_an_error() {
    for size in [1, 2, 3, 63, 64, 127, 0x8000, 0x8001, 0xffff] {
        for behaviour in [Behaviour::conforming(), Behaviour::conforming().packed(), Behaviour::conforming().legacy()] {
            match try_with(Behaviour { size_lie: Some(size), ..behaviour }, |_| {}) {
                Ok(guest) => drop(guest),
                Err(failure) => {
                    let named = matches!(failure.error, BalloonError::Transport(TransportError::QueueSize { .. }));
                    assert!(named, "{size}: {}", failure.error);
                    failure.expect_nothing_mapped();
                }
            }
        }
    }
}

/// The same lie to one driver after another: each fails and leaves a clean state to the next.
#[test]
fn a_device_that_lies_again_after_each_reset_loses_nothing_each_time() {
    let base = Behaviour::conforming();
    let mut guest = bring_up(base);
    for round in 0..10 {
        let lies_at = guest.device(|b, _| b.completions_so_far()) + 3;
        guest.device(|b, bus| {
            b.behaviour.lie = Some((lies_at, Lie::IdOutOfRange));
            b.set_target(6000, bus);
        });
        assert!(guest.try_run().is_err(), "round {round}");
        guest.expect_given_up();
        guest.device(|b, _| b.behaviour.lie = None);
        guest.shut_down();
        guest.start_again();
        guest.follow(100);
    }
    guest.finish();
}
