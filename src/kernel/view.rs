//! Keeps the picture of the balloon on the screen up to date.

use alloc::vec::Vec;

use crate::console::Movement;
use crate::machine::identity::Identity;
use crate::machine::{Machine, frames, lines, screen, vectors};
use crate::screen::{Shares, Status};
use ballonet::memory::{Counts, FRAME_SIZE};
use ballonet::platform::Platform;

use super::balloons::Balloons;

/// The minimum time between two different pictures: 100 ms, or 1 s while a balloon moves and changes each picture.
const PERIOD: u64 = 100_000_000;
const MOVING: u64 = 1_000_000_000;

/// Bytes of a region that is reported to the host as a whole.
const REGION: u64 = 2 << 20;

/// What the picture shows, except names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    shares: Shares,
    target: Option<u64>,
    silent: bool,
    movement: Option<Movement>,
    note: &'static str,
    /// Interrupts so far, without the timer's, which drive this picture.
    interrupts: u64,
}

/// The picture. While nothing changes, it does not wake the CPU.
#[derive(Default)]
pub(super) struct View {
    seen: Option<Seen>,
    /// When a comparison last found a change, in nanoseconds since entry.
    last: Option<u64>,
    /// When to compare it again.
    next: u64,
    /// The last comparison found a change, so others may follow.
    moving: bool,
}

impl View {
    /// Compares the picture with the balloons and draws a few changed cells.
    pub(super) fn serve(&mut self, machine: &Machine, balloons: &Balloons) {
        let now = machine.now();
        if !screen::is_present() {
            return;
        }
        let period = if balloons.movement().is_some() { MOVING } else { PERIOD };
        if self.last.is_none_or(|last| now >= last + period) {
            self.compare(machine, now, balloons);
        }
        self.next = self.last.map_or(0, |last| last + period);
        screen::draw(now);
    }

    /// When to serve it even if nothing happens.
    pub(super) fn next_comparison(&self) -> Option<u64> {
        self.moving.then_some(self.next)
    }

    fn compare(&mut self, machine: &Machine, now: u64, balloons: &Balloons) {
        let seen = Seen::now(balloons);
        self.moving = self.seen.replace(seen) != Some(seen);
        if self.moving {
            self.last = Some(now);
            seen.show(&machine.identity);
        }
    }
}

impl Seen {
    fn now(balloons: &Balloons) -> Self {
        let targets = balloons.drivers().map(|driver| driver.status().target * FRAME_SIZE);
        Self {
            shares: shares(&frames::counts()),
            target: (!balloons.is_empty()).then(|| targets.sum()),
            silent: balloons.drivers().any(|driver| driver.status().silent),
            movement: balloons.last_movement(),
            note: note(balloons),
            interrupts: (0..=u8::MAX).filter(|&vector| vector != vectors::TIMER).map(vectors::counted).sum(),
        }
    }

    fn show(&self, identity: &Identity) {
        let Self { shares, target, silent, movement, note, .. } = *self;
        let vectors: Vec<_> = vectors::views().collect();
        let lines = lines::views();
        let vectors = vectors.iter().map(|view| (view.name.as_str(), view.count));
        let lines = lines.iter().map(|(name, count, _)| (name.as_str(), *count));
        let came = vectors.chain(lines).filter(|(_, count)| *count > 0);
        screen::show_status(&Status { shares, target, silent, movement, note, facts: &identity.facts() }, came);
    }
}

fn shares(counts: &Counts) -> Shares {
    let reported = (counts.reported_regions * REGION).min(counts.free * FRAME_SIZE);
    Shares {
        used: (counts.used + counts.reserved) * FRAME_SIZE,
        free: counts.free * FRAME_SIZE - reported,
        reported,
        ballooned: counts.ballooned * FRAME_SIZE,
    }
}

/// Problems and unusual states, short enough to fit beside the log.
fn note(balloons: &Balloons) -> &'static str {
    let words = balloons.drivers().find_map(|driver| {
        let status = driver.status();
        match () {
            () if status.failed.is_some() => Some("failed"),
            () if status.frozen => Some("frozen"),
            () if status.silent => Some("the device is silent"),
            () if status.short => Some("the rest is in use"),
            () => None,
        }
    });
    words.unwrap_or_default()
}
