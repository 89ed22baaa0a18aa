//! What people can have done to balloons beside their work: resets, freezing, and back.

use crate::console::count;
use crate::machine::{Machine, log as serial};
use ballonet::balloon::{BalloonQueue, ResetReason};
use ballonet::memory::FRAME_SIZE;
use log::info;

use super::{Balloons, Served};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Reset the device and start it again.
    Reset,
    /// Reset the device and leave it alone.
    Freeze,
    /// Start it again.
    Restore,
    /// Reset one of its queues, and put that to use again.
    ResetQueue(BalloonQueue),
}

impl Balloons {
    /// Does it to the balloon of this name, or to all. Returns to how many.
    pub(crate) fn all_do(&mut self, verb: Verb, name: Option<&str>, machine: &mut Machine) -> usize {
        let meant = self.served.iter_mut().filter(|served| name.is_none_or(|name| name == served.balloon.name()));
        meant.map(|served| served.has_to(verb, machine)).count()
    }
}

impl Served {
    fn has_to(&mut self, verb: Verb, machine: &mut Machine) {
        let balloon = &mut self.balloon;
        let resets = balloon.counters().resets;
        let outcome = match verb {
            Verb::Reset => balloon.reset(machine),
            Verb::Freeze => balloon.freeze(machine),
            Verb::Restore => balloon.restore(machine),
            Verb::ResetQueue(queue) => balloon.reset_queue(machine, queue),
        };
        match (outcome, verb) {
            (Ok(()), Verb::Reset | Verb::ResetQueue(_)) => self.tell_reset(),
            (Ok(()), Verb::Freeze) => {
                (self.movement, self.stall, self.short) = (None, None, false);
                self.tell_standing("freeze", "frozen: nothing moves before it is restored");
            }
            (Ok(()), Verb::Restore) => self.tell_standing("restore", "restored"),
            (Err(error), _) if self.balloon.failed().is_some() => self.gave_up(&error),
            (Err(error), _) => {
                serial::line(format_args!("{}: {error}", self.balloon.name()));
                if self.balloon.counters().resets != resets {
                    self.tell_reset();
                }
            }
        }
    }

    /// Tells of a reset that the driver came through.
    pub(super) fn tell_reset(&self) {
        let Some(report) = self.balloon.last_reset() else { return };
        let status = self.balloon.status();
        let (name, reason) = (self.balloon.name(), report.reason.word());
        serial::emit("reset", |line| {
            line.text("name", name)
                .text("reason", reason)
                .number("inflating", report.inflating)
                .number("deflating", report.deflating)
                .number("actual", status.actual * FRAME_SIZE);
            if let Some(queue) = report.queue {
                line.text("queue", queue.word());
            }
        });
        if !serial::is_text() {
            return;
        }
        if let Some(queue) = report.queue {
            let frames = count(report.inflating + report.deflating, "frame");
            info!("{name}: queue {queue} was reset and works again; sent once more: {frames}");
        } else {
            let why = match report.reason {
                ResetReason::NeedsReset => "it said that it needs that",
                ResetReason::Asked => "as it was asked for",
                ResetReason::Unanswered => "because it did not answer a request of several descriptors",
            };
            info!(
                "{name}: the device was reset, {why}, and runs again; of frames on their way, {} to the host are free and \
                 {} back still with it",
                report.inflating, report.deflating
            );
        }
    }

    fn tell_standing(&self, event: &str, words: &str) {
        let status = self.balloon.status();
        serial::emit(event, |line| {
            line.text("name", self.balloon.name())
                .number("target", status.target * FRAME_SIZE)
                .number("actual", status.actual * FRAME_SIZE);
        });
        if serial::is_text() {
            info!("{}: {words}; {} MiB are with the host", self.balloon.name(), (status.actual * FRAME_SIZE) >> 20);
        }
    }
}
