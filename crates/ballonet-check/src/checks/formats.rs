//! What several chapters do with the device in each format of its rings.

use alloc::string::String;
use alloc::vec::Vec;

use crate::check::{Stop, Verdict, skip_unless};
use crate::device::{Shape, StartOptions, TestDevice};
use ballonet::virtio::spec::Features;

/// One frame a request.
pub(super) const SINGLE: Shape = Shape { frames: 1, ..Shape::PLAIN };

/// The features that change what a ring is, each with the least that the device must be given.
pub(super) fn formats(device: &TestDevice<'_>) -> Vec<Features> {
    let (least, offered) = (device.least(), device.offered);
    let optional = [Features::RING_PACKED, Features::EVENT_IDX, Features::IN_ORDER];
    let sets = (0..1 << optional.len()).map(|set| {
        let chosen = optional.iter().enumerate().filter(|(place, _)| set >> place & 1 != 0);
        chosen.fold(Features::empty(), |all, (_, feature)| all | *feature)
    });
    sets.filter(|set| offered.contains(*set)).map(|set| least | set).collect()
}

/// Does something with the device in each of the formats, as long as it takes them.
pub(super) fn in_each_format(device: &mut TestDevice<'_>, act: impl Fn(&mut TestDevice<'_>) -> Verdict) -> Verdict {
    for features in formats(device) {
        if !device.negotiate(features)? {
            continue;
        }
        let setup = StartOptions { features, ..device.plain() };
        device.start(&setup)?;
        act(device)?;
    }
    Ok(())
}

/// Brings the device up and has it take requests of a shape, in each format in which it can.
pub(super) fn in_shape(device: &mut TestDevice<'_>, extra: Features, shape: &Shape) -> Verdict {
    let mut left = String::from("the device takes none of the formats");
    let mut done = 0;
    for features in formats(device) {
        let features = features | extra;
        if !device.negotiate(features)? {
            continue;
        }
        let setup = StartOptions { features, ..device.plain() };
        device.start(&setup)?;
        match device.exchange_cleanly(48, shape) {
            // A shape that needs more descriptors than the queue has.
            Err(Stop::Skipped(reason)) => left = reason,
            outcome => {
                outcome?;
                done += 1;
            }
        }
    }
    skip_unless!(done > 0, "{left}");
    Ok(())
}
