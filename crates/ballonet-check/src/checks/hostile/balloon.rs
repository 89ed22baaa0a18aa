//! The balloon's own queues and fields: frame numbers, statistics, reports, hints, configuration.
//!
//! The host discards memory whose frame number is inflated, or that is reported. So all frame numbers and reports
//! within memory are the tester's.

use core::mem::offset_of;

use super::steps::{quiet, running, running_with};
use super::{clause, registers};
use crate::check::{Check, Clause, Reaction, Verdict, skip_unless};
use crate::device::{Role, StartOptions, TestDevice};
use crate::ring::Part;
use ballonet::balloon::wire::{BalloonConfig, FREE_PAGE_HINT, PAGE_POISON, PAGE_REPORTING, STATS_VQ};
use ballonet::platform::Registers;

const OWN: Clause = clause("5.5.6", "frame numbers are those of the driver's memory");
const ONCE: Clause = clause("5.5.6", "a frame is not inflated again before it is deflated");
const NOT_IN: Clause = clause("5.5.6.1", "only a frame in the balloon is deflated");
const FLYING: Clause = clause("5.5.6.1", "a frame must not be deflated while its inflate request is in flight");
const ARRAY: Clause = clause("5.5.6", "a request is an array of 32-bit frame numbers");
const READABLE: Clause = clause("5.5.6", "frame numbers are in device-readable memory");
const ACTUAL: Clause = clause("5.5.6.1", "actual is the number of frames in the balloon");
const CONFIG: Clause = clause("5.5.4", "only actual and poison_val are written by the driver");
const FIELD: Clause = clause("5.5.4", "a field of the configuration is accessed as a whole");
const STATS: Clause = clause("5.5.6.3.1", "a statistics buffer's length must be a multiple of an entry's");
const STATS_ONE: Clause = clause("5.5.6.3.1", "at most one statistics buffer must be in the queue");
const STATS_TAGS: Clause = clause("5.5.6.4", "each statistic has a defined tag and appears once");
const STATS_READ: Clause = clause("5.5.6.3.1", "a statistics buffer must be readable");
const REPORT: Clause = clause("5.5.6.7", "a report has whole frames of free memory");
const REPORT_FEATURE: Clause = clause("5.5.6.7", "frames are reported only with PAGE_REPORTING");
const HINT_ID: Clause = clause("5.5.6.5.1", "a round of hints must begin with the current command ID");
const HINT_SIZE: Clause = clause("5.5.6.5.1", "a readable buffer of hints must have 4 bytes");
const HINT_STOP: Clause = clause("5.5.6.5.1", "no hints are sent once the round has ended");
const POISON: Clause = clause("5.5.6.6.1", "poison_val must not change while DRIVER_OK is set");

/// The last frame number.
const LAST: u32 = u32::MAX;
/// A frame beyond the memory of any machine that a test would have: at 2^43.
const BEYOND: u32 = 1 << 31;
/// Frames of the local APIC, of firmware's ROM and of the video hole.
const LOCAL_APIC: u32 = 0xfee00;
const ROM: u32 = 0xfffff;
const VIDEO: u32 = 0xa0;
const PAGE: usize = 4096;
/// The longest statistics buffer.
const LONG: usize = 64 * 1024;

/// One check each for inflating and deflating.
macro_rules! both_ways {
    ($($name:literal, $clause:expr, $asks:literal, |$d:ident, $role:ident| $act:expr;)*) => {
        &[
            $(registers(concat!("hostile-inflate-", $name), $clause, $asks, |$d| { let $role = Role::First; $act }),)*
            $(registers(concat!("hostile-deflate-", $name), $clause, $asks, |$d| { let $role = Role::Second; $act }),)*
        ]
    };
}

