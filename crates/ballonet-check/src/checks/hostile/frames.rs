//! Frame numbers.
//!
//! The host discards memory whose frame number is inflated. So all frame numbers within memory are the tester's.

use super::steps::{PAGE, give_page, offer_numbers, quiet, running, sent};
use super::{clause, registers};
use crate::check::{Check, Clause, Reaction, Verdict};
use crate::device::{Role, TestDevice};
use crate::ring::Part;

const OWN: Clause = clause("5.5.6", "frame numbers are those of the driver's memory");
const ONCE: Clause = clause("5.5.6", "a frame is not inflated again before it is deflated");
const NOT_IN: Clause = clause("5.5.6.1", "only a frame in the balloon is deflated");
const FLYING: Clause = clause("5.5.6.1", "a frame must not be deflated while its inflate request is in flight");
const ARRAY: Clause = clause("5.5.6", "a request is an array of 32-bit frame numbers");
const READABLE: Clause = clause("5.5.6", "frame numbers are in device-readable memory");
/// The last frame number.
const LAST: u32 = u32::MAX;
/// A frame beyond the memory of any machine that a test would have: at 2^43.
const BEYOND: u32 = 1 << 31;
/// Frames of the local APIC, of firmware's ROM and of the video hole.
const LOCAL_APIC: u32 = 0xfee00;
const ROM: u32 = 0xfffff;
const VIDEO: u32 = 0xa0;

/// One check each for inflating and deflating.
macro_rules! both_ways {
    ($($name:literal, $clause:expr, $asks:literal, |$d:ident, $role:ident| $act:expr;)*) => {
        &[
            $(registers(concat!("hostile-inflate-", $name), $clause, $asks, |$d| { let $role = Role::First; $act }),)*
            $(registers(concat!("hostile-deflate-", $name), $clause, $asks, |$d| { let $role = Role::Second; $act }),)*
            registers("hostile-deflate-never-inflated", NOT_IN, "frames that were never inflated are deflated", |d| {
                let frames = [d.pfns[40], d.pfns[41], d.pfns[42]];
                numbers(d, Role::Second, &frames)
            }),
            registers("hostile-deflate-twice", NOT_IN, "frames are deflated twice", |d| {
                running(d)?;
                let frames = [d.pfns[0], d.pfns[1]];
                offer_numbers(d, Role::Second, &frames)?;
                offer_numbers(d, Role::Second, &frames)?;
                sent(d, Role::Second)
            }),
            registers("hostile-deflate-in-flight", FLYING, "a frame is inflated and deflated at once, repeatedly", |d| {
                running(d)?;
                let frame = d.pfns[20];
                for _ in 0..8 {
                    offer_numbers(d, Role::First, &[frame])?;
                    offer_numbers(d, Role::Second, &[frame])?;
                    for role in [Role::First, Role::Second] {
                        d.publish(role)?;
                        d.kick(role)?;
                    }
                }
                quiet(d)
            }),
            registers("hostile-inflate-what-is-inflated", ONCE, "frames in the balloon are inflated again", |d| {
                let frames = [d.pfns[0], d.pfns[1]];
                numbers(d, Role::First, &frames)
            }),
        ]
    };
}

