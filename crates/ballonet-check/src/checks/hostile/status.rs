//! Status and features: the order of initialization, broken.

use super::steps::{FOUND, LIVE, SETTLED, expressible, finish, kick_both, quiet, running, send, set, since_version_1};
use super::{clause, registers};
use crate::check::{Check, Clause, Reaction, Verdict, skip_unless};
use crate::device::TestDevice;
use ballonet::virtio::spec::{Features, Status};

const ORDER: Clause = clause("3.1.1", "the steps of initialization must be performed in order");
const UNDEFINED: Clause = clause("2.1", "undefined bits of the status are 0");
const CLEARED: Clause = clause("2.1.1", "status bits must be cleared only by a reset");
const FAILED: Clause = clause("2.1.1", "after FAILED a reset must come before anything else");
const FROZEN: Clause = clause("3.1.1", "after FEATURES_OK no other features must be accepted");
const UNOFFERED: Clause = clause("2.2.1", "a feature that is not offered must not be accepted");
const REQUIRED: Clause = clause("2.2.1", "a feature must not be accepted without those that it requires");
const RESERVED: Clause = clause("2.2.1", "reserved feature bits must not be accepted");
const VERSION: Clause = clause("6.1", "VERSION_1 must be accepted if it is offered");
const SELECT: Clause = clause("4.1.4.3", "feature selectors select words that exist");
const AGAIN: Clause = clause("3.1.1", "initialization begins with a reset");
const RESET: Clause = clause("4.1.4.3.2", "after a reset the driver must wait until the status is 0");
const SUSPEND: Clause = clause("3.4.1", "SUSPEND should stay clear without the feature");

/// What the legacy interface lacks.
const FEATURES_OK: &str = "FEATURES_OK";
const PACKED: &str = "packed rings";

