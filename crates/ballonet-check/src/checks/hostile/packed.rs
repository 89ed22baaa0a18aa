//! Packed rings: wrap counters, buffer ids, chains and event suppression.

use super::split::writable;
use super::steps::{RACES, race};
use super::{AVAIL as AVAILABLE, NEXT, USED, WRITE, clause, packed, with};
use crate::check::{Check, Clause, Verdict};
use crate::device::Attacker;
use crate::ring::RawDescriptor;
use ballonet::virtio::spec::{Features, RING_EVENT_DESCRIPTOR, RING_EVENT_ENABLE};

const WRAP: Clause = clause("2.8.1", "AVAIL equals the driver's wrap counter, and USED differs from it");
const ORDER: Clause = clause("2.8.1", "descriptors are made available in ring order");
const ID: Clause = clause("2.8.6", "a buffer id is less than the queue size");
const ID_ONCE: Clause = clause("2.8.6", "a buffer id must not be in use twice");
const LONG: Clause = clause("2.8.17", "a list must not be longer than the queue");
const HEAD_LAST: Clause = clause("2.8.17", "the first descriptor of a list must become available last");
const ROOM: Clause = clause("2.8.17", "there must be room for a whole list before its first descriptor is available");
const CHANGED: Clause = clause("2.8.16", "an available descriptor must not be changed");
const DIRECTION: Clause = clause("2.8.17", "readable descriptors must come before writable ones");
const READABLE: Clause = clause("5.5.6", "frame numbers are in device-readable memory");
const UNDEFINED: Clause = clause("2.8.5", "undefined flags are 0");
const EVENT_FLAGS: Clause = clause("2.8.10", "event flags are 0, 1 or, with EVENT_IDX, 2");
const EVENT_PLACE: Clause = clause("2.8.10", "an event offset is less than the queue size");
const DEVICE_EVENT: Clause = clause("2.8.10", "only the device writes its event suppression structure");

const fn event(name: &'static str, clause: Clause, asks: &'static str, act: super::RingAttack) -> Check {
    with(Features::RING_PACKED.union(Features::EVENT_IDX), name, clause, asks, act)
}

