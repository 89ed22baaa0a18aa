//! Tables of descriptors.

use super::steps::RACES;
use super::{AVAIL, INDIRECT, NEXT, USED, WRITE, clause, with};
use crate::check::{Check, Clause, Verdict, skip_unless};
use crate::device::{Attacker, Role, TABLE};
use ballonet::virtio::spec::{Descriptor, Features};

const WITHOUT: Clause = clause("2.7.5.3.1", "INDIRECT must not be set without INDIRECT_DESC");
const NESTED: Clause = clause("2.7.5.3.1", "INDIRECT must not be set in a table");
const WITH_NEXT: Clause = clause("2.7.5.3.1", "INDIRECT and NEXT must not be set together");
const WITH_WRITE: Clause = clause("2.7.5.3", "a descriptor that points to a table is readable");
const LENGTH: Clause = clause("2.7.5.3", "a table's length is a multiple of 16, and not 0");
const LONG: Clause = clause("2.7.5.3.1", "a chain must not be longer than the queue, not even in a table");
const MEMORY: Clause = clause("2.7.5.3", "a table is the driver's memory");
const LOOP: Clause = clause("2.7.5.2", "a chain must not loop");
const NEXT_RANGE: Clause = clause("2.7.5.3", "next must be the index of an entry of the table");
const CHANGED: Clause = clause("3.3.1", "descriptors and entries in flight must not be changed");
const ENTRY: Clause = clause("2.7.5.3", "entries of a table have address, length and defined flags");
const PACKED_FLAGS: Clause = clause("2.8.19", "in a packed ring's table only WRITE may be set");

/// One check each with a split and a packed ring.
macro_rules! in_both_formats {
    ($($name:literal, $clause:expr, $asks:literal, |$a:ident| $act:expr;)*) => {
        [
            $(with(Features::INDIRECT_DESC, concat!("hostile-split-table-", $name), $clause, $asks, |$a| $act),)*
            $(with(PACKED, concat!("hostile-packed-table-", $name), $clause, $asks, |$a| $act),)*
        ]
    };
}

const PACKED: Features = Features::RING_PACKED.union(Features::INDIRECT_DESC);

