//! Queue set-up: sizes, addresses, enabling, selecting.

use super::steps::{BEYOND, LIVE, finish, running, set, target};
use super::{clause, custom, registers};
use crate::check::{Check, Clause, Reaction, Verdict, skip_unless};
use crate::device::{Role, TestDevice};

const POWER: Clause = clause("4.1.4.3.2", "without RING_PACKED queue_size must be a power of two");
const NOT_0: Clause = clause("4.1.4.3.2", "queue_size must not be 0");
const MAXIMUM: Clause = clause("4.1.5.1.3", "queue_size may be reduced from the device's maximum, not raised");
const ALIGNED: Clause = clause("2.7.1", "the parts of a queue must be aligned to 16, 2 and 4 bytes");
const APART: Clause = clause("2.7", "the parts of a queue do not overlap anything");
const MEMORY: Clause = clause("2.7", "the parts of a queue are the driver's memory");
const BEFORE: Clause = clause("4.1.4.3.2", "the other fields must be set before queue_enable");
const ORDER: Clause = clause("3.1.1", "queues are set up after FEATURES_OK and before DRIVER_OK");
const NO_ZERO: Clause = clause("4.1.4.3.2", "queue_enable must not be written with 0");
const ONE: Clause = clause("4.1.4.3", "queue_enable is written with 1");
const ENABLED: Clause = clause("4.1.4.3.2", "a queue's fields are not changed after it is enabled");
const EXISTS: Clause = clause("4.1.5.1.3", "a queue exists if its queue_size is not 0");

