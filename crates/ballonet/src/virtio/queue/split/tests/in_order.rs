//! `IN_ORDER`: descriptors in the order of the table, completions one by one or by the last of a batch.

use super::*;

fn options(event_idx: bool) -> QueueOptions {
    QueueOptions { in_order: true, ..super::options(event_idx) }
}

/// The slots of a chain in the table, as its next fields have them.
fn slots(device: &Device, head: u16) -> Vec<u16> {
    let mut slots = vec![head];
    loop {
        let last = *slots.last().unwrap();
        match device.descriptor(&device.ram, usize::from(last) * 16) {
            (.., flags, next) if flags & 1 != 0 => slots.push(next),
            _ => return slots,
        }
    }
}

fn token(queue: &mut Virtqueue<Ram, u32>) -> Option<u32> {
    queue.pop().unwrap().map(|done| done.token)
}

#[test]
fn descriptors_are_used_in_the_order_of_the_table_from_0_and_round_its_end() {
    for size in [1, 2, 8] {
        let (mut queue, mut device) = queue(size, options(false));
        let mut next = 0;
        for round in 0..100 {
            let segments = [segment(4); 8];
            let length = 1 + round % usize::from(size);
            queue.add(Chain::readable(&segments[..length]), 0).unwrap();
            let _ = queue.publish();
            let head = device.take().unwrap();
            let expected: Vec<u16> = (0..length as u16).map(|step| (next + step) % size).collect();
            assert_eq!(slots(&device, head), expected, "size {size}, round {round}");
            next = (next + length as u16) % size;
            device.put(head.into(), 0);
            assert_eq!((token(&mut queue), queue.free()), (Some(0), size));
        }
    }
}

#[test]
fn one_entry_completes_all_requests_up_to_its_own() {
    let (mut queue, mut device) = queue(8, options(false));
    for round in 0..50 {
        for token in 0..3 {
            add(&mut queue, 10 * round + token);
        }
        queue.add(Chain { readable: &[segment(4)], writable: &[segment(8); 2] }, 10 * round + 3).unwrap();
        let _ = queue.publish();
        let heads: Vec<u16> = core::iter::from_fn(|| device.take()).collect();
        device.put_batch(heads[3].into(), 5, 4);
        for token in 0..3 {
            assert_eq!(queue.pop(), Ok(Some(Completion { token: 10 * round + token, written: 0, claimed: 0 })));
        }
        assert_eq!(queue.pop(), Ok(Some(Completion { token: 10 * round + 3, written: 5, claimed: 5 })));
        assert_eq!((queue.pop(), queue.free()), (Ok(None), 8));
    }
}

#[test]
fn a_request_without_a_used_entry_counts_as_fully_written() {
    let (mut queue, mut device) = queue(8, options(false));
    queue.add(Chain { readable: &[segment(4)], writable: &[segment(8); 2] }, 0).unwrap();
    queue.add(Chain::writable(&[segment(8)]), 1).unwrap();
    let _ = queue.publish();
    let heads = [device.take().unwrap(), device.take().unwrap()];
    device.put_batch(heads[1].into(), 3, 2);
    assert_eq!(queue.pop(), Ok(Some(Completion { token: 0, written: 16, claimed: 16 })));
    assert_eq!(queue.pop(), Ok(Some(Completion { token: 1, written: 3, claimed: 3 })));
}

#[test]
fn batches_and_single_entries_alternate_and_the_next_entry_follows_the_batch() {
    let (mut queue, mut device) = queue_at(4, options(false), 0xfffd);
    let mut next = 0;
    for batch in [1, 3, 2, 4, 1, 1, 4, 3].into_iter().cycle().take(200) {
        for token in next..next + u32::from(batch) {
            add(&mut queue, token);
        }
        let _ = queue.publish();
        let last = core::iter::from_fn(|| device.take()).last().unwrap();
        device.put_batch(last.into(), 0, batch);
        for expected in next..next + u32::from(batch) {
            assert_eq!(token(&mut queue), Some(expected));
        }
        assert_eq!(token(&mut queue), None);
        next += u32::from(batch);
    }
}

#[test]
fn two_batches_announced_at_once_are_popped_in_turn() {
    let (mut queue, mut device) = queue(8, options(false));
    (0..5).for_each(|token| add(&mut queue, token));
    let _ = queue.publish();
    let heads: Vec<u16> = core::iter::from_fn(|| device.take()).collect();
    device.put_batch(heads[1].into(), 0, 2);
    device.put_batch(heads[4].into(), 0, 3);
    (0..5).for_each(|expected| assert_eq!(token(&mut queue), Some(expected)));
    assert_eq!(token(&mut queue), None);
}