/// The checks of both formats, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = &in_both_formats! {
    "nested", NESTED, "an entry of a table is a table", |a| {
        let table = (a.table(), 16);
        a.entry(0, table, INDIRECT, 0);
        a.send_table(1)
    };
    "nested-in-another", NESTED, "the second entry of a table is another table", |a| {
        let (part, inner) = ((a.buffer(), 4), a.memory(32, 16)?);
        let inner = (a.device.arena.address(inner), 32);
        a.entry(0, part, NEXT, 1);
        a.entry(1, inner, INDIRECT, 0);
        a.send_table(2)
    };
    "with-next", WITH_NEXT, "a descriptor has INDIRECT and NEXT", |a| {
        let (part, table) = ((a.buffer(), 4), filled(a, 1));
        a.descriptor(1, part, 0, 1)?;
        a.send(table, INDIRECT | NEXT)
    };
    "with-next-to-nothing", WITH_NEXT, "a descriptor has INDIRECT and NEXT, but no next", |a| {
        let table = filled(a, 1);
        a.send(table, INDIRECT | NEXT)
    };
    "with-next-everywhere", WITH_NEXT, "every descriptor of the ring has INDIRECT and NEXT", |a| {
        let (table, size) = (filled(a, 1), a.size()?);
        (0..size).rev().try_for_each(|place| a.descriptor(place, table, INDIRECT | NEXT, (place + 1) % size))?;
        a.offer(0)
    };
    "twice-by-next", WITH_NEXT, "a chain has two tables", |a| {
        let table = filled(a, 2);
        a.send_chain(&[(table, INDIRECT), (table, INDIRECT)])
    };
    "with-write", WITH_WRITE, "a descriptor has INDIRECT and WRITE", |a| {
        let table = filled(a, 1);
        a.send(table, INDIRECT | WRITE)
    };
    "with-all-flags", WITH_NEXT, "a descriptor has INDIRECT, NEXT and WRITE", |a| {
        let table = filled(a, 1);
        a.send(table, INDIRECT | NEXT | WRITE)
    };
    "of-0-bytes", LENGTH, "a table has no bytes", |a| sized(a, 0);
    "of-1-byte", LENGTH, "a table has 1 byte", |a| sized(a, 1);
    "of-15-bytes", LENGTH, "a table has 15 bytes", |a| sized(a, 15);
    "of-17-bytes", LENGTH, "a table has 17 bytes", |a| sized(a, 17);
    "of-2-gib", LENGTH, "a table has 2^31 bytes", |a| sized(a, 1 << 31);
    "of-4-gib-less-16", LENGTH, "a table has 2^32 - 16 bytes", |a| sized(a, u32::MAX - 15);
    "of-4-gib-less-1", LENGTH, "a table has 2^32 - 1 bytes", |a| sized(a, u32::MAX);
    "longer-than-the-queue", LONG, "a table has more entries than the queue", |a| {
        a.start(16)?;
        filled(a, TABLE);
        a.send_table(TABLE)
    };
    "longer-than-a-queue-of-one", LONG, "a table of two entries is in a queue of one", |a| {
        a.start(1)?;
        filled(a, 2);
        a.send_table(2)
    };
    "at-0", MEMORY, "a table is at address 0", |a| foreign(a, 0);
    "beyond-ram", MEMORY, "a table is beyond the end of memory", |a| placed(a, 1 << 50);
    "across-the-end-of-ram", MEMORY, "a table begins in the last bytes of memory and passes its end", |a| {
        let at = a.device.ends()?.high - 16;
        foreign(a, at)
    };
    "across-the-hole", MEMORY, "a table passes the end of the memory below 4 GiB", |a| {
        let at = a.device.ends()?.low - 16;
        foreign(a, at)
    };
    "at-the-end-of-ram", MEMORY, "a table is at the end of memory", |a| {
        let at = a.device.ends()?.high;
        placed(a, at)
    };
    "past-2-to-the-64", MEMORY, "a table passes the end of the 64-bit space", |a| placed(a, !0xf);
    "at-all-ones", MEMORY, "a table is at the last byte of the 64-bit space", |a| placed(a, u64::MAX);
    "in-own-registers", MEMORY, "a table is in a BAR of the device", |a| {
        let at = a.device.own_registers()?;
        foreign(a, at)
    };
    "in-the-local-apic", MEMORY, "a table is in the local APIC's page", |a| foreign(a, 0xfee0_0000);
    "is-its-own-ring", MEMORY, "a table is the ring that points to it", |a| {
        let at = a.ring_of(a.target)?;
        placed(a, at)
    };
    "is-another-ring", MEMORY, "a table is the ring of another queue", |a| {
        skip_unless!(a.device.has_two_queues(), "the device has one queue for requests");
        let at = a.ring_of(Role::First)?;
        placed(a, at)
    };
    "is-its-own-buffer", MEMORY, "the only entry of a table is the table", |a| {
        let table = (a.table(), 16);
        a.entry(0, table, 0, 0);
        a.send_table(1)
    };
    "of-zeros", ENTRY, "all entries of a table are zeros", |a| a.send_table(16);
    "of-ones", ENTRY, "all entries of a table are ones", |a| {
        (0..16).for_each(|place| a.entry(place, (u64::MAX, u32::MAX), u16::MAX, u16::MAX));
        a.send_table(16)
    };
    "with-undefined-flags", ENTRY, "an entry of a table has all undefined flags set", |a| {
        let part = (a.buffer(), 4);
        a.entry(0, part, 0xfff8 & !(AVAIL | USED), 0);
        a.send_table(1)
    };
    "with-writable-before-readable", ENTRY, "a writable entry is before a readable one", |a| {
        let (read, write) = ((a.buffer(), 4), (super::split::writable(a)?, 64));
        a.send_table_of(&[(write, WRITE), (read, 0)])
    };
    "changes-in-flight", CHANGED, "the entries of a table change in flight", |a| {
        race(a, |a, place| a.entry(place % 2, (1 << 50, u32::MAX), NEXT, 0))
    };
    "is-freed-in-flight", CHANGED, "the entries of a table become zeros in flight", |a| {
        race(a, |a, place| a.entry(place % 2, (0, 0), 0, 0))
    };
};