/// The checks, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = &[
    registers("hostile-queue-size-0", NOT_0, "queue_size is set to 0", |d| sized(d, |_| 0)),
    registers("hostile-queue-size-3", POWER, "queue_size is set to 3", |d| sized(d, |_| 3)),
    registers("hostile-queue-size-one-less", POWER, "queue_size is set to the maximum minus 1", |d| {
        sized(d, |most| most.saturating_sub(1))
    }),
    registers("hostile-queue-size-one-more", MAXIMUM, "queue_size is set to the maximum plus 1", |d| {
        sized(d, |most| most.saturating_add(1))
    }),
    registers("hostile-queue-size-doubled", MAXIMUM, "queue_size is set to twice the maximum", |d| {
        sized(d, |most| most.saturating_mul(2))
    }),
    registers("hostile-queue-size-32768", MAXIMUM, "queue_size is set to 0x8000", |d| sized(d, |_| 0x8000)),
    registers("hostile-queue-size-65535", MAXIMUM, "queue_size is set to 0xffff", |d| sized(d, |_| 0xffff)),
    registers("hostile-queue-size-every-value", MAXIMUM, "queue_size is set to many values in turn", |d| {
        d.set_up_wrong(|d, _, _| {
            let mut values = (0..16).map(|bit| 1_u16 << bit).chain([3, 5, 100, 1000, 0, 0xffff]);
            values.try_for_each(|value| d.write_size(value))
        })
    }),
    registers("hostile-queue-descriptors-unaligned-by-1", ALIGNED, "queue_desc is odd", |d| moved(d, 0, |at| at + 1)),
    registers("hostile-queue-descriptors-unaligned-by-8", ALIGNED, "queue_desc is aligned to 8 only", |d| {
        moved(d, 0, |at| at + 8)
    }),
    registers("hostile-queue-driver-area-unaligned", ALIGNED, "queue_driver is odd", |d| moved(d, 1, |at| at + 1)),
    registers("hostile-queue-device-area-unaligned-by-1", ALIGNED, "queue_device is odd", |d| moved(d, 2, |at| at + 1)),
    registers("hostile-queue-device-area-unaligned-by-2", ALIGNED, "queue_device is aligned to 2 only", |d| {
        moved(d, 2, |at| at + 2)
    }),
    registers("hostile-queue-descriptors-at-0", MEMORY, "queue_desc is 0", |d| unread(d, |parts| parts[0] = 0)),
    registers("hostile-queue-driver-area-at-0", MEMORY, "queue_driver is 0", |d| moved(d, 1, |_| 0)),
    registers("hostile-queue-descriptors-beyond-ram", MEMORY, "queue_desc is beyond memory", |d| {
        moved(d, 0, |_| BEYOND)
    }),
    registers("hostile-queue-driver-area-beyond-ram", MEMORY, "queue_driver is beyond memory", |d| {
        moved(d, 1, |_| BEYOND)
    }),
    registers("hostile-queue-device-area-beyond-ram", MEMORY, "queue_device is beyond memory", |d| {
        moved(d, 2, |_| BEYOND)
    }),
    registers("hostile-queue-all-beyond-ram", MEMORY, "all parts of a queue are beyond memory", |d| {
        placed(d, |parts| *parts = [BEYOND, BEYOND + 0x10000, BEYOND + 0x20000])
    }),
    registers("hostile-queue-descriptors-at-all-ones", MEMORY, "queue_desc is all ones", |d| moved(d, 0, |_| u64::MAX)),
    registers("hostile-queue-driver-area-at-all-ones", MEMORY, "queue_driver is all ones", |d| {
        moved(d, 1, |_| u64::MAX)
    }),
    registers("hostile-queue-device-area-at-all-ones", MEMORY, "queue_device is all ones", |d| {
        moved(d, 2, |_| u64::MAX)
    }),
    registers(
        "hostile-queue-descriptors-pass-2-to-the-64",
        MEMORY,
        "the descriptors pass the end of the 64-bit space",
        |d| moved(d, 0, |_| !0xff),
    ),
    registers(
        "hostile-queue-device-area-passes-2-to-the-64",
        MEMORY,
        "the used ring passes the end of the 64-bit space",
        |d| moved(d, 2, |_| !0xf),
    ),
    registers("hostile-queue-descriptors-in-own-registers", MEMORY, "queue_desc is in a BAR of the device", |d| {
        let at = d.own_registers()?;
        unread(d, |parts| parts[0] = at)
    }),
    registers("hostile-queue-driver-area-in-own-registers", MEMORY, "queue_driver is in a BAR of the device", |d| {
        let at = d.own_registers()?;
        placed(d, |parts| parts[1] = at)
    }),
    registers("hostile-queue-device-area-in-own-registers", MEMORY, "queue_device is in a BAR of the device", |d| {
        let at = d.own_registers()?;
        placed(d, |parts| parts[2] = at)
    }),
    registers("hostile-queue-descriptors-in-the-local-apic", MEMORY, "queue_desc is in the local APIC's page", |d| {
        unread(d, |parts| parts[0] = 0xfee0_0000)
    }),
    registers("hostile-queue-driver-area-in-the-local-apic", MEMORY, "queue_driver is in the local APIC's page", |d| {
        moved(d, 1, |_| 0xfee0_0000)
    }),
    registers(
        "hostile-queue-descriptors-across-the-end-of-ram",
        MEMORY,
        "the descriptors pass the end of memory",
        |d| {
            let at = d.ends()?.high - 64;
            unread(d, |parts| parts[0] = at)
        },
    ),
    registers("hostile-queue-descriptors-across-the-hole", MEMORY, "the descriptors pass the end of low memory", |d| {
        let at = d.ends()?.low - 64;
        unread(d, |parts| parts[0] = at)
    }),
    registers("hostile-queue-descriptors-at-the-end-of-ram", MEMORY, "queue_desc is the end of memory", |d| {
        let at = d.ends()?.high;
        placed(d, |parts| parts[0] = at)
    }),
    registers(
        "hostile-queue-driver-area-across-the-end-of-ram",
        MEMORY,
        "the available ring passes the end of memory",
        |d| {
            let at = d.ends()?.high - 4;
            unread(d, |parts| parts[1] = at)
        },
    ),
    registers(
        "hostile-queue-driver-area-across-the-hole",
        MEMORY,
        "the available ring passes the end of low memory",
        |d| {
            let at = d.ends()?.low - 4;
            unread(d, |parts| parts[1] = at)
        },
    ),
    registers("hostile-queue-device-area-at-the-end-of-ram", MEMORY, "queue_device is the end of memory", |d| {
        let at = d.ends()?.high;
        placed(d, |parts| parts[2] = at)
    }),
    registers("hostile-queue-device-area-in-the-hole", MEMORY, "queue_device is the end of low memory", |d| {
        let at = d.ends()?.low;
        placed(d, |parts| parts[2] = at)
    }),
    registers("hostile-queue-device-area-in-firmware", MEMORY, "queue_device is in firmware's ROM below 4 GiB", |d| {
        placed(d, |parts| parts[2] = 0xffff_f000)
    }),
    registers("hostile-queue-device-area-in-the-video-hole", MEMORY, "queue_device is in the hole below 1 MiB", |d| {
        placed(d, |parts| parts[2] = 0xa_0000)
    }),
    registers("hostile-queue-driver-area-is-the-descriptors", APART, "the available ring is the descriptors", |d| {
        placed(d, |parts| parts[1] = parts[0])
    }),
    registers("hostile-queue-device-area-is-the-driver-area", APART, "the used ring is the available ring", |d| {
        overlapped(d, |parts| parts[2] = parts[1])
    }),
    registers("hostile-queue-device-area-is-the-descriptors", APART, "the used ring is the descriptors", |d| {
        overlapped(d, |parts| parts[2] = parts[0])
    }),
    registers("hostile-queue-all-parts-are-one", APART, "all parts of a queue are at the same address", |d| {
        overlapped(d, |parts| *parts = [parts[0]; 3])
    }),
    registers("hostile-queues-share-their-parts", APART, "two queues have the same parts", |d| {
        d.set_up_wrong(|d, _, wrong| {
            skip_unless!(!d.queues.is_empty(), "the device has one queue");
            let first = d.queues[0].areas;
            wrong.parts = [first.descriptors, first.driver, first.device].map(|area| d.arena.address(area));
            d.allow_all();
            Ok(())
        })
    }),
    registers("hostile-queue-enabled-without-addresses", BEFORE, "a queue is enabled without addresses", |d| {
        d.set_up_wrong(|_, _, wrong| {
            wrong.writes_addresses = false;
            Ok(())
        })
    }),
    registers(
        "hostile-queue-enabled-with-low-halves",
        BEFORE,
        "a queue is enabled with the high halves all ones",
        |d| placed(d, |parts| parts.iter_mut().for_each(|part| *part |= 0xffff_ffff << 32)),
    ),
    registers("hostile-queue-enabled-twice", ENABLED, "queue_enable is written twice", |d| {
        rewritten(d, |d| d.write_enable(1))
    }),
    registers("hostile-queue-enabled-before-features-ok", ORDER, "a queue is enabled before FEATURES_OK", |d| {
        d.begin()?;
        d.arena.clear();
        let (setup, queue) = (d.plain(), target(d)?);
        d.enable(queue, &setup)?;
        let least = d.least();
        d.accept(least);
        set(d, LIVE);
        finish(d)
    }),
    registers(
        "hostile-queue-enabled-before-the-driver-is-there",
        ORDER,
        "a queue is enabled right after a reset",
        |d| {
            d.reset()?;
            d.arena.clear();
            let (setup, queue) = (d.plain(), target(d)?);
            d.enable(queue, &setup)?;
            finish(d)
        },
    ),
    registers("hostile-queue-enabled-after-driver-ok", ORDER, "a queue is enabled on a running device", |d| {
        d.negotiate_least()?;
        d.arena.clear();
        let (setup, queue) = (d.plain(), target(d)?);
        for other in d.wanted_queues().into_iter().filter(|other| *other != queue) {
            d.enable(other, &setup)?;
        }
        set(d, LIVE);
        d.enable(queue, &setup)?;
        finish(d)
    }),
    registers("hostile-queue-enable-0", NO_ZERO, "queue_enable is written with 0 on a running queue", |d| {
        rewritten(d, |d| d.write_enable(0))
    }),
    registers("hostile-queue-enable-0-and-1", NO_ZERO, "a running queue is disabled and enabled", |d| {
        rewritten(d, |d| [0, 1, 0, 1].into_iter().try_for_each(|value| d.write_enable(value)))
    }),
    registers(
        "hostile-queue-enable-0-before-driver-ok",
        NO_ZERO,
        "an enabled queue is disabled before DRIVER_OK",
        |d| {
            let setup = d.plain();
            d.prepare(&setup)?;
            let queue = target(d)?;
            d.select(queue);
            d.write_enable(0)?;
            set(d, LIVE);
            finish(d)
        },
    ),
    registers("hostile-queue-enable-2", ONE, "queue_enable is written with 2", |d| rewritten(d, |d| d.write_enable(2))),
    registers("hostile-queue-enable-65535", ONE, "queue_enable is written with 0xffff", |d| {
        rewritten(d, |d| d.write_enable(0xffff))
    }),
    custom(registers("hostile-queue-grows-while-enabled", ENABLED, "queue_size is doubled on a running queue", |d| {
        in_small_queue(d, |d| d.write_size(8))
    })),
    custom(registers("hostile-queue-shrinks-while-enabled", ENABLED, "queue_size is halved on a running queue", |d| {
        in_small_queue(d, |d| d.write_size(2))
    })),
    custom(registers(
        "hostile-queue-moves-while-enabled",
        ENABLED,
        "the addresses of a running queue are changed",
        |d| {
            in_small_queue(d, |d| {
                let room = d.arena.address(d.arena.mark().next_multiple_of(64));
                d.write_parts([room; 3])
            })
        },
    )),
    registers("hostile-queue-vector-changes-while-enabled", ENABLED, "the vector of a running queue is changed", |d| {
        rewritten(d, |d| {
            let queue = target(d)?;
            // On the legacy interface the register is there with MSI-X only.
            d.modern()?;
            [0, 1, 0xfffe, 0xffff].into_iter().try_for_each(|vector| d.try_vector(Some(queue), vector).map(drop))
        })
    }),
    registers("hostile-queue-select-past-the-last", EXISTS, "a queue past the last is set up and kicked", |d| {
        let count = d.first_absent();
        absent(d, count)
    }),
    registers("hostile-queue-select-1023", EXISTS, "queue 1023 is set up and kicked", |d| absent(d, 1023)),
    registers("hostile-queue-select-1024", EXISTS, "queue 1024 is set up and kicked", |d| absent(d, 1024)),
    registers("hostile-queue-select-32768", EXISTS, "queue 0x8000 is set up and kicked", |d| absent(d, 0x8000)),
    registers("hostile-queue-select-65535", EXISTS, "queue 0xffff is set up and kicked", |d| absent(d, 0xffff)),
    registers("hostile-queue-select-sweeps", EXISTS, "every queue number is selected and enabled", |d| {
        d.negotiate_least()?;
        let count = d.first_absent();
        for queue in (count..2048).chain((0..64).map(|step| 0xffff - step * 1000)) {
            d.select(queue);
            d.write_enable(1)?;
        }
        set(d, LIVE);
        finish(d)
    }),
];