/// The checks, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = &[
    packed("hostile-packed-wrap-is-wrong", WRAP, "a descriptor is available for the second lap in the first", |a| {
        flagged(a, 0, USED)
    }),
    packed("hostile-packed-available-and-used", WRAP, "AVAIL and USED are both set in the first lap", |a| {
        flagged(a, 0, AVAILABLE | USED)
    }),
    packed("hostile-packed-neither-available-nor-used", WRAP, "AVAIL and USED are both clear in the first lap", |a| {
        flagged(a, 0, 0)
    }),
    packed("hostile-packed-wrap-flips-in-mid-chain", WRAP, "the second descriptor of a chain is of another lap", |a| {
        flagged(a, 1, USED)?;
        flagged(a, 0, AVAILABLE | NEXT)
    }),
    packed("hostile-packed-used-in-mid-chain", WRAP, "the second descriptor of a chain is marked as used", |a| {
        flagged(a, 1, AVAILABLE | USED)?;
        flagged(a, 0, AVAILABLE | NEXT)
    }),
    packed("hostile-packed-wrap-flips-back-and-forth", WRAP, "the wrap bits of a descriptor flip repeatedly", |a| {
        for flags in [AVAILABLE, USED, 0, AVAILABLE | USED].repeat(4) {
            flagged(a, 0, flags)?;
            a.kick_and_wait()?;
        }
        Ok(())
    }),
    packed(
        "hostile-packed-second-place-first",
        ORDER,
        "the second descriptor is available and the first is not",
        |a| a.lawful(1),
    ),
    packed("hostile-packed-last-place-first", ORDER, "only the last descriptor of the ring is available", |a| {
        let last = a.size()? - 1;
        a.lawful(last)
    }),
    packed(
        "hostile-packed-same-place-again",
        ORDER,
        "a used descriptor is made available in the same lap again",
        |a| {
            for _ in 0..3 {
                a.lawful(0)?;
                a.kick_and_wait()?;
            }
            Ok(())
        },
    ),
    packed("hostile-packed-id-is-the-size", ID, "a buffer id is the queue size", |a| {
        let size = a.size()?;
        named(a, 0, size)
    }),
    packed("hostile-packed-id-is-65535", ID, "a buffer id is 0xffff", |a| named(a, 0, 0xffff)),
    packed("hostile-packed-every-id-is-65535", ID, "every id of a full ring is 0xffff", |a| {
        let size = a.size()?;
        (0..size).try_for_each(|place| named(a, place, 0xffff))
    }),
    packed("hostile-packed-id-twice", ID_ONCE, "two buffers have the same id", |a| {
        named(a, 1, 7)?;
        named(a, 0, 7)
    }),
    packed("hostile-packed-all-ids-the-same", ID_ONCE, "all buffers of a full ring have the same id", |a| {
        let size = a.size()?;
        (0..size).rev().try_for_each(|place| named(a, place, 3))
    }),
    packed("hostile-packed-next-in-all", LONG, "every descriptor of the ring has NEXT", |a| chained(a, 64)),
    packed("hostile-packed-next-in-a-ring-of-one", LONG, "the only descriptor of a ring has NEXT", |a| {
        a.start(1)?;
        chained(a, 1)
    }),
    packed("hostile-packed-next-in-a-ring-of-two", LONG, "both descriptors of a ring have NEXT", |a| {
        a.start(2)?;
        chained(a, 2)
    }),
    packed("hostile-packed-empty-descriptors-with-next", LONG, "every descriptor is empty and has NEXT", |a| {
        let at = a.buffer();
        (0..a.size()?).rev().try_for_each(|place| a.descriptor(place, (at, 0), NEXT, 0))
    }),
    packed("hostile-packed-next-in-the-last", HEAD_LAST, "the last descriptor of a chain has NEXT", |a| chained(a, 3)),
    packed(
        "hostile-packed-head-before-the-rest",
        HEAD_LAST,
        "a chain's first descriptor is available before its second",
        |a| {
            let part = (a.buffer(), 4);
            a.descriptor(0, part, NEXT, 0)?;
            a.kick_and_wait()?;
            a.descriptor(1, part, 0, 0)
        },
    ),
    packed("hostile-packed-head-alone", HEAD_LAST, "the rest of a chain never becomes available", |a| chained(a, 1)),
    packed("hostile-packed-head-alone-again-and-again", HEAD_LAST, "an incomplete chain is kicked repeatedly", |a| {
        chained(a, 1)?;
        (0..RACES).try_for_each(|_| a.kick())
    }),
    packed(
        "hostile-packed-chain-over-the-end-with-mixed-wrap",
        WRAP,
        "a chain keeps its wrap bits across the end of the ring",
        |a| {
            at_the_end(a)?;
            flagged(a, 0, AVAILABLE)?;
            flagged(a, 3, AVAILABLE | NEXT)
        },
    ),
    packed(
        "hostile-packed-chain-over-the-end-without-its-rest",
        HEAD_LAST,
        "the part of a chain behind the end of the ring is missing",
        |a| {
            at_the_end(a)?;
            flagged(a, 3, AVAILABLE | NEXT)
        },
    ),
    packed(
        "hostile-packed-second-lap-in-the-first",
        WRAP,
        "the second lap begins with the wrap bits of the first",
        |a| {
            at_the_end(a)?;
            flagged(a, 3, AVAILABLE)?;
            a.kick_and_wait()?;
            flagged(a, 0, AVAILABLE)
        },
    ),
    packed(
        "hostile-packed-more-than-there-is-room-for",
        ROOM,
        "a chain runs into descriptors that are in flight",
        |a| {
            a.start(4)?;
            (0..4).rev().try_for_each(|place| named(a, place, place))?;
            a.kick_to_race()?;
            chained(a, 4)
        },
    ),
    packed("hostile-packed-descriptors-change-in-flight", CHANGED, "descriptors' lengths change in flight", |a| {
        let at = a.buffer();
        race(a, |a, place| a.descriptor(place, (at, 0xffff_ffff), 0, place))
    }),
    packed("hostile-packed-descriptors-are-freed-in-flight", CHANGED, "descriptors become zeros in flight", |a| {
        race(a, |a, place| a.raw(place, RawDescriptor { address: 0, length: 0, flags: 0, next: 0 }))
    }),
    packed(
        "hostile-packed-descriptors-are-chained-in-flight",
        CHANGED,
        "descriptors get the NEXT flag in flight",
        |a| {
            let part = (a.buffer(), 4);
            race(a, |a, place| a.descriptor(place, part, NEXT, place))
        },
    ),
    packed(
        "hostile-packed-writable-between-readable",
        DIRECTION,
        "a writable descriptor is between readable ones",
        |a| {
            let (read, write) = ((a.buffer(), 4), (writable(a)?, 64));
            a.send_chain(&[(read, 0), (write, WRITE), (read, 0)])
        },
    ),
    packed(
        "hostile-packed-writable-before-readable",
        DIRECTION,
        "a writable descriptor is before a readable one",
        |a| {
            let (read, write) = ((a.buffer(), 4), (writable(a)?, 64));
            a.send_chain(&[(write, WRITE), (read, 0)])
        },
    ),
    packed("hostile-packed-writable-only", READABLE, "a request has only a writable descriptor", |a| {
        let at = writable(a)?;
        a.send((at, 64), WRITE)
    }),
    packed("hostile-packed-undefined-flags", UNDEFINED, "a descriptor has all undefined flags set", |a| {
        flagged(a, 0, AVAILABLE | 0x7f78)
    }),
    packed("hostile-packed-all-flags", UNDEFINED, "a descriptor has all flags set but USED", |a| flagged(a, 0, !USED)),
    packed("hostile-packed-ring-of-ones", UNDEFINED, "the ring is all ones", |a| {
        let all = RawDescriptor { address: u64::MAX, length: u32::MAX, flags: u16::MAX, next: u16::MAX };
        (0..a.size()?).try_for_each(|place| a.raw(place, all))
    }),
    packed("hostile-packed-ring-of-ones-available", UNDEFINED, "the ring is all ones but USED", |a| {
        let all = RawDescriptor { address: u64::MAX, length: u32::MAX, flags: !USED, next: u16::MAX };
        (0..a.size()?).try_for_each(|place| a.raw(place, all))
    }),
    packed("hostile-packed-event-flags-reserved", EVENT_FLAGS, "the driver's event flags are 3", |a| {
        suppressed(a, 0, 3)
    }),
    packed("hostile-packed-event-flags-of-ones", EVENT_FLAGS, "the driver's event structure is all ones", |a| {
        suppressed(a, 0xffff, 0xffff)
    }),
    packed("hostile-packed-event-without-event-index", EVENT_FLAGS, "event flags are 2 without EVENT_IDX", |a| {
        suppressed(a, 0x8000, RING_EVENT_DESCRIPTOR)
    }),
    packed("hostile-packed-event-offset-without-flags", EVENT_PLACE, "an event offset is given with flags of 0", |a| {
        suppressed(a, 0x7fff, RING_EVENT_ENABLE)
    }),
    event("hostile-packed-event-offset-is-the-size", EVENT_PLACE, "the event offset is the queue size", |a| {
        let size = a.size()?;
        suppressed(a, size | 0x8000, RING_EVENT_DESCRIPTOR)
    }),
    event("hostile-packed-event-offset-is-past-the-size", EVENT_PLACE, "the event offset is 0x7fff", |a| {
        suppressed(a, 0x7fff, RING_EVENT_DESCRIPTOR)
    }),
    event("hostile-packed-event-of-the-other-lap", EVENT_PLACE, "the event's wrap counter is of the other lap", |a| {
        suppressed(a, 0, RING_EVENT_DESCRIPTOR)
    }),
    event(
        "hostile-packed-event-flags-reserved-with-event-index",
        EVENT_FLAGS,
        "with EVENT_IDX the event flags are 3",
        |a| suppressed(a, 1, 3),
    ),
    packed(
        "hostile-packed-device-event-is-overwritten",
        DEVICE_EVENT,
        "the driver overwrites the device's event structure",
        |a| {
            for (position, flags) in [(0xffff, 0xffff), (0x7fff, 2), (0, 1)] {
                a.device.with_queue(a.target, |queue, arena| queue.overwrite_device_event(arena, position, flags))?;
                a.kick_and_wait()?;
            }
            a.lawful(0)
        },
    ),
];

