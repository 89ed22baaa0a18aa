//! Notifications of the device.

use super::steps::{FOUND, LIVE, SETTLED, quiet, running, set};
use super::{clause, registers, with};
use crate::check::{Check, Clause, Reaction, Verdict, skip_unless};
use crate::device::{Attacker, Role, Shape, TestDevice};
use crate::platform::Mapped;
use ballonet::platform::Registers;
use ballonet::virtio::spec::{Features, Status};

const NUMBER: Clause = clause("4.1.5.2.1", "a notification must be the number of its queue");
const WIDTH: Clause = clause("4.1.5.2.1", "without NOTIFICATION_DATA a notification must be 16 bits wide");
const EARLY: Clause = clause("3.1.1", "no notification must be sent before DRIVER_OK");
const ENABLED: Clause = clause("4.1.5.2", "only a queue that is enabled is notified");
const WRITE_ONLY: Clause = clause("4.1.4.4", "the notification structure is written, not read");
const PLACE: Clause = clause("4.1.4.4", "a queue is notified at its own offset");
const FAILED: Clause = clause("2.1.1", "after FAILED a reset must come before anything else");
const RESET: Clause = clause("4.1.4.3.2", "after a reset the driver must wait until the status is 0");
const DATA: Clause = clause("2.8.16", "next_off and next_wrap must be those of the next available descriptor");
const DATA_SPLIT: Clause = clause("2.9", "notification data of a split queue is its available index");

const PACKED_DATA: Features = Features::RING_PACKED.union(Features::NOTIFICATION_DATA);
/// Notifications in a storm.
const STORM: u16 = 500;

/// The checks, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = &[
    registers("hostile-kick-of-an-absent-queue", ENABLED, "the first queue that does not exist is notified", |d| {
        let count = d.first_absent();
        kicked(d, &[count])
    }),
    registers("hostile-kick-of-queue-1023", ENABLED, "queue 1023 is notified", |d| kicked(d, &[1023])),
    registers("hostile-kick-of-queue-1024", ENABLED, "queue 1024 is notified", |d| kicked(d, &[1024])),
    registers("hostile-kick-of-queue-32768", ENABLED, "queue 0x8000 is notified", |d| kicked(d, &[0x8000])),
    registers("hostile-kick-of-queue-65535", ENABLED, "queue 0xffff is notified", |d| kicked(d, &[0xffff])),
    registers("hostile-kick-of-every-queue", ENABLED, "notifications with all queue numbers are sent in turn", |d| {
        running(d)?;
        (0..STORM).for_each(|step| d.kick_number(0, step.wrapping_mul(131)));
        quiet(d)
    }),
    registers("hostile-kick-of-a-queue-that-is-off", ENABLED, "a queue that was not enabled is notified", |d| {
        d.negotiate_least()?;
        d.arena.clear();
        let (setup, wanted) = (d.plain(), d.wanted_queues());
        d.enable(wanted[0], &setup)?;
        set(d, LIVE);
        (0..5).filter(|queue| *queue != wanted[0]).for_each(|queue| d.kick_number(queue, queue));
        quiet(d)
    }),
    registers(
        "hostile-kick-at-anothers-doorbell",
        NUMBER,
        "one queue's number is written to another's doorbell",
        |d| {
            running(d)?;
            d.kick_number(0, 1);
            d.kick_number(1, 0);
            d.kick_number(1, 7);
            quiet(d)
        },
    ),
    registers("hostile-kick-of-8-bits", WIDTH, "a notification has 8 bits", |d| {
        at_doorbell(d, |notify, offset| notify.write8(offset, 0))
    }),
    registers("hostile-kick-of-8-bits-at-an-odd-place", WIDTH, "a notification has 8 bits at an odd offset", |d| {
        at_doorbell(d, |notify, offset| notify.write8(offset + 1, 0))
    }),
    registers("hostile-kick-of-32-bits", WIDTH, "a notification has 32 bits", |d| {
        at_doorbell(d, |notify, offset| notify.write32(offset, 0xffff_0000))
    }),
    registers("hostile-kick-of-64-bits", WIDTH, "a notification has 64 bits", |d| {
        let length = d.modern()?.notify.len();
        skip_unless!(length >= 8, "there are {length} bytes of doorbells");
        at_doorbell(d, |notify, _| notify.write64(0, 0xffff_ffff_0000_0000))
    }),
    registers("hostile-kick-in-all-places", PLACE, "every offset of the notification structure is written", |d| {
        d.modern()?;
        running(d)?;
        let notify = &mut d.modern()?.notify;
        let length = notify.len().min(0x4000);
        (0..length.saturating_sub(1)).step_by(2).for_each(|offset| notify.write16(offset, 0));
        quiet(d)
    }),
    registers(
        "hostile-kick-at-the-last-place",
        PLACE,
        "the last offset of the notification structure is written",
        |d| {
            d.modern()?;
            running(d)?;
            let notify = &mut d.modern()?.notify;
            let last = (notify.len() - 2) & !1;
            (0..3).for_each(|queue| notify.write16(last, queue));
            quiet(d)
        },
    ),
    registers("hostile-doorbells-are-read", WRITE_ONLY, "the notification structure is read in all widths", |d| {
        d.modern()?;
        running(d)?;
        let notify = &d.modern()?.notify;
        let length = notify.len().min(0x1000) & !3;
        (0..length).step_by(4).for_each(|offset| TestDevice::read_every_width(notify, offset));
        quiet(d)
    }),
    registers("hostile-kick-before-acknowledge", EARLY, "queues are notified right after a reset", |d| {
        d.reset()?;
        storm(d);
        quiet(d)
    }),
    registers("hostile-kick-before-features-ok", EARLY, "queues are notified before FEATURES_OK", |d| {
        d.begin()?;
        storm(d);
        quiet(d)
    }),
    registers("hostile-kick-before-driver-ok", EARLY, "queues with requests are notified before DRIVER_OK", |d| {
        let setup = d.plain();
        d.prepare(&setup)?;
        unkicked(d)?;
        storm(d);
        d.go()?;
        quiet(d)
    }),
    registers("hostile-kick-after-reset", RESET, "queues with requests are notified after a reset", |d| {
        running(d)?;
        unkicked(d)?;
        d.reset()?;
        storm(d);
        quiet(d)
    }),
    registers("hostile-kick-after-failed", FAILED, "queues with requests are notified after FAILED", |d| {
        running(d)?;
        unkicked(d)?;
        set(d, LIVE | Status::FAILED);
        storm(d);
        quiet(d)
    }),
    registers(
        "hostile-kicks-storm-for-nothing",
        ENABLED,
        "hundreds of notifications are sent without new buffers",
        |d| {
            running(d)?;
            storm(d);
            d.warm_up()?;
            quiet(d)
        },
    ),
    registers("hostile-kicks-storm-in-traffic", ENABLED, "each request is notified a hundred times", |d| {
        running(d)?;
        for frame in 8..12 {
            d.post(Role::First, frame..frame + 1, &Shape::PLAIN)?;
            d.publish(Role::First)?;
            let queue = d.number(Role::First)?;
            (0..100).for_each(|_| d.kick_number(queue, queue));
        }
        quiet(d)
    }),
    registers(
        "hostile-kicks-storm-while-the-status-changes",
        EARLY,
        "notifications storm while the device starts and stops",
        |d| {
            for _ in 0..10 {
                let setup = d.plain();
                d.prepare(&setup)?;
                unkicked(d)?;
                for status in [SETTLED, LIVE, LIVE | Status::FAILED, Status::empty(), FOUND] {
                    set(d, status);
                    (0..10).for_each(|_| d.kick_number(0, 0));
                }
            }
            quiet(d)
        },
    ),
    data(
        "hostile-notification-data-far-ahead",
        DATA_SPLIT,
        "the available index in a notification is far ahead",
        |a| lie(a, 0x8000),
    ),
    data("hostile-notification-data-behind", DATA_SPLIT, "the available index in a notification is behind", |a| {
        lie(a, 0)
    }),
    data("hostile-notification-data-of-ones", DATA_SPLIT, "notification data is all ones", |a| lie(a, 0xffff)),
    packed_data("hostile-packed-notification-with-stale-wrap", DATA, "next_wrap is of the other lap", |a| lie(a, 1)),
    packed_data("hostile-packed-notification-past-the-size", DATA, "next_off is past the queue's end", |a| {
        lie(a, 0xfffe)
    }),
    packed_data("hostile-packed-notification-far-ahead", DATA, "next_off is the last descriptor", |a| {
        let last = a.size()? - 1;
        lie(a, last | 0x8000)
    }),
];

