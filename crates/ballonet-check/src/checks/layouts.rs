//! Odd but legal layouts: rings of every size and alignment, requests split and placed in every way.

use alloc::vec::Vec;

use super::formats::{SINGLE, in_each_format, in_shape};
use crate::check::Severity::Must;
use crate::check::{Check, Stop, Verdict, on_device, skip_unless};
use crate::device::{QUEUE_LIMIT, Role, Shape, StartOptions, TestDevice};
use crate::ring::Placement;
use ballonet::virtio::spec::Features;

/// The checks, in the order in which they run.
pub(super) const CHECKS: &[Check] = &[
    on_device(Must, "every-split-size-works", "4.1.5.1.3", "split queues of every power-of-two size work", |device| {
        every_size(device, Features::empty())
    }),
    on_device(
        Must,
        "every-packed-size-works",
        "2.8.10.1",
        "packed queues of every size work, including odd ones",
        |device| {
            skip_unless!(device.offered.contains(Features::RING_PACKED), "the device does not offer RING_PACKED");
            every_size(device, Features::RING_PACKED)
        },
    ),
    on_device(Must, "rings-of-one-descriptor-work", "2.7", "a queue may have one entry", |device| {
        let options = StartOptions { size: 1, ..device.plain() };
        in_each_format(device, options, |device| device.exchange_cleanly(12, &Shape { frames: 1, ..Shape::PLAIN }))
    }),
    on_device(
        Must,
        "queue-memory-may-lie-anywhere",
        "2.7",
        "the areas of a queue may lie in any order, at their minimum alignment",
        |device| {
            let options = StartOptions { placement: Placement::Odd, ..device.plain() };
            in_each_format(device, options, |device| device.exchange_cleanly(48, &Shape { frames: 3, ..Shape::PLAIN }))
        },
    ),
    on_device(Must, "chains-work", "2.7.4.1", "a request may be a chain of descriptors", |device| {
        in_shape(device, Features::empty(), &Shape { frames: 16, piece: 16, ..Shape::PLAIN })
    }),
    on_device(
        Must,
        "one-frame-number-a-descriptor-works",
        "2.7.4.1",
        "each frame number may have a descriptor of its own",
        |device| in_shape(device, Features::empty(), &Shape { frames: 8, piece: 4, ..Shape::PLAIN }),
    ),
    on_device(
        Must,
        "frame-numbers-may-be-cut-in-two",
        "2.7.4.1",
        "a frame number may lie in two descriptors",
        |device| in_shape(device, Features::empty(), &Shape { frames: 6, piece: 6, ..Shape::PLAIN }),
    ),
    on_device(Must, "buffers-may-be-unaligned", "2.7.4.1", "buffers may begin at any byte", |device| {
        for skew in [1, 2, 3, 7] {
            in_shape(device, Features::empty(), &Shape { skew, ..Shape::PLAIN })?;
        }
        Ok(())
    }),
    on_device(Must, "requests-may-have-one-frame", "5.5.6", "a request may hold one frame number", |device| {
        in_shape(device, Features::empty(), &Shape { frames: 1, ..Shape::PLAIN })
    }),
    on_device(Must, "requests-may-have-256-frames", "5.5.6", "a request may hold 256 frame numbers", |device| {
        let frames = device.units().min(256);
        let options = device.plain();
        in_each_format(device, options, |device| device.exchange_cleanly(frames, &Shape { frames, ..Shape::PLAIN }))
    }),
    on_device(
        Must,
        "tables-of-one-descriptor-work",
        "2.7.5.3.2",
        "an indirect table may have one descriptor",
        |device| indirect(device, &Shape::PLAIN),
    ),
    on_device(
        Must,
        "tables-of-many-descriptors-work",
        "2.7.5.3.2",
        "an indirect table may have many descriptors",
        |device| indirect(device, &Shape { frames: 16, piece: 4, skew: 1, ..Shape::PLAIN }),
    ),
    on_device(
        Must,
        "direct-and-indirect-may-mix",
        "2.7.5.3.2",
        "direct and indirect requests may follow each other in one queue",
        |device| {
            skip_unless!(device.offered.contains(Features::INDIRECT_DESC), "the device does not offer INDIRECT_DESC");
            let options = StartOptions { features: Features::INDIRECT_DESC, ..device.plain() };
            in_each_format(device, options, |device| {
                for role in [Role::First, Role::Second] {
                    for (place, start) in (0..12).step_by(3).enumerate() {
                        let shape = Shape { frames: 3, piece: 4, skew: 0, indirect: place % 2 == 0 };
                        device.post(role, start..start + 3, &shape)?;
                    }
                    device.submit(role)?;
                    device.drain(role, 0)?;
                    device.take_done(role)?;
                }
                device.note_returned(0..12);
                device.expect_no_damage(None)?;
                Ok(())
            })
        },
    ),
    on_device(Must, "ring-indices-wrap", "2.7.13", "16-bit indices and wrap counters wrap", |device| {
        // Of two formats, the one with more that can go wrong.
        let split = device.least() | device.offered & Features::EVENT_IDX;
        let packed = split | device.offered & Features::RING_PACKED;
        for features in [split, packed] {
            let setup = StartOptions { features, ..device.plain() };
            device.start(&setup)?;
            // A packed ring's position wraps every lap; a split ring's index wraps once in this check.
            let rounds = if features == split { WRAPS } else { WRAPS / 32 };
            let batch = device.with_queue(Role::First, |queue, _| usize::from(queue.size))?.min(device.units());
            for _ in 0..rounds.div_ceil(batch) {
                device.exchange(batch, &SINGLE)?;
                device.buffers.clear();
            }
            device.expect_no_damage(None)?;
            if packed == split {
                break;
            }
        }
        Ok(())
    }),
];

/// The sizes that a queue may have at most `most` entries.
fn sizes(most: u16, packed: bool) -> Vec<u16> {
    let most = most.min(QUEUE_LIMIT);
    let mut sizes: Vec<u16> = (0..16).map(|shift| 1 << shift).take_while(|size| *size <= most).collect();
    if packed {
        sizes.extend([3, 5, 7, 13, most - 1, most].into_iter().filter(|size| *size <= most && *size > 0));
    }
    sizes
}

fn every_size(device: &mut TestDevice<'_>, format: Features) -> Verdict {
    let most = device.present().map(|queue| device.sizes[usize::from(queue)]).max().unwrap_or(0);
    let features = device.least() | format | device.offered & Features::EVENT_IDX;
    for size in sizes(most, !format.is_empty()) {
        let setup = StartOptions { features, size, ..device.plain() };
        device.start(&setup)?;
        // Small requests, so that the ring wraps.
        match device.exchange_cleanly(32, &Shape { frames: 4, ..Shape::PLAIN }) {
            Err(stop) if stop.is_failed() => {
                return Err(Stop::failed(format_args!("with queues of {size}: {}", stop.reason())));
            }
            // A request of several descriptors does not fit into the smallest.
            Err(stop) if stop.is_skipped() => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

fn indirect(device: &mut TestDevice<'_>, shape: &Shape) -> Verdict {
    skip_unless!(device.offered.contains(Features::INDIRECT_DESC), "the device does not offer INDIRECT_DESC");
    in_shape(device, Features::INDIRECT_DESC, &Shape { indirect: true, ..*shape })
}

/// Requests sent through each queue: enough to wrap a 16-bit index.
const WRAPS: usize = (1 << 16) + 256;
