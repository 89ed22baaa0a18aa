//! The interrupt ladder: each step forced, each found automatically, and each undone completely before the next.

use ballonet::virtio::InterruptMode::{Line, PerQueue, Polling, Shared};

use super::guest::{bring_up, bring_up_with, expect_up, try_forced};
use ballonet_models::Behaviour;

fn names(vectors: &[(String, u64)]) -> Vec<&str> {
    vectors.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn with_enough_vectors_each_queue_has_its_own() {
    let mut guest = bring_up(Behaviour::qemu_10(6));
    assert_eq!(guest.mode(), PerQueue);
    let vectors = guest.machine.vectors();
    assert_eq!(names(&vectors), ["virtio0-config", "virtio0-inflate", "virtio0-deflate", "virtio0-stats"]);
    guest.follow(2000);
    guest.follow(100);
    for (name, count) in guest.machine.vectors() {
        assert!(count > 0 || name == "virtio0-stats", "{name}: {count} interrupts");
    }
    guest.finish();
}

#[test]
fn with_two_vectors_the_queues_share_one() {
    let mut guest = bring_up(Behaviour::qemu_10(2));
    assert_eq!(guest.mode(), Shared);
    assert_eq!(names(&guest.machine.vectors()), ["virtio0-config", "virtio0-virtqueues"]);
    guest.follow(2000);
    assert!(guest.machine.vectors().iter().all(|(_, count)| *count > 0));
    guest.finish();
}

#[test]
fn without_msix_the_line_is_used() {
    for behaviour in [Behaviour::qemu_10(0), Behaviour::qemu_7_2()] {
        let mut guest = bring_up(behaviour);
        assert_eq!(guest.mode(), Line);
        assert_eq!(guest.machine.lines_attached(), 1);
        guest.follow(2000);
        guest.follow(0);
        guest.finish();
    }
}

#[test]
fn without_any_interrupt_the_driver_polls() {
    let mut guest = bring_up_with(Behaviour::qemu_10(6), |machine| machine.limit(0, false, false));
    assert_eq!(guest.mode(), Polling);
    assert_eq!(guest.machine.allocated().vectors, 0);
    guest.follow(2000);
    guest.follow(0);
    guest.finish();
}

#[test]
fn each_step_can_be_forced() {
    for (mode, vectors) in [(PerQueue, 4), (Shared, 2), (Line, 1), (Polling, 0)] {
        let mut guest = expect_up(try_forced(Behaviour::qemu_10(6), mode, |_| {}));
        assert_eq!(guest.mode(), mode);
        assert_eq!(guest.machine.allocated().vectors, vectors, "{mode:?}");
        guest.follow(1000);
        guest.follow(0);
        guest.finish();
    }
}

#[test]
fn a_forced_step_that_is_unavailable_is_an_error() {
    let cases = [
        (PerQueue, Behaviour::qemu_10(2)),
        (PerQueue, Behaviour::qemu_7_2()),
        (Shared, Behaviour::qemu_10(1)),
        (Shared, Behaviour::qemu_7_2()),
        (Line, Behaviour { pin: false, ..Behaviour::qemu_7_2() }),
    ];
    for (mode, behaviour) in cases {
        let failure = try_forced(behaviour, mode, |_| {}).err().unwrap_or_else(|| panic!("{mode:?}: no error"));
        println!("{mode:?}: {}", failure.error);
        failure.expect_clean(true);
    }
}

#[test]
fn a_refused_vector_leads_one_step_down_with_everything_undone() {
    // Refused one after another: the vectors of the first step, then those of the second.
    for refused in 0..4 {
        let mut guest = bring_up(Behaviour { refused_vectors: vec![refused], ..Behaviour::qemu_10(6) });
        assert_eq!(guest.mode(), Shared, "vector assignment {refused} refused");
        assert_eq!(guest.machine.allocated().vectors, 2);
        guest.follow(1000);
        guest.finish();
    }
}

#[test]
fn vectors_refused_on_both_msix_steps_lead_to_the_line() {
    let mut guest = bring_up(Behaviour { refused_vectors: (0..16).collect(), ..Behaviour::qemu_10(6) });
    assert_eq!(guest.mode(), Line);
    assert_eq!(guest.machine.allocated().vectors, 1);
    assert!(!guest.device(|b, _| b.config.msix_enabled()), "MSI-X must be off for the line to work");
    guest.follow(1000);
    guest.finish();
}

#[test]
fn a_platform_short_of_vectors_leads_down_the_ladder() {
    for (limit, expected) in [(4, PerQueue), (3, Shared), (2, Shared), (1, Line), (0, Polling)] {
        let mut guest = bring_up_with(Behaviour::qemu_10(6), |machine| machine.limit(limit, true, true));
        assert_eq!(guest.mode(), expected, "{limit} vectors");
        guest.follow(1000);
        guest.finish();
    }
}

#[test]
fn a_queues_vector_moves_to_another_cpu_and_keeps_working() {
    for behaviour in [Behaviour::qemu_10(6), Behaviour::qemu_10(6).legacy()] {
        let mut guest = bring_up(behaviour);
        guest.follow(1000);
        guest.move_queue("inflate", 2).expect("there is a CPU 2");
        assert_eq!(["inflate", "deflate"].map(|queue| guest.cpu_of(queue)), [Some(2), Some(0)]);
        let counts = guest.machine.vectors();
        guest.follow(3000);
        let vectors = guest.machine.vectors().into_iter().zip(counts);
        let inflate = vectors.into_iter().find(|((name, _), _)| name.ends_with("inflate"));
        assert!(inflate.is_some_and(|((_, now), (_, before))| now > before), "it no longer interrupts");
        guest.move_queue("inflate", 9).expect_err("there is no CPU 9");
        assert_eq!(guest.cpu_of("inflate"), Some(2));
        guest.move_queue("hint", 1).expect_err("there is no such queue");
        guest.follow(0);
        guest.finish();
    }
}

#[test]
fn queues_that_share_a_vector_move_together_and_a_line_stays() {
    let mut guest = bring_up(Behaviour::qemu_10(2));
    guest.move_queue("deflate", 3).expect("there is a CPU 3");
    assert_eq!(["inflate", "deflate", "stats"].map(|queue| guest.cpu_of(queue)), [Some(3); 3]);
    guest.follow(1000);
    guest.finish();
    let mut guest = bring_up(Behaviour::qemu_10(0));
    guest.move_queue("inflate", 1).expect_err("a line stays");
    assert_eq!(guest.cpu_of("inflate"), None);
    guest.follow(1000);
    guest.finish();
}

#[test]
fn a_single_vector_is_not_used_alone() {
    let mut guest = bring_up(Behaviour::qemu_10(1));
    assert_eq!(guest.mode(), Line);
    guest.follow(1000);
    guest.finish();
}

#[test]
fn once_the_device_is_synchronized_none_of_its_handlers_runs() {
    let ladder = [(PerQueue, 4), (Shared, 2), (Line, 1), (Polling, 0)];
    let transports = [Behaviour::qemu_10(6), Behaviour::qemu_10(6).legacy()];
    for ((mode, vectors), behaviour) in ladder.into_iter().flat_map(|step| transports.clone().map(|it| (step, it))) {
        let mut guest = expect_up(try_forced(behaviour, mode, |_| {}));
        guest.follow(1000);
        guest.machine.interrupt_elsewhere();
        assert_eq!(guest.machine.running_elsewhere(), vectors, "{mode:?}");
        guest.synchronize();
        assert_eq!(guest.machine.running_elsewhere(), 0, "{mode:?}");
        // The handlers have run by now.
        assert_eq!(guest.driver_mut().is_pending(), matches!(mode, PerQueue | Shared), "{mode:?}");
        guest.follow(0);
        guest.machine.interrupt_elsewhere();
        guest.finish();
    }
}
