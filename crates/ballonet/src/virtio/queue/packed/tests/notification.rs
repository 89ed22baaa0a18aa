//! Notifications: kicks that the device wants, interrupts that the driver wants, and none is lost.

use super::*;

#[test]
fn a_device_that_asked_for_a_descriptor_is_kicked_for_that_one_only() {
    let (mut queue, mut device) = queue(5, options(true));
    // Descriptor 2 of the first lap.
    device.set_suppression(2 | 0x8000, 2);
    add(&mut queue, 0);
    add(&mut queue, 1);
    assert!(queue.publish().is_none());
    add(&mut queue, 2);
    assert!(queue.publish().is_some());
    add(&mut queue, 3);
    assert!(queue.publish().is_none(), "once");
    // Descriptor 0 of the second lap: the batch goes from 4 over the end.
    device.set_suppression(0, 2);
    (0..4).for_each(|_| device.serve());
    (0..4).for_each(|expected| assert_eq!(token(&mut queue), Some(expected)));
    add(&mut queue, 4);
    add(&mut queue, 5);
    assert!(queue.publish().is_some());
    device.set_suppression(1 | 0x8000, 2);
    add(&mut queue, 6);
    assert!(queue.publish().is_none(), "the same descriptor in another lap");
}

#[test]
fn the_devices_flags_count_with_and_without_event_idx() {
    for event_idx in [false, true] {
        let (mut queue, device) = queue(8, options(event_idx));
        device.set_suppression(0x7777, 1);
        add(&mut queue, 0);
        assert!(queue.publish().is_none());
        device.set_suppression(0x7777, 0);
        add(&mut queue, 1);
        assert!(queue.publish().is_some());
        device.set_suppression(0x7777, 2);
        add(&mut queue, 2);
        assert_eq!(queue.publish().is_some(), !event_idx, "without EVENT_IDX no position counts");
    }
}

#[test]
fn suppression_follows_the_negotiated_features() {
    for (event_idx, armed) in [(false, (0, 0)), (true, (0x8000, 2))] {
        let (mut queue, device) = queue(4, options(event_idx));
        let read = || {
            let at = device.layout.driver();
            (u16::from_le_bytes(device.ram.load(at)), u16::from_le_bytes(device.ram.load(at + 2)))
        };
        assert_eq!(read(), (0, 0), "at first every interrupt is wanted");
        queue.disarm();
        assert_eq!(read().1, 1);
        assert!(queue.arm(1));
        assert_eq!(read(), armed);
    }
}

#[test]
fn arming_for_several_completions_waits_for_the_last_of_them() {
    let (mut queue, mut device) = queue(7, options(true));
    for round in 0..50 {
        for token in 0..6 {
            add(&mut queue, token);
        }
        let _ = queue.publish();
        assert!(queue.arm(4));
        for served in 1..=6 {
            device.serve();
            assert_eq!(device.interrupts(), served == 4, "round {round}");
            assert_eq!(queue.arm(4), served < 4, "arming notices that the fourth completed before");
        }
        (0..6).for_each(|expected| assert_eq!(token(&mut queue), Some(expected)));
    }
    add(&mut queue, 0);
    let _ = queue.publish();
    assert!(queue.arm(100));
    device.serve();
    assert!(device.interrupts(), "clamped to the outstanding requests");
}

proptest! {
    /// If arming returns `true`, an interrupt comes by the time all requests are done, whatever their lengths and
    /// order; if it returns `false`, there is something to pop.
    #[test]
    fn no_wake_up_is_lost(
        size in 1..12u16,
        event_idx: bool,
        lengths in prop::collection::vec(1..4usize, 1..12),
        early in 0..12usize,
        completions in 1..12u16,
        laps in 0..30u32,
        order in any::<prop::sample::Index>(),
    ) {
        let (mut queue, mut device) = queue(size, options(event_idx));
        for round in 0..laps {
            add(&mut queue, round);
            let _ = queue.publish();
            device.serve();
            prop_assert_eq!(queue.pop().unwrap().map(|done| done.token), Some(round));
        }
        device.passed.clear();
        let segments = [segment(4); 4];
        let added = lengths.iter().filter(|length| queue.add(Chain::readable(&segments[..**length]), 0).is_ok()).count();
        let _ = queue.publish();
        let mut taken: Vec<_> = core::iter::from_fn(|| device.take()).collect();
        prop_assert_eq!(taken.len(), added);
        let early = early.min(added);
        for _ in 0..early {
            let which = order.index(taken.len());
            device.put(&taken.swap_remove(which));
        }
        device.passed.clear();
        if queue.arm(completions) {
            taken.iter().for_each(|taken| device.put(taken));
            prop_assert!(added == early || device.interrupts(), "none comes, and {} wait", added - early);
        } else {
            prop_assert!(queue.pop().unwrap().is_some());
        }
    }
}
