//! Resets of single queues.

use super::steps::{self, BEYOND, LIVE, finish, running_with, set, target};
use super::{clause, registers};
use crate::check::{Check, Clause, Reaction, Verdict, skip_unless};
use crate::device::{Role, Shape, StartOptions, TestDevice};
use ballonet::virtio::spec::Features;

const FEATURE: Clause = clause("2.6.1", "a queue is reset only with RING_RESET");
const DONE: Clause = clause("4.1.4.3.2", "the driver must wait until queue_reset is 0");
const ONE: Clause = clause("4.1.4.3", "queue_reset is written with 1");
const SET_UP: Clause = clause("2.6.1.2.2", "a queue that was reset must be set up again from the start");
const EXISTS: Clause = clause("4.1.5.1.3", "a queue exists if its queue_size is not 0");
const ENABLED: Clause = clause("4.1.4.3", "a queue that is reset is enabled");
const NOTIFIED: Clause = clause("4.1.5.2", "only a queue that is enabled is notified");

/// The checks, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = &[
    registers("hostile-ring-reset-without-the-feature", FEATURE, "a queue is reset without RING_RESET", |d| {
        needs_register(d)?;
        steps::running(d)?;
        let queue = target(d)?;
        reset(d, queue, 1)?;
        finish(d)
    }),
    registers("hostile-ring-reset-twice", DONE, "a queue is reset twice at once", |d| {
        running(d)?;
        let queue = target(d)?;
        reset(d, queue, 1)?;
        reset(d, queue, 1)?;
        finish(d)
    }),
    registers("hostile-ring-reset-a-hundred-times", DONE, "a queue is reset a hundred times during traffic", |d| {
        running(d)?;
        let queue = target(d)?;
        for _ in 0..100 {
            d.kick_number(queue, queue);
            reset(d, queue, 1)?;
        }
        finish(d)
    }),
    registers("hostile-ring-reset-of-0", ONE, "queue_reset is written with 0", |d| written(d, 0)),
    registers("hostile-ring-reset-of-2", ONE, "queue_reset is written with 2", |d| written(d, 2)),
    registers("hostile-ring-reset-of-65535", ONE, "queue_reset is written with 0xffff", |d| written(d, 0xffff)),
    registers("hostile-ring-reset-with-requests", DONE, "a queue is reset with requests in flight, and kicked", |d| {
        running(d)?;
        for frame in 8..16 {
            d.post(Role::First, frame..frame + 1, &Shape::PLAIN)?;
        }
        d.publish(Role::First)?;
        d.kick(Role::First)?;
        let queue = d.number(Role::First)?;
        reset(d, queue, 1)?;
        d.kick_number(queue, queue);
        finish(d)
    }),
    registers("hostile-ring-reset-beside-requests", DONE, "a queue is reset while another has requests", |d| {
        skip_unless!(d.has_two_queues(), "the device has one queue for requests");
        running(d)?;
        let queue = target(d)?;
        for frame in 8..16 {
            d.post(Role::First, frame..frame + 1, &Shape::PLAIN)?;
            d.publish(Role::First)?;
            d.kick(Role::First)?;
            reset(d, queue, 1)?;
        }
        finish(d)
    }),
    registers("hostile-ring-reset-and-kicks", NOTIFIED, "a queue that was reset is notified", |d| {
        running(d)?;
        let queue = target(d)?;
        reset(d, queue, 1)?;
        (0..50).for_each(|_| d.kick_number(queue, queue));
        finish(d)
    }),
    registers(
        "hostile-ring-reset-and-enabled-as-it-is",
        SET_UP,
        "a queue that was reset is enabled without addresses",
        |d| {
            running(d)?;
            let queue = target(d)?;
            reset(d, queue, 1)?;
            d.write_enable(1)?;
            finish(d)
        },
    ),
    registers(
        "hostile-ring-reset-and-enabled-larger",
        SET_UP,
        "a queue that was reset is enabled with twice its maximum",
        |d| {
            running(d)?;
            let queue = target(d)?;
            reset(d, queue, 1)?;
            let most = d.sizes[usize::from(queue)];
            d.write_size(most.saturating_mul(2))?;
            d.allow_all();
            enable_beyond(d)?;
            finish(d)
        },
    ),
    registers(
        "hostile-ring-reset-and-enabled-beyond-ram",
        SET_UP,
        "a queue that was reset is enabled beyond memory",
        |d| {
            running(d)?;
            let queue = target(d)?;
            reset(d, queue, 1)?;
            enable_beyond(d)?;
            finish(d)
        },
    ),
    registers("hostile-ring-reset-and-enabled-at-once", DONE, "a queue is enabled before its reset is done", |d| {
        running(d)?;
        let queue = target(d)?;
        let setup = with_feature(d)?;
        d.select(queue);
        d.write_queue_reset(1)?;
        d.write_enable(1)?;
        d.write_queue_reset(1)?;
        d.enable(queue, &setup)?;
        finish(d)
    }),
    registers("hostile-ring-reset-before-driver-ok", ENABLED, "an enabled queue is reset before DRIVER_OK", |d| {
        let (setup, queue) = (with_feature(d)?, target(d)?);
        d.prepare(&setup)?;
        reset(d, queue, 1)?;
        set(d, LIVE);
        finish(d)
    }),
    registers("hostile-ring-reset-of-a-queue-that-is-off", ENABLED, "a queue that was never enabled is reset", |d| {
        let (setup, queue) = (with_feature(d)?, target(d)?);
        d.negotiate(setup.features)?;
        d.arena.clear();
        for other in d.wanted_queues().into_iter().filter(|other| *other != queue) {
            d.enable(other, &setup)?;
        }
        reset(d, queue, 1)?;
        set(d, LIVE);
        reset(d, queue, 1)?;
        finish(d)
    }),
    registers("hostile-ring-reset-of-an-absent-queue", EXISTS, "queues that do not exist are reset", |d| {
        running(d)?;
        for queue in [d.first_absent(), 63, 1023, 1024, 0x8000, 0xffff] {
            reset(d, queue, 1)?;
        }
        finish(d)
    }),
];

/// Skips the check of a device without the register.
fn needs_register(d: &mut TestDevice<'_>) -> Verdict {
    d.queue_reset().map(drop)
}

/// The start options with `RING_RESET`; skips the check if it is not offered.
fn with_feature(d: &mut TestDevice<'_>) -> Verdict<StartOptions> {
    skip_unless!(d.offered.contains(Features::RING_RESET), "the device does not offer RING_RESET");
    needs_register(d)?;
    Ok(StartOptions { features: d.least() | Features::RING_RESET, ..d.plain() })
}

/// A running device with `RING_RESET`.
fn running(d: &mut TestDevice<'_>) -> Verdict {
    with_feature(d)?;
    running_with(d, Features::RING_RESET)
}

/// Writes `queue_reset` and does not wait.
fn reset(d: &mut TestDevice<'_>, queue: u16, value: u16) -> Verdict {
    d.select(queue);
    d.write_queue_reset(value)
}

fn written(d: &mut TestDevice<'_>, value: u16) -> Verdict<Reaction> {
    running(d)?;
    let queue = target(d)?;
    reset(d, queue, value)?;
    finish(d)
}

fn enable_beyond(d: &mut TestDevice<'_>) -> Verdict {
    d.write_parts([BEYOND; 3])?;
    d.write_enable(1)
}
