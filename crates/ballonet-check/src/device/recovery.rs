//! A hostile check from its breach to the proof that the device recovers.
//!
//! Whatever the driver did: a reset finishes in bounded time, the registers then hold what they held before, each queue
//! serves a well-formed request, and no byte that the device may not write has changed.

use core::ops::Range;

use alloc::format;
use alloc::string::String;

use super::{BALLOON, Role, Shape, StartOptions, TestDevice};
use crate::ring::Part;
use crate::verdict::{Ending, Outcome, Reaction, Stop, Verdict};
use ballonet::balloon::wire::{PAGE_REPORTING, STATS_VQ, Tag, statistic};
use ballonet::virtio::spec::{Features, Status};

/// Frames that are inflated before a breach of a queue.
const BEFORE: Range<usize> = 0..8;
/// Frames that are inflated after it, to see whether the other queue still works.
const BESIDE: Range<usize> = 16..24;
/// How many times as long as usual a device may take that is under attack.
const BUSY: u64 = 5;
/// Frames that are inflated after the reset.
const AFTER: Range<usize> = 32..40;
/// Bytes in a page that is reported.
const PAGE: usize = 4096;

impl TestDevice<'_> {
    /// The outcome of a hostile check that breaks a rule by `breach`.
    pub(crate) fn survive(&mut self, breach: impl FnOnce(&mut Self) -> Verdict<Reaction>) -> Outcome {
        if self.fingerprint.is_none() {
            match self.compare_fingerprint() {
                Ok(_) => {}
                Err(stop) => return stop.into(),
            }
        }
        let breach = breach(self);
        self.is_plain = false;
        match breach {
            Err(stop) if matches!(stop.ending(), Ending::Skipped | Ending::Trouble) => return stop.into(),
            _ => {}
        }
        match (self.recover(), breach) {
            (Err(harm), _) => harm,
            (Ok(()), Ok(Reaction::Ignored)) => Outcome::Ok,
            (Ok(()), Ok(Reaction::Refused)) => Outcome::Refused,
            (Ok(()), Ok(Reaction::NeedsReset)) => Outcome::NeedsReset,
            (Ok(()), Err(stop)) => stop.into(),
        }
    }

    pub(crate) fn wants_reset(&mut self) -> Verdict<bool> {
        Ok(self.status()?.contains(Status::DEVICE_NEEDS_RESET))
    }

    /// Has it serve a request; a balloon inflates frames, which the attack then deflates. The request's memory stays
    /// the device's: its descriptor does, and an attack may have the device read that again.
    pub(crate) fn warm_up(&mut self) -> Verdict {
        if !self.has_requests() {
            return Ok(());
        }
        self.post(Role::First, BEFORE, &Shape::PLAIN)?;
        self.submit(Role::First)?;
        self.drain(Role::First, 0)?;
        self.take_done(Role::First).map(drop)
    }

    /// Checks whether the inflate queue still works after an attack on the deflate queue. Other devices have one queue
    /// for requests, and nobody knows where the attack left it. The legacy interface has no way to ask for a reset.
    pub(crate) fn probe_beside(&mut self) -> Verdict {
        if !self.has_two_queues() || self.is_legacy() {
            return Ok(());
        }
        // A device may be busy with 65,535 entries that an attack made available, and slow on a busy host.
        let patience = self.patience;
        self.patience.stall *= BUSY;
        let served = self.transfer(Role::First, BESIDE, &Shape::PLAIN);
        self.patience = patience;
        match served {
            Ok(_) => Ok(()),
            // It may have detected only now what was wrong with the other queue.
            Err(_) if self.wants_reset()? => Ok(()),
            Err(stop) if stop.is_failed() => Err(Stop::stalled(format_args!(
                "the inflate queue no longer works, and the device does not ask for a reset: {}",
                stop.reason()
            ))),
            Err(stop) => Err(stop),
        }
    }

    /// Resets the device and proves that it works as before; otherwise returns what is wrong.
    fn recover(&mut self) -> Result<(), Outcome> {
        let stopped = self.reset();
        if let Some(damage) = self.damage() {
            return Err(Outcome::Corrupted(damage));
        }
        let revived = stopped.and_then(|()| self.prove_new());
        if let Some(damage) = self.damage() {
            return Err(Outcome::Corrupted(damage));
        }
        revived.map_err(|stop| self.wedged(stop))
    }

    /// What the device overwrote without permission.
    fn damage(&mut self) -> Option<String> {
        self.expect_no_damage(None).err().map(Stop::reason)
    }

    /// Registers as they were, and a request served on every queue.
    fn prove_new(&mut self) -> Verdict {
        self.stop()?;
        if let Some(difference) = self.compare_fingerprint()? {
            return Err(Stop::failed(format_args!("{difference}")));
        }
        self.serve_all()
    }

    /// A well-formed request on every queue in use.
    fn serve_all(&mut self) -> Verdict {
        let is_balloon = self.kind.number == BALLOON;
        let more = if is_balloon { self.offered & (STATS_VQ | PAGE_REPORTING) } else { Features::empty() };
        let features = self.least() | more;
        self.start(&StartOptions { features, ..self.plain() })?;
        self.is_plain = false;
        if self.has_requests() {
            self.transfer(Role::First, AFTER, &Shape::PLAIN)?;
        }
        for frames in [BEFORE, BESIDE, AFTER] {
            if self.away.get(frames.clone()).is_some_and(|away| away.contains(&true)) {
                self.transfer(Role::Second, frames, &Shape::PLAIN)?;
            }
        }
        if more.contains(STATS_VQ) {
            self.offer_statistics()?;
        }
        if more.contains(PAGE_REPORTING) {
            self.report_page()?;
        }
        self.expect_well()
    }

    /// The device takes the buffer and may keep it.
    fn offer_statistics(&mut self) -> Verdict {
        // Three, so that the length is a multiple of 6 as well as of an entry's 10 bytes (5.5.6.3.1).
        let entries = [(Tag::Free, 1 << 20), (Tag::Total, 1 << 24), (Tag::MajorFaults, 0)];
        let entries = entries.map(|(tag, value)| statistic(tag, value));
        let bytes = entries.as_flattened();
        let at = self.arena.place(bytes.len(), 16, 0)?;
        self.arena.write(at, bytes);
        self.buffers.push((at, at + bytes.len()));
        let part = Part { address: self.arena.address(at), length: bytes.len() as u32, writable: false };
        self.add(Role::Statistics, &[part], None)?;
        self.submit(Role::Statistics)
    }

    fn report_page(&mut self) -> Verdict {
        let at = self.arena.place(PAGE, PAGE, 0)?;
        self.arena.open(at, PAGE);
        let part = Part { address: self.arena.address(at), length: PAGE as u32, writable: true };
        self.add(Role::Reporting, &[part], None)?;
        self.submit(Role::Reporting)?;
        self.drain(Role::Reporting, 0)
    }

    /// The verdict on a device that does not recover. Tries stronger means to make it work, for the checks that follow.
    fn wedged(&mut self, stop: Stop) -> Outcome {
        let reason = stop.reason();
        self.obstacles.stuck = None;
        let mut works = self.prove_new();
        if works.is_err() && self.reset_pci_function() {
            self.obstacles.stuck = None;
            works = self.prove_new();
        }
        match works {
            Ok(()) => Outcome::Wedged(reason),
            Err(_) => {
                self.obstacles.stuck = Some(format!("the device no longer works after a hostile check: {reason}"));
                Outcome::Wedged(reason)
            }
        }
    }
}
