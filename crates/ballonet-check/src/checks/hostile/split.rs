//! Split rings: chains, heads, indices, and the device's own half.

use super::steps::{RACES, race};
use super::{NEXT, WRITE, clause, split, with};
use crate::check::{Check, Clause, Verdict};
use crate::device::Attacker;
use crate::ring::RingField;
use ballonet::virtio::spec::Features;

const LOOP: Clause = clause("2.7.5.2", "a chain must not loop");
const NEXT_RANGE: Clause = clause("2.7.5", "next must be the index of a descriptor of the table");
const HEAD_RANGE: Clause = clause("2.7.6", "an available entry must be the index of a descriptor of the table");
const ONCE: Clause = clause("2.7.6", "a descriptor must not be made available again before it is used");
const AHEAD: Clause = clause("2.7.6", "at most as many buffers are available as the queue has entries");
const BACK: Clause = clause("2.7.6.1", "the available index must not decrease");
const FLAGS: Clause = clause("2.7.7.1", "without EVENT_IDX the available flags must be 0 or 1");
const FLAGS_EVENT: Clause = clause("2.7.7.1", "with EVENT_IDX the available flags must be 0");
const EVENT: Clause = clause("2.7.7", "used_event is an index that the used ring will reach");
const USED: Clause = clause("2.7.8", "only the device writes the used ring");
const IN_FLIGHT: Clause = clause("3.3.1", "descriptors and entries in flight must not be changed");
const DIRECTION: Clause = clause("2.7.4.2", "readable descriptors must come before writable ones");
const READABLE: Clause = clause("5.5.6", "frame numbers are in device-readable memory");
const UNDEFINED: Clause = clause("2.7.5", "flags other than NEXT, WRITE and INDIRECT are 0");

