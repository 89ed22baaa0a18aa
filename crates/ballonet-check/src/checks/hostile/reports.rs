//! Reports of free pages.

use super::steps::{PAGE, give_page, running_with, sent};
use super::{clause, registers};
use crate::check::{Check, Clause, Reaction, Verdict};
use crate::device::{Role, TestDevice};
use crate::ring::Part;
use ballonet::balloon::wire::PAGE_REPORTING;

const REPORT: Clause = clause("5.5.6.7", "a report has whole frames of free memory");
const REPORT_FEATURE: Clause = clause("5.5.6.7", "frames are reported only with PAGE_REPORTING");

/// The checks, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = &[
    registers("hostile-report-of-0-bytes", REPORT, "a report has no bytes", |d| report(d, 0, 0)),
    registers("hostile-report-of-1-byte", REPORT, "a report has 1 byte", |d| report(d, 0, 1)),
    registers("hostile-report-of-half-a-page", REPORT, "a report has 2048 bytes", |d| report(d, 0, 2048)),
    registers("hostile-report-of-a-page-and-a-byte", REPORT, "a report has 4097 bytes", |d| report(d, 0, 4097)),
    registers("hostile-report-unaligned-by-1", REPORT, "a report begins at an odd address", |d| report(d, 1, 4096)),
    registers("hostile-report-unaligned-by-half-a-page", REPORT, "a report begins in mid-page", |d| {
        report(d, 2048, 4096)
    }),
    registers("hostile-report-beyond-ram", REPORT, "a report is beyond memory", |d| reported(d, (1 << 50, 4096), true)),
    registers("hostile-report-of-the-end-of-ram", REPORT, "the first page after the end of memory is reported", |d| {
        let at = d.ends()?.high;
        reported(d, (at, 4096), true)
    }),
    registers("hostile-report-of-the-hole", REPORT, "the first page after the memory below 4 GiB is reported", |d| {
        let at = d.ends()?.low;
        reported(d, (at, 4096), true)
    }),
    registers("hostile-report-of-firmware", REPORT, "firmware's ROM below 4 GiB is reported", |d| {
        reported(d, (0xffff_f000, 4096), true)
    }),
    registers("hostile-report-of-the-video-hole", REPORT, "the hole below 1 MiB is reported", |d| {
        reported(d, (0xa_0000, 4096), true)
    }),
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
                return Err(crate::check::Stop::skipped(format_args!("there is no reporting queue")));
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
];

/// A page of the arena that the host may discard.
fn page(d: &mut TestDevice<'_>) -> Verdict<usize> {
    let at = d.arena.place(2 * PAGE, PAGE, 0)?;
    d.arena.open(at, 2 * PAGE);
    Ok(at)
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
