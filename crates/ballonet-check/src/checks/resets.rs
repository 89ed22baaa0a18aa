//! Resets during traffic, resets of single queues, and setting the device up again differently.

use super::formats::in_each_format;
use crate::check::Severity::Must;
use crate::check::{Check, Verdict, ensure, fail, on_device, skip_unless};
use crate::device::{Role, Shape, StartOptions, TestDevice};
use crate::ring::Placement;
use ballonet::virtio::InterruptMode;
use ballonet::virtio::spec::{Features, Status};

/// The checks, in the order in which they run.
pub(super) const CHECKS: &[Check] = &[
    on_device(Must, "reset-ends-in-mid-traffic", "2.4.1", "a reset completes while requests are in flight", |device| {
        let setup = device.plain();
        for _ in 0..8 {
            device.start(&setup)?;
            keep_busy(device, Role::First)?;
            device.stop()?;
        }
        Ok(())
    }),
    on_device(
        Must,
        "nothing-is-written-after-a-reset",
        "2.4.1",
        "the device writes no memory after a reset",
        |device| {
            let options = device.plain();
            in_each_format(device, options, |device| {
                keep_busy(device, Role::First)?;
                device.reset()?;
                expect_no_more_writes(device)
            })
        },
    ),
    on_device(
        Must,
        "device-works-after-a-reset-in-mid-traffic",
        "2.4.1",
        "the device works after a reset with requests in flight",
        |device| {
            let setup = device.plain();
            for _ in 0..4 {
                device.start(&setup)?;
                keep_busy(device, Role::First)?;
                device.stop()?;
                device.start(&setup)?;
                device.transfer(Role::Second, 0..64, &Shape::PLAIN)?;
                device.exchange_cleanly(64, &Shape::PLAIN)?;
            }
            Ok(())
        },
    ),
    on_device(
        Must,
        "every-reconfiguration-works",
        "3.1.1",
        "the device can be set up again with other features, queue sizes, addresses and interrupts",
        |device| {
            device.try_start()?;
            device.needs_answers(Role::First)?;
            let (least, usable) = (device.least(), device.usable());
            let packed = Features::RING_PACKED;
            let settings = [
                (usable, InterruptMode::PerQueue, 64, Placement::Plain),
                (least, InterruptMode::Line, 1, Placement::Odd),
                (usable - packed, InterruptMode::Shared, 16, Placement::Odd),
                (usable, InterruptMode::Polling, 4, Placement::Plain),
                (least, InterruptMode::PerQueue, 2, Placement::Plain),
                (usable, InterruptMode::Line, 8, Placement::Odd),
                (least, InterruptMode::Polling, u16::MAX, Placement::Plain),
            ];
            let mut done = 0;
            for (features, mode, size, placement) in settings {
                let setup = StartOptions { features, mode, size, placement, mapped: true };
                match device.start(&setup) {
                    // A mode that the device does not have, or features that it does not accept together.
                    Err(stop) if stop.is_skipped() => continue,
                    outcome => outcome?,
                }
                match device.exchange_cleanly(32, &Shape { frames: 8, ..Shape::PLAIN }) {
                    // A request of several descriptors does not fit into the smallest queues.
                    Err(stop) if stop.is_skipped() => continue,
                    outcome => outcome?,
                }
                done += 1;
            }
            skip_unless!(done > 1, "there are not two settings that the device takes");
            Ok(())
        },
    ),
    on_device(
        Must,
        "a-failed-driver-can-start-over",
        "2.4.1",
        "the device can be started again after FAILED and a reset",
        |device| {
            let setup = device.plain();
            device.start(&setup)?;
            let all = device.settled() | Status::DRIVER_OK | Status::FAILED;
            device.set_status(all);
            device.start(&setup)?;
            device.exchange_cleanly(16, &Shape::PLAIN)
        },
    ),
    on_device(
        Must,
        "queue-reset-is-0-before-it-is-asked-for",
        "4.1.4.3.1",
        "queue_reset is 0 before a queue is reset",
        |device| {
            start_resettable(device, false)?;
            for queue in [device.number(Role::First)?, device.number(Role::Second)?] {
                device.select(queue);
                let value = device.queue_reset()?;
                ensure!(value == 0, "queue_reset of queue {queue} is {value} before it was written");
            }
            Ok(())
        },
    ),
    on_device(
        Must,
        "queue-reset-ends",
        "2.6.1.1.1",
        "a reset of one queue completes, and leaves queue_reset and queue_enable at 0",
        |device| {
            for packed in [false, true] {
                start_resettable(device, packed)?;
                keep_busy(device, Role::First)?;
                reset_queue(device)?;
            }
            Ok(())
        },
    ),
    on_device(
        Must,
        "nothing-is-written-after-a-queue-reset",
        "2.6.1.1.1",
        "the device does not write the memory of a queue that was reset",
        |device| {
            for packed in [false, true] {
                start_resettable(device, packed)?;
                keep_busy(device, Role::First)?;
                reset_queue(device)?;
                expect_no_more_writes(device)?;
            }
            Ok(())
        },
    ),
    on_device(
        Must,
        "queue-reset-leaves-other-queues-alone",
        "2.6.1.1.1",
        "other queues keep working while one is reset",
        |device| {
            skip_unless!(device.has_two_queues(), "the device has one queue for requests");
            for packed in [false, true] {
                start_resettable(device, packed)?;
                device.transfer(Role::First, 0..32, &Shape::PLAIN)?;
                reset_queue(device)?;
                device.transfer(Role::Second, 0..32, &Shape::PLAIN)?;
                device.expect_well()?;
            }
            Ok(())
        },
    ),
    on_device(
        Must,
        "a-reset-queue-works-again",
        "2.6.1.2.1",
        "a queue that was reset can be enabled again with another size and address",
        |device| {
            for packed in [false, true] {
                let setup = start_resettable(device, packed)?;
                // Never the size that the queue has after its reset: that is another check's.
                let number = device.number(Role::First)?;
                let most = device.sizes.get(usize::from(number)).map_or(1, |size| (size / 2).max(1));
                let least = device.kind.descriptors;
                for size in [4, 16, 1, 8].map(|size: u16| size.min(most).max(least)) {
                    keep_busy(device, Role::First)?;
                    let number = reset_queue(device)?;
                    device.enable(number, &StartOptions { size, ..setup })?;
                    let enabled = device.in_use(number);
                    ensure!(enabled == 1, "queue {number} was enabled again, and queue_enable is {enabled}");
                    device.transfer(Role::Second, 0..64, &Shape::PLAIN)?;
                    device.exchange(32, &Shape { frames: 8, ..Shape::PLAIN })?;
                }
            }
            Ok(())
        },
    ),
    on_device(Must, "legal-use-needs-no-reset", "2.1.2", "legal use never sets DEVICE_NEEDS_RESET", |device| {
        if let Some(what) = &device.needed_reset {
            fail!("DEVICE_NEEDS_RESET was set in legal use: {what}");
        }
        Ok(())
    }),
    // Last: a device that fails it may want a reset.
    on_device(
        Must,
        "a-reset-queue-is-as-large-as-it-says",
        "2.6.1.1",
        "a queue that was reset and is enabled again has the size that queue_size shows, not its old one",
        |device| {
            let setup = start_resettable(device, false)?;
            let number = device.number(Role::First)?;
            let most = device.sizes.get(usize::from(number)).copied().unwrap_or(0);
            skip_unless!(most >= 8, "the queue has {most} entries");
            device.start(&StartOptions { size: 4, ..setup })?;
            device.transfer(Role::First, 0..16, &Shape::PLAIN)?;
            reset_queue(device)?;
            device.enable(number, &StartOptions { size: u16::MAX, ..setup })?;
            // More than the old size, so that a device that kept it wraps too early.
            for _ in 0..3 {
                device.transfer(Role::First, 16..22, &Shape { frames: 1, ..Shape::PLAIN })?;
                device.transfer(Role::Second, 16..22, &Shape { frames: 1, ..Shape::PLAIN })?;
            }
            Ok(())
        },
    ),
];