#[test]
fn a_request_out_of_order_is_reported_and_breaks_the_queue() {
    let (mut queue, mut device) = queue(8, options(false));
    (0..3).for_each(|token| add(&mut queue, token));
    let _ = queue.publish();
    let heads: Vec<u16> = core::iter::from_fn(|| device.take()).collect();
    device.put(heads[2].into(), 0);
    let error = QueueError::OutOfOrder { id: heads[2], requests: 3, most: 1 };
    assert_eq!(queue.pop(), Err(error));
    assert_eq!(queue.poisoned(), Some(error));
    device.put(heads[0].into(), 0);
    assert_eq!(queue.pop(), Err(error), "it stays broken");
    assert_eq!(queue.drain(&Quiesced::new()).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn a_request_completed_with_its_batch_does_not_complete_again() {
    let (mut queue, mut device) = queue(8, options(false));
    (0..3).for_each(|token| add(&mut queue, token));
    let _ = queue.publish();
    let heads: Vec<u16> = core::iter::from_fn(|| device.take()).collect();
    device.put_batch(heads[1].into(), 0, 2);
    device.put(heads[0].into(), 0);
    assert_eq!((token(&mut queue), token(&mut queue)), (Some(0), Some(1)));
    assert_eq!(queue.pop(), Err(QueueError::NotOutstanding { id: heads[0] }));
}

#[test]
fn draining_a_queue_within_a_batch_returns_the_rest_of_it() {
    let (mut queue, mut device) = queue(4, options(false));
    (0..4).for_each(|token| add(&mut queue, token));
    let _ = queue.publish();
    let heads: Vec<u16> = core::iter::from_fn(|| device.take()).collect();
    device.put_batch(heads[2].into(), 0, 3);
    assert_eq!(token(&mut queue), Some(0));
    assert_eq!(queue.drain(&Quiesced::new()).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(queue.pop().is_err());
}

#[test]
fn arming_counts_the_requests_of_a_batch() {
    let (mut queue, mut device) = queue(8, options(true));
    (0..6).for_each(|token| add(&mut queue, token));
    let _ = queue.publish();
    let heads: Vec<u16> = core::iter::from_fn(|| device.take()).collect();
    assert!(queue.arm(4));
    assert_eq!(device.used_event(), 3);
    device.put_batch(heads[2].into(), 0, 3);
    assert!(queue.arm(4), "three of four");
    assert_eq!(token(&mut queue), Some(0));
    assert!(!queue.arm(2), "the rest of the batch is there");
    assert!(queue.arm(3));
    assert_eq!(device.used_event(), 3);
}

#[test]
fn tables_are_used_in_order_too() {
    let (mut queue, mut device) = queue(4, QueueOptions { indirect_entries: 3, ..options(false) });
    for round in 0..20 {
        queue.add(Chain::readable(&[segment(4); 3]), round).unwrap();
        let _ = queue.publish();
        let head = device.take().unwrap();
        assert_eq!(u32::from(head), round % 4);
        let (address, ..) = device.descriptor(&device.ram, usize::from(head) * 16);
        let start = (address - RAM_ADDRESS) as usize;
        let next = |entry: usize| device.descriptor(device.tables.as_ref().unwrap(), start + 16 * entry).3;
        assert_eq!([next(0), next(1)], [1, 2]);
        device.put(head.into(), 0);
        assert_eq!(token(&mut queue), Some(round));
    }
}

proptest! {
    #[test]
    fn every_token_returns_once_and_in_order_in_batches_of_any_size(
        steps in prop::collection::vec(step(), 0..300),
        start: u16,
        event_idx: bool,
        indirect: bool,
    ) {
        let options = QueueOptions { indirect_entries: if indirect { 2 } else { 0 }, ..options(event_idx) };
        let (mut queue, mut device) = queue_at(8, options, start);
        let (mut next, mut back) = (0, Vec::new());
        let mut held = Vec::new();
        for step in steps {
            match step {
                Step::Add(length) => {
                    let segments = [segment(4); 3];
                    let added = queue.add(Chain::readable(&segments[..usize::from(length)]), next);
                    next += u32::from(added.is_ok());
                }
                Step::Publish => _ = queue.publish(),
                Step::Serve(most) => {
                    held.extend(core::iter::from_fn(|| device.take()));
                    let batch: Vec<u16> = held.drain(..usize::from(most).min(held.len())).collect();
                    if let Some(last) = batch.last() {
                        device.put_batch((*last).into(), 0, batch.len() as u16);
                    }
                }
                Step::Pop => back.extend(queue.pop().unwrap().map(|done| done.token)),
            }
            prop_assert!(queue.free() <= 8 && u32::from(queue.outstanding()) == next - back.len() as u32);
        }
        prop_assert!(back.iter().copied().eq(0..back.len() as u32), "in order: {:?}", back);
        back.extend(queue.drain(&Quiesced::new()));
        back.sort_unstable();
        prop_assert_eq!(back, (0..next).collect::<Vec<_>>());
    }

    #[test]
    fn no_used_ring_contents_cause_a_panic_or_invent_tokens(
        index: u16,
        entries in prop::collection::vec((prop_oneof![0..10u32, any::<u32>()], any::<u32>()), 8),
        arm: u16,
    ) {
        let (mut queue, mut device) = queue(8, options(true));
        (0..5).for_each(|token| add(&mut queue, token));
        let _ = queue.publish();
        for (id, length) in entries {
            device.put(id, length);
        }
        device.set_used_index(index);
        let mut tokens = Vec::new();
        while let Ok(Some(done)) = queue.pop() {
            tokens.push(done.token);
            let _ = queue.arm(arm);
        }
        tokens.extend(queue.drain(&Quiesced::new()));
        prop_assert_eq!(tokens, [0, 1, 2, 3, 4]);
    }
}