/// The checks, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = &[
    split("hostile-split-loop-of-one", LOOP, "a descriptor names itself as the next", |a| {
        let part = (a.buffer(), 4);
        a.descriptor(0, part, NEXT, 0)?;
        a.offer(0)
    }),
    split("hostile-split-loop-of-two", LOOP, "two descriptors name each other as the next", |a| looped(a, 2, 0)),
    split("hostile-split-loop-over-all", LOOP, "a chain runs through the whole table and back to its head", |a| {
        let size = a.size()?;
        looped(a, size, 0)
    }),
    split("hostile-split-loop-behind-the-head", LOOP, "a chain loops behind its head", |a| looped(a, 4, 2)),
    split("hostile-split-loop-of-empty", LOOP, "a chain of empty descriptors loops", |a| {
        let at = a.buffer();
        a.descriptor(0, (at, 0), NEXT, 1)?;
        a.descriptor(1, (at, 0), NEXT, 0)?;
        a.offer(0)
    }),
    split("hostile-split-loop-of-writable", LOOP, "a chain of writable descriptors loops", |a| {
        let at = writable(a)?;
        a.descriptor(0, (at, 64), NEXT | WRITE, 1)?;
        a.descriptor(1, (at, 64), NEXT | WRITE, 0)?;
        a.offer(0)
    }),
    split("hostile-split-two-chains-share-a-tail", ONCE, "two chains end in the same descriptor", |a| {
        let part = (a.buffer(), 4);
        a.descriptor(0, part, NEXT, 2)?;
        a.descriptor(1, part, NEXT, 2)?;
        a.descriptor(2, part, 0, 0)?;
        a.offer(0)?;
        a.offer(1)
    }),
    split("hostile-split-next-is-the-size", NEXT_RANGE, "next is the number of descriptors", |a| {
        let size = a.size()?;
        next(a, size)
    }),
    split("hostile-split-next-is-32768", NEXT_RANGE, "next is 0x8000", |a| next(a, 0x8000)),
    split("hostile-split-next-is-65535", NEXT_RANGE, "next is 0xffff", |a| next(a, 0xffff)),
    split("hostile-split-next-leaves-in-mid-chain", NEXT_RANGE, "the third next of a chain leaves the table", |a| {
        let (part, size) = ((a.buffer(), 4), a.size()?);
        for place in 0..3 {
            a.descriptor(place, part, NEXT, if place == 2 { size + 1 } else { place + 1 })?;
        }
        a.offer(0)
    }),
    split("hostile-split-next-is-never-written", NEXT_RANGE, "next names a descriptor of zeros", |a| {
        let last = a.size()? - 1;
        next(a, last)
    }),
    split("hostile-split-head-is-the-size", HEAD_RANGE, "a head is the number of descriptors", |a| {
        let size = a.size()?;
        a.offer(size)
    }),
    split("hostile-split-head-is-32768", HEAD_RANGE, "a head is 0x8000", |a| a.offer(0x8000)),
    split("hostile-split-head-is-65535", HEAD_RANGE, "a head is 0xffff", |a| a.offer(0xffff)),
    split("hostile-split-good-head-after-bad", HEAD_RANGE, "a head out of range is followed by a good one", |a| {
        let size = a.size()?;
        a.lawful(0)?;
        a.offer(size)?;
        a.offer(0)
    }),
    split("hostile-split-bad-head-after-good", HEAD_RANGE, "a good head is followed by one out of range", |a| {
        let size = a.size()?;
        a.lawful(0)?;
        a.offer(0)?;
        a.offer(size)
    }),
    split("hostile-split-every-head-is-bad", HEAD_RANGE, "all heads of a full ring are out of range", |a| {
        let size = a.size()?;
        (0..size).try_for_each(|head| a.offer(size + head))
    }),
    split("hostile-split-head-is-never-written", HEAD_RANGE, "a head names a descriptor of zeros", |a| {
        let last = a.size()? - 1;
        a.offer(last)
    }),
    split("hostile-split-same-head-twice", ONCE, "the same head is made available twice at once", |a| {
        a.lawful(0)?;
        a.offer(0)?;
        a.offer(0)
    }),
    split("hostile-split-all-heads-the-same", ONCE, "every entry of a full ring names the same head", |a| {
        let size = a.size()?;
        a.lawful(0)?;
        (0..size).try_for_each(|_| a.offer(0))
    }),
    split("hostile-split-head-inside-a-chain", ONCE, "a head is the second descriptor of an available chain", |a| {
        let part = (a.buffer(), 4);
        a.send_chain(&[(part, 0), (part, 0), (part, 0)])?;
        a.offer(1)
    }),
    split(
        "hostile-split-index-jumps-by-one-too-many",
        AHEAD,
        "the available index is one more than the queue size ahead",
        |a| {
            let size = a.size()?;
            index(a, size + 1)
        },
    ),
    split("hostile-split-index-jumps-by-32768", AHEAD, "the available index is 0x8000 ahead", |a| index(a, 0x8000)),
    split("hostile-split-index-jumps-by-65535", AHEAD, "the available index is 0xffff ahead", |a| index(a, 0xffff)),
    split(
        "hostile-split-index-promises-a-full-ring",
        ONCE,
        "the index says that all entries, never written, are available",
        |a| {
            let size = a.size()?;
            index(a, size)
        },
    ),
    split("hostile-split-index-goes-back-by-one", BACK, "the available index goes back by 1 after a request", |a| {
        served(a, 2)?;
        index(a, 1)
    }),
    split(
        "hostile-split-index-goes-back-to-0",
        BACK,
        "the available index goes back to 0 after several requests",
        |a| {
            served(a, 5)?;
            index(a, 0)
        },
    ),
    split("hostile-split-index-goes-back-and-forth", BACK, "the available index goes back and forth", |a| {
        served(a, 2)?;
        for value in [1, 2, 0, 2, 1, 2] {
            index(a, value)?;
            a.kick_and_wait()?;
        }
        Ok(())
    }),
    split("hostile-split-index-runs-away", AHEAD, "the available index runs through all its values", |a| {
        a.lawful(0)?;
        for step in 0..64_u16 {
            index(a, step * 1024)?;
            a.kick()?;
        }
        Ok(())
    }),
    split("hostile-split-available-flags-are-all-ones", FLAGS, "the available flags are 0xffff", |a| {
        a.overwrite(RingField::AvailableFlags, 0xffff)?;
        a.lawful(0)?;
        a.offer(0)
    }),
    split("hostile-split-available-flags-are-undefined", FLAGS, "the available flags have bit 1 set", |a| {
        a.overwrite(RingField::AvailableFlags, 2)?;
        a.lawful(0)?;
        a.offer(0)
    }),
    with(
        Features::EVENT_IDX,
        "hostile-split-available-flags-with-event-index",
        FLAGS_EVENT,
        "with EVENT_IDX the available flags are 1",
        |a| {
            a.overwrite(RingField::AvailableFlags, 1)?;
            a.lawful(0)?;
            a.offer(0)
        },
    ),
    with(Features::EVENT_IDX, "hostile-split-used-event-far-ahead", EVENT, "used_event is 0x8000 ahead", |a| {
        event(a, 0x8000)
    }),
    with(Features::EVENT_IDX, "hostile-split-used-event-behind", EVENT, "used_event is 0xfffe", |a| event(a, 0xfffe)),
    with(
        Features::EVENT_IDX,
        "hostile-split-used-event-changes",
        EVENT,
        "used_event changes with every request",
        |a| {
            for value in (0..RACES).map(|step| step.wrapping_mul(0x1357)) {
                event(a, value)?;
                a.kick_and_wait()?;
            }
            Ok(())
        },
    ),
    split("hostile-split-used-index-is-overwritten", USED, "the driver overwrites the used index", |a| {
        device_half(a, RingField::UsedIndex, 0x1234)
    }),
    split("hostile-split-used-index-is-cleared", USED, "the driver clears the used index after requests", |a| {
        served(a, 3)?;
        a.overwrite(RingField::UsedIndex, 0)?;
        a.lawful(4)?;
        a.offer(4)
    }),
    split("hostile-split-used-flags-are-overwritten", USED, "the driver overwrites the used flags", |a| {
        device_half(a, RingField::UsedFlags, 0xffff)
    }),
    with(
        Features::EVENT_IDX,
        "hostile-split-avail-event-is-overwritten",
        USED,
        "the driver overwrites avail_event",
        |a| device_half(a, RingField::AvailableEvent, 0x8000),
    ),
    split("hostile-split-descriptors-change-in-flight", IN_FLIGHT, "descriptors' lengths change in flight", |a| {
        let at = a.buffer();
        race(a, |a, place| a.descriptor(place, (at, 0xffff_ffff), 0, 0))
    }),
    split("hostile-split-descriptors-are-freed-in-flight", IN_FLIGHT, "descriptors become zeros in flight", |a| {
        race(a, |a, place| a.descriptor(place, (0, 0), 0, 0))
    }),
    split("hostile-split-descriptors-loop-in-flight", IN_FLIGHT, "descriptors become loops in flight", |a| {
        let part = (a.buffer(), 4);
        race(a, |a, place| a.descriptor(place, part, NEXT, place))
    }),
    split("hostile-split-heads-change-in-flight", IN_FLIGHT, "available entries leave the table in flight", |a| {
        race(a, |a, place| a.overwrite(RingField::AvailableEntry(place), 0xffff))
    }),
    split(
        "hostile-split-writable-between-readable",
        DIRECTION,
        "a writable descriptor is between readable ones",
        |a| {
            let (read, write) = ((a.buffer(), 4), (writable(a)?, 64));
            a.send_chain(&[(read, 0), (write, WRITE), (read, 0)])
        },
    ),
    split("hostile-split-writable-before-readable", DIRECTION, "a writable descriptor is before a readable one", |a| {
        let (read, write) = ((a.buffer(), 4), (writable(a)?, 64));
        a.send_chain(&[(write, WRITE), (read, 0)])
    }),
    split("hostile-split-alternating-directions", DIRECTION, "sixteen descriptors alternate in direction", |a| {
        let (read, write) = (((a.buffer(), 4), 0), ((writable(a)?, 64), WRITE));
        a.send_chain(&[read, write].repeat(8))
    }),
    split("hostile-split-writable-only", READABLE, "a request has only a writable descriptor", |a| {
        let at = writable(a)?;
        a.send((at, 64), WRITE)
    }),
    split("hostile-split-undefined-flags", UNDEFINED, "a descriptor has all undefined flags set", |a| {
        let part = (a.buffer(), 4);
        a.send(part, 0xfff8)
    }),
    split("hostile-split-all-flags", UNDEFINED, "a descriptor has all flags set, defined or not", |a| {
        let part = (a.buffer(), 16);
        a.send(part, 0xffff)
    }),
    split("hostile-split-descriptors-of-ones", NEXT_RANGE, "the descriptor table is all ones", |a| {
        let size = a.size()?;
        (0..size).try_for_each(|place| a.descriptor(place, (u64::MAX, u32::MAX), u16::MAX, u16::MAX))?;
        (0..size).try_for_each(|head| a.offer(head))
    }),
    split(
        "hostile-split-available-ring-of-ones",
        HEAD_RANGE,
        "the available ring is all ones, including index and flags",
        |a| {
            let size = a.size()?;
            (0..size).try_for_each(|entry| a.overwrite(RingField::AvailableEntry(entry), 0xffff))?;
            a.overwrite(RingField::AvailableFlags, 0xffff)?;
            index(a, 0xffff)
        },
    ),
];