const fn data(name: &'static str, clause: Clause, asks: &'static str, act: super::RingAttack) -> Check {
    with(Features::NOTIFICATION_DATA, name, clause, asks, act)
}

const fn packed_data(name: &'static str, clause: Clause, asks: &'static str, act: super::RingAttack) -> Check {
    with(PACKED_DATA, name, clause, asks, act)
}

/// Notifies a running device of these queues.
fn kicked(d: &mut TestDevice<'_>, queues: &[u16]) -> Verdict<Reaction> {
    running(d)?;
    for queue in queues {
        d.kick_number(0, *queue);
        d.kick_number(*queue, *queue);
    }
    quiet(d)
}

fn storm(d: &mut TestDevice<'_>) {
    for step in 0..STORM {
        d.kick_number(step % 2, step % 2);
    }
}

/// Publishes a request without a kick.
fn unkicked(d: &mut TestDevice<'_>) -> Verdict {
    d.post(Role::First, 0..8, &Shape::PLAIN)?;
    d.publish(Role::First).map(drop)
}

/// Does something at the doorbell of a queue that has a request.
fn at_doorbell(d: &mut TestDevice<'_>, act: impl FnOnce(&mut Mapped, usize)) -> Verdict<Reaction> {
    d.modern()?;
    running(d)?;
    d.post(Role::First, 8..16, &Shape::PLAIN)?;
    d.publish(Role::First)?;
    let queue = d.number(Role::First)?;
    let (offset, _) = d.doorbell(queue)?;
    let notify = &mut d.modern()?.notify;
    skip_unless!(offset + 4 <= notify.len() && offset.is_multiple_of(4), "the doorbell is at {offset:#x}");
    act(notify, offset);
    quiet(d)
}

/// A request whose notification has a wrong position.
fn lie(a: &mut Attacker<'_, '_>, progress: u16) -> Verdict {
    a.lawful(0)?;
    a.offer(0)?;
    let queue = a.device.number(a.target)?;
    a.device.ring_doorbell(queue, progress)?;
    a.wait()
}
