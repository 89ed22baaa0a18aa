//! Steps that hostile checks of several chapters share.

use crate::check::{Reaction, Verdict, skip_unless};
use crate::device::{Attacker, StartOptions, TestDevice};
use ballonet::virtio::spec::{Features, Status};

/// The status values that a driver sets in turn: driver found, features negotiated, device live.
pub(super) const FOUND: Status = Status::ACKNOWLEDGE.union(Status::DRIVER);
pub(super) const SETTLED: Status = FOUND.union(Status::FEATURES_OK);
pub(super) const LIVE: Status = SETTLED.union(Status::DRIVER_OK);

/// An address beyond the memory of any machine that a test would have, and below the end of what x86-64 can address.
pub(super) const BEYOND: u64 = 1 << 50;

/// Changes of a request in flight that one check tries.
pub(super) const RACES: u16 = 16;

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
