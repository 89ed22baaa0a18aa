//! The balloon's queues and fields other than inflating and deflating.

use core::mem::offset_of;

use crate::check::Severity::{Custom, Must};
use crate::check::{Check, Verdict, ensure, fail, on_device, skip_unless};
use crate::device::{About, Role, Shape, StartOptions, TestDevice, undisturbed};
use crate::ring::Part;
use ballonet::balloon::wire::{
    BalloonConfig, FREE_PAGE_HINT, MUST_TELL_HOST, PAGE_POISON, PAGE_REPORTING, STATS_VQ, Tag, statistic,
};
use ballonet::platform::Registers;

/// The checks, in the order in which they run.
pub(super) const CHECKS: &[Check] = &[
    on_device(
        Custom,
        "statistics-wait-to-be-asked-for",
        "5.5.6.3",
        "the device holds the statistics buffer until the host wants statistics",
        |device| {
            start_with_statistics(device)?;
            // The host may ask once or twice meanwhile, but not every time.
            for _ in 0..OFFERS {
                device.wait_quiet()?;
                if !device.with_queue(Role::Statistics, |queue, arena| queue.collect(arena))?? {
                    device.expect_no_damage(None)?;
                    return device.expect_well();
                }
                device.take_done(Role::Statistics)?;
                offer_statistics(device)?;
                device.kick(Role::Statistics)?;
            }
            fail!("the device gave the statistics buffer back {OFFERS} times in a row")
        },
    ),
    on_device(
        Must,
        "balloon-works-beside-statistics",
        "5.5.6.3",
        "a held statistics buffer does not block other queues",
        |device| {
            start_with_statistics(device)?;
            device.exchange_cleanly(32, &Shape::PLAIN)
        },
    ),
    on_device(
        Must,
        "telling-the-host-first-works",
        "5.5.6",
        "with MUST_TELL_HOST deflate requests complete",
        |device| {
            skip_unless!(device.offered.contains(MUST_TELL_HOST), "the device does not offer MUST_TELL_HOST");
            let setup = StartOptions { features: device.least() | MUST_TELL_HOST, ..device.plain() };
            device.start(&setup)?;
            device.exchange_cleanly(32, &Shape::PLAIN)
        },
    ),
    on_device(Must, "reports-of-free-pages-complete", "5.5.6.7", "reports of free pages complete", |device| {
        skip_unless!(device.offered.contains(PAGE_REPORTING), "the device does not offer PAGE_REPORTING");
        let setup = StartOptions { features: device.least() | PAGE_REPORTING, ..device.plain() };
        device.start(&setup)?;
        for pages in [&[1][..], &[2, 1], &[1, 1, 1, 4]] {
            let mut chain = alloc::vec::Vec::new();
            for count in pages {
                let at = device.arena.place(count * PAGE, PAGE, 0)?;
                device.arena.open(at, count * PAGE);
                let address = device.arena.address(at);
                chain.push(Part { address, length: (count * PAGE) as u32, writable: true });
            }
            device.needs_room(Role::Reporting, chain.len() as u16)?;
            device.add(Role::Reporting, &chain, None)?;
            device.submit(Role::Reporting)?;
            device.drain(Role::Reporting, 0)?;
            for used in device.take_done(Role::Reporting)? {
                ensure!(used.length <= used.writable, "{} bytes were written of {}", used.length, used.writable);
            }
            device.expect_no_damage(None)?;
        }
        device.expect_well()
    }),
    on_device(
        Custom,
        "hint-command-holds-still",
        "5.5.6.5",
        "free_page_hint_cmd_id changes only when the host wants hints",
        |device| {
            skip_unless!(device.offered.contains(FREE_PAGE_HINT), "the device does not offer FREE_PAGE_HINT");
            skip_unless!(
                device.config.len() >= offset_of!(BalloonConfig, free_page_hint_cmd_id) + 4,
                "the device configuration has no free_page_hint_cmd_id"
            );
            let setup = StartOptions { features: device.least() | FREE_PAGE_HINT, ..device.plain() };
            undisturbed(device, About::Signals, |device| {
                device.start(&setup)?;
                let before = device.config.read32(offset_of!(BalloonConfig, free_page_hint_cmd_id));
                skip_unless!(before <= 1, "the host asks for hints just now: {before}");
                device.wait_quiet()?;
                let after = device.config.read32(offset_of!(BalloonConfig, free_page_hint_cmd_id));
                skip_unless!(after <= 1, "the host asks for hints just now: {after}");
                ensure!(before == after, "free_page_hint_cmd_id goes from {before} to {after} without a round");
                Ok(())
            })?;
            device.exchange_cleanly(32, &Shape::PLAIN)
        },
    ),
    on_device(
        Must,
        "balloon-works-with-poison",
        "5.5.6.6",
        "the balloon works with PAGE_POISON and a poison_val of 0",
        |device| {
            skip_unless!(device.offered.contains(PAGE_POISON), "the device does not offer PAGE_POISON");
            skip_unless!(
                device.config.len() >= offset_of!(BalloonConfig, poison_val) + 4,
                "the device configuration has no poison_val"
            );
            let setup = StartOptions { features: device.least() | PAGE_POISON, ..device.plain() };
            device.prepare(&setup)?;
            // Before DRIVER_OK and not after (5.5.6.6). No frame of the tester's is free, so nothing has to be filled.
            device.config.write32(offset_of!(BalloonConfig, poison_val), 0);
            device.go()?;
            device.exchange_cleanly(32, &Shape::PLAIN)
        },
    ),
];

/// Size of a page that is reported.
const PAGE: usize = 4096;
/// How often a statistics buffer is offered again immediately.
const OFFERS: usize = 3;

/// Starts the device with a statistics buffer in its queue.
pub(super) fn start_with_statistics(device: &mut TestDevice<'_>) -> Verdict {
    skip_unless!(device.offered.contains(STATS_VQ), "the device does not offer STATS_VQ");
    let setup = StartOptions { features: device.least() | STATS_VQ, ..device.plain() };
    device.prepare(&setup)?;
    offer_statistics(device)?;
    device.go()?;
    device.kick(Role::Statistics)
}

/// Offers a statistics buffer; the caller kicks.
pub(super) fn offer_statistics(device: &mut TestDevice<'_>) -> Verdict {
    let entries = [statistic(Tag::Free, 1 << 20), statistic(Tag::Total, 1 << 24)];
    let at = device.arena.place(entries.as_flattened().len(), 16, 0)?;
    device.arena.write(at, entries.as_flattened());
    let length = entries.as_flattened().len();
    device.buffers.push((at, at + length));
    let part = Part { address: device.arena.address(at), length: length as u32, writable: false };
    device.add(Role::Statistics, &[part], None)?;
    device.publish(Role::Statistics).map(drop)
}