/// A descriptor with these flags.
fn flagged(a: &mut Attacker<'_, '_>, place: u16, flags: u16) -> Verdict {
    let address = a.buffer();
    a.raw(place, RawDescriptor { address, length: 16, flags, next: place })
}

/// An available descriptor with this id.
fn named(a: &mut Attacker<'_, '_>, place: u16, id: u16) -> Verdict {
    let part = (a.buffer(), 16);
    a.descriptor(place, part, 0, id)
}

/// A chain of `count` descriptors, or of the whole ring, all of which have NEXT.
fn chained(a: &mut Attacker<'_, '_>, count: u16) -> Verdict {
    let part = (a.buffer(), 4);
    (0..count.min(a.size()?)).rev().try_for_each(|place| a.descriptor(place, part, NEXT, 0))
}

/// A ring of four descriptors, three of them used.
fn at_the_end(a: &mut Attacker<'_, '_>) -> Verdict {
    a.start(4)?;
    (0..3).rev().try_for_each(|place| named(a, place, place))?;
    a.kick_and_wait()
}

/// A request with this event suppression structure of the driver.
fn suppressed(a: &mut Attacker<'_, '_>, position: u16, flags: u16) -> Verdict {
    a.device.with_queue(a.target, |queue, arena| queue.overwrite_driver_event(arena, position, flags))?;
    a.lawful(0)
}
