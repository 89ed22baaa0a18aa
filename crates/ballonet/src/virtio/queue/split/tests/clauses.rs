//! Small clauses of the specification that no other test covers.

use super::*;

#[test]
fn a_segment_takes_one_descriptor() {
    let (mut queue, mut device) = queue(8, options(false));
    let segments = [segment(1), segment(4096), segment(u32::MAX - 4097)];
    queue.add(Chain::readable(&segments), 0).unwrap();
    queue.publish().unwrap();
    let head = device.take().unwrap();
    assert_eq!(device.chain(head).len(), segments.len());
    assert_eq!(queue.free(), 5);
}

#[test]
fn a_table_carries_no_more_than_the_queue() {
    let (mut queue, _) = queue(4, QueueOptions { indirect_entries: 8, ..options(false) });
    let refused = queue.add(Chain::readable(&[segment(4); 5]), 'a'.into()).unwrap_err();
    assert_eq!(refused.reason, Refusal::TooLong { length: 5, size: 4 });
    queue.add(Chain::readable(&[segment(4); 4]), 'b'.into()).unwrap();
    assert_eq!(queue.free(), 3);
}

#[test]
fn the_written_length_is_reported_and_bounded() {
    for (used_length, claims) in
        [(UsedLength::Strict, [0, 5, 8]), (UsedLength::Lenient, [0, 5, 12]), (UsedLength::Ignored, [0, 5, u32::MAX])]
    {
        let (mut queue, mut device) = queue(4, QueueOptions { used_length, ..options(false) });
        for claim in claims {
            queue.add(Chain { readable: &[segment(4)], writable: &[segment(8)] }, 0).unwrap();
            queue.publish().unwrap();
            let head = device.take().unwrap();
            device.put(head.into(), claim);
            assert_eq!(queue.pop().unwrap().unwrap().written, claim.min(8), "{used_length:?}, {claim} claimed");
        }
    }
}
