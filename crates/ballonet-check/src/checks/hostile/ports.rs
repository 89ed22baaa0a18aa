//! The ports of the legacy interface on PCI: widths, offsets and directions.

use super::steps::{in_traffic, in_traffic_by, quiet, running, send};
use super::{clause, registers};
use crate::check::{Check, Clause, Reaction, Verdict};
use crate::device::{TestDevice, ports};
use crate::platform::Mapped;
use ballonet::platform::Registers;
use ballonet::virtio::InterruptMode;

const WIDTH: Clause = clause("4.1.4.10", "a field of the header is accessed with its own width");
const READ_ONLY: Clause = clause("4.1.4.10", "device features, queue size and ISR status are read-only");
const WRITE_ONLY: Clause = clause("4.1.4.10", "the queue's doorbell is written");
const PAST: Clause = clause("4.1.4.10", "the device configuration ends with the last field of the device's type");
const RESET: Clause = clause("4.1.4.10", "the status is a byte, and a reset is the byte 0");

/// The ports of the header.
const HEADER: usize = ports::CONFIG;

/// The checks, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = &[
    registers("hostile-ports-are-read-in-every-width", WIDTH, "every port of the header is read in every width", |d| {
        ported(d, |ports| (0..HEADER - 3).for_each(|offset| TestDevice::read_every_width(ports, offset)))
    }),
    registers("hostile-ports-page-in-bytes", WIDTH, "the page of a queue is written in bytes", |d| {
        ported(d, |ports| (0..4).for_each(|byte| ports.write8(ports::QUEUE_ADDRESS + byte, 0xff)))
    }),
    registers("hostile-ports-page-in-words", WIDTH, "the page of a queue is written in words", |d| {
        ported(d, |ports| [2, 0].into_iter().for_each(|at| ports.write16(ports::QUEUE_ADDRESS + at, 0xffff)))
    }),
    registers("hostile-ports-features-in-bytes", WIDTH, "the features are written in bytes", |d| {
        ported(d, |ports| (0..4).for_each(|byte| ports.write8(ports::DRIVER_FEATURES + byte, 0xff)))
    }),
    registers("hostile-ports-features-in-words", WIDTH, "the features are written in words", |d| {
        ported(d, |ports| [0, 2].into_iter().for_each(|at| ports.write16(ports::DRIVER_FEATURES + at, 0xffff)))
    }),
    registers("hostile-ports-select-in-bytes", WIDTH, "the queue selector is written in bytes", |d| {
        ported(d, |ports| (0..2).for_each(|byte| ports.write8(ports::QUEUE_SELECT + byte, 0xff)))
    }),
    registers("hostile-ports-kick-in-bytes", WIDTH, "a queue is notified in bytes", |d| {
        ported(d, |ports| (0..2).for_each(|byte| ports.write8(ports::QUEUE_NOTIFY + byte, 0)))
    }),
    registers("hostile-ports-kick-with-32-bits", WIDTH, "a notification also writes status and ISR", |d| {
        ported(d, |ports| ports.write32(ports::QUEUE_NOTIFY, 0xff07_0000))
    }),
    registers(
        "hostile-ports-kick-with-a-reset",
        RESET,
        "a 32-bit notification also writes the status, and resets the device",
        |d| ported(d, |ports| ports.write32(ports::QUEUE_NOTIFY, 0)),
    ),
    registers("hostile-ports-select-with-size", WIDTH, "queue size and selector are written as 32 bits", |d| {
        ported(d, |ports| ports.write32(ports::QUEUE_SIZE, 0xffff_0001))
    }),
    registers("hostile-ports-status-with-isr", WIDTH, "status and ISR are written as 16 bits", |d| {
        ported(d, |ports| ports.write16(ports::DEVICE_STATUS, 0xff07))
    }),
    registers("hostile-ports-status-0-with-isr", RESET, "a reset is written as 16 bits, together with the ISR", |d| {
        ported(d, |ports| ports.write16(ports::DEVICE_STATUS, 0xff00))
    }),
    registers("hostile-ports-status-read-as-32-bits", WIDTH, "doorbell, status and ISR are read as 32 bits", |d| {
        ported(d, |ports| {
            ports.read32(ports::QUEUE_NOTIFY);
        })
    }),
    registers("hostile-ports-offer-is-written", READ_ONLY, "the offered features are written", |d| {
        ported(d, |ports| {
            [0, u32::MAX].into_iter().for_each(|value| ports.write32(ports::DEVICE_FEATURES, value));
        })
    }),
    registers("hostile-ports-size-is-written", READ_ONLY, "the queue size is written", |d| {
        ported(d, |ports| [0, 1, 3, 0x8000, 0xffff].into_iter().for_each(|size| ports.write16(ports::QUEUE_SIZE, size)))
    }),
    registers("hostile-ports-isr-is-written", READ_ONLY, "the ISR status is written during traffic", |d| {
        in_traffic(d, |d| d.write_isr([0xff, 0, 3]))
    }),
    registers("hostile-ports-doorbell-is-read", WRITE_ONLY, "the doorbell is read in every width", |d| {
        ported(d, |ports| TestDevice::read_every_width(ports, ports::QUEUE_NOTIFY))
    }),
    registers("hostile-ports-configuration-to-its-end", PAST, "the configuration is read to the end of the BAR", |d| {
        running(d)?;
        let config = &d.config;
        (0..config.len().saturating_sub(3)).for_each(|offset| TestDevice::read_every_width(config, offset));
        quiet(d)
    }),
    registers("hostile-ports-configuration-past-its-fields", PAST, "the BAR is written past the configuration", |d| {
        past_fields(d, InterruptMode::Polling)
    }),
    registers(
        "hostile-ports-configuration-past-with-msix",
        PAST,
        "the same with MSI-X on, which moves the configuration",
        |d| past_fields(d, InterruptMode::Shared),
    ),
    registers("hostile-ports-of-ones", WIDTH, "every dword of the header except the last is set to all ones", |d| {
        ported(d, |ports| (0..ports::QUEUE_NOTIFY).step_by(4).for_each(|offset| ports.write32(offset, u32::MAX)))
    }),
    registers("hostile-ports-of-zeros", WIDTH, "every dword of the header is set to 0", |d| {
        ported(d, |ports| (0..HEADER).step_by(4).for_each(|offset| ports.write32(offset, 0)))
    }),
];

/// Does something to the ports of a device during traffic.
fn ported(d: &mut TestDevice<'_>, act: impl FnOnce(&mut Mapped)) -> Verdict<Reaction> {
    in_traffic(d, |d| {
        act(&mut d.legacy()?.ports);
        send(d, 16)
    })
}

/// Writes past the longest configuration that a device of this type has.
fn past_fields(d: &mut TestDevice<'_>, mode: InterruptMode) -> Verdict<Reaction> {
    in_traffic_by(d, mode, |d| {
        let (start, end) = (d.kind.longest_config().next_multiple_of(4), d.config.len() & !3);
        (start..end).step_by(4).for_each(|offset| d.config.write32(offset, u32::MAX));
        (start..end).step_by(4).for_each(|offset| d.config.write8(offset + 1, 0));
        Ok(())
    })
}
