//! The format of the queues, and the features of packed rings.

use ballonet::balloon::BalloonError;
use ballonet::virtio::RingFormat;

use super::guest::{bring_up, try_ring};
use ballonet_models::feature::RING_PACKED;
use ballonet_models::{Behaviour, Handling, Schedule};

#[test]
fn packed_rings_are_used_if_offered_and_not_declined() {
    use RingFormat::{Packed, Split};
    let (split, packed) = (Behaviour::conforming(), Behaviour::conforming().packed());
    for (behaviour, choice, format) in [
        (&split, None, Split),
        (&split, Some(Split), Split),
        (&packed, None, Packed),
        (&packed, Some(Packed), Packed),
        (&packed, Some(Split), Split),
    ] {
        let mut guest = try_ring(behaviour.clone(), choice).unwrap_or_else(|failure| panic!("{}", failure.error));
        assert_eq!(guest.driver_mut().status().ring, format);
        assert_eq!(guest.device(|b, _| b.common.accepted() & RING_PACKED != 0), format == Packed);
        guest.follow(700);
        guest.follow(0);
        guest.finish();
    }
}

#[test]
fn a_requested_format_that_is_not_offered_is_an_error_and_leaves_nothing_behind() {
    let failure =
        try_ring(Behaviour::conforming(), Some(RingFormat::Packed)).err().expect("packed rings are not offered");
    assert!(matches!(failure.error, BalloonError::RingFormat { format: RingFormat::Packed, .. }), "{}", failure.error);
    failure.expect_clean(true);
}

#[test]
fn packed_rings_of_any_size_are_used_as_they_are() {
    for queue_size in [1, 2, 3, 5, 48, 100, 1000] {
        let mut guest = bring_up(Behaviour { queue_size, ..Behaviour::conforming().packed() });
        let sizes: Vec<_> = guest.driver_mut().queues().map(|(_, size)| size).collect();
        assert_eq!(sizes, [queue_size; 3]);
        for pages in [3000, 10, 8000, 0] {
            guest.follow(pages);
        }
        guest.finish();
    }
}

#[test]
fn requests_on_packed_rings_are_matched_in_any_order() {
    let choices = (0..64_u32).map(|i| (i.wrapping_mul(40_503) % 65_536) as u16).collect();
    let schedule = Schedule::new(choices);
    for queue_size in [3, 7, 64] {
        let schedule = schedule.clone();
        let mut guest =
            bring_up(Behaviour { service: 3_000_000, schedule, queue_size, ..Behaviour::conforming().packed() });
        for pages in [8000, 100, 5000, 0] {
            guest.follow(pages);
        }
        guest.finish();
    }
}

#[test]
fn a_packed_ring_gets_no_unneeded_kick() {
    let mut guest = bring_up(Behaviour::conforming().packed());
    guest.follow(4000);
    guest.follow(0);
    assert_eq!(guest.device(|b, _| b.needless_kicks), 0);
    guest.finish();
}

#[test]
fn a_packed_ring_costs_no_more_kicks_and_interrupts_than_a_split_one() {
    let cost = |behaviour: Behaviour| {
        let mut guest = bring_up(Behaviour { handling: Handling::Later(50_000), ..behaviour });
        guest.follow(8192);
        guest.follow(0);
        let counters = guest.driver_mut().counters();
        guest.finish();
        (counters.kicks, counters.vring_interrupts)
    };
    let (split, packed) = (cost(Behaviour::conforming()), cost(Behaviour::conforming().packed()));
    assert!(packed.0 <= split.0 && packed.1 <= split.1, "kicks and interrupts: split {split:?}, packed {packed:?}");
}