/// The checks, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = &[
    registers("hostile-status-driver-ok-first", ORDER, "DRIVER_OK is set alone", |d| statuses(d, &[Status::DRIVER_OK])),
    registers("hostile-status-features-ok-first", ORDER, "FEATURES_OK is set alone", |d| {
        since_version_1(d, FEATURES_OK)?;
        statuses(d, &[Status::FEATURES_OK])
    }),
    registers("hostile-status-driver-before-acknowledge", ORDER, "DRIVER is set without ACKNOWLEDGE", |d| {
        statuses(d, &[Status::DRIVER, Status::DRIVER | Status::FEATURES_OK])
    }),
    registers("hostile-status-all-steps-at-once", ORDER, "all steps are set at once", |d| statuses(d, &[LIVE])),
    registers("hostile-status-driver-ok-without-features-ok", ORDER, "DRIVER_OK is set without FEATURES_OK", |d| {
        since_version_1(d, FEATURES_OK)?;
        statuses(d, &[Status::ACKNOWLEDGE, FOUND, FOUND | Status::DRIVER_OK])
    }),
    registers("hostile-status-driver-ok-without-queues", ORDER, "DRIVER_OK is set without any queue", |d| {
        d.negotiate_least()?;
        set(d, LIVE);
        finish(d)
    }),
    registers("hostile-status-driver-ok-with-one-queue", ORDER, "DRIVER_OK is set with one of two queues", |d| {
        d.negotiate_least()?;
        d.arena.clear();
        let (setup, queues) = (d.plain(), d.wanted_queues());
        skip_unless!(queues.len() > 1, "the device has one queue");
        d.enable(queues[0], &setup)?;
        set(d, LIVE);
        finish(d)
    }),
    registers("hostile-status-driver-ok-twice", ORDER, "DRIVER_OK is set twice", |d| {
        running(d)?;
        statuses(d, &[LIVE, LIVE])
    }),
    registers("hostile-status-steps-again", AGAIN, "all steps are set again on a running device", |d| {
        running(d)?;
        statuses(d, &[Status::ACKNOWLEDGE, FOUND, SETTLED, LIVE])
    }),
    registers("hostile-status-undefined-bit-5", UNDEFINED, "bit 5 of the status is set", |d| undefined(d, 1 << 5)),
    registers("hostile-status-suspend", SUSPEND, "SUSPEND is set without the feature", |d| undefined(d, 1 << 4)),
    registers("hostile-status-needs-reset-by-the-driver", UNDEFINED, "the driver sets DEVICE_NEEDS_RESET", |d| {
        undefined(d, 1 << 6)?;
        // What the driver set says nothing about the device.
        d.reset()?;
        Ok(Reaction::Ignored)
    }),
    registers("hostile-status-all-bits", UNDEFINED, "all bits of the status but DEVICE_NEEDS_RESET are set", |d| {
        running(d)?;
        // All ones would look like a device that is gone.
        d.set_status(Status::from_bits_retain(0xbf));
        kick_both(d);
        d.reset()?;
        Ok(Reaction::Ignored)
    }),
    registers("hostile-status-driver-ok-is-cleared", CLEARED, "DRIVER_OK is cleared without a reset", |d| {
        running(d)?;
        statuses(d, &[SETTLED])
    }),
    registers(
        "hostile-status-driver-ok-is-cleared-and-set",
        CLEARED,
        "DRIVER_OK is cleared and set during traffic",
        |d| {
            running(d)?;
            for _ in 0..8 {
                set(d, SETTLED);
                kick_both(d);
                set(d, LIVE);
                kick_both(d);
            }
            quiet(d)
        },
    ),
    registers("hostile-status-features-ok-is-cleared", CLEARED, "FEATURES_OK is cleared without a reset", |d| {
        since_version_1(d, FEATURES_OK)?;
        running(d)?;
        statuses(d, &[FOUND, SETTLED])
    }),
    registers("hostile-status-acknowledge-is-cleared", CLEARED, "ACKNOWLEDGE is cleared without a reset", |d| {
        running(d)?;
        statuses(d, &[LIVE - Status::ACKNOWLEDGE])
    }),
    registers("hostile-status-one-bit-at-a-time", CLEARED, "each bit of the status is written alone", |d| {
        running(d)?;
        for bit in 0..7 {
            set(d, Status::from_bits_retain(1 << bit));
            kick_both(d);
        }
        d.reset()?;
        Ok(Reaction::Ignored)
    }),
    registers("hostile-status-every-value", CLEARED, "the status takes every value but 0 and 0xff", |d| {
        running(d)?;
        for value in 1..0xff {
            d.set_status(Status::from_bits_retain(value));
        }
        d.reset()?;
        Ok(Reaction::Ignored)
    }),
    registers("hostile-status-failed-and-then-traffic", FAILED, "requests follow FAILED", |d| {
        running(d)?;
        set(d, LIVE | Status::FAILED);
        send(d, 0)?;
        finish(d)
    }),
    registers("hostile-status-failed-and-then-driver-ok", FAILED, "DRIVER_OK follows FAILED", |d| {
        d.negotiate_least()?;
        set(d, SETTLED | Status::FAILED);
        set(d, LIVE);
        finish(d)
    }),
    registers("hostile-features-after-features-ok", FROZEN, "other features are accepted after FEATURES_OK", |d| {
        since_version_1(d, FEATURES_OK)?;
        d.negotiate_least()?;
        let usable = d.usable();
        d.accept(usable);
        statuses(d, &[SETTLED])
    }),
    registers("hostile-features-after-driver-ok", FROZEN, "other features are accepted on a running device", |d| {
        running(d)?;
        let usable = d.usable();
        d.accept(usable);
        set(d, LIVE);
        send(d, 0)?;
        quiet(d)
    }),
    registers("hostile-features-become-packed", FROZEN, "RING_PACKED is accepted on a running split queue", |d| {
        since_version_1(d, PACKED)?;
        running(d)?;
        let features = d.least() | d.offered & Features::RING_PACKED;
        d.accept(features);
        set(d, LIVE);
        send(d, 0)?;
        quiet(d)
    }),
    registers("hostile-features-negotiated-again", AGAIN, "features are negotiated again without a reset", |d| {
        running(d)?;
        for features in [d.usable(), d.least(), d.usable()] {
            set(d, FOUND);
            d.accept(features);
            set(d, SETTLED);
            set(d, LIVE);
            kick_both(d);
        }
        quiet(d)
    }),
    registers("hostile-features-all-bits", UNOFFERED, "all 64 features are accepted", |d| {
        accepted(d, Features::from_bits_retain(u64::MAX))
    }),
    registers("hostile-features-of-other-devices", UNOFFERED, "bits 6 to 23 are accepted", |d| {
        let least = d.least();
        accepted(d, least | Features::from_bits_retain(0xff_ffc0))
    }),
    registers("hostile-features-reserved", RESERVED, "reserved bits are accepted", |d| {
        let least = d.least();
        accepted(d, least | Features::from_bits_retain(1 << 25 | 1 << 26 | 1 << 31 | 0x3f << 44))
    }),
    registers("hostile-features-legacy-only", RESERVED, "bits of the legacy interface are accepted", |d| {
        let least = d.least();
        accepted(d, least | Features::from_bits_retain(1 << 24 | 1 << 27 | 1 << 30))
    }),
    registers("hostile-features-packed-unoffered", UNOFFERED, "RING_PACKED is accepted, offered or not", |d| {
        since_version_1(d, PACKED)?;
        let least = d.least();
        accepted(d, least | Features::RING_PACKED)
    }),
    registers("hostile-features-platform-unoffered", UNOFFERED, "ACCESS_PLATFORM is accepted, offered or not", |d| {
        since_version_1(d, "ACCESS_PLATFORM")?;
        let least = d.least();
        accepted(d, least | Features::ACCESS_PLATFORM)
    }),
    registers("hostile-features-none", VERSION, "no feature is accepted", |d| accepted(d, Features::empty())),
    registers("hostile-features-without-version-1", VERSION, "all but VERSION_1 are accepted", |d| {
        since_version_1(d, "VERSION_1")?;
        let usable = d.usable();
        accepted(d, usable - Features::VERSION_1)
    }),
    registers(
        "hostile-features-packed-without-version-1",
        REQUIRED,
        "RING_PACKED is accepted without VERSION_1",
        |d| {
            since_version_1(d, PACKED)?;
            accepted(d, Features::RING_PACKED)
        },
    ),
    registers("hostile-features-in-order-alone", REQUIRED, "IN_ORDER is accepted without VERSION_1", |d| {
        since_version_1(d, "IN_ORDER")?;
        accepted(d, Features::IN_ORDER)
    }),
    registers(
        "hostile-features-selectors-past-the-last-word",
        SELECT,
        "feature words past the last are written",
        |d| {
            d.begin()?;
            for select in [2, 3, 4, 31, 32, 0x8000_0000, u32::MAX] {
                d.write_feature_word(select, u32::MAX)?;
                d.feature_word(select);
            }
            let least = d.least();
            d.accept(least);
            statuses(d, &[SETTLED, LIVE])
        },
    ),
    registers(
        "hostile-features-are-never-read",
        ORDER,
        "features are accepted without being read, and FEATURES_OK is not read back",
        |d| {
            d.reset()?;
            let least = d.least();
            d.accept(least);
            statuses(d, &[LIVE])
        },
    ),
    registers("hostile-reset-is-not-awaited", RESET, "the device is initialized before its reset is done", |d| {
        running(d)?;
        set(d, Status::empty());
        statuses(d, &[Status::ACKNOWLEDGE, FOUND, SETTLED, LIVE])
    }),
    registers("hostile-reset-in-mid-traffic", RESET, "a device is reset with requests in flight, and kicked", |d| {
        running(d)?;
        (0..16).step_by(4).try_for_each(|unit| send(d, unit))?;
        set(d, Status::empty());
        finish(d)
    }),
    registers(
        "hostile-reset-a-hundred-times",
        RESET,
        "the device is reset a hundred times in a row during traffic, without reading the status",
        |d| {
            running(d)?;
            send(d, 0)?;
            for _ in 0..100 {
                kick_both(d);
                set(d, Status::empty());
            }
            quiet(d)
        },
    ),
    registers(
        "hostile-reset-from-every-step",
        RESET,
        "the device is reset after every step of initialization, without reading the status",
        |d| {
            for steps in [&[FOUND][..], &[FOUND, SETTLED], &[FOUND, SETTLED, LIVE], &[LIVE | Status::FAILED]] {
                for step in steps {
                    set(d, *step);
                    set(d, Status::empty());
                }
            }
            quiet(d)
        },
    ),
];

