//! One balloon: when it is polled, what people can do to it, and how it goes.

use ballonet::balloon::{Balloon, BalloonError, BalloonQueue, Changes, Next, Progress};
use ballonet::platform::{DeviceAddress, Platform};
use ballonet::virtio::InterruptMode;

use super::notices;
use super::size_reports::SizeReports;
use crate::machine::{Machine, lines, log as serial};

/// The interval at which a balloon without interrupts is polled while nothing moves: 10 ms.
const POLL_IDLE: u64 = 10_000_000;
/// The interval while something moves: 100 µs.
const POLL_BUSY: u64 = 100_000;
/// The interval at which a device is polled that has requests and finishes none: 1 s. It may be gone, or need a reset, and be
/// unable to say so.
const STALL: u64 = 1_000_000_000;
/// The longest that a balloon that is about to be removed may take to deflate: 5 s.
const FAREWELL: u64 = 5_000_000_000;

/// What people can do to a balloon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Reset the device and start it again.
    Reset,
    /// Reset the device and leave it stopped.
    Freeze,
    /// Start it again.
    Restore,
    /// Reset one of its queues, and use that again.
    ResetQueue(BalloonQueue),
}

/// One balloon.
pub(super) struct Served {
    pub(super) balloon: Balloon<Machine>,
    pub(super) size: SizeReports,
    /// When a balloon without interrupts is polled next.
    next_poll: u64,
    /// When the device is polled if it has finished no requests by then; `None` without requests.
    stall: Option<u64>,
    /// It has finished some since that moment was chosen.
    progressed: bool,
    /// It deflates, in order to be removed, since then.
    leaving: Option<u64>,
    /// It is gone, which has not been reported yet.
    gone: bool,
}

impl Served {
    pub(super) fn new(balloon: Balloon<Machine>) -> Self {
        Self {
            balloon,
            size: SizeReports::default(),
            next_poll: 0,
            stall: None,
            progressed: false,
            leaving: None,
            gone: false,
        }
    }

    /// Deflates the balloon completely, before it is removed.
    pub(super) fn leave(&mut self, now: u64) {
        self.balloon.pin(0);
        self.leaving = Some(now);
    }

    /// Whether it can be removed.
    pub(super) fn has_left(&self, now: u64) -> bool {
        let late = self.leaving.is_none_or(|since| now.saturating_sub(since) >= FAREWELL);
        let status = self.balloon.status();
        status.failed.is_some()
            || status.frozen
            || late
            || (status.actual == 0 && status.inflating + status.deflating == 0)
    }

    /// Its address, once, if it turned out to be gone.
    pub(super) fn take_gone(&mut self) -> Option<DeviceAddress> {
        core::mem::take(&mut self.gone).then(|| self.balloon.status().address)
    }

    /// Whether the device may not interrupt: it has no interrupt, or the kernel had to mask a line that stormed.
    fn is_polled(&self) -> bool {
        match self.balloon.status().interrupts {
            InterruptMode::Polling => true,
            InterruptMode::Line => lines::storms() > 0,
            InterruptMode::PerQueue | InterruptMode::Shared => false,
        }
    }

    pub(super) fn serve(&mut self, machine: &mut Machine, ansi: bool) {
        self.size.report_reclaim(&self.balloon);
        let now = machine.now();
        let due = self.is_due(now);
        let late = self.balloon.deadline(machine).is_some_and(|deadline| now >= deadline);
        if !(self.balloon.is_pending() || due || late) || self.balloon.status().failed.is_some() {
            return;
        }
        if due {
            self.balloon.recheck();
        }
        match self.balloon.poll(machine) {
            Ok(progress) => self.note(progress, machine.now(), ansi),
            Err(error) => {
                self.gone = !self.balloon.is_present(machine);
                self.gave_up(&error);
            }
        }
    }

    /// Whether the device must be polled although it has not interrupted: it cannot, or it finishes no requests.
    fn is_due(&mut self, now: u64) -> bool {
        let polled = self.is_polled() && now >= self.next_poll;
        let stalled = self.stall.is_some_and(|moment| now >= moment);
        if stalled {
            self.stall = self.in_flight().then_some(now + STALL);
        }
        polled || stalled && !core::mem::take(&mut self.progressed)
    }

    /// Whether the device has something that it must return. Hinted memory counts: the interrupt by which a host says that it
    /// is done was seen to get lost while a guest moved (QEMU 7.2).
    fn in_flight(&self) -> bool {
        let status = self.balloon.status();
        status.inflating + status.deflating + status.reporting + status.hinted > 0
    }

    /// When it must be served although it has not interrupted.
    pub(super) fn next_poll(&self, machine: &mut Machine) -> Option<u64> {
        let running = self.balloon.status().failed.is_none() && !self.balloon.status().frozen;
        let poll = self.is_polled().then_some(self.next_poll);
        poll.into_iter().chain(self.stall).chain(self.balloon.deadline(machine)).min().filter(|_| running)
    }

    /// Notes the outcome of a poll, and reports it.
    fn note(&mut self, progress: Progress, now: u64, ansi: bool) {
        self.next_poll = now + if progress.next == Next::Idle { POLL_IDLE } else { POLL_BUSY };
        self.progressed = true;
        if self.stall.is_none() && progress.next != Next::Idle {
            self.stall = Some(now + STALL);
        }
        notices::changes(&self.balloon, progress.changes);
        self.size.note(&self.balloon, progress.changes, now, ansi);
    }

    /// The driver gave up. The kernel continues without it.
    fn gave_up(&mut self, error: &BalloonError) {
        self.stop_following();
        notices::gave_up(&self.balloon, error);
    }

    fn stop_following(&mut self) {
        self.stall = None;
        self.size.stop();
    }

    /// Applies an action, and reports its outcome.
    pub(super) fn apply(&mut self, action: Action, machine: &mut Machine) {
        let balloon = &mut self.balloon;
        let resets = balloon.counters().resets;
        let outcome = match action {
            Action::Reset => balloon.reset(machine),
            Action::Freeze => balloon.freeze(machine),
            Action::Restore => balloon.restore(machine),
            Action::ResetQueue(queue) => balloon.reset_queue(machine, queue),
        };
        match (outcome, action) {
            (Ok(()), Action::Reset | Action::ResetQueue(_)) => notices::changes(&self.balloon, Changes::RESET),
            (Ok(()), Action::Freeze) => {
                self.stop_following();
                notices::frozen(&self.balloon);
            }
            (Ok(()), Action::Restore) => notices::restored(&self.balloon),
            (Err(error), _) if self.balloon.status().failed.is_some() => self.gave_up(&error),
            (Err(error), _) => {
                serial::line(format_args!("{}: {error}", self.balloon.name()));
                if self.balloon.counters().resets != resets {
                    notices::changes(&self.balloon, Changes::RESET);
                }
            }
        }
    }
}