/// The checks of frame numbers, in the order in which they run.
pub(in crate::checks) const FRAMES: &[Check] = both_ways! {
    "frame-beyond-ram", OWN, "a frame number is beyond memory", |d, role| numbers(d, role, &[BEYOND]);
    "last-frame", OWN, "a frame number is all ones", |d, role| numbers(d, role, &[LAST]);
    "frame-of-the-local-apic", OWN, "a frame number is the local APIC's", |d, role| numbers(d, role, &[LOCAL_APIC]);
    "frame-of-firmware", OWN, "a frame number is that of firmware's ROM", |d, role| numbers(d, role, &[ROM]);
    "frame-of-the-video-hole", OWN, "a frame number is in the hole below 1 MiB", |d, role| numbers(d, role, &[VIDEO]);
    "frame-of-own-registers", OWN, "a frame number is that of the device's BAR", |d, role| {
        let frame = d.own_registers()? >> 12;
        numbers(d, role, &[frame as u32])
    };
    "frames-around-the-end", OWN, "frame numbers are at the ends of 32 bits and of 4 GiB", |d, role| {
        numbers(d, role, &[LAST - 1, LAST, 0xf_ffff, LAST, 0xfec00, BEYOND + 1])
    };
    "good-frames-between-bad", OWN, "good frame numbers are between bad ones", |d, role| {
        let good = d.pfns[20];
        numbers(d, role, &[LAST, good, BEYOND, good + 1 - 1, LOCAL_APIC])
    };
    "frame-twice-in-a-request", ONCE, "a frame number occurs twice in a request", |d, role| {
        let frame = d.pfns[20];
        numbers(d, role, &[frame, frame])
    };
    "frame-a-thousand-times", ONCE, "a frame number occurs a thousand times in a request", |d, role| {
        let frame = d.pfns[20];
        numbers(d, role, &[frame; 1000])
    };
    "frame-in-two-requests", ONCE, "two requests in flight have the same frame", |d, role| {
        let frame = d.pfns[20];
        running(d)?;
        offer_numbers(d, role, &[frame])?;
        offer_numbers(d, role, &[frame])?;
        sent(d, role)
    };
    "frames-of-the-ring", OWN, "frame numbers are those of the ring that points to them", |d, role| {
        running(d)?;
        let ring = d.with_queue(role, |queue, _| queue.areas.descriptors)?;
        let frame = give_page(d, ring);
        offer_numbers(d, role, &[frame])?;
        sent(d, role)
    };
    "frame-of-the-request", OWN, "a frame number is that of the page that holds it", |d, role| {
        running(d)?;
        let at = d.arena.place(PAGE, PAGE, 0)?;
        let frame = give_page(d, at);
        d.arena.write(at, &frame.to_le_bytes());
        let part = Part { address: d.arena.address(at), length: 4, writable: false };
        d.add(role, &[part], None)?;
        sent(d, role)
    };
    "of-1-byte", ARRAY, "a request has 1 byte", |d, role| sized(d, role, 1);
    "of-3-bytes", ARRAY, "a request has 3 bytes", |d, role| sized(d, role, 3);
    "of-1021-bytes", ARRAY, "a request has 1021 bytes", |d, role| sized(d, role, 1021);
    "of-1028-bytes", ARRAY, "a request has 257 frame numbers", |d, role| sized(d, role, 1028);
    "of-65536-bytes", ARRAY, "a request has 16384 frame numbers", |d, role| sized(d, role, 65536);
    "of-0-bytes", ARRAY, "a request has no bytes", |d, role| sized(d, role, 0);
    "of-2-gib-beyond-ram", ARRAY, "a request has 2^31 bytes beyond memory", |d, role| {
        running(d)?;
        let part = Part { address: 1 << 50, length: 1 << 31, writable: false };
        d.add(role, &[part], None)?;
        sent(d, role)
    };
    "in-writable-memory", READABLE, "frame numbers are in a writable buffer", |d, role| {
        running(d)?;
        let at = d.arena.place(64, 16, 0)?;
        let frame = d.pfns[20];
        d.arena.write(at, &frame.to_le_bytes());
        d.arena.open(at, 64);
        let part = Part { address: d.arena.address(at), length: 64, writable: true };
        d.add(role, &[part], None)?;
        sent(d, role)
    };
    "in-single-bytes", ARRAY, "frame numbers are split into single bytes", |d, role| {
        running(d)?;
        d.needs_room(role, 16)?;
        let at = d.arena.place(16, 16, 0)?;
        let frames = [d.pfns[20].to_le_bytes(); 4];
        d.arena.write(at, frames.as_flattened());
        d.buffers.push((at, at + 16));
        let chain: alloc::vec::Vec<Part> = (0..16)
            .map(|byte| Part { address: d.arena.address(at + byte), length: 1, writable: false })
            .collect();
        d.add(role, &chain, None)?;
        sent(d, role)
    };
};