/// Sets up a queue with a size computed from its maximum. The device may write as if it had that size.
fn sized(d: &mut TestDevice<'_>, size: fn(u16) -> u16) -> Verdict<Reaction> {
    d.set_up_wrong(|d, queue, wrong| {
        wrong.size = Some(size(d.sizes[usize::from(queue)]));
        d.allow_all();
        Ok(())
    })
}

/// Sets up a queue with one part elsewhere.
fn moved(d: &mut TestDevice<'_>, part: usize, place: fn(u64) -> u64) -> Verdict<Reaction> {
    overlapped(d, |parts| parts[part] = place(parts[part]))
}

/// Sets up a queue with its parts elsewhere.
fn placed(d: &mut TestDevice<'_>, place: impl FnOnce(&mut [u64; 3])) -> Verdict<Reaction> {
    d.set_up_wrong(|_, _, wrong| {
        place(&mut wrong.parts);
        Ok(())
    })
}

/// The same, with parts in memory that others fill. No device that writes buffers must take what is there for
/// descriptors.
fn unread(d: &mut TestDevice<'_>, place: impl FnOnce(&mut [u64; 3])) -> Verdict<Reaction> {
    d.writes_nothing()?;
    placed(d, place)
}

/// The same, with the used ring over other data, which the device then overwrites.
fn overlapped(d: &mut TestDevice<'_>, place: impl FnOnce(&mut [u64; 3])) -> Verdict<Reaction> {
    d.set_up_wrong(|d, _, wrong| {
        place(&mut wrong.parts);
        d.allow_all();
        Ok(())
    })
}