/// A chain of `count` descriptors whose last names descriptor `back` as the next.
fn looped(a: &mut Attacker<'_, '_>, count: u16, back: u16) -> Verdict {
    let part = (a.buffer(), 4);
    for place in 0..count {
        a.descriptor(place, part, NEXT, if place + 1 == count { back } else { place + 1 })?;
    }
    a.offer(0)
}

/// A chain whose first descriptor has this `next`.
fn next(a: &mut Attacker<'_, '_>, next: u16) -> Verdict {
    let part = (a.buffer(), 4);
    a.descriptor(0, part, NEXT, next)?;
    a.offer(0)
}

fn index(a: &mut Attacker<'_, '_>, value: u16) -> Verdict {
    a.overwrite(RingField::AvailableIndex, value)
}

/// Lawful requests, with time for the device to serve them.
fn served(a: &mut Attacker<'_, '_>, count: u16) -> Verdict {
    for place in 0..count {
        a.lawful(place)?;
        a.offer(place)?;
    }
    a.kick_and_wait()
}

/// A lawful request, with this `used_event`.
fn event(a: &mut Attacker<'_, '_>, value: u16) -> Verdict {
    a.overwrite(RingField::UsedEvent, value)?;
    a.lawful(0)?;
    a.offer(0)
}

/// Overwrites a field of the device, and continues with lawful requests.
fn device_half(a: &mut Attacker<'_, '_>, field: RingField, value: u16) -> Verdict {
    a.overwrite(field, value)?;
    served(a, 2)?;
    a.overwrite(field, !value)?;
    a.lawful(4)?;
    a.offer(4)
}

/// Memory that the device may write.
pub(super) fn writable(a: &mut Attacker<'_, '_>) -> Verdict<u64> {
    let at = a.device.arena.place(64, 16, 0)?;
    a.device.arena.open(at, 64);
    Ok(a.device.arena.address(at))
}