/// The other checks, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = &[
    registers("hostile-deflate-never-inflated", NOT_IN, "frames that were never inflated are deflated", |d| {
        let frames = [d.pfns[40], d.pfns[41], d.pfns[42]];
        numbers(d, Role::Second, &frames)
    }),
    registers("hostile-deflate-twice", NOT_IN, "frames are deflated twice", |d| {
        running(d)?;
        let frames = [d.pfns[0], d.pfns[1]];
        offer_numbers(d, Role::Second, &frames)?;
        offer_numbers(d, Role::Second, &frames)?;
        sent(d, Role::Second)
    }),
    registers("hostile-deflate-in-flight", FLYING, "a frame is inflated and deflated at once, repeatedly", |d| {
        running(d)?;
        let frame = d.pfns[20];
        for _ in 0..8 {
            offer_numbers(d, Role::First, &[frame])?;
            offer_numbers(d, Role::Second, &[frame])?;
            for role in [Role::First, Role::Second] {
                d.publish(role)?;
                d.kick(role)?;
            }
        }
        quiet(d)
    }),
    registers("hostile-inflate-what-is-inflated", ONCE, "frames in the balloon are inflated again", |d| {
        let frames = [d.pfns[0], d.pfns[1]];
        numbers(d, Role::First, &frames)
    }),
    registers("hostile-actual-above-target", ACTUAL, "actual is far above num_pages", |d| {
        wrote(d, offset_of!(BalloonConfig, actual), 0x7fff_ffff)
    }),
    registers("hostile-actual-of-ones", ACTUAL, "actual is all ones", |d| {
        wrote(d, offset_of!(BalloonConfig, actual), u32::MAX)
    }),
    registers("hostile-actual-changes-all-the-time", ACTUAL, "actual takes a hundred values", |d| {
        running(d)?;
        (0..100_u32)
            .for_each(|step| d.config.write32(offset_of!(BalloonConfig, actual), step.wrapping_mul(0x0123_4567)));
        d.config.write32(offset_of!(BalloonConfig, actual), 0);
        quiet(d)
    }),
    registers("hostile-actual-in-bytes", FIELD, "actual is written in bytes", |d| {
        running(d)?;
        (0..4).for_each(|byte| d.config.write8(offset_of!(BalloonConfig, actual) + byte, 0xff));
        (0..4).for_each(|byte| d.config.write8(offset_of!(BalloonConfig, actual) + byte, 0));
        quiet(d)
    }),
    registers("hostile-actual-in-words", FIELD, "actual is written in words", |d| {
        running(d)?;
        d.config.write16(offset_of!(BalloonConfig, actual) + 2, 0xffff);
        d.config.write16(offset_of!(BalloonConfig, actual), 0xffff);
        d.config.write32(offset_of!(BalloonConfig, actual), 0);
        quiet(d)
    }),
    registers("hostile-actual-in-64-bits", FIELD, "num_pages and actual are written by one access", |d| {
        running(d)?;
        d.config.write64(offset_of!(BalloonConfig, num_pages), 0);
        quiet(d)
    }),
    registers("hostile-actual-before-driver-ok", ACTUAL, "actual is written before DRIVER is set", |d| {
        d.reset()?;
        d.config.write32(offset_of!(BalloonConfig, actual), 1);
        d.config.write32(offset_of!(BalloonConfig, actual), 0);
        quiet(d)
    }),
    registers("hostile-target-is-written", CONFIG, "num_pages is written by the driver", |d| {
        let target = d.config.read32(offset_of!(BalloonConfig, num_pages));
        wrote(d, offset_of!(BalloonConfig, num_pages), !target)
    }),
    registers("hostile-hint-command-is-written", CONFIG, "free_page_hint_cmd_id is written by the driver", |d| {
        skip_unless!(
            d.config.len() >= offset_of!(BalloonConfig, free_page_hint_cmd_id) + 4,
            "there is no free_page_hint_cmd_id"
        );
        wrote(d, offset_of!(BalloonConfig, free_page_hint_cmd_id), 7)
    }),
    registers(
        "hostile-configuration-is-read-to-its-end",
        FIELD,
        "the configuration is read in every width at every offset",
        |d| {
            running(d)?;
            (0..d.config.len()).for_each(|offset| {
                if offset + 4 <= d.config.len() {
                    TestDevice::read_every_width(&d.config, offset);
                }
            });
            quiet(d)
        },
    ),
    registers("hostile-configuration-past-its-fields", CONFIG, "the configuration is written past its fields", |d| {
        running(d)?;
        let first = offset_of!(BalloonConfig, poison_val) + 4;
        (first..d.config.len() & !3).step_by(4).for_each(|offset| d.config.write32(offset, u32::MAX));
        quiet(d)
    }),
    registers("hostile-statistics-of-0-bytes", STATS, "a statistics buffer has no bytes", |d| statistics(d, &[0], 0)),
    registers("hostile-statistics-of-5-bytes", STATS, "a statistics buffer has 5 bytes", |d| statistics(d, &[5], 0)),
    registers("hostile-statistics-of-11-bytes", STATS, "a statistics buffer has 11 bytes", |d| statistics(d, &[11], 0)),
    registers("hostile-statistics-of-64-kib", STATS, "a statistics buffer has 64 KiB", |d| statistics(d, &[LONG], 0)),
    registers("hostile-statistics-of-ones", STATS_TAGS, "tags and values of statistics are all ones", |d| {
        statistics(d, &[100], 0xff)
    }),
    registers("hostile-statistics-with-unknown-tags", STATS_TAGS, "the tags of statistics are undefined", |d| {
        statistics(d, &[100], 0x2a)
    }),
    registers("hostile-statistics-with-a-tag-twice", STATS_TAGS, "all statistics have the same tag", |d| {
        statistics(d, &[100], 4)
    }),
    registers("hostile-statistics-two-buffers", STATS_ONE, "two statistics buffers are in the queue", |d| {
        statistics(d, &[10, 10], 0)
    }),
    registers("hostile-statistics-eight-buffers", STATS_ONE, "eight statistics buffers are in the queue", |d| {
        statistics(d, &[10; 8], 0)
    }),
    registers("hostile-statistics-in-writable-memory", STATS_READ, "a statistics buffer is writable", |d| {
        running_with(d, STATS_VQ)?;
        let at = d.arena.place(64, 16, 0)?;
        d.arena.open(at, 64);
        let part = Part { address: d.arena.address(at), length: 60, writable: true };
        d.add(Role::Statistics, &[part], None)?;
        sent(d, Role::Statistics)
    }),
    registers("hostile-statistics-beyond-ram", STATS_READ, "a statistics buffer is beyond memory", |d| {
        running_with(d, STATS_VQ)?;
        d.add(Role::Statistics, &[Part { address: 1 << 50, length: 100, writable: false }], None)?;
        sent(d, Role::Statistics)
    }),
    registers("hostile-report-of-0-bytes", REPORT, "a report has no bytes", |d| report(d, 0, 0)),
    registers("hostile-report-of-1-byte", REPORT, "a report has 1 byte", |d| report(d, 0, 1)),
    registers("hostile-report-of-half-a-page", REPORT, "a report has 2048 bytes", |d| report(d, 0, 2048)),
    registers("hostile-report-of-a-page-and-a-byte", REPORT, "a report has 4097 bytes", |d| report(d, 0, 4097)),
    registers("hostile-report-unaligned-by-1", REPORT, "a report begins at an odd address", |d| report(d, 1, 4096)),
    registers("hostile-report-unaligned-by-half-a-page", REPORT, "a report begins in mid-page", |d| {
        report(d, 2048, 4096)
    }),
    registers("hostile-report-beyond-ram", REPORT, "a report is beyond memory", |d| reported(d, (1 << 50, 4096), true)),
    registers("hostile-report-huge-beyond-ram", REPORT, "a report has 2^32 - 4096 bytes beyond memory", |d| {
        reported(d, (1 << 50, !0xfff), true)
    }),
    registers("hostile-report-passes-2-to-the-64", REPORT, "a report passes the end of the 64-bit space", |d| {
        reported(d, (!0xfff, 8192), true)
    }),
    registers("hostile-report-of-own-registers", REPORT, "the device's BAR is reported", |d| {
        let at = d.own_registers()?;
        reported(d, (at, 4096), true)
    }),
    registers("hostile-report-of-the-local-apic", REPORT, "the local APIC's page is reported", |d| {
        reported(d, (0xfee0_0000, 4096), true)
    }),
    registers("hostile-report-readable", REPORT, "a report is readable", |d| {
        running_with(d, PAGE_REPORTING)?;
        let at = page(d)?;
        let address = d.arena.address(at);
        send_report(d, &[Part { address, length: 4096, writable: false }])
    }),
    registers("hostile-report-twice", REPORT, "a page is reported twice in a chain", |d| {
        running_with(d, PAGE_REPORTING)?;
        let at = page(d)?;
        let part = Part { address: d.arena.address(at), length: 4096, writable: true };
        send_report(d, &[part, part])
    }),
    registers("hostile-report-over-a-ring", REPORT, "the page with the ring of the report is reported", |d| {
        running_with(d, PAGE_REPORTING)?;
        let ring = d.with_queue(Role::Reporting, |queue, _| queue.areas.descriptors)?;
        let frame = give_page(d, ring);
        send_report(d, &[Part { address: u64::from(frame) << 12, length: 4096, writable: true }])
    }),
    registers("hostile-report-of-inflated-memory", REPORT, "a frame in the balloon is reported", |d| {
        running_with(d, PAGE_REPORTING)?;
        let address = u64::from(d.pfns[0]) << 12;
        send_report(d, &[Part { address, length: 4096, writable: true }])
    }),
    registers("hostile-report-of-used-memory", REPORT, "the page of another request is reported", |d| {
        running_with(d, PAGE_REPORTING)?;
        let at = d.arena.place(PAGE, PAGE, 0)?;
        let frame = give_page(d, at);
        let number = d.pfns[20];
        d.arena.write(at, &number.to_le_bytes());
        d.add(Role::First, &[Part { address: d.arena.address(at), length: 4, writable: false }], None)?;
        d.publish(Role::First)?;
        d.kick_number(0, 0);
        send_report(d, &[Part { address: u64::from(frame) << 12, length: 4096, writable: true }])
    }),
    registers(
        "hostile-report-without-the-feature",
        REPORT_FEATURE,
        "the reporting queue is used without PAGE_REPORTING",
        |d| {
            let Some(queue) = d.numbers.reporting else {
                return Err(crate::check::Stop::Skipped("there is no reporting queue".into()));
            };
            let setup = d.plain();
            d.prepare(&setup)?;
            d.enable(queue.number(), &setup)?;
            d.go()?;
            let at = page(d)?;
            let part = Part { address: d.arena.address(at), length: 4096, writable: true };
            d.add(Role::Reporting, &[part], None)?;
            sent(d, Role::Reporting)
        },
    ),
    registers("hostile-hints-without-a-round", HINT_ID, "a page is hinted without a round", |d| hint(d, &[None])),
    registers("hostile-hints-with-a-stale-id", HINT_ID, "a round of hints begins with an old ID", |d| {
        hint(d, &[Some(2), None])
    }),
    registers("hostile-hints-with-a-future-id", HINT_ID, "a round of hints begins with a future ID", |d| {
        hint(d, &[Some(0x8000_0000), None])
    }),
    registers("hostile-hints-with-id-stop", HINT_ID, "a round of hints begins with STOP", |d| {
        hint(d, &[Some(0), None])
    }),
    registers("hostile-hints-with-id-done", HINT_ID, "a round of hints begins with DONE", |d| {
        hint(d, &[Some(1), None])
    }),
    registers("hostile-hints-after-stop", HINT_STOP, "pages are hinted after STOP", |d| {
        hint(d, &[Some(0), None, None])
    }),
    registers("hostile-hints-stop-twice", HINT_STOP, "STOP is sent twice", |d| hint(d, &[Some(0), Some(0)])),
    registers("hostile-hints-id-of-3-bytes", HINT_SIZE, "a command ID has 3 bytes", |d| command(d, 3)),
    registers("hostile-hints-id-of-4-kib", HINT_SIZE, "a command ID has 4096 bytes", |d| command(d, 4096)),
    registers("hostile-poison-changes-while-it-runs", POISON, "poison_val changes on a running device", |d| {
        skip_unless!(d.offered.contains(PAGE_POISON), "the device does not offer PAGE_POISON");
        skip_unless!(d.config.len() >= offset_of!(BalloonConfig, poison_val) + 4, "there is no poison_val");
        let setup = StartOptions { features: d.least() | PAGE_POISON, ..d.plain() };
        d.prepare(&setup)?;
        d.config.write32(offset_of!(BalloonConfig, poison_val), 0);
        d.go()?;
        for value in [1, u32::MAX, 0xaaaa_aaaa] {
            d.config.write32(offset_of!(BalloonConfig, poison_val), value);
            let frame = d.pfns[20];
            offer_numbers(d, Role::First, &[frame])?;
            d.submit(Role::First)?;
        }
        quiet(d)
    }),
    registers("hostile-poison-without-the-feature", CONFIG, "poison_val is written without PAGE_POISON", |d| {
        skip_unless!(d.config.len() >= offset_of!(BalloonConfig, poison_val) + 4, "there is no poison_val");
        wrote(d, offset_of!(BalloonConfig, poison_val), u32::MAX)
    }),
];