/// Checks of one format, in the order in which they run.
pub(in crate::checks) const MORE: &[Check] = &[
    with(Features::empty(), "hostile-split-table-without-the-feature", WITHOUT, "a table without INDIRECT_DESC", |a| {
        filled(a, 1);
        a.send_table(1)
    }),
    with(
        Features::RING_PACKED,
        "hostile-packed-table-without-the-feature",
        WITHOUT,
        "a table without INDIRECT_DESC",
        |a| {
            filled(a, 1);
            a.send_table(1)
        },
    ),
    split("hostile-split-table-loops-on-itself", LOOP, "an entry of a table names itself as the next", |a| {
        looped(a, 1)
    }),
    split("hostile-split-table-loops-over-two", LOOP, "two entries of a table name each other", |a| looped(a, 2)),
    split("hostile-split-table-loops-over-all", LOOP, "the last entry of a table names the first", |a| {
        looped(a, TABLE)
    }),
    split("hostile-split-table-next-is-its-length", NEXT_RANGE, "next is the number of entries", |a| next(a, 2)),
    split("hostile-split-table-next-is-65535", NEXT_RANGE, "next is 0xffff", |a| next(a, 0xffff)),
    split(
        "hostile-split-table-goes-backwards",
        NEXT_RANGE,
        "a table is walked from its first entry to its last and back",
        |a| {
            let part = (a.buffer(), 4);
            for (place, next) in [(0, 7), (7, 6), (6, 5), (5, 7)] {
                a.entry(place, part, NEXT, next);
            }
            a.send_table(8)
        },
    ),
    packed("hostile-packed-table-with-next-in-all", PACKED_FLAGS, "every entry of a table has NEXT", |a| {
        marked(a, NEXT)
    }),
    packed("hostile-packed-table-with-ring-flags", PACKED_FLAGS, "every entry of a table has AVAIL and USED", |a| {
        marked(a, AVAIL | USED)
    }),
];

const fn split(name: &'static str, clause: Clause, asks: &'static str, act: super::RingAttack) -> Check {
    with(Features::INDIRECT_DESC, name, clause, asks, act)
}

const fn packed(name: &'static str, clause: Clause, asks: &'static str, act: super::RingAttack) -> Check {
    with(PACKED, name, clause, asks, act)
}

/// A lawful table: where it is, and its length.
fn filled(a: &mut Attacker<'_, '_>, entries: u16) -> (u64, u32) {
    let part = (a.buffer(), 4);
    for place in 0..entries {
        let more = place + 1 < entries && !a.is_packed();
        a.entry(place, part, if more { NEXT } else { 0 }, if more { place + 1 } else { 0 });
    }
    (a.table(), u32::from(entries) * size_of::<Descriptor>() as u32)
}

/// The lawful table, with this length.
fn sized(a: &mut Attacker<'_, '_>, length: u32) -> Verdict {
    let (table, _) = filled(a, 2);
    a.send((table, length), INDIRECT)
}

/// A table at this address.
fn placed(a: &mut Attacker<'_, '_>, address: u64) -> Verdict {
    a.send((address, 32), INDIRECT)
}

/// A table at this address, where others decide what is in it. No device that writes buffers must take that for
/// descriptors.
fn foreign(a: &mut Attacker<'_, '_>, address: u64) -> Verdict {
    a.device.writes_nothing()?;
    placed(a, address)
}

/// A table of `count` entries whose last points to the first.
fn looped(a: &mut Attacker<'_, '_>, count: u16) -> Verdict {
    let part = (a.buffer(), 4);
    (0..count).for_each(|place| a.entry(place, part, NEXT, (place + 1) % count));
    a.send_table(count)
}

/// A table of two whose first entry names this one.
fn next(a: &mut Attacker<'_, '_>, next: u16) -> Verdict {
    let part = (a.buffer(), 4);
    a.entry(0, part, NEXT, next);
    a.entry(1, part, 0, 0);
    a.send_table(2)
}

/// A table of four entries with these flags.
fn marked(a: &mut Attacker<'_, '_>, flags: u16) -> Verdict {
    let part = (a.buffer(), 4);
    (0..4).for_each(|place| a.entry(place, part, flags, 0));
    a.send_table(4)
}

/// Kicks lawful tables and changes each immediately.
fn race(a: &mut Attacker<'_, '_>, mut change: impl FnMut(&mut Attacker<'_, '_>, u16)) -> Verdict {
    for place in 0..RACES.min(a.size()?) {
        let table = filled(a, 2);
        a.descriptor(place, table, INDIRECT, place)?;
        a.offer(place)?;
        a.kick_to_race()?;
        change(a, place);
    }
    Ok(())
}
