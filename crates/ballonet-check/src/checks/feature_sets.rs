//! The device works with every set of features.

use super::features::bits;
use crate::check::Severity::Must;
use crate::check::{Check, Verdict, on_device};
use crate::device::{Shape, StartOptions, TestDevice};
use ballonet::virtio::spec::Features;

/// The checks, in the order in which they run.
pub(super) const CHECKS: &[Check] = &[
    on_device(
        Must,
        "works-with-the-least-features",
        "2.2.2",
        "the device works with the minimal feature set",
        |device| {
            let least = device.least();
            works(device, least)
        },
    ),
    on_device(Must, "works-with-all-features", "2.2.2", "the device works with all offered features", |device| {
        let usable = device.usable();
        works(device, usable)
    }),
    on_device(
        Must,
        "works-with-each-feature-alone",
        "2.2.2",
        "the device works with each offered feature alone",
        |device| {
            let (least, usable) = (device.least(), device.usable());
            bits(usable - least).try_for_each(|bit| works(device, least | bit))
        },
    ),
    on_device(
        Must,
        "works-with-all-features-but-one",
        "2.2.2",
        "the device works with all offered features but any one",
        |device| {
            let (least, usable) = (device.least(), device.usable());
            bits(usable - least).try_for_each(|bit| works(device, usable - bit))
        },
    ),
];

/// Brings the device up with these features, if it accepts them, and has it serve requests.
fn works(device: &mut TestDevice<'_>, features: Features) -> Verdict {
    if !device.negotiate(features)? {
        return Ok(());
    }
    let setup = StartOptions { features, ..device.plain() };
    device.start(&setup)?;
    device.exchange_cleanly(64, &Shape::PLAIN)
}