/// Publishes what was added, and lets the device work.
fn sent(d: &mut TestDevice<'_>, role: Role) -> Verdict<Reaction> {
    d.publish(role)?;
    d.kick(role)?;
    quiet(d)
}

/// Adds a request for these frames.
fn offer_numbers(d: &mut TestDevice<'_>, role: Role, frames: &[u32]) -> Verdict {
    let bytes: alloc::vec::Vec<u8> = frames.iter().flat_map(|frame| frame.to_le_bytes()).collect();
    let at = d.arena.place(bytes.len(), 16, 0)?;
    d.arena.write(at, &bytes);
    d.buffers.push((at, at + bytes.len()));
    for (frame, pfn) in d.pfns.iter().enumerate() {
        // The tester's frames that are inflated here are deflated later.
        d.away[frame] |= role == Role::First && frames.contains(pfn);
    }
    let part = Part { address: d.arena.address(at), length: bytes.len() as u32, writable: false };
    d.add(role, &[part], None).map(drop)
}

/// Sends one request for these frames.
fn numbers(d: &mut TestDevice<'_>, role: Role, frames: &[u32]) -> Verdict<Reaction> {
    running(d)?;
    offer_numbers(d, role, frames)?;
    sent(d, role)
}

/// Sends a request of this many bytes, full of one of the tester's frames.
fn sized(d: &mut TestDevice<'_>, role: Role, bytes: usize) -> Verdict<Reaction> {
    running(d)?;
    let at = d.arena.place(bytes.max(4), 16, 0)?;
    let frames = d.pfns[20].to_le_bytes().repeat(bytes.div_ceil(4).max(1));
    d.arena.write(at, &frames[..bytes]);
    d.buffers.push((at, at + bytes));
    d.away[20] |= role == Role::First;
    let part = Part { address: d.arena.address(at), length: bytes as u32, writable: false };
    d.add(role, &[part], None)?;
    sent(d, role)
}