/// The checks of frame numbers, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = both_ways! {
    "frame-beyond-ram", OWN, "a frame number is beyond memory", |d, role| numbers(d, role, &[BEYOND]);
    "frame-behind-the-end-of-ram", OWN, "a frame number is that of the end of memory", |d, role| {
        let frame = (d.ends()?.high >> 12) as u32;
        numbers(d, role, &[frame])
    };
    "frame-in-the-hole", OWN, "a frame number is that of the end of the memory below 4 GiB", |d, role| {
        let frame = (d.ends()?.low >> 12) as u32;
        numbers(d, role, &[frame])
    };
    "last-frame", OWN, "a frame number is all ones", |d, role| numbers(d, role, &[LAST]);
    "frame-of-the-local-apic", OWN, "a frame number is the local APIC's", |d, role| numbers(d, role, &[LOCAL_APIC]);
    "frame-of-firmware", OWN, "a frame number is that of firmware's ROM", |d, role| numbers(d, role, &[ROM]);
    "frame-of-the-video-hole", OWN, "a frame number is in the hole below 1 MiB", |d, role| numbers(d, role, &[VIDEO]);
    "frame-of-own-registers", OWN, "a frame number is that of the device's BAR", |d, role| {
        let frame = d.own_registers()? >> 12;
        numbers(d, role, &[frame as u32])
    };
    "frames-around-the-end", OWN, "frame numbers are at the ends of 32 bits and of 4 GiB", |d, role| {
        numbers(d, role, &[LAST - 1, LAST, 0xf_ffff, LAST, 0xfec00, BEYOND + 1])
    };
    "good-frames-between-bad", OWN, "good frame numbers are between bad ones", |d, role| {
        let good = d.pfns[20];
        numbers(d, role, &[LAST, good, BEYOND, good + 1 - 1, LOCAL_APIC])
    };
    "frame-twice-in-a-request", ONCE, "a frame number occurs twice in a request", |d, role| {
        let frame = d.pfns[20];
        numbers(d, role, &[frame, frame])
    };
    "frame-a-thousand-times", ONCE, "a frame number occurs a thousand times in a request", |d, role| {
        let frame = d.pfns[20];
        numbers(d, role, &[frame; 1000])
    };
    "frame-in-two-requests", ONCE, "two requests in flight have the same frame", |d, role| {
        let frame = d.pfns[20];
        running(d)?;
        offer_numbers(d, role, &[frame])?;
        offer_numbers(d, role, &[frame])?;
        sent(d, role)
    };
    "frames-of-the-ring", OWN, "frame numbers are those of the ring that points to them", |d, role| {
        running(d)?;
        let ring = d.with_queue(role, |queue, _| queue.areas.descriptors)?;
        let frame = give_page(d, ring);
        offer_numbers(d, role, &[frame])?;
        sent(d, role)
    };
    "frame-of-the-request", OWN, "a frame number is that of the page that holds it", |d, role| {
        running(d)?;
        let at = d.arena.place(PAGE, PAGE, 0)?;
        let frame = give_page(d, at);
        d.arena.write(at, &frame.to_le_bytes());
        let part = Part { address: d.arena.address(at), length: 4, writable: false };
        d.add(role, &[part], None)?;
        sent(d, role)
    };
    "of-1-byte", ARRAY, "a request has 1 byte", |d, role| sized(d, role, 1);
    "of-3-bytes", ARRAY, "a request has 3 bytes", |d, role| sized(d, role, 3);
    "of-1021-bytes", ARRAY, "a request has 1021 bytes", |d, role| sized(d, role, 1021);
    "of-1028-bytes", ARRAY, "a request has 257 frame numbers", |d, role| sized(d, role, 1028);
    "of-65536-bytes", ARRAY, "a request has 16384 frame numbers", |d, role| sized(d, role, 65536);
    "of-0-bytes", ARRAY, "a request has no bytes", |d, role| sized(d, role, 0);
    "of-2-gib-beyond-ram", ARRAY, "a request has 2^31 bytes beyond memory", |d, role| {
        running(d)?;
        let part = Part { address: 1 << 50, length: 1 << 31, writable: false };
        d.add(role, &[part], None)?;
        sent(d, role)
    };
    "in-writable-memory", READABLE, "frame numbers are in a writable buffer", |d, role| {
        running(d)?;
        let at = d.arena.place(64, 16, 0)?;
        let frame = d.pfns[20];
        d.arena.write(at, &frame.to_le_bytes());
        d.arena.open(at, 64);
        let part = Part { address: d.arena.address(at), length: 64, writable: true };
        d.add(role, &[part], None)?;
        sent(d, role)
    };
    "in-single-bytes", ARRAY, "frame numbers are split into single bytes", |d, role| {
        running(d)?;
        d.needs_room(role, 16)?;
        let at = d.arena.place(16, 16, 0)?;
        let frames = [d.pfns[20].to_le_bytes(); 4];
        d.arena.write(at, frames.as_flattened());
        d.buffers.push((at, at + 16));
        let chain: alloc::vec::Vec<Part> = (0..16)
            .map(|byte| Part { address: d.arena.address(at + byte), length: 1, writable: false })
            .collect();
        d.add(role, &chain, None)?;
        sent(d, role)
    };
};

/// Sends one request for these frames.
fn numbers(d: &mut TestDevice<'_>, role: Role, frames: &[u32]) -> Verdict<Reaction> {
    running(d)?;
    offer_numbers(d, role, frames)?;
    sent(d, role)
}

/// Sends a request of this many bytes, full of one of the tester's frames.
fn sized(d: &mut TestDevice<'_>, role: Role, bytes: usize) -> Verdict<Reaction> {
    running(d)?;
    let at = d.arena.place(bytes.max(4), 16, 0)?;
    let frames = d.pfns[20].to_le_bytes().repeat(bytes.div_ceil(4).max(1));
    d.arena.write(at, &frames[..bytes]);
    d.buffers.push((at, at + bytes));
    d.away[20] |= role == Role::First;
    let part = Part { address: d.arena.address(at), length: bytes as u32, writable: false };
    d.add(role, &[part], None)?;
    sent(d, role)
}
