//! `IN_ORDER`: completions one by one, or by one used descriptor per batch, written over the batch's first descriptor.

use super::*;
use crate::virtio::queue::Completion;

fn options(event_idx: bool) -> QueueOptions {
    QueueOptions { in_order: true, ..super::options(event_idx) }
}

/// Writes one used descriptor that completes all of these.
fn put_batch(device: &mut Device, taken: &[Taken], length: u32, flags: u16) {
    let count = taken.iter().map(|taken| taken.count).sum();
    device.put_with(taken.last().unwrap().id, length, count, flags);
}

fn take_all(device: &mut Device) -> Vec<Taken> {
    core::iter::from_fn(|| device.take()).collect()
}

#[test]
fn one_descriptor_completes_all_requests_up_to_its_own_at_every_size() {
    for size in 5..12 {
        let (mut queue, mut device) = queue(size, options(false));
        for round in 0..50 {
            for token in 0..2 {
                add(&mut queue, 10 * round + token);
            }
            queue.add(Chain { readable: &[segment(4)], writable: &[segment(8); 2] }, 10 * round + 2).unwrap();
            let _ = queue.publish();
            let taken = take_all(&mut device);
            put_batch(&mut device, &taken, 5, 2);
            for token in 0..2 {
                assert_eq!(queue.pop(), Ok(Some(Completion { token: 10 * round + token, written: 0, claimed: 0 })));
            }
            assert_eq!(queue.pop(), Ok(Some(Completion { token: 10 * round + 2, written: 5, claimed: 5 })));
            assert_eq!((queue.pop(), queue.free()), (Ok(None), size));
        }
    }
}

#[test]
fn a_request_without_a_used_entry_counts_as_fully_written() {
    let (mut queue, mut device) = queue(8, options(false));
    queue.add(Chain { readable: &[segment(4)], writable: &[segment(8); 2] }, 0).unwrap();
    queue.add(Chain::writable(&[segment(8)]), 1).unwrap();
    let _ = queue.publish();
    let taken = take_all(&mut device);
    put_batch(&mut device, &taken, 3, 2);
    assert_eq!(queue.pop(), Ok(Some(Completion { token: 0, written: 16, claimed: 16 })));
    assert_eq!(queue.pop(), Ok(Some(Completion { token: 1, written: 3, claimed: 3 })));
}

#[test]
fn two_batches_are_popped_in_turn() {
    let (mut queue, mut device) = queue(7, options(false));
    for _ in 0..20 {
        (0..5).for_each(|token| add(&mut queue, token));
        let _ = queue.publish();
        let taken = take_all(&mut device);
        put_batch(&mut device, &taken[..2], 0, 0);
        put_batch(&mut device, &taken[2..], 0, 0);
        (0..5).for_each(|expected| assert_eq!(token(&mut queue), Some(expected)));
        assert_eq!(token(&mut queue), None);
    }
}

#[test]
fn a_request_completed_with_its_batch_does_not_complete_again() {
    let (mut queue, mut device) = queue(5, options(false));
    (0..3).for_each(|token| add(&mut queue, token));
    let _ = queue.publish();
    let taken = take_all(&mut device);
    // Out of order for the driver: the second one, then the first.
    put_batch(&mut device, &taken[..2], 0, 0);
    device.put(&taken[0]);
    assert_eq!((token(&mut queue), token(&mut queue)), (Some(0), Some(1)));
    assert_eq!(queue.pop(), Err(QueueError::NotOutstanding { id: taken[0].id }));
    assert!(queue.poisoned().is_some());
    assert_eq!(queue.drain(&Quiesced::new()).collect::<Vec<_>>(), [2]);
}

#[test]
fn arming_sees_past_a_partly_popped_batch() {
    let (mut queue, mut device) = queue(8, options(true));
    (0..6).for_each(|token| add(&mut queue, token));
    let _ = queue.publish();
    let taken = take_all(&mut device);
    assert!(queue.arm(4));
    put_batch(&mut device, &taken[..3], 0, 0);
    assert!(!device.interrupts());
    assert!(queue.arm(4), "three of four");
    assert_eq!(token(&mut queue), Some(0));
    assert!(!queue.arm(2), "the rest of the batch is there");
    assert!(queue.arm(3));
    device.passed.clear();
    put_batch(&mut device, &taken[3..4], 0, 0);
    assert!(device.interrupts());
    assert!(!queue.arm(3));
    (1..4).for_each(|expected| assert_eq!(token(&mut queue), Some(expected)));
}