/// Lets the host discard the page of the arena around an offset. Returns its frame number.
fn give_page(d: &mut TestDevice<'_>, at: usize) -> u32 {
    let start = at & !(PAGE - 1);
    d.arena.open(start, PAGE);
    (d.arena.address(start) >> 12) as u32
}

/// A page of the arena that the host may discard.
fn page(d: &mut TestDevice<'_>) -> Verdict<usize> {
    let at = d.arena.place(2 * PAGE, PAGE, 0)?;
    d.arena.open(at, 2 * PAGE);
    Ok(at)
}

/// Writes a field of a running device's configuration, and 0 after it.
fn wrote(d: &mut TestDevice<'_>, field: usize, value: u32) -> Verdict<Reaction> {
    running(d)?;
    d.config.write32(field, value);
    d.wait_quiet()?;
    d.config.write32(field, 0);
    quiet(d)
}

/// Offers statistics buffers of these sizes, full of this byte.
fn statistics(d: &mut TestDevice<'_>, sizes: &[usize], byte: u8) -> Verdict<Reaction> {
    running_with(d, STATS_VQ)?;
    for size in sizes {
        let at = d.arena.place((*size).max(1), 16, 0)?;
        d.arena.write(at, &alloc::vec![byte; *size]);
        d.buffers.push((at, at + size));
        let part = Part { address: d.arena.address(at), length: *size as u32, writable: false };
        d.add(Role::Statistics, &[part], None)?;
        d.publish(Role::Statistics)?;
        d.kick(Role::Statistics)?;
    }
    quiet(d)
}