/// Does something to the registers of a running queue.
fn rewritten(d: &mut TestDevice<'_>, act: impl FnOnce(&mut TestDevice<'_>) -> Verdict) -> Verdict<Reaction> {
    running(d)?;
    let queue = target(d)?;
    d.select(queue);
    act(d)?;
    finish(d)
}

/// Does something to the registers of a running queue of four, and sends enough requests to wrap it twice.
fn in_small_queue(d: &mut TestDevice<'_>, act: impl FnOnce(&mut TestDevice<'_>) -> Verdict) -> Verdict<Reaction> {
    d.start_small(4)?;
    let queue = d.number(Role::First)?;
    d.select(queue);
    act(d)?;
    d.send_singles(12)?;
    finish(d)
}

/// Sets up a queue that does not exist, and kicks it.
fn absent(d: &mut TestDevice<'_>, queue: u16) -> Verdict<Reaction> {
    d.negotiate_least()?;
    d.arena.clear();
    let setup = d.plain();
    d.enable(0, &setup)?;
    d.select(queue);
    d.write_size(64)?;
    d.write_parts([BEYOND; 3])?;
    d.write_enable(1)?;
    let taken = d.in_use(queue) == 1;
    set(d, LIVE);
    d.kick_number(0, queue);
    finish(d)?;
    Ok(if taken { Reaction::Ignored } else { Reaction::Refused })
}
