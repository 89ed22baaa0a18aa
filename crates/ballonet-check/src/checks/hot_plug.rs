//! Hot-plug: the host unplugs the device from its slot, and plugs the same device in again.

use core::mem::offset_of;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::interrupts::{await_counts, heard, start_interrupting};
use crate::check::Severity::{Custom, Must};
use crate::check::{Check, Stop, Verdict, ensure, on_device};
use crate::device::{BALLOON, PciFunction, Role, Shape, TestDevice};
use crate::ring::WantInterrupt;
use ballonet::balloon::wire::BalloonConfig;
use ballonet::pci::{Command, Function};
use ballonet::platform::Registers;
use ballonet::virtio::spec::{CommonConfig, Features, NO_VECTOR};

/// The checks, in the order in which they run.
pub(super) const CHECKS: &[Check] = &[
    on_device(
        Must,
        "an-unplug-request-changes-nothing",
        "2.1",
        "a device that the host wants to unplug works on until the driver lets it go",
        |device| {
            use_it(device, device.least())?;
            let before = device.settings()?;
            device.request_unplug()?;
            let after = device.settings()?;
            for ((name, before), (_, after)) in before.iter().zip(&after) {
                ensure!(before == after, "{name} was {before:#x} before the request, and is {after:#x} after it");
            }
            expect_interrupts(device)
        },
    ),
    on_device(
        Custom,
        "an-unplugged-device-is-gone",
        "4.1",
        "once its slot is off, an unplugged device answers no more, writes no memory and does not interrupt",
        |device| {
            // It runs still, with everything that it was given.
            use_it(device, device.least())?;
            device.request_unplug()?;
            device.power_off()?;
            ensure!(device.is_absent()?, "the slot is off, and the function still answers");
            let before = device.signals.counts.all();
            device.wait_quiet()?;
            let (count, status) = (device.signals.counts.all() - before, device.status().unwrap_or_default());
            // All ones, usually. In memory, where PCI Express demands no value, nothing reads as 0 on some.
            ensure!(status.is_empty(), "the slot is off, and the status is still {status}");
            ensure!(count == 0, "{count} interrupts came after the slot was off");
            device.expect_no_damage(None)
        },
    ),
    on_device(
        Must,
        "a-plugged-device-is-reset",
        "2.1.2",
        "a device that is plugged in has status 0, no queue enabled, and no vector",
        |device| {
            // The one before it goes while it runs.
            use_it(device, device.least())?;
            device.replug()?;
            expect_reset(device)
        },
    ),
    on_device(
        Custom,
        "a-plugged-function-is-off",
        "4.1",
        "a function that is plugged in decodes no BAR, masters no bus, and has MSI-X off",
        |device| {
            use_it(device, device.least())?;
            let new = device.replug()?;
            let on = new.command & (Command::IO | Command::MEMORY | Command::BUS_MASTER);
            ensure!(on.is_empty(), "the command register of the new function is {:#06x}", new.command.bits());
            ensure!(!new.sends_messages, "MSI-X of the new function is on");
            Ok(())
        },
    ),
    on_device(
        Custom,
        "a-plugged-device-is-the-same",
        "4.1.2",
        "the same device, plugged in again, has its IDs, BARs, capabilities, features and queues, and an empty balloon",
        |device| {
            use_it(device, device.least())?;
            if device.kind.number == BALLOON {
                device.config.write32(offset_of!(BalloonConfig, actual), ACTUAL);
            }
            let before = identity(device)?;
            device.replug()?;
            let after = identity(device)?;
            for ((name, before), (_, after)) in before.iter().zip(&after) {
                ensure!(before == after, "{name}: {before} before, and {after} after");
            }
            if device.kind.number == BALLOON {
                let actual = device.config.read32(offset_of!(BalloonConfig, actual));
                ensure!(actual == 0, "no driver has used the new balloon, and actual is {actual}");
            }
            Ok(())
        },
    ),
    on_device(
        Must,
        "a-plugged-device-works",
        "3.1.1",
        "a device that is plugged in can be started, serves requests and interrupts, time and again",
        |device| {
            for features in [device.least(), device.usable()] {
                use_it(device, features)?;
                // An orderly end: nothing is left to the device.
                device.stop()?;
                device.replug()?;
                use_it(device, features)?;
                expect_interrupts(device)?;
                device.expect_well()?;
            }
            Ok(())
        },
    ),
];

/// A value of `actual` that a new balloon does not have.
const ACTUAL: u32 = 0x0102;

/// Starts the device with interrupts, and has it serve requests. It keeps none.
fn use_it(device: &mut TestDevice<'_>, features: Features) -> Verdict {
    start_interrupting(device, features)?;
    if device.has_requests() { device.exchange_cleanly(32, &Shape::PLAIN) } else { Ok(()) }
}

/// Each queue for requests interrupts.
fn expect_interrupts(device: &mut TestDevice<'_>) -> Verdict {
    if !device.has_requests() {
        return Ok(());
    }
    for role in [Role::First, Role::Second] {
        device.with_queue(role, |queue, arena| queue.want_interrupt(arena, WantInterrupt::Every))?;
        let before = heard(device);
        device.transfer(role, 0..8, &Shape::PLAIN)?;
        let came = await_counts(device, |device| heard(device) != before)?;
        ensure!(came, "buffers of the {} queue cause no interrupt", device.queue_name(role));
    }
    device.expect_no_damage(None)
}

/// What a reset leaves, read before anything is written to the device but selectors.
fn expect_reset(device: &mut TestDevice<'_>) -> Verdict {
    let status = device.status()?;
    ensure!(status.is_empty(), "the status of the new device is {status}");
    for queue in device.present() {
        let enabled = device.in_use(queue);
        ensure!(enabled == 0, "queue {queue} of the new device has {enabled} in the register that enables it");
    }
    if device.function()?.msix.is_none() || device.modern().is_err() {
        return Ok(());
    }
    let vector = device.common()?.read16(offset_of!(CommonConfig, config_msix_vector));
    ensure!(vector == NO_VECTOR, "config_msix_vector of the new device is {vector:#06x}");
    for queue in device.present() {
        device.select(queue);
        let vector = device.common()?.read16(offset_of!(CommonConfig, queue_msix_vector));
        ensure!(vector == NO_VECTOR, "queue {queue} of the new device has vector {vector:#06x}");
    }
    Ok(())
}

/// By what a driver knows the device: a name and a value each. Resets it.
fn identity(device: &mut TestDevice<'_>) -> Verdict<Vec<(String, String)>> {
    device.begin()?;
    let bdf = device.function()?.function.bdf;
    let function = Function::probe(&device.platform.config(), bdf);
    // Registers of the device stay mapped while its BARs are sized: nothing accesses them.
    let Some(pci) = function.map(|function| PciFunction::read(device.platform, function)) else {
        return Err(Stop::gone());
    };
    let PciFunction { function, bars, structures, msix, .. } = pci;
    let mut identity = Vec::from([
        (String::from("the header"), format!("{function:x?}")),
        (String::from("the BARs"), format!("{bars:x?}")),
        (String::from("the virtio capabilities"), format!("{structures:x?}")),
        (String::from("MSI-X"), format!("{msix:x?}")),
        (String::from("the offered features"), format!("{}", device.read_offered())),
    ]);
    for queue in 0..device.first_absent() {
        identity.push((format!("the size of queue {queue}"), format!("{}", device.queue_size(queue))));
    }
    Ok(identity)
}
