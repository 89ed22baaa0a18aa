//! Actions of the host while a driver uses the balloon: it changes the target, asks for statistics, pauses the virtual
//! machine, and continues from a saved state.

use core::mem::offset_of;

use super::balloon::{offer_statistics, start_with_statistics};
use super::configuration::reads_the_same_in_parts;
use super::interrupts::{await_counts, heard, start_interrupting};
use crate::check::{Check, on_device};
use crate::device::{Role, Shape, StartOptions, TestDevice};
use crate::host::HostAction;
use crate::ring::WantInterrupt;
use crate::verdict::Severity::Must;
use crate::verdict::{Stop, Verdict, ensure, skip_unless};
use ballonet::balloon::wire::{BalloonConfig, STATS_VQ};
use ballonet::platform::Registers;
use ballonet::virtio::InterruptMode;
use ballonet::virtio::spec::{Features, ISR_CONFIG};

/// The checks, in the order in which they run.
pub(super) const CHECKS: &[Check] = &[
    on_device(
        Must,
        "a-new-target-interrupts",
        "4.1.5.4.1",
        "a change of num_pages sends the configuration change message",
        |device| {
            // Vector 0 is that of the configuration in every mode with messages.
            let setup = StartOptions { mode: InterruptMode::Shared, ..device.plain() };
            device.start(&setup)?;
            let before = device.signals.counts.of(0);
            device.ask_host(HostAction::Target)?;
            let came = await_counts(device, |device| device.signals.counts.of(0) != before)?;
            ensure!(came, "num_pages changed, and no interrupt came on the vector of configuration changes");
            device.exchange_cleanly(32, &Shape::PLAIN)
        },
    ),
    on_device(
        Must,
        "a-new-target-interrupts-by-line",
        "4.1.5.4.1",
        "without MSI-X a change of num_pages asserts the line with the configuration bit of the ISR byte",
        |device| {
            let setup = StartOptions { mode: InterruptMode::Line, ..device.plain() };
            device.start(&setup)?;
            device.ask_host(HostAction::Target)?;
            let came = await_counts(device, |device| device.signals.counts.isr() & ISR_CONFIG != 0)?;
            let isr = device.signals.counts.isr();
            ensure!(came, "num_pages changed; the ISR bytes read at interrupts add up to {isr:#04x}");
            device.exchange_cleanly(32, &Shape::PLAIN)
        },
    ),
    on_device(
        Must,
        "a-new-target-changes-the-generation",
        "4.1.4.3.1",
        "config_generation changes with num_pages, which reads the same in 8, 16 and 32 bits",
        |device| {
            let setup = device.plain();
            device.start(&setup)?;
            let Some(before) = device.generation() else {
                return Err(Stop::skipped(format_args!("the legacy interface has no config_generation")));
            };
            device.ask_host(HostAction::Target)?;
            ensure!(device.generation() != Some(before), "num_pages changed, and config_generation is still {before}");
            reads_the_same_in_parts(device)
        },
    ),
    on_device(
        Must,
        "a-target-set-before-driver-ok-is-seen",
        "5.5.4",
        "num_pages holds a target that was set before DRIVER_OK",
        |device| {
            device.begin()?;
            device.ask_host(HostAction::Target)?;
            let target = device.target();
            let setup = device.plain();
            device.start(&setup)?;
            let now = device.target();
            ensure!(now == target, "num_pages was {target} before FEATURES_OK, and is {now} after DRIVER_OK");
            device.exchange_cleanly(32, &Shape::PLAIN)
        },
    ),
    on_device(
        Must,
        "requests-complete-while-the-target-moves",
        "5.5.6",
        "the device uses every buffer while the host moves the target",
        |device| {
            let setup = device.plain();
            device.start(&setup)?;
            for _ in 0..MOVES {
                let target = device.request(HostAction::Target)?;
                device.await_host(target, |device| device.exchange(32, &Shape::PLAIN))?;
            }
            device.exchange_cleanly(32, &Shape::PLAIN)
        },
    ),
    on_device(
        Must,
        "statistics-come-when-the-host-asks",
        "5.5.6.3",
        "the device returns the statistics buffer whenever the host wants statistics",
        |device| {
            start_with_statistics(device)?;
            for _ in 0..MOVES {
                // It may take the buffer a moment after the kick.
                device.wait_quiet()?;
                device.ask_host(HostAction::Statistics)?;
                expect_statistics(device)?;
                offer_statistics(device)?;
                device.kick(Role::Statistics)?;
            }
            device.exchange_cleanly(32, &Shape::PLAIN)
        },
    ),
    on_device(
        Must,
        "a-pause-changes-nothing",
        "2.1",
        "a pause of the virtual machine does not change the device",
        |device| survives(device, HostAction::Pause, device.least()),
    ),
    on_device(
        Must,
        "a-restore-changes-nothing",
        "2.1",
        "a device restored from a saved state has its registers, rings and buffers",
        |device| survives(device, HostAction::Restore, device.least()),
    ),
    on_device(
        Must,
        "a-restore-keeps-packed-rings",
        "2.8",
        "a device restored from a saved state has its position in packed rings",
        |device| {
            let packed = Features::RING_PACKED;
            skip_unless!(device.offered.contains(packed), "the device does not offer {packed}");
            survives(device, HostAction::Restore, device.least() | packed)
        },
    ),
    on_device(
        Must,
        "a-restore-keeps-every-feature",
        "2.2",
        "a device restored from a saved state works with every feature that was accepted",
        |device| survives(device, HostAction::Restore, device.usable()),
    ),
];

