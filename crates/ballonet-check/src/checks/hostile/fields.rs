//! The balloon's configuration fields.

use core::mem::offset_of;

use super::steps::{offer_numbers, quiet, running};
use super::{clause, registers};
use crate::check::{Check, Clause, Reaction, Verdict, skip_unless};
use crate::device::{Role, StartOptions, TestDevice};
use ballonet::balloon::wire::{BalloonConfig, PAGE_POISON};
use ballonet::platform::Registers;

const ACTUAL: Clause = clause("5.5.6.1", "actual is the number of frames in the balloon");
const CONFIG: Clause = clause("5.5.4", "only actual and poison_val are written by the driver");
const FIELD: Clause = clause("5.5.4", "a field of the configuration is accessed as a whole");
const POISON: Clause = clause("5.5.6.6.1", "poison_val must not change while DRIVER_OK is set");

/// The checks, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = &[
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

/// Writes a field of a running device's configuration, and 0 after it.
fn wrote(d: &mut TestDevice<'_>, field: usize, value: u32) -> Verdict<Reaction> {
    running(d)?;
    d.config.write32(field, value);
    d.wait_quiet()?;
    d.config.write32(field, 0);
    quiet(d)
}
