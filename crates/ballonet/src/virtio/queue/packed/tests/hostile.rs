//! The queue against devices that lie.

use super::*;
use crate::virtio::queue::UsedLength;

/// A queue of 5 with a readable request of 4 bytes and a writable one of 8 in two pieces, both seen by the device.
fn two_requests(used_length: UsedLength) -> (Fixture, [Taken; 2]) {
    let (mut queue, mut device) = queue(5, QueueOptions { used_length, ..options(true) });
    add(&mut queue, 0);
    queue.add(Chain::writable(&[segment(4); 2]), 1).unwrap();
    let _ = queue.publish();
    let taken = [device.take().unwrap(), device.take().unwrap()];
    ((queue, device), taken)
}

#[test]
fn a_lie_in_a_used_descriptor_is_reported_and_breaks_the_queue() {
    type Lie = fn(&mut Device, &[Taken; 2]);
    let flags = |device: &Device, flags: u16| device.ram.store(14, flags.to_le_bytes());
    let lies: [(Lie, QueueError); 7] = [
        (|device, _| device.put_with(5, 0, 1, 0), QueueError::UsedId { id: 5, size: 5 }),
        (|device, _| device.put_with(0xffff, 0, 1, 0), QueueError::UsedId { id: 0xffff, size: 5 }),
        (|device, _| device.put_with(2, 0, 1, 0), QueueError::NotOutstanding { id: 2 }),
        (|device, taken| device.put_with(taken[1].id, 9, 2, 2), QueueError::UsedLength { id: 1, length: 9, limit: 8 }),
        (|device, taken| device.put_with(taken[0].id, 1, 1, 2), QueueError::UsedLength { id: 0, length: 1, limit: 0 }),
        (
            |device, _| device.ram.store(14, 0x8000_u16.to_le_bytes()),
            QueueError::UsedFlags { offset: 0, flags: 0x8000 },
        ),
        (|device, _| device.ram.store(14, [0, 0]), QueueError::UsedFlags { offset: 0, flags: 0 }),
    ];
    for (lie, error) in lies {
        let ((mut queue, mut device), taken) = two_requests(UsedLength::Strict);
        lie(&mut device, &taken);
        assert!(!queue.arm(1), "arming a broken queue does not promise an interrupt: {error}");
        assert_eq!(queue.pop(), Err(error));
        assert_eq!(queue.poisoned(), Some(error));
        flags(&device, 0x80);
        assert_eq!(queue.pop(), Err(error), "it stays broken");
        assert!(!queue.arm(1));
        let rejected = queue.add(Chain::readable(&[segment(4)]), 9).unwrap_err();
        assert_eq!(rejected, Rejected { reason: Refusal::Poisoned(error), token: 9 });
        let mut tokens: Vec<_> = queue.drain(&Quiesced::new()).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, [0, 1], "every token comes back after the reset: {error}");
    }
}

#[test]
fn the_same_request_is_not_completed_twice() {
    let ((mut queue, mut device), taken) = two_requests(UsedLength::Strict);
    device.put(&taken[0]);
    device.put(&taken[0]);
    assert_eq!(token(&mut queue), Some(0));
    assert_eq!(queue.pop(), Err(QueueError::NotOutstanding { id: taken[0].id }));
}

#[test]
fn unpublished_requests_cannot_have_been_used() {
    let (mut queue, mut device) = queue(4, options(false));
    add(&mut queue, 0);
    device.put_with(0, 0, 1, 0);
    assert_eq!(queue.pop(), Err(QueueError::NotOutstanding { id: 0 }));
    let ((mut queue, mut device), _) = two_requests(UsedLength::Strict);
    add(&mut queue, 2);
    device.put_with(2, 0, 1, 0);
    assert_eq!(queue.pop(), Err(QueueError::NotOutstanding { id: 2 }), "even while another request is outstanding");
}

#[test]
fn an_idle_queue_accepts_no_used_descriptor() {
    let (mut queue, mut device) = queue(3, options(false));
    for round in 0..7 {
        add(&mut queue, round);
        let _ = queue.publish();
        device.serve();
        assert_eq!(token(&mut queue), Some(round));
        assert_eq!(queue.pop(), Ok(None));
    }
    device.put_with(1, 0, 1, 0);
    assert_eq!(queue.pop(), Err(QueueError::NotOutstanding { id: 1 }));
}

#[test]
fn a_device_that_also_counts_bytes_read_is_tolerated_if_lenient() {
    let ((mut queue, mut device), taken) = two_requests(UsedLength::Lenient);
    device.put_with(taken[0].id, 4, 1, 2);
    let done = queue.pop().unwrap().unwrap();
    assert_eq!((done.written, done.claimed), (0, 4));
    device.put_with(taken[1].id, 9, 2, 2);
    assert!(matches!(queue.pop(), Err(QueueError::UsedLength { limit: 8, .. })), "but no more than the request has");
}

#[test]
fn descriptors_rewritten_by_the_device_do_not_mislead_the_driver() {
    let ((mut queue, mut device), taken) = two_requests(UsedLength::Strict);
    // Everything except the flags, where tampering is detected.
    for at in (0..5).flat_map(|entry| (0..14).step_by(2).map(move |offset| entry * 16 + offset)) {
        device.ram.store(at, [0xff; 2]);
    }
    for taken in &taken {
        device.put(taken);
        assert!(queue.pop().unwrap().is_some());
    }
    for token in 0..5 {
        add(&mut queue, token);
    }
    let _ = queue.publish();
    let mut seen: Vec<u16> = core::iter::from_fn(|| device.take()).map(|taken| taken.id).collect();
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4]);
}

#[test]
fn a_loop_of_false_completions_does_not_hang_arming() {
    let (mut queue, mut device) = queue(32, options(true));
    for token in 0..30 {
        add(&mut queue, token);
    }
    let _ = queue.publish();
    // The same id everywhere: each looks right by itself.
    (0..32).for_each(|_| device.put_with(0, 0, 1, 0));
    assert!(!queue.arm(30));
    assert_eq!(token(&mut queue), Some(0));
    assert_eq!(queue.pop(), Err(QueueError::NotOutstanding { id: 0 }));
}

proptest! {
    #[test]
    fn no_ring_contents_cause_a_panic_or_invent_tokens(
        laps in 0..20u32,
        words in prop::collection::vec((any::<u32>(), prop_oneof![0..10u16, any::<u16>()], any::<u16>()), 7),
        suppression: (u16, u16),
        arm: u16,
        lenient: bool,
    ) {
        let used_length = if lenient { UsedLength::Lenient } else { UsedLength::Strict };
        let (mut queue, mut device) = queue(7, QueueOptions { used_length, ..options(true) });
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
        device.set_suppression(suppression.0, suppression.1);
        let _ = queue.arm(arm);
        let mut tokens = Vec::new();
        while let Ok(Some(done)) = queue.pop() {
            prop_assert!(done.written <= 8);
            tokens.push(done.token);
            let _ = queue.arm(arm);
        }
        let _ = queue.add(Chain::readable(&[segment(1)]), 100);
        let _ = queue.publish();
        tokens.extend(queue.drain(&Quiesced::new()));
        tokens.sort_unstable();
        tokens.retain(|token| *token != 100);
        prop_assert_eq!(tokens, [101, 101, 102]);
    }
}
