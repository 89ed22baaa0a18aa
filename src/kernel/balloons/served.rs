//! One balloon: when to poll it, what the console can do to it, and its state.

use ballonet::balloon::{Balloon, BalloonError, BalloonQueue, Changes, Next, Progress};
use ballonet::platform::{DeviceAddress, Platform};
use ballonet::virtio::InterruptMode;

use super::notices;
use super::size_reports::SizeReports;
use crate::kernel::interrupt_proof::InterruptProof;
use crate::machine::{Machine, lines, log as serial};

/// Polling interval of an idle balloon without interrupts: 10 ms.
const POLL_IDLE: u64 = 10_000_000;
/// Polling interval while it moves: 100 µs.
const POLL_BUSY: u64 = 100_000;
/// Polling interval of a device that has requests but finishes none: 1 s. It may be gone or need a reset, and be
/// unable to interrupt.
const STALL: u64 = 1_000_000_000;
/// Time limit for deflating before a removal: 5 s.
const FAREWELL: u64 = 5_000_000_000;

/// What the console can do to a balloon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Reset the device and start it again.
    Reset,
    /// Reset the device and leave it stopped.
    Freeze,
    /// Start it again.
    Restore,
    /// Reset one of its queues and use it again.
    ResetQueue(BalloonQueue),
}

/// One balloon.
pub(super) struct Served {
    pub(super) balloon: Balloon<Machine>,
    pub(super) size: SizeReports,
    /// When to poll a balloon without interrupts.
    next_poll: u64,
    /// When to poll the device if it finishes no request until then; `None` without requests.
    stall: Option<u64>,
    /// Requests have finished since `stall` was set.
    progressed: bool,
    proof: InterruptProof,
    /// It has been deflating for its removal since this time.
    leaving: Option<u64>,
    /// It is gone, which is not reported yet.
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
            proof: InterruptProof::default(),
            leaving: None,
            gone: false,
        }
    }

    /// Deflates the balloon completely for its removal.
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

    /// Its address if it turned out to be gone; returned once.
    pub(super) fn take_gone(&mut self) -> Option<DeviceAddress> {
        core::mem::take(&mut self.gone).then(|| self.balloon.status().address)
    }

    /// Whether to poll because no interrupt may arrive: there is none, the kernel masked its line in a storm, or one was
    /// lost.
    fn is_polled(&self) -> bool {
        !self.may_interrupt() || self.proof.is_missed()
    }

    /// When to read a device none of whose interrupts has come yet.
    fn next_look(&self) -> Option<u64> {
        self.proof.next_look().filter(|_| self.may_interrupt())
    }

    pub(super) fn serve(&mut self, machine: &mut Machine, ansi: bool) {
        self.size.report_reclaim(&self.balloon);
        let now = machine.now();
        let stalled = self.has_stalled(now);
        let due = stalled || self.is_due(now);
        let late = self.balloon.deadline(machine).is_some_and(|deadline| now >= deadline);
        if !(self.balloon.is_pending() || due || late) || self.balloon.status().failed.is_some() {
            return;
        }
        let unasked = due && !self.balloon.is_pending();
        let answers = self.balloon.counters().answers();
        if due {
            self.balloon.recheck();
        }
        match self.balloon.poll(machine) {
            Ok(progress) => {
                let now = machine.now();
                self.note(progress, now, ansi);
                // A device may delay interrupts for requests, but not for as long as a stalled one is given.
                let answered = stalled && self.balloon.counters().answers() > answers;
                self.note_interrupts(now, unasked && (answered || progress.changes.contains(Changes::TARGET)));
            }
            Err(error) => {
                self.gone = !self.balloon.is_present(machine);
                self.gave_up(&error);
            }
        }
    }

    /// Whether to poll without an interrupt: the device has none, or none of its interrupts has come yet.
    fn is_due(&self, now: u64) -> bool {
        self.is_polled() && now >= self.next_poll || self.may_interrupt() && self.proof.is_due(now)
    }

    /// Whether to poll because the device has finished no requests for a while.
    fn has_stalled(&mut self, now: u64) -> bool {
        if self.stall.is_none_or(|moment| now < moment) {
            return false;
        }
        self.stall = self.in_flight().then_some(now + STALL);
        !core::mem::take(&mut self.progressed)
    }

    /// Whether the device must return something. Hinted memory counts: the interrupt with which a host reports that
    /// it is done got lost in a migration (QEMU 7.2).
    fn in_flight(&self) -> bool {
        let status = self.balloon.status();
        status.inflating + status.deflating + status.reporting + status.hinted > 0
    }

    /// When to serve it without an interrupt.
    pub(super) fn next_poll(&self, machine: &mut Machine) -> Option<u64> {
        let running = self.balloon.status().failed.is_none() && !self.balloon.status().frozen;
        let poll = self.is_polled().then_some(self.next_poll);
        let polls = [poll, self.next_look(), self.stall, self.balloon.deadline(machine)];
        polls.into_iter().flatten().min().filter(|_| running)
    }

    /// Records and reports the result of a poll.
    fn note(&mut self, progress: Progress, now: u64, ansi: bool) {
        self.next_poll = now + if progress.next == Next::Idle { POLL_IDLE } else { POLL_BUSY };
        self.progressed = true;
        if self.stall.is_none() && progress.next != Next::Idle {
            self.stall = Some(now + STALL);
        }
        notices::changes(&self.balloon, progress.changes);
        self.size.note(&self.balloon, progress.changes, now, ansi);
    }

    /// Whether the device has interrupts that the kernel does not hold back.
    fn may_interrupt(&self) -> bool {
        match self.balloon.status().interrupts {
            InterruptMode::Polling => false,
            InterruptMode::Line => lines::storms() == 0,
            InterruptMode::PerQueue | InterruptMode::Shared => true,
        }
    }

    /// Records whether interrupts arrive, and reports a change. `unannounced`: a poll found what none had announced.
    fn note_interrupts(&mut self, now: u64, unannounced: bool) {
        if !self.may_interrupt() {
            return;
        }
        let counters = self.balloon.counters();
        let interrupts = counters.config_interrupts + counters.vring_interrupts;
        if let Some(turn) = self.proof.note(now, interrupts, unannounced) {
            turn.report(self.balloon.name(), &self.balloon.status().interrupts);
        }
    }

    /// The driver has failed. The kernel continues without it.
    fn gave_up(&mut self, error: &BalloonError) {
        self.stop_following();
        notices::gave_up(&self.balloon, error);
    }

    fn stop_following(&mut self) {
        self.stall = None;
        self.size.stop();
    }

    /// Applies an action and reports the result.
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