proptest! {
    #[test]
    fn every_token_returns_once_and_in_order_in_batches_of_any_size(
        size in 1..12u16,
        event_idx: bool,
        indirect: bool,
        steps in prop::collection::vec(step(), 0..400),
    ) {
        let indirect_entries = if indirect { 3 } else { 0 };
        let (mut queue, mut device) = queue(size, QueueOptions { indirect_entries, ..options(event_idx) });
        let (mut next, mut back) = (0, Vec::new());
        let mut held = Vec::new();
        for step in steps {
            match step {
                Step::Add(length) => {
                    let segments = [segment(4); 4];
                    let added = queue.add(Chain::readable(&segments[..usize::from(length)]), next);
                    next += u32::from(added.is_ok());
                }
                Step::Publish => _ = queue.publish(),
                Step::Take => held.extend(device.take()),
                Step::Serve(most) => {
                    let batch: Vec<Taken> = held.drain(..usize::from(most).min(held.len())).collect();
                    if !batch.is_empty() {
                        put_batch(&mut device, &batch, 0, 0);
                    }
                }
                Step::Pop => back.extend(queue.pop().unwrap().map(|done| done.token)),
                Step::Arm(completions) => _ = queue.arm(completions.into()),
                Step::Disarm => queue.disarm(),
            }
            prop_assert!(queue.free() <= size && u32::from(queue.outstanding()) == next - back.len() as u32);
        }
        prop_assert!(back.iter().copied().eq(0..back.len() as u32), "in order: {:?}", back);
        back.extend(queue.drain(&Quiesced::new()));
        back.sort_unstable();
        prop_assert_eq!(back, (0..next).collect::<Vec<_>>());
    }

    /// As without `IN_ORDER`: a driver that was told to wait is woken, also by a batch.
    #[test]
    fn no_wake_up_is_lost(
        size in 1..12u16,
        event_idx: bool,
        lengths in prop::collection::vec(1..4usize, 1..12),
        early in 0..12usize,
        popped in 0..12usize,
        completions in 1..12u16,
        laps in 0..30u32,
    ) {
        let (mut queue, mut device) = queue(size, options(event_idx));
        for round in 0..laps {
            add(&mut queue, round);
            let _ = queue.publish();
            device.serve();
            prop_assert_eq!(queue.pop().unwrap().map(|done| done.token), Some(round));
        }
        let segments = [segment(4); 4];
        let added = lengths.iter().filter(|length| queue.add(Chain::readable(&segments[..**length]), 0).is_ok()).count();
        let _ = queue.publish();
        let taken = take_all(&mut device);
        let early = early.min(added);
        if early > 0 {
            put_batch(&mut device, &taken[..early], 0, 0);
        }
        (0..popped.min(early)).for_each(|_| assert!(queue.pop().unwrap().is_some()));
        device.passed.clear();
        if queue.arm(completions) {
            if early < added {
                put_batch(&mut device, &taken[early..], 0, 0);
            }
            prop_assert!(added == early || device.interrupts(), "none comes, and {} wait", added - early);
        } else {
            prop_assert!(queue.pop().unwrap().is_some());
        }
    }

    #[test]
    fn no_ring_contents_cause_a_panic_or_invent_tokens(
        laps in 0..20u32,
        words in prop::collection::vec((any::<u32>(), prop_oneof![0..10u16, any::<u16>()], any::<u16>()), 7),
        arm: u16,
    ) {
        let (mut queue, mut device) = queue(7, options(true));
        for round in 0..laps {
            add(&mut queue, round);
            let _ = queue.publish();
            device.serve();
            prop_assert_eq!(queue.pop().unwrap().map(|done| done.token), Some(round));
        }
        for length in [1, 2, 1] {
            queue.add(Chain::writable(&[segment(4); 2][..length]), 100 + length as u32).unwrap();
        }
        let _ = queue.publish();
        for (entry, (length, id, flags)) in words.into_iter().enumerate() {
            device.ram.store(entry * 16 + 8, length.to_le_bytes());
            device.ram.store(entry * 16 + 12, id.to_le_bytes());
            device.ram.store(entry * 16 + 14, flags.to_le_bytes());
        }
        let _ = queue.arm(arm);
        let mut tokens = Vec::new();
        while let Ok(Some(done)) = queue.pop() {
            prop_assert!(done.written <= 8);
            tokens.push(done.token);
            let _ = queue.arm(arm);
        }
        tokens.extend(queue.drain(&Quiesced::new()));
        tokens.sort_unstable();
        prop_assert_eq!(tokens, [101, 101, 102]);
    }
}