/// Gives the device work, and does not wait for it.
fn keep_busy(device: &mut TestDevice<'_>, role: Role) -> Verdict {
    let room = device.room(role)?;
    for place in 0..room.min(8) {
        device.post(role, place * 8..place * 8 + 8, &Shape::PLAIN)?;
    }
    device.submit(role)
}

/// Fails the check if the device writes memory from now on.
fn expect_no_more_writes(device: &mut TestDevice<'_>) -> Verdict {
    device.arena.freeze();
    device.wait_quiet()?;
    device.expect_no_damage(None)
}

// Single queues.

/// Brings the device up with `RING_RESET`, and requests in flight in the inflate queue.
fn start_resettable(device: &mut TestDevice<'_>, packed: bool) -> Verdict<StartOptions> {
    skip_unless!(device.offered.contains(Features::RING_RESET), "the device does not offer RING_RESET");
    device.queue_reset()?;
    let format = if packed { device.offered & Features::RING_PACKED } else { Features::empty() };
    let features = device.least() | Features::RING_RESET | format;
    let setup = StartOptions { features, size: 16, ..device.plain() };
    device.start(&setup)?;
    Ok(setup)
}

/// Resets the inflate queue, and waits until that is done.
fn reset_queue(device: &mut TestDevice<'_>) -> Verdict<u16> {
    let number = device.number(Role::First)?;
    device.select(number);
    device.start_queue_reset();
    let limit = device.patience.stall;
    let done = device.wait(limit, |device| {
        device.status()?;
        Ok(device.queue_reset()? == 0)
    })?;
    ensure!(done, "queue_reset of queue {number} is not 0 after {} ms", limit / 1_000_000);
    let enabled = device.in_use(number);
    ensure!(enabled == 0, "queue {number} was reset, and queue_enable is {enabled}");
    device.queues.retain(|queue| queue.index != number);
    Ok(number)
}