/// Reports a part of two pages of the arena.
fn report(d: &mut TestDevice<'_>, skew: u64, length: u32) -> Verdict<Reaction> {
    running_with(d, PAGE_REPORTING)?;
    let at = page(d)?;
    let address = d.arena.address(at) + skew;
    send_report(d, &[Part { address, length, writable: true }])
}

/// Reports addresses without memory.
fn reported(d: &mut TestDevice<'_>, (address, length): (u64, u32), writable: bool) -> Verdict<Reaction> {
    running_with(d, PAGE_REPORTING)?;
    send_report(d, &[Part { address, length, writable }])
}

fn send_report(d: &mut TestDevice<'_>, chain: &[Part]) -> Verdict<Reaction> {
    d.add(Role::Reporting, chain, None)?;
    sent(d, Role::Reporting)
}

/// Sends command IDs, and pages for `None`, on the queue of hints.
fn hint(d: &mut TestDevice<'_>, steps: &[Option<u32>]) -> Verdict<Reaction> {
    running_with(d, FREE_PAGE_HINT)?;
    for step in steps {
        let at = d.arena.place(PAGE, PAGE, 0)?;
        match step {
            Some(command) => d.arena.write(at, &command.to_le_bytes()),
            None => d.arena.open(at, PAGE),
        }
        let length = if step.is_some() { 4 } else { PAGE as u32 };
        let part = Part { address: d.arena.address(at), length, writable: step.is_none() };
        d.add(Role::Hinting, &[part], None)?;
        d.publish(Role::Hinting)?;
        d.kick(Role::Hinting)?;
    }
    quiet(d)
}

/// Sends a command ID of this many bytes.
fn command(d: &mut TestDevice<'_>, length: u32) -> Verdict<Reaction> {
    running_with(d, FREE_PAGE_HINT)?;
    let at = d.arena.place(PAGE, PAGE, 0)?;
    d.arena.zero(at, PAGE);
    let part = Part { address: d.arena.address(at), length, writable: false };
    d.add(Role::Hinting, &[part], None)?;
    sent(d, Role::Hinting)
}