/// How often the host repeats an action.
const MOVES: usize = 2;
/// A value that `actual` must keep.
const ACTUAL: u32 = 0x0102;
/// Frames that are inflated before the action; and frames whose request is published before it and kicked after it.
const BEFORE: core::ops::Range<usize> = 0..16;
const ACROSS: core::ops::Range<usize> = 16..24;

/// Uses the device, has the host act during traffic, and verifies that the device is unchanged.
fn survives(device: &mut TestDevice<'_>, action: HostAction, features: Features) -> Verdict {
    let features = features | device.offered & STATS_VQ;
    start_interrupting(device, features)?;
    if features.contains(STATS_VQ) {
        offer_statistics(device)?;
        device.kick(Role::Statistics)?;
    }
    device.exchange(32, &Shape::PLAIN)?;
    device.transfer(Role::First, BEFORE, &Shape::PLAIN)?;
    device.config.write32(offset_of!(BalloonConfig, actual), ACTUAL);
    let before = device.settings()?;
    device.post(Role::First, ACROSS, &Shape::PLAIN)?;
    device.publish(Role::First)?;
    device.ask_host(action)?;
    let after = device.settings()?;
    for ((name, before), (_, after)) in before.iter().zip(&after) {
        ensure!(before == after, "{name} was {before:#x} before, and is {after:#x} after");
    }
    let actual = device.config.read32(offset_of!(BalloonConfig, actual));
    ensure!(actual == ACTUAL, "actual was {ACTUAL} before, and is {actual} after");
    device.kick(Role::First)?;
    device.drain(Role::First, 0)?;
    device.transfer(Role::Second, BEFORE.start..ACROSS.end, &Shape::PLAIN)?;
    expect_interrupts(device)?;
    if features.contains(STATS_VQ) {
        expect_held_statistics(device)?;
    }
    device.config.write32(offset_of!(BalloonConfig, actual), 0);
    device.exchange_cleanly(32, &Shape::PLAIN)
}

/// Both queues still interrupt.
fn expect_interrupts(device: &mut TestDevice<'_>) -> Verdict {
    for role in [Role::First, Role::Second] {
        device.with_queue(role, |queue, arena| queue.want_interrupt(arena, WantInterrupt::Every))?;
        let before = heard(device);
        device.transfer(role, 0..8, &Shape::PLAIN)?;
        let came = await_counts(device, |device| heard(device) != before)?;
        ensure!(came, "buffers of the {} queue no longer cause an interrupt", device.queue_name(role));
    }
    Ok(())
}

/// The device still holds the statistics buffer and returns it when the host asks.
fn expect_held_statistics(device: &mut TestDevice<'_>) -> Verdict {
    match device.ask_host(HostAction::Statistics) {
        // This host cannot ask for statistics.
        Err(stop) if stop.is_skipped() => Ok(()),
        Ok(()) => expect_statistics(device),
        Err(stop) => Err(stop),
    }
}

/// The device returns one statistics buffer.
fn expect_statistics(device: &mut TestDevice<'_>) -> Verdict {
    let limit = device.patience.stall;
    let came =
        device.wait(limit, |device| device.with_queue(Role::Statistics, |queue, arena| queue.collect(arena))?)?;
    ensure!(came, "the host asked for statistics, and their buffer was not used in {} ms", limit / 1_000_000);
    device.take_done(Role::Statistics).map(drop)
}
