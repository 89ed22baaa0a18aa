//! Defects that block other checks. The first check that meets one fails; those that depend on it are skipped.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Role, StartOptions, TestDevice};
use crate::verdict::{Stop, Verdict};
use ballonet::virtio::spec::Status;

/// How the device starts.
#[derive(Debug, Default)]
pub(crate) enum Start {
    /// Not tried yet.
    #[default]
    Untried,
    /// With the queues of the features that were accepted.
    Plain,
    /// Only with every queue that it has. Holds the outcome of the start without them.
    WithEveryQueue(String),
    /// Not at all, and why.
    Never(String),
}

/// What is known of the device so far.
#[derive(Debug, Default)]
pub(crate) struct Obstacles {
    /// A reset that did not finish, or did not help: no more checks are possible.
    pub(crate) stuck: Option<String>,
    pub(crate) start: Start,
    /// The queues that have ever returned a request.
    answered: Vec<u16>,
    /// Those that returned none in the simplest setting, and the outcome.
    silent: Vec<(u16, String)>,
}

impl TestDevice<'_> {
    /// Whether the device starts only with every queue set up.
    pub(crate) fn wants_every_queue(&self) -> bool {
        matches!(self.obstacles.start, Start::WithEveryQueue(_))
    }

    /// Finds out, once, whether the device starts in the simplest setting. If it asks for a reset instead, and has
    /// queues that were left out, it is started once more with those.
    ///
    /// The first check reports why it does not start; the others are skipped.
    pub(crate) fn try_start(&mut self) -> Verdict {
        match &self.obstacles.start {
            Start::Plain | Start::WithEveryQueue(_) => return Ok(()),
            Start::Never(reason) => return Err(Stop::skipped(format_args!("{reason}"))),
            Start::Untried => {}
        }
        let setup = self.plain();
        let reason = match self.attempt_start(&setup) {
            Ok(Err(reason)) => reason,
            // A device that rejects the minimal features shows nothing about how it starts with them.
            Err(stop) if !stop.is_skipped() => return Err(stop),
            Ok(Ok(())) | Err(_) => {
                self.obstacles.start = Start::Plain;
                return Ok(());
            }
        };
        if self.present().count() > self.queues.len() {
            self.obstacles.start = Start::WithEveryQueue(reason.clone());
            match self.attempt_start(&setup) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) => {}
                Err(stop) => {
                    // Whether it would have started is not known.
                    self.obstacles.start = Start::Untried;
                    return Err(stop);
                }
            }
        }
        let stop = Stop::failed(format_args!("{reason}"));
        self.obstacles.start = Start::Never(reason);
        Err(stop)
    }

    /// Starts the device once; the error is the reason why it does not start.
    fn attempt_start(&mut self, setup: &StartOptions) -> Verdict<Result<(), String>> {
        match self.set_up(setup) {
            Err(stop) if stop.is_failed() && self.obstacles.stuck.is_none() => return Ok(Err(stop.reason())),
            outcome => outcome?,
        }
        self.set_status(self.settled() | Status::DRIVER_OK);
        let status = self.status()?;
        let starts = status.contains(Status::DRIVER_OK) && !status.contains(Status::DEVICE_NEEDS_RESET);
        let queues: Vec<u16> = self.queues.iter().map(|queue| queue.index).collect();
        Ok(if starts {
            Ok(())
        } else {
            Err(format!("the device does not start with the queues {queues:?} set up: the status is {status}"))
        })
    }

    /// Notes that a queue returned a request.
    pub(crate) fn note_answer(&mut self, role: Role) {
        match self.number(role) {
            Ok(queue) if !self.obstacles.answered.contains(&queue) => self.obstacles.answered.push(queue),
            _ => {}
        }
    }

    /// Notes that a queue returned nothing, if it never did and the request was as simple as possible. A device that
    /// returns the request after an unsolicited kick does serve the queue.
    pub(crate) fn note_silence(&mut self, role: Role, detail: &str) -> Verdict {
        let queue = self.number(role)?;
        let known = self.obstacles.answered.contains(&queue) || self.silence(queue).is_some();
        if known || !self.is_plain {
            return Ok(());
        }
        self.kick(role)?;
        let limit = self.patience.stall;
        let answered = self.wait(limit, |device| device.with_queue(role, |queue, arena| queue.collect(arena))?)?;
        if answered {
            self.note_answer(role);
        } else {
            self.obstacles.silent.push((queue, String::from(detail)));
        }
        Ok(())
    }

    fn silence(&self, queue: u16) -> Option<&str> {
        self.obstacles.silent.iter().find(|(silent, _)| *silent == queue).map(|(_, detail)| detail.as_str())
    }

    /// Requires that the queue is not known to return no requests.
    pub(crate) fn needs_answers(&self, role: Role) -> Verdict {
        match self.silence(self.number(role)?) {
            Some(detail) => {
                let name = self.queue_name(role);
                Err(Stop::skipped(format_args!("the {name} queue never returned a request: {detail}")))
            }
            None => Ok(()),
        }
    }
}