/// Writes status values in turn. Refused if the device does not accept the last.
fn statuses(d: &mut TestDevice<'_>, values: &[Status]) -> Verdict<Reaction> {
    values.iter().for_each(|value| set(d, *value));
    kick_both(d);
    d.wait_quiet()?;
    let last = values.last().map_or(Status::empty(), |last| expressible(d, *last));
    let taken = d.status().is_ok_and(|status| status.contains(last));
    Ok(if taken { Reaction::Ignored } else { Reaction::Refused })
}

/// Sets a bit on a running device, and sends requests.
fn undefined(d: &mut TestDevice<'_>, bit: u8) -> Verdict<Reaction> {
    running(d)?;
    let value = expressible(d, LIVE) | Status::from_bits_retain(bit);
    d.set_status(value);
    send(d, 0)?;
    d.wait_quiet()?;
    Ok(if d.status()?.contains(value) { Reaction::Ignored } else { Reaction::Refused })
}

/// Accepts these features, and continues to `DRIVER_OK`, with queues, whatever happens.
fn accepted(d: &mut TestDevice<'_>, features: Features) -> Verdict<Reaction> {
    let taken = d.negotiate(features)?;
    let (setup, queues) = (d.plain(), d.wanted_queues());
    d.arena.clear();
    queues.into_iter().try_for_each(|queue| d.enable(queue, &setup))?;
    set(d, LIVE);
    kick_both(d);
    d.wait_quiet()?;
    Ok(if taken { Reaction::Ignored } else { Reaction::Refused })
}
