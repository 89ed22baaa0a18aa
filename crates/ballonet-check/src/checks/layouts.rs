//! Odd but legal layouts: rings of every size and at every place, requests cut and placed in every way.

use alloc::string::String;
use alloc::vec::Vec;

use super::rings::formats;
use crate::outcome::{Stop, Verdict, ensure, needs};
use crate::ring::Placement;
use crate::subject::{QUEUE_LIMIT, Role, Setup, Subject};
use crate::traffic::Shape;
use ballonet::balloon::BalloonPlatform;
use ballonet::platform::Platform;
use ballonet::virtio::spec::Features;

/// Brings the device up and has it take requests of a shape, in each format in which it can.
fn in_shape<P: BalloonPlatform>(subject: &mut Subject<'_, P>, extra: Features, shape: &Shape) -> Verdict {
    let mut left = String::from("the device takes none of the formats");
    let mut done = 0;
    for features in formats(subject) {
        let features = features | extra;
        if !subject.negotiate(features)? {
            continue;
        }
        let setup = Setup { features, ..subject.plain() };
        subject.start(&setup)?;
        match subject.exchange_cleanly(48, shape) {
            // A shape that needs more descriptors than the queue has.
            Err(Stop::Skipped(reason)) => left = reason,
            outcome => {
                outcome?;
                done += 1;
            }
        }
    }
    needs!(done > 0, "{left}");
    Ok(())
}

/// The sizes that a queue may have at most `most` entries.
fn sizes(most: u16, packed: bool) -> Vec<u16> {
    let most = most.min(QUEUE_LIMIT);
    let mut sizes: Vec<u16> = (0..16).map(|shift| 1 << shift).take_while(|size| *size <= most).collect();
    if packed {
        sizes.extend([3, 5, 7, 13, most - 1, most].into_iter().filter(|size| *size <= most && *size > 0));
    }
    sizes
}

pub fn every_split_size_works<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    every_size(subject, Features::empty())
}

pub fn every_packed_size_works<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    needs!(subject.offered.contains(Features::RING_PACKED), "the device does not offer RING_PACKED");
    every_size(subject, Features::RING_PACKED)
}

fn every_size<P: BalloonPlatform>(subject: &mut Subject<'_, P>, format: Features) -> Verdict {
    let most = subject.present().map(|queue| subject.sizes[usize::from(queue)]).max().unwrap_or(0);
    let features = subject.least() | format | subject.offered & Features::EVENT_IDX;
    for size in sizes(most, !format.is_empty()) {
        let setup = Setup { features, size, ..subject.plain() };
        subject.start(&setup)?;
        // Small requests, so that the ring goes round.
        if let Err(stop) = subject.exchange_cleanly(32, &Shape { frames: 4, ..Shape::PLAIN }) {
            return Err(match stop {
                Stop::Failed(detail) => Stop::Failed(alloc::format!("with queues of {size}: {detail}")),
                stop => stop,
            });
        }
    }
    Ok(())
}

pub fn rings_of_one_descriptor_work<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    for features in formats(subject) {
        if !subject.negotiate(features)? {
            continue;
        }
        let setup = Setup { features, size: 1, ..subject.plain() };
        subject.start(&setup)?;
        subject.exchange_cleanly(12, &Shape { frames: 1, ..Shape::PLAIN })?;
    }
    Ok(())
}

pub fn queue_memory_may_lie_anywhere<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    for features in formats(subject) {
        if !subject.negotiate(features)? {
            continue;
        }
        let setup = Setup { features, placement: Placement::Odd, ..subject.plain() };
        subject.start(&setup)?;
        subject.exchange_cleanly(48, &Shape { frames: 3, ..Shape::PLAIN })?;
    }
    Ok(())
}

pub fn chains_work<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    in_shape(subject, Features::empty(), &Shape { frames: 16, piece: 16, ..Shape::PLAIN })
}

pub fn one_frame_number_a_descriptor_works<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    in_shape(subject, Features::empty(), &Shape { frames: 8, piece: 4, ..Shape::PLAIN })
}

pub fn frame_numbers_may_be_cut_in_two<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    in_shape(subject, Features::empty(), &Shape { frames: 6, piece: 6, ..Shape::PLAIN })
}

pub fn buffers_may_be_unaligned<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    for skew in [1, 2, 3, 7] {
        in_shape(subject, Features::empty(), &Shape { skew, ..Shape::PLAIN })?;
    }
    Ok(())
}

pub fn requests_may_have_one_frame<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    in_shape(subject, Features::empty(), &Shape { frames: 1, ..Shape::PLAIN })
}

pub fn requests_may_have_256_frames<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    let frames = subject.pfns.len().min(256);
    for features in formats(subject) {
        if !subject.negotiate(features)? {
            continue;
        }
        let setup = Setup { features, ..subject.plain() };
        subject.start(&setup)?;
        subject.exchange_cleanly(frames, &Shape { frames, ..Shape::PLAIN })?;
    }
    Ok(())
}

fn indirect<P: BalloonPlatform>(subject: &mut Subject<'_, P>, shape: &Shape) -> Verdict {
    needs!(subject.offered.contains(Features::INDIRECT_DESC), "the device does not offer INDIRECT_DESC");
    in_shape(subject, Features::INDIRECT_DESC, &Shape { indirect: true, ..*shape })
}

pub fn tables_of_one_descriptor_work<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    indirect(subject, &Shape::PLAIN)
}

pub fn tables_of_many_descriptors_work<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    indirect(subject, &Shape { frames: 16, piece: 4, skew: 1, ..Shape::PLAIN })
}

pub fn direct_and_indirect_may_mix<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    needs!(subject.offered.contains(Features::INDIRECT_DESC), "the device does not offer INDIRECT_DESC");
    for features in formats(subject) {
        let features = features | Features::INDIRECT_DESC;
        if !subject.negotiate(features)? {
            continue;
        }
        let setup = Setup { features, ..subject.plain() };
        subject.start(&setup)?;
        for role in [Role::Inflate, Role::Deflate] {
            for (place, start) in (0..12).step_by(3).enumerate() {
                let shape = Shape { frames: 3, piece: 4, skew: 0, indirect: place % 2 == 0 };
                let (room, size) = subject.with_queue(role, |queue, _| (queue.room(), queue.size))?;
                needs!(size >= 4, "queues of {size} have no room for it");
                if room < 3 {
                    subject.submit(role)?;
                    subject.drain(role, 0)?;
                }
                subject.post(role, start..start + 3, &shape)?;
            }
            subject.submit(role)?;
            subject.drain(role, 0)?;
            subject.take_done(role)?;
        }
        subject.away[..12].fill(false);
        subject.expect_no_damage(None)?;
    }
    Ok(())
}

pub fn kicks_with_data_work<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    let offered = subject.offered & (Features::NOTIFICATION_DATA | Features::NOTIF_CONFIG_DATA);
    needs!(!offered.is_empty(), "the device offers neither NOTIFICATION_DATA nor NOTIF_CONFIG_DATA");
    for extra in [Features::NOTIFICATION_DATA, Features::NOTIF_CONFIG_DATA, offered] {
        if offered.contains(extra) {
            in_shape(subject, extra, &Shape { frames: 2, ..Shape::PLAIN })?;
        }
    }
    Ok(())
}

pub fn legal_use_needs_no_reset<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    if let Some(what) = &subject.needed_reset {
        ensure!(false, "DEVICE_NEEDS_RESET was set in legal use: {what}");
    }
    Ok(())
}
