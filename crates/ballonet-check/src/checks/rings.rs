//! Used rings: what comes back, in which order, and what the device writes on the way.

use alloc::vec::Vec;

use crate::outcome::{Verdict, ensure, needs};
use crate::subject::{Role, Setup, Subject};
use crate::traffic::{Damage, Shape};
use ballonet::balloon::BalloonPlatform;
use ballonet::platform::Platform;
use ballonet::virtio::spec::Features;

/// One frame a request.
const SINGLE: Shape = Shape { frames: 1, ..Shape::PLAIN };

/// The features that change what a ring is, each with the least that the device must be given.
pub(super) fn formats<P: Platform>(subject: &Subject<'_, P>) -> Vec<Features> {
    let (least, offered) = (subject.least(), subject.offered);
    let optional = [Features::RING_PACKED, Features::EVENT_IDX, Features::IN_ORDER];
    let sets = (0..1 << optional.len()).map(|set| {
        let chosen = optional.iter().enumerate().filter(|(place, _)| set >> place & 1 != 0);
        chosen.fold(Features::empty(), |all, (_, feature)| all | *feature)
    });
    sets.filter(|set| offered.contains(*set)).map(|set| least | set).collect()
}

/// Does something with the device in each of the formats, as long as it takes them.
fn in_each_format<P: BalloonPlatform>(
    subject: &mut Subject<'_, P>,
    act: impl Fn(&mut Subject<'_, P>) -> Verdict,
) -> Verdict {
    for features in formats(subject) {
        if !subject.negotiate(features)? {
            continue;
        }
        let setup = Setup { features, ..subject.plain() };
        subject.start(&setup)?;
        act(subject)?;
    }
    Ok(())
}

pub fn inflate_completes<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    in_each_format(subject, |subject| {
        subject.transfer(Role::Inflate, 0..64, &Shape::PLAIN)?;
        // Only so that the frames are back: that deflating works is another check's business.
        let _ = subject.transfer(Role::Deflate, 0..64, &Shape::PLAIN);
        Ok(())
    })
}

pub fn deflate_completes<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    in_each_format(subject, |subject| {
        subject.transfer(Role::Inflate, 0..64, &Shape::PLAIN)?;
        subject.transfer(Role::Deflate, 0..64, &Shape::PLAIN).map(drop)
    })
}

pub fn used_ids_are_outstanding<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    in_each_format(subject, |subject| subject.exchange(32, &SINGLE))
}

pub fn nothing_is_used_twice<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    in_each_format(subject, |subject| {
        subject.exchange(16, &SINGLE)?;
        subject.linger()?;
        for role in [Role::Inflate, Role::Deflate] {
            subject.with_queue(role, |queue, arena| queue.collect(arena))??;
        }
        Ok(())
    })
}

pub fn buffers_are_used_in_order<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    needs!(subject.offered.contains(Features::IN_ORDER), "the device does not offer IN_ORDER");
    for features in formats(subject).into_iter().filter(|features| features.contains(Features::IN_ORDER)) {
        let setup = Setup { features, ..subject.plain() };
        subject.start(&setup)?;
        // Requests of different length, so that a device that works on several has a reason to change their order.
        subject.needs_room(Role::Inflate, 5)?;
        let mut posted = Vec::new();
        for (start, frames) in [(0, 16), (16, 1), (17, 8), (25, 2), (27, 5)] {
            posted.push(subject.post(Role::Inflate, start..start + frames, &Shape::PLAIN)?);
        }
        subject.submit(Role::Inflate)?;
        subject.drain(Role::Inflate, 0)?;
        let done: Vec<u16> = subject.take_done(Role::Inflate)?.iter().map(|used| used.id).collect();
        ensure!(done == posted, "buffers {posted:?} were used in the order {done:?}, with {features}");
        subject.transfer(Role::Deflate, 0..32, &Shape::PLAIN)?;
    }
    Ok(())
}

pub fn used_length_of_readable_buffers_is_0<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    in_each_format(subject, |subject| {
        for role in [Role::Inflate, Role::Deflate] {
            for used in subject.transfer(role, 0..32, &Shape::PLAIN)? {
                ensure!(
                    used.length == 0,
                    "the device says that it wrote {} bytes of a buffer of the {role:?} queue that it may only read",
                    used.length
                );
            }
        }
        Ok(())
    })
}

pub fn readable_buffers_are_left_alone<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    in_each_format(subject, |subject| {
        subject.exchange(64, &Shape::PLAIN)?;
        subject.expect_no_damage(Some(Damage::Readable))
    })
}

