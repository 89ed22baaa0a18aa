//! Steps that hostile checks of several chapters share.

use crate::check::{Reaction, Verdict, skip_unless};
use crate::device::{Attacker, Role, Shape, StartOptions, TestDevice};
use crate::ring::Part;
use ballonet::virtio::InterruptMode;
use ballonet::virtio::spec::{Features, Status};

/// The status values that a driver sets in turn: driver found, features negotiated, device live.
pub(super) const FOUND: Status = Status::ACKNOWLEDGE.union(Status::DRIVER);
pub(super) const SETTLED: Status = FOUND.union(Status::FEATURES_OK);
pub(super) const LIVE: Status = SETTLED.union(Status::DRIVER_OK);

/// An address beyond the memory of any machine that a test would have, and below the end of what x86-64 can address.
pub(super) const BEYOND: u64 = 1 << 50;

/// The size of pages.
pub(super) const PAGE: usize = 4096;

/// Changes of a request in flight that one check tries.
pub(super) const RACES: u16 = 16;

/// Sets the status; on the legacy interface without `FEATURES_OK`, which it lacks.
pub(super) fn set(d: &mut TestDevice<'_>, status: Status) {
    let status = expressible(d, status);
    d.set_status(status);
}

/// A status without the bits that the interface does not have.
pub(super) fn expressible(d: &TestDevice<'_>, status: Status) -> Status {
    if d.is_legacy() { status - Status::FEATURES_OK } else { status }
}

/// Skips a check of something that the legacy interface lacks.
pub(super) fn since_version_1(d: &TestDevice<'_>, what: &str) -> Verdict {
    skip_unless!(!d.is_legacy(), "the legacy interface has no {what}");
    Ok(())
}

/// The queue under attack: requests go to it.
pub(super) fn target(d: &TestDevice<'_>) -> Verdict<u16> {
    d.number(Role::Second)
}

/// Starts the device with minimal features, and has it serve a request.
pub(super) fn running(d: &mut TestDevice<'_>) -> Verdict {
    let setup = d.plain();
    d.start(&setup)?;
    d.warm_up()
}

/// The same with more features; skips the check if they are not offered.
pub(super) fn running_with(d: &mut TestDevice<'_>, features: Features) -> Verdict {
    skip_unless!(d.offered.contains(features), "the device does not offer {features}");
    let setup = StartOptions { features: d.least() | features, ..d.plain() };
    d.start(&setup)?;
    d.warm_up()
}

/// Does something to a running device, with requests before and after. They need not be served.
pub(super) fn in_traffic(
    d: &mut TestDevice<'_>,
    act: impl FnOnce(&mut TestDevice<'_>) -> Verdict,
) -> Verdict<Reaction> {
    in_traffic_by(d, InterruptMode::Polling, act)
}

/// The same with these interrupts.
pub(super) fn in_traffic_by(
    d: &mut TestDevice<'_>,
    mode: InterruptMode,
    act: impl FnOnce(&mut TestDevice<'_>) -> Verdict,
) -> Verdict<Reaction> {
    // Only this much is compiled for each check.
    begin_traffic(d, mode)?;
    act(d)?;
    end_traffic(d)
}

fn begin_traffic(d: &mut TestDevice<'_>, mode: InterruptMode) -> Verdict {
    let setup = StartOptions { mode, ..d.plain() };
    d.start(&setup)?;
    d.warm_up()?;
    send(d, 8)
}

fn end_traffic(d: &mut TestDevice<'_>) -> Verdict<Reaction> {
    send(d, 12)?;
    quiet(d)
}

/// Sends a request of four units from this one on to a device in any state, and kicks.
pub(super) fn send(d: &mut TestDevice<'_>, unit: usize) -> Verdict {
    match d.post(Role::First, unit..unit + 4, &Shape::PLAIN) {
        Ok(_) => {}
        // The tester knows no request to this device: an empty kick will do.
        Err(stop) if stop.is_skipped() && !d.has_requests() => {
            d.kick_number(0, 0);
            return Ok(());
        }
        Err(stop) => return Err(stop),
    }
    d.publish(Role::First)?;
    let queue = d.number(Role::First)?;
    d.kick_number(queue, queue);
    Ok(())
}

/// Kicks the first two queues.
pub(super) fn kick_both(d: &mut TestDevice<'_>) {
    for queue in 0..2 {
        d.kick_number(queue, queue);
    }
}

/// Gives the device time to react.
pub(super) fn quiet(d: &mut TestDevice<'_>) -> Verdict<Reaction> {
    d.wait_quiet()?;
    Ok(Reaction::Ignored)
}

/// The same after a kick of the first two queues.
pub(super) fn finish(d: &mut TestDevice<'_>) -> Verdict<Reaction> {
    kick_both(d);
    quiet(d)
}

/// Publishes what was added, and lets the device work.
pub(super) fn sent(d: &mut TestDevice<'_>, role: Role) -> Verdict<Reaction> {
    d.publish(role)?;
    d.kick(role)?;
    quiet(d)
}

/// Adds a request for these frames to a balloon.
pub(super) fn offer_numbers(d: &mut TestDevice<'_>, role: Role, frames: &[u32]) -> Verdict {
    let bytes: alloc::vec::Vec<u8> = frames.iter().flat_map(|frame| frame.to_le_bytes()).collect();
    let at = d.arena.place(bytes.len(), 16, 0)?;
    d.arena.write(at, &bytes);
    d.buffers.push((at, at + bytes.len()));
    for (frame, pfn) in d.pfns.iter().enumerate() {
        // The tester's frames that are inflated here are deflated later.
        d.away[frame] |= role == Role::First && frames.contains(pfn);
    }
    let part = Part { address: d.arena.address(at), length: bytes.len() as u32, writable: false };
    d.add(role, &[part], None).map(drop)
}

/// Lets the host discard the page of the arena around an offset. Returns its frame number.
pub(super) fn give_page(d: &mut TestDevice<'_>, at: usize) -> u32 {
    let start = at & !(PAGE - 1);
    d.arena.open(start, PAGE);
    (d.arena.address(start) >> 12) as u32
}

/// Offers lawful requests in turn, and changes each while it is in flight.
pub(super) fn race(a: &mut Attacker<'_, '_>, mut change: impl FnMut(&mut Attacker<'_, '_>, u16) -> Verdict) -> Verdict {
    for place in 0..RACES.min(a.size()?) {
        a.lawful(place)?;
        a.offer(place)?;
        a.kick_to_race()?;
        change(a, place)?;
    }
    Ok(())
}
