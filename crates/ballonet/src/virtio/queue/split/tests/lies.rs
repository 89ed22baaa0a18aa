//! A device that lies in the used ring, or rewrites descriptors.

use super::*;

/// A queue with one readable request of 4 bytes and one writable of 8, both seen by the device.
fn two_requests(used_length: UsedLength) -> (Fixture, [u16; 2]) {
    let (mut queue, mut device) = queue(4, QueueOptions { used_length, ..options(false) });
    add(&mut queue, 0);
    queue.add(Chain::writable(&[segment(8)]), 1).unwrap();
    let _ = queue.publish();
    let heads = [device.take().unwrap(), device.take().unwrap()];
    ((queue, device), heads)
}

#[test]
fn a_lie_in_the_used_ring_is_reported_and_breaks_the_queue() {
    type Lie = fn(&mut Device, [u16; 2]);
    let lies: [(Lie, QueueError); 6] = [
        (|device, _| device.put(4, 0), QueueError::UsedId { id: 4, size: 4 }),
        (|device, _| device.put(0x1_0000, 0), QueueError::UsedId { id: 0x1_0000, size: 4 }),
        (|device, _| device.put(3, 0), QueueError::NotOutstanding { id: 3 }),
        (|device, heads| device.put(heads[1].into(), 9), QueueError::UsedLength { id: 1, length: 9, limit: 8 }),
        (|device, _| device.set_used_index(3), QueueError::UsedIndex { index: 3, advance: 3, outstanding: 2 }),
        (
            |device, _| device.set_used_index(0xffff),
            QueueError::UsedIndex { index: 0xffff, advance: 0xffff, outstanding: 2 },
        ),
    ];
    for (lie, error) in lies {
        let ((mut queue, mut device), heads) = two_requests(UsedLength::Strict);
        lie(&mut device, heads);
        assert_eq!(queue.pop(), Err(error));
        assert_eq!(queue.poisoned(), Some(error));
        device.set_used_index(0);
        assert_eq!(queue.pop(), Err(error), "it stays broken");
        assert!(!queue.arm(1), "and arming it does not promise an interrupt");
        let rejected = queue.add(Chain::readable(&[segment(4)]), 9).unwrap_err();
        assert_eq!(rejected, Rejected { reason: Refusal::Poisoned(error), token: 9 });
        let mut tokens: Vec<_> = queue.drain(&Quiesced::new()).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, [0, 1], "every token comes back after the reset: {error}");
    }
}

#[test]
fn the_same_request_is_not_completed_twice() {
    let ((mut queue, mut device), heads) = two_requests(UsedLength::Strict);
    device.put(heads[0].into(), 0);
    device.put(heads[0].into(), 0);
    assert_eq!(queue.pop().unwrap().map(|done| done.token), Some(0));
    assert_eq!(queue.pop(), Err(QueueError::NotOutstanding { id: heads[0] }));
}

#[test]
fn a_descriptor_in_the_middle_of_a_chain_is_not_a_head() {
    let (mut queue, mut device) = queue(4, options(false));
    queue.add(Chain::readable(&[segment(1); 3]), 0).unwrap();
    let _ = queue.publish();
    let head = device.take().unwrap();
    let (.., next) = device.descriptor(&device.ram, usize::from(head) * 16);
    device.put(next.into(), 0);
    assert_eq!(queue.pop(), Err(QueueError::NotOutstanding { id: next }));
}

#[test]
fn unpublished_requests_cannot_have_been_used() {
    let (mut queue, mut device) = queue(4, options(false));
    add(&mut queue, 0);
    device.put(0, 0);
    assert_eq!(queue.pop(), Err(QueueError::UsedIndex { index: 1, advance: 1, outstanding: 0 }));
}

#[test]
fn unpublished_requests_do_not_count_as_outstanding_beside_published_ones() {
    let ((mut queue, mut device), _) = two_requests(UsedLength::Strict);
    add(&mut queue, 2);
    device.put(2, 0);
    assert_eq!(queue.pop(), Err(QueueError::NotOutstanding { id: 2 }));
    let mut tokens: Vec<_> = queue.drain(&Quiesced::new()).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, [0, 1, 2]);
    assert_eq!(queue.pop(), Err(QueueError::NotOutstanding { id: 2 }), "and a drained queue counts none");
}

#[test]
fn a_device_that_also_counts_bytes_read_is_tolerated_if_lenient() {
    let ((mut queue, mut device), heads) = two_requests(UsedLength::Lenient);
    device.put(heads[0].into(), 4);
    let done = queue.pop().unwrap().unwrap();
    assert_eq!((done.written, done.claimed), (0, 4));
    device.put(heads[1].into(), 9);
    assert!(matches!(queue.pop(), Err(QueueError::UsedLength { limit: 8, .. })), "but no more than the request has");
}

#[test]
fn descriptors_rewritten_by_the_device_do_not_mislead_the_driver() {
    let ((mut queue, mut device), heads) = two_requests(UsedLength::Strict);
    for offset in (0..64).step_by(2) {
        device.ram.store(offset, [0xff; 2]);
    }
    for head in heads {
        device.put(head.into(), 0);
        assert!(queue.pop().unwrap().is_some());
    }
    for token in 0..4 {
        add(&mut queue, token);
    }
    let _ = queue.publish();
    let mut seen: Vec<u16> = core::iter::from_fn(|| device.take()).collect();
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3]);
}
