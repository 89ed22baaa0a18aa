//! Used rings: what the device returns, in which order, and what it writes meanwhile.

use alloc::vec::Vec;

use super::formats::{SINGLE, formats, in_each_format, in_shape};
use crate::check::Severity::{Must, Should};
use crate::check::{Check, Verdict, ensure, on_balloon, on_device, skip_unless};
use crate::device::{Damage, Role, Shape, StartOptions, TestDevice};
use ballonet::virtio::spec::Features;

/// The checks, in the order in which they run.
pub(super) const CHECKS: &[Check] = &[
    on_balloon(Must, "inflate-completes", "5.5.6", "inflate requests complete", |device| {
        in_each_format(device, device.plain(), |device| {
            device.transfer(Role::First, 0..64, &Shape::PLAIN)?;
            // Only to get the frames back: another check tests deflating.
            let _ = device.transfer(Role::Second, 0..64, &Shape::PLAIN);
            Ok(())
        })
    }),
    on_balloon(Must, "deflate-completes", "5.5.6", "deflate requests complete", |device| {
        in_each_format(device, device.plain(), |device| {
            device.transfer(Role::First, 0..64, &Shape::PLAIN)?;
            device.transfer(Role::Second, 0..64, &Shape::PLAIN).map(drop)
        })
    }),
    on_device(Must, "requests-complete", "2.7.8", "requests complete, in every format of queue", |device| {
        in_each_format(device, device.plain(), |device| device.exchange(64, &Shape::PLAIN))
    }),
    on_device(Must, "used-ids-are-outstanding", "2.7.8.2", "used entries name outstanding requests", |device| {
        in_each_format(device, device.plain(), |device| device.exchange(32, &SINGLE))
    }),
    on_device(Must, "nothing-is-used-twice", "2.7.8.2", "each buffer is used once", |device| {
        in_each_format(device, device.plain(), |device| {
            device.exchange(16, &SINGLE)?;
            device.wait_quiet()?;
            for role in [Role::First, Role::Second] {
                device.with_queue(role, |queue, arena| queue.collect(arena))??;
            }
            Ok(())
        })
    }),
    on_device(
        Must,
        "buffers-are-used-in-order",
        "2.7.9",
        "with IN_ORDER buffers are used in the order in which they were made available",
        |device| {
            skip_unless!(device.offered.contains(Features::IN_ORDER), "the device does not offer IN_ORDER");
            for features in formats(device).into_iter().filter(|features| features.contains(Features::IN_ORDER)) {
                let setup = StartOptions { features, ..device.plain() };
                device.start(&setup)?;
                // Requests of different length, so that a device that works on several has a reason to change their
                // order.
                device.needs_requests(Role::First, 5)?;
                let mut posted = Vec::new();
                for (start, frames) in [(0, 16), (16, 1), (17, 8), (25, 2), (27, 5)] {
                    posted.push(device.post(Role::First, start..start + frames, &Shape::PLAIN)?);
                }
                device.submit(Role::First)?;
                device.drain(Role::First, 0)?;
                let done: Vec<u16> = device.take_done(Role::First)?.iter().map(|used| used.id).collect();
                ensure!(done == posted, "buffers {posted:?} were used in the order {done:?}, with {features}");
                device.transfer(Role::Second, 0..32, &Shape::PLAIN)?;
            }
            Ok(())
        },
    ),
    on_device(
        Should,
        "used-length-of-readable-buffers-is-0",
        "2.7.8.2",
        "the used length is at most what the device may write: 0 of a buffer that it only reads",
        |device| {
            in_each_format(device, device.plain(), |device| {
                for role in [Role::First, Role::Second] {
                    let name = device.queue_name(role);
                    for used in device.transfer(role, 0..32, &Shape::PLAIN)? {
                        ensure!(
                            used.length <= used.writable,
                            "the device says that it wrote {} bytes of a buffer of the {name} queue, of which it may write {}",
                            used.length,
                            used.writable
                        );
                    }
                }
                Ok(())
            })
        },
    ),
    on_device(
        Must,
        "readable-buffers-are-left-alone",
        "2.7.5.1",
        "memory that the device may only read is not written",
        |device| {
            in_each_format(device, device.plain(), |device| {
                device.exchange(64, &Shape::PLAIN)?;
                device.expect_no_damage(Some(Damage::Readable))
            })
        },
    ),
    on_device(
        Must,
        "driver-areas-are-left-alone",
        "2.7",
        "descriptor tables and available rings are not written",
        |device| {
            in_each_format(device, device.plain(), |device| {
                device.exchange(64, &Shape::PLAIN)?;
                device.expect_no_damage(Some(Damage::Ring))
            })
        },
    ),
    on_device(Must, "nothing-else-is-written", "2.7", "the device writes nothing that it was not given", |device| {
        in_each_format(device, device.plain(), |device| {
            device.exchange(64, &Shape::PLAIN)?;
            device.expect_no_damage(Some(Damage::Outside))
        })
    }),
    on_device(
        Must,
        "nothing-is-used-before-driver-ok",
        "2.1.2",
        "buffers posted before DRIVER_OK are not used before it",
        |device| early(device, false),
    ),
    on_device(
        Must,
        "kicks-before-driver-ok-are-ignored",
        "2.1.2",
        "buffers kicked before DRIVER_OK are not used before it",
        |device| early(device, true),
    ),
    on_device(
        Must,
        "early-buffers-are-used-after-driver-ok",
        "2.1.2",
        "buffers posted before DRIVER_OK are used after a kick that follows it",
        |device| {
            let setup = device.plain();
            device.prepare(&setup)?;
            device.post(Role::First, 0..8, &Shape::PLAIN)?;
            device.publish(Role::First)?;
            device.go()?;
            device.kick(Role::First)?;
            device.drain(Role::First, 0)?;
            device.take_done(Role::First)?;
            device.transfer(Role::Second, 0..8, &Shape::PLAIN).map(drop)
        },
    ),
    on_device(
        Must,
        "wanted-kicks-are-enough",
        "2.7.10.2",
        "the device needs no kicks beyond those that it asks for",
        |device| {
            in_each_format(device, device.plain(), |device| {
                for frame in 0..24 {
                    device.transfer(Role::First, frame..frame + 1, &SINGLE)?;
                }
                // In a row without waiting: the device may be busy, and must not lose the last.
                for frame in 0..24 {
                    let room = device.room(Role::Second)?;
                    if room == 0 {
                        let outstanding = device.with_queue(Role::Second, |queue, _| queue.outstanding())?;
                        device.drain(Role::Second, outstanding.saturating_sub(1))?;
                    }
                    device.post(Role::Second, frame..frame + 1, &SINGLE)?;
                    device.submit(Role::Second)?;
                }
                device.drain(Role::Second, 0)?;
                device.note_returned(0..24);
                device.take_done(Role::Second).map(drop)
            })
        },
    ),
    on_device(Must, "kicks-for-nothing-do-no-harm", "2.7.13.4", "a kick of an empty queue changes nothing", |device| {
        in_each_format(device, device.plain(), |device| {
            for _ in 0..3 {
                device.kick(Role::First)?;
                device.kick(Role::Second)?;
            }
            device.exchange_cleanly(16, &Shape::PLAIN)
        })
    }),
    on_device(
        Must,
        "suppression-flags-are-legal",
        "2.7.10.2",
        "the device's suppression flags and event positions are valid",
        |device| {
            in_each_format(device, device.plain(), |device| {
                for frame in 0..8 {
                    device.exchange(frame + 1, &SINGLE)?;
                    for role in [Role::First, Role::Second] {
                        device.with_queue(role, |queue, arena| queue.check_suppression(arena))??;
                    }
                }
                Ok(())
            })
        },
    ),
    on_device(
        Must,
        "kicks-with-data-work",
        "4.1.5.2",
        "kicks by NOTIFICATION_DATA and NOTIF_CONFIG_DATA reach their queue",
        |device| {
            let offered = device.offered & (Features::NOTIFICATION_DATA | Features::NOTIF_CONFIG_DATA);
            skip_unless!(!offered.is_empty(), "the device offers neither NOTIFICATION_DATA nor NOTIF_CONFIG_DATA");
            for extra in [Features::NOTIFICATION_DATA, Features::NOTIF_CONFIG_DATA, offered] {
                if offered.contains(extra) {
                    in_shape(device, extra, &Shape { frames: 2, ..Shape::PLAIN })?;
                }
            }
            Ok(())
        },
    ),
];

/// Posts a request before `DRIVER_OK`: it must not be used before that, kicked or not.
fn early(device: &mut TestDevice<'_>, kicked: bool) -> Verdict {
    let setup = device.plain();
    device.prepare(&setup)?;
    device.post(Role::First, 0..8, &Shape::PLAIN)?;
    device.publish(Role::First)?;
    if kicked {
        device.kick(Role::First)?;
    }
    device.wait_quiet()?;
    let used = device.with_queue(Role::First, |queue, arena| queue.collect(arena))??;
    ensure!(!used, "a buffer was used before DRIVER_OK");
    Ok(())
}