pub fn driver_areas_are_left_alone<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    in_each_format(subject, |subject| {
        subject.exchange(64, &Shape::PLAIN)?;
        subject.expect_no_damage(Some(Damage::Ring))
    })
}

pub fn nothing_else_is_written<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    in_each_format(subject, |subject| {
        subject.exchange(64, &Shape::PLAIN)?;
        subject.expect_no_damage(Some(Damage::Outside))
    })
}

pub fn nothing_is_used_before_driver_ok<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    early(subject, false)
}

pub fn kicks_before_driver_ok_are_ignored<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    early(subject, true)
}

/// Posts a request before `DRIVER_OK`: it does not come back before that, kicked or not.
fn early<P: BalloonPlatform>(subject: &mut Subject<'_, P>, kicked: bool) -> Verdict {
    let setup = subject.plain();
    subject.prepare(&setup)?;
    subject.post(Role::Inflate, 0..8, &Shape::PLAIN)?;
    subject.publish(Role::Inflate)?;
    if kicked {
        subject.kick(Role::Inflate)?;
    }
    subject.linger()?;
    let used = subject.with_queue(Role::Inflate, |queue, arena| queue.collect(arena))??;
    ensure!(!used, "a buffer was used before DRIVER_OK");
    Ok(())
}

pub fn early_buffers_are_used_after_driver_ok<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    let setup = subject.plain();
    subject.prepare(&setup)?;
    subject.post(Role::Inflate, 0..8, &Shape::PLAIN)?;
    subject.publish(Role::Inflate)?;
    subject.go()?;
    subject.kick(Role::Inflate)?;
    subject.drain(Role::Inflate, 0)?;
    subject.take_done(Role::Inflate)?;
    subject.transfer(Role::Deflate, 0..8, &Shape::PLAIN).map(drop)
}

pub fn wanted_kicks_are_enough<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    in_each_format(subject, |subject| {
        for frame in 0..24 {
            subject.transfer(Role::Inflate, frame..frame + 1, &SINGLE)?;
        }
        // One after the other without waiting: the device may be at work, and is not to forget the last.
        for frame in 0..24 {
            let room = subject.with_queue(Role::Deflate, |queue, _| queue.room())?;
            if room == 0 {
                let outstanding = subject.with_queue(Role::Deflate, |queue, _| queue.outstanding())?;
                subject.drain(Role::Deflate, outstanding.saturating_sub(1))?;
            }
            subject.post(Role::Deflate, frame..frame + 1, &SINGLE)?;
            subject.submit(Role::Deflate)?;
        }
        subject.drain(Role::Deflate, 0)?;
        subject.away[..24].fill(false);
        subject.take_done(Role::Deflate).map(drop)
    })
}

pub fn kicks_for_nothing_do_no_harm<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    in_each_format(subject, |subject| {
        for _ in 0..3 {
            subject.kick(Role::Inflate)?;
            subject.kick(Role::Deflate)?;
        }
        subject.exchange_cleanly(16, &Shape::PLAIN)
    })
}

pub fn suppression_flags_are_legal<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    in_each_format(subject, |subject| {
        for frame in 0..8 {
            subject.exchange(frame + 1, &SINGLE)?;
            for role in [Role::Inflate, Role::Deflate] {
                subject.with_queue(role, |queue, arena| queue.check_suppression(arena))??;
            }
        }
        Ok(())
    })
}

/// Requests sent through each queue: past the end of an index of 16 bits.
const WRAPS: usize = (1 << 16) + 256;

pub fn ring_indices_wrap<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    // Of two formats the one with more that can go wrong.
    let split = subject.least() | subject.offered & Features::EVENT_IDX;
    let packed = split | subject.offered & Features::RING_PACKED;
    for features in [split, packed] {
        let setup = Setup { features, ..subject.plain() };
        subject.start(&setup)?;
        // A packed ring's position wraps every lap; a split ring's index once in all this.
        let rounds = if features == split { WRAPS } else { WRAPS / 32 };
        let batch = subject.with_queue(Role::Inflate, |queue, _| usize::from(queue.size))?.min(subject.pfns.len());
        for _ in 0..rounds.div_ceil(batch) {
            subject.exchange(batch, &SINGLE)?;
            subject.buffers.clear();
        }
        subject.expect_no_damage(None)?;
        if packed == split {
            break;
        }
    }
    Ok(())
}
