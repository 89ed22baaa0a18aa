//! Follows and reports a balloon's size while it moves to its target.

use alloc::format;

use ballonet::balloon::{Balloon, BalloonStatus, Changes, Path, ReclaimError, SendStrategy};
use ballonet::memory::FRAME_SIZE;
use log::{info, warn};

use crate::console::Movement;
use crate::console::events::{self, Bytes, MibPerSecond};
use crate::machine::{Machine, frames, log as serial};

/// Interval of progress lines and of `balloon` events: 1 s, since each byte costs a virtual machine an exit.
const PROGRESS: u64 = 1_000_000_000;

/// The movement in progress, and the last reports.
#[derive(Default)]
pub(super) struct SizeReports {
    movement: Option<Movement>,
    /// The last movement that has ended.
    ended: Option<Movement>,
    /// When progress was last reported.
    reported: u64,
    /// It stops short of its target; reported once nothing is in flight.
    short: bool,
    /// The last reported send strategy.
    strategy: Option<SendStrategy>,
    /// Why it last gave less than an allocation needed, and which of those reasons was reported.
    refusal: Option<ReclaimError>,
    reported_refusal: Option<ReclaimError>,
    /// Frames reclaimed for allocations, as far as reported.
    reported_reclaims: u64,
}

impl SizeReports {
    /// The movement in progress, if any.
    pub(super) fn movement(&self) -> Option<Movement> {
        self.movement
    }

    /// The last movement that has ended.
    pub(super) fn last_movement(&self) -> Option<Movement> {
        self.ended
    }

    /// Why it last gave less than an allocation needed, if it did.
    pub(super) fn refusal(&self) -> Option<&ReclaimError> {
        self.refusal.as_ref()
    }

    /// An allocation reclaimed memory: enough, or less because of `error`.
    pub(super) fn note_reclaim(&mut self, error: Option<ReclaimError>) {
        self.refusal = error;
    }

    /// Ends the movement.
    pub(super) fn stop(&mut self) {
        (self.movement, self.short) = (None, false);
    }

    /// Follows the balloon's size, and reports it.
    pub(super) fn note(&mut self, balloon: &Balloon<Machine>, changes: Changes, now: u64, ansi: bool) {
        let status = balloon.status();
        let (actual, target) = (status.actual * FRAME_SIZE, status.target * FRAME_SIZE);
        if changes.contains(Changes::TARGET) {
            self.movement = (actual != target).then(|| Movement::begin(actual, target, now));
            self.reported = now;
            emit(&status);
        }
        if let Some(movement) = &mut self.movement {
            movement.advance(actual, now);
        }
        self.short = (self.short && status.short) || changes.contains(Changes::SHORT);
        if self.short && status.inflating == 0 {
            self.short = false;
            self.movement = None;
            report_short(balloon, &status);
        }
        if changes.contains(Changes::SETTLED) {
            self.finish(balloon, &status);
        } else if self.movement.is_some() && now.saturating_sub(self.reported) >= PROGRESS {
            self.reported = now;
            self.report_progress(balloon, &status, ansi);
        }
    }

    fn report_progress(&self, balloon: &Balloon<Machine>, status: &BalloonStatus, ansi: bool) {
        emit(status);
        // On a terminal, the status line shows the movement.
        if let Some(movement) = self.movement.filter(|_| !ansi && serial::is_text()) {
            info!("{}: {movement}", balloon.name());
        }
    }

    fn finish(&mut self, balloon: &Balloon<Machine>, status: &BalloonStatus) {
        self.report_strategy(balloon);
        emit(status);
        if let Some(movement) = self.movement.take() {
            self.ended = Some(movement);
            if serial::is_text() {
                info!("{}: {movement} in {} ms", balloon.name(), movement.elapsed() / 1_000_000);
            }
        }
    }

    /// Reports the send strategy if it has changed.
    fn report_strategy(&mut self, balloon: &Balloon<Machine>) {
        let strategy = balloon.status().strategy;
        if self.strategy.replace(strategy) == Some(strategy) {
            return;
        }
        serial::emit(&events::Strategy {
            name: balloon.name(),
            request: &strategy.request,
            chains: strategy.chains.into(),
            path: strategy.path.map_or("direct", Path::into),
            report_first: strategy.rates.map(|rates| MibPerSecond(rates.report_first)),
            direct: strategy.rates.map(|rates| MibPerSecond(rates.direct)),
        });
    }

    /// Reports memory that allocations reclaimed or failed to get, once per reason. Called from the main loop
    /// afterwards, since the allocation waits during a reclaim.
    pub(super) fn report_reclaim(&mut self, balloon: &Balloon<Machine>) {
        let counters = balloon.counters();
        let news = (counters.reclaimed_frames, self.refusal);
        if news == (self.reported_reclaims, self.reported_refusal) {
            return;
        }
        (self.reported_reclaims, self.reported_refusal) = news;
        let status = balloon.status();
        serial::emit(&events::OomReclaim {
            name: balloon.name(),
            reclaims: counters.reclaims,
            failed: counters.failed_reclaims,
            bytes: Bytes::of_frames(counters.reclaimed_frames),
            actual: Bytes::of_frames(status.actual),
            error: self.refusal.as_ref().map(|error| error as &dyn core::fmt::Display),
        });
        emit(&status);
        match self.refusal {
            // Nothing is wrong if the feature is missing or there is no memory to give.
            Some(ReclaimError::Forbidden | ReclaimError::Empty | ReclaimError::Stopped) | None => {}
            Some(error) => warn!("{}: memory ran out: {error}", balloon.name()),
        }
    }
}

/// Reports that the balloon stops short of its target, with the reason.
fn report_short(balloon: &Balloon<Machine>, status: &BalloonStatus) {
    let counts = frames::counts();
    let mib = |frames: u64| (frames * FRAME_SIZE) >> 20;
    // The host may count memory that the guest cannot find or must not use.
    let reason = if status.target > counts.total {
        format!("because the guest has only {} MiB, and needs the rest itself", mib(counts.total))
    } else {
        format!(
            "because {} MiB are in use, and the kernel keeps {} MiB free for itself",
            mib(counts.used),
            mib(counts.free)
        )
    };
    let (target, actual) = (mib(status.target), mib(status.actual));
    let message = format!("the host asks for {target} MiB; the balloon stops at {actual} MiB, {reason}");
    emit(status);
    warn!("{}: {message}", balloon.name());
    serial::emit(&events::Short {
        target: Bytes::of_frames(status.target),
        actual: Bytes::of_frames(status.actual),
        message: &message,
    });
}

fn emit(status: &BalloonStatus) {
    serial::emit(&events::Moved { target: Bytes::of_frames(status.target), actual: Bytes::of_frames(status.actual) });
}
