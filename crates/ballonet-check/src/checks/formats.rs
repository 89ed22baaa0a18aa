//! The ring formats in which several chapters run the device.

use alloc::string::String;
use alloc::vec::Vec;

use crate::check::{Verdict, skip_unless};
use crate::device::{Shape, StartOptions, TestDevice};
use ballonet::virtio::spec::Features;

/// One frame per request.
pub(super) const SINGLE: Shape = Shape { frames: 1, ..Shape::PLAIN };

/// The features that change the ring format, each with the minimal feature set.
pub(super) fn formats(device: &TestDevice<'_>) -> Vec<Features> {
    let (least, offered) = (device.least(), device.offered);
    let optional = [Features::RING_PACKED, Features::EVENT_IDX, Features::IN_ORDER];
    let sets = (0..1 << optional.len()).map(|set| {
        let chosen = optional.iter().enumerate().filter(|(place, _)| set >> place & 1 != 0);
        chosen.fold(Features::empty(), |all, (_, feature)| all | *feature)
    });
    sets.filter(|set| offered.contains(*set)).map(|set| least | set).collect()
}

/// Starts the device in each of the formats that it accepts, with the features of `options` too, and does something
/// with it.
pub(super) fn in_each_format(
    device: &mut TestDevice<'_>,
    options: StartOptions,
    mut act: impl FnMut(&mut TestDevice<'_>) -> Verdict,
) -> Verdict {
    for format in formats(device) {
        let features = format | options.features;
        if device.negotiate(features)? {
            device.start(&StartOptions { features, ..options })?;
            act(device)?;
        }
    }
    Ok(())
}

/// Has the device serve requests of a shape, in each format that supports it.
pub(super) fn in_shape(device: &mut TestDevice<'_>, extra: Features, shape: &Shape) -> Verdict {
    let (mut reason, mut done) = (String::from("the device accepts none of the formats"), 0);
    let options = StartOptions { features: device.least() | extra, ..device.plain() };
    in_each_format(device, options, |device| match device.exchange_cleanly(48, shape) {
        // A shape that needs more descriptors than the queue has.
        Err(stop) if stop.is_skipped() => {
            reason = stop.reason();
            Ok(())
        }
        outcome => {
            done += 1;
            outcome
        }
    })?;
    skip_unless!(done > 0, "{reason}");
    Ok(())
}
