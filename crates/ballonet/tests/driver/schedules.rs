//! Any device within the rules, at any pace and in any order: the balloon reaches its target.

use proptest::prelude::*;

use super::guest::bring_up_sized;
use ballonet_models::{Balloon, Behaviour, Handling, Lie, Misstep, Schedule, feature};

fn behaviours() -> impl Strategy<Value = Behaviour> {
    let bases = Behaviour::every_device();
    let schedule = prop::collection::vec(any::<u16>(), 1..64).prop_map(Schedule::new);
    let handling = prop_oneof![Just(Handling::AtOnce), (0_u64..2_000_000).prop_map(Handling::Later)];
    let size = prop_oneof![(0_u32..9).prop_map(|log| 1_u16 << log), 1..300_u16];
    let times = (0_u64..3_000_000, 0_u64..3_000_000, prop::option::of(200_u64..1_000_000));
    (0..bases.len(), schedule, handling, size, times).prop_map(
        move |(base, schedule, handling, queue_size, (service, interrupt_delay, spurious))| Behaviour {
            schedule,
            handling,
            // Split queues have a power of two entries.
            queue_size: if bases[base].1.features & feature::RING_PACKED == 0 {
                1 << queue_size.ilog2()
            } else {
                queue_size
            },
            service,
            interrupt_delay,
            spurious,
            ..bases[base].1.clone()
        },
    )
}

fn lies() -> impl Strategy<Value = Lie> {
    prop::sample::select(vec![
        Lie::IdOutOfRange,
        Lie::IdNotInFlight,
        Lie::IdRepeated,
        Lie::LengthTooLong,
        Lie::IndexJumps,
        Lie::IndexGoesBack,
    ])
}

/// A target, and the number of steps that the driver gets before the next.
fn course() -> impl Strategy<Value = Vec<(u32, u32)>> {
    prop::collection::vec((0_u32..7000, 0_u32..12), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn at_any_pace_the_last_target_is_met_exactly(behaviour in behaviours(), course in course()) {
        let mut guest = bring_up_sized(48, behaviour);
        prop_assert!(guest.platform.frames.hold(64));
        for (pages, steps) in course {
            guest.device(|b, bus| b.set_target(pages, bus));
            guest.run_steps(steps);
            guest.platform.frames.expect_whole();
            guest.device(Balloon::request_statistics);
        }
        guest.run();
        let target = guest.device(|b, _| b.target());
        guest.expect_balloon(target.into());
        guest.platform.frames.expect_patterns();
        guest.finish();
    }

    #[test]
    fn no_lie_loses_or_reuses_a_frame(
        behaviour in behaviours(),
        lie in lies(),
        after in 0_u64..40,
        course in course(),
    ) {
        let mut guest = bring_up_sized(48, Behaviour { lie: Some((after, lie)), ..behaviour });
        prop_assert!(guest.platform.frames.hold(64));
        for (pages, steps) in course {
            guest.device(|b, bus| b.set_target(pages, bus));
            if guest.try_run_steps(steps).is_err() {
                break;
            }
        }
        guest.shut_down();
        guest.platform.frames.expect_whole();
        guest.platform.frames.expect_patterns();
        prop_assert_eq!(guest.platform.frames.in_flight(), 0);
        guest.expect_nothing_allocated();
        // A forged completion of a request in flight looks like a true one.
        let deceived = matches!(lie, Lie::IdNotInFlight | Lie::IdRepeated);
        // The consequences of believing it: frames are used too soon, or reported while the device still has them in
        // the balloon. Ring slots and request memory are reused, so the device reads the next request's data in place
        // of the old.
        let balloon = ["BAL-OP-01", "BAL-OP-06", "BAL-OP-07", "BAL-OP-09", "BAL-OP-10", "BAL-REPORT-03"];
        let queue = ["CLEAN-01", "PACKED-SG-05", "RSVD-05"];
        let excused = |m: &Misstep| deceived && (balloon.contains(&m.clause) || queue.contains(&m.clause));
        let missteps: Vec<_> = guest.machine.missteps().into_iter().filter(|m| !excused(m)).collect();
        prop_assert!(missteps.is_empty(), "missteps: {missteps:#?}");
    }

    #[test]
    fn a_device_removed_at_any_moment_costs_no_frame(
        behaviour in behaviours(),
        course in course(),
        accesses in 0_u64..3000,
    ) {
        let mut guest = bring_up_sized(48, behaviour);
        guest.device(|b, _| b.remove_after(accesses));
        for (pages, steps) in course {
            guest.device(|b, bus| b.set_target(pages, bus));
            if guest.try_run_steps(steps).is_err() {
                break;
            }
        }
        guest.shut_down();
        guest.platform.frames.expect_whole();
        guest.expect_nothing_allocated();
    }
}
