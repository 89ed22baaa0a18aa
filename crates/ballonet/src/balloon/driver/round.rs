//! The steps of one round of work, which [`Balloon::poll`] lists.

use core::mem::offset_of;

use super::running::Running;
use super::{Balloon, State};
use crate::balloon::counters::Counters;
use crate::balloon::error::BalloonError;
use crate::balloon::platform::BalloonPlatform;
use crate::balloon::policy::hint_plan::HintReport;
use crate::balloon::policy::path::Allowance;
use crate::balloon::policy::target::{Action, TargetPlan};
use crate::balloon::policy::tuning::Tuning;
use crate::balloon::queues::pages::{Added, Direction};
use crate::balloon::queues::{Queues, poison};
use crate::balloon::status::{Changes, Next, Progress};
use crate::balloon::wire::BalloonConfig;
use crate::memory::PageFrames;
use crate::virtio::spec::Status;
use crate::virtio::{InterruptMode, Kick, Pending, QueueIndex};

/// The most hinted frames taken for the balloon at once: 16 MiB, which must be filled.
const RELINQUISHED: u64 = 4096;

/// A kick of a queue that had been empty.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kicked {
    pub(super) direction: Direction,
    pub(super) requests: u16,
    /// How long the CPU was stalled, in nanoseconds.
    pub(super) stalled: u64,
}

/// A round of work, and its results.
pub(super) struct Round<'a, P: BalloonPlatform> {
    pub(super) running: &'a mut Running<P>,
    pub(super) platform: &'a mut P,
    pub(super) plan: &'a mut TargetPlan,
    pub(super) tuning: &'a mut Tuning,
    pub(super) counters: &'a mut Counters,
    /// The last finished round of hints.
    last_hints: &'a mut Option<HintReport>,
    pub(super) changes: Changes,
    /// Whether there was something to do.
    is_busy: bool,
    /// How much may be inflated, if reporting has decided it.
    pub(super) allowance: Option<Allowance>,
    /// The kick of a queue that had been empty.
    pub(super) kicked: Option<Kicked>,
}

impl<P: BalloonPlatform> Balloon<P> {
    /// Runs the `steps` of a round on the running device.
    ///
    /// # Errors
    /// Those of the steps; [`BalloonError::Frozen`] if the device does not run.
    pub(super) fn round<R>(
        &mut self,
        platform: &mut P,
        steps: impl FnOnce(&mut Round<'_, P>) -> Result<R, BalloonError>,
    ) -> Result<R, BalloonError> {
        let State::Running(running) = &mut self.state else {
            return Err(BalloonError::Frozen(self.device.address()));
        };
        steps(&mut Round {
            running,
            platform,
            plan: &mut self.plan,
            tuning: &mut self.tuning,
            counters: &mut self.counters,
            last_hints: &mut self.last_hints,
            changes: Changes::empty(),
            is_busy: false,
            allowance: None,
            kicked: None,
        })
    }
}

impl<P: BalloonPlatform> Round<'_, P> {
    /// Takes the interrupts that came since the last round.
    pub(super) fn take_interrupts(&mut self) -> Pending {
        self.running.virtio.interrupts.take()
    }

    /// Reads the target and the host's hint command, if they may have changed.
    pub(super) fn read_config(&mut self, pending: Pending) -> Result<(), BalloonError> {
        let running = &mut *self.running;
        if !pending.config() && !running.config_unread {
            return Ok(());
        }
        running.config_unread = false;
        let transport = running.virtio.device.transport();
        let (device, status) = (transport.address(), transport.status()?);
        if status.contains(Status::DEVICE_NEEDS_RESET) {
            return Err(BalloonError::NeedsReset(device));
        }
        // Some buses read as zeros if no device responds.
        if !status.contains(Status::DRIVER_OK) {
            return Err(BalloonError::Forgotten { device, status: status.bits() });
        }
        let target = transport.read_config::<u32>(offset_of!(BalloonConfig, num_pages))?;
        if let Some(hinting) = &mut running.queues.hinting {
            self.is_busy |=
                hinting.set_command(transport.read_config::<u32>(offset_of!(BalloonConfig, free_page_hint_cmd_id))?);
        }
        self.counters.target_reads += 1;
        if self.plan.set_target(target) {
            self.is_busy = true;
            self.changes |= Changes::TARGET;
        }
        Ok(())
    }

    /// Takes the inflate and deflate requests that the device has completed.
    pub(super) fn complete_pages(&mut self) -> Result<(), BalloonError> {
        let Self { platform, plan, tuning, counters, is_busy, .. } = self;
        let Queues { pages, poison, .. } = &mut self.running.queues;
        let inflated = pages.complete(Direction::Inflate, |request| {
            if tuning.chains.is_given() {
                tuning.chains.taken();
            } else {
                request.runs().iter().for_each(|run| platform.frames().confirm_ballooned(*run));
                tuning.path.confirmed(request.frames().into(), platform.now());
            }
            plan.inflated(request.frames());
            counters.inflate_requests += 1;
            counters.inflate_frames += u64::from(request.frames());
            *is_busy = true;
        });
        inflated.map_err(BalloonError::queue("inflate"))?;
        let deflated = pages.complete(Direction::Deflate, |request| {
            let frames = platform.frames();
            for run in request.runs() {
                if tuning.chains.is_on() {
                    tuning.chains.returned(*run, frames.contents().map_or(0, |contents| contents.marks(*run)));
                }
                poison::release(*poison, frames, *run);
            }
            plan.deflated(request.frames());
            counters.deflate_requests += 1;
            counters.deflate_frames += u64::from(request.frames());
            counters.returned_frames += u64::from(request.frames());
            *is_busy = true;
        });
        deflated.map_err(BalloonError::queue("deflate"))
    }

    /// Sends new statistics if the device has returned the buffer, which is how it asks.
    pub(super) fn answer_statistics(&mut self) -> Result<(), BalloonError> {
        let Some(statistics) = &mut self.running.queues.statistics else { return Ok(()) };
        if !statistics.complete().map_err(BalloonError::queue("statistics"))? {
            return Ok(());
        }
        self.is_busy = true;
        self.counters.statistics += 1;
        self.changes |= Changes::STATISTICS;
        let (queue, kick) = (statistics.queue.index(), statistics.send(self.platform));
        self.kick(queue, kick);
        Ok(())
    }

    /// Hints free memory to a host that is about to copy the guest, and releases it once the host is done.
    pub(super) fn hint_free_memory(&mut self) -> Result<(), BalloonError> {
        let Some(hinting) = &mut self.running.queues.hinting else { return Ok(()) };
        hinting.disarm();
        let returned = hinting.complete().map_err(BalloonError::queue("hinting"))?;
        let sent = hinting.send(self.platform).map_err(BalloonError::queue("hinting"))?;
        let released = hinting.give_back(self.platform);
        if released > 0 && hinting.hinted() == 0 {
            self.changes |= Changes::UNHINTED;
        }
        if let Some(report) = sent.report {
            self.changes |= Changes::HINTED;
            *self.last_hints = Some(report);
            self.counters.hint_rounds += 1;
            self.counters.hinted_frames += report.frames;
        }
        self.is_busy |= returned + released > 0 || sent.kick.is_some();
        if released > 0 {
            self.plan.memory_freed();
        }
        let queue = hinting.queue().index();
        self.kick(queue, sent.kick);
        Ok(())
    }

    /// Takes the reports that the device has returned. Frames reported for inflating are free too if inflating is over.
    pub(super) fn complete_reports(&mut self) -> Result<(), BalloonError> {
        let inflating = matches!(self.plan.next(), Action::Inflate(_));
        let Some(reporting) = &mut self.running.queues.reporting else { return Ok(()) };
        let mut done = reporting.complete(self.platform).map_err(BalloonError::queue("reporting"))?;
        if !inflating {
            done.free += reporting.give_back(self.platform.frames());
        }
        self.counters.reports += done.reports;
        self.counters.reported_frames += done.frames;
        self.counters.returned_frames += done.free;
        self.is_busy |= done.reports > 0;
        if done.free > 0 {
            // A balloon that stopped for lack of memory may have lacked just these.
            self.plan.memory_freed();
        }
        Ok(())
    }

    /// Reports free memory to the host, memory that is about to be inflated first.
    pub(super) fn report_free_memory(&mut self) -> Result<(), BalloonError> {
        let first = self.report_first().unwrap_or(0);
        self.complete_reports()?;
        let Some(reporting) = &mut self.running.queues.reporting else { return Ok(()) };
        let flushing = reporting.is_flushing();
        let kick = reporting.send(self.platform, first).map_err(BalloonError::queue("reporting"))?;
        if flushing && !reporting.is_flushing() {
            self.changes |= Changes::FLUSHED;
        }
        self.is_busy |= kick.is_some();
        let queue = reporting.queue().index();
        self.kick(queue, kick);
        Ok(())
    }

    /// Makes the kick that the device wants, if any.
    pub(super) fn kick(&mut self, queue: QueueIndex, kick: Option<Kick>) {
        if let Some(kick) = kick {
            self.running.virtio.kick(queue, kick);
            self.counters.kicks += 1;
        }
    }

    /// Takes hinted frames for the balloon: the host needs the memory more than a fast migration. Returns how many.
    pub(super) fn relinquish(&mut self, wanted: u64) -> u64 {
        let Some(hinting) = &mut self.running.queues.hinting else { return 0 };
        let relinquished = hinting.relinquish(self.platform, wanted.min(RELINQUISHED));
        self.counters.relinquished_frames += relinquished;
        relinquished
    }

    /// Records added requests, and a shortage of frames.
    pub(super) fn note(&mut self, added: &Added) {
        self.is_busy |= added.frames > 0;
        if !added.enough && self.plan.ran_short() {
            self.changes |= Changes::SHORT;
        }
    }

    /// Writes the size for the host, if it changed and is due: one store for the requests of several rounds. A trial of
    /// chains does not count.
    pub(super) fn write_actual(&mut self) -> Result<(), BalloonError> {
        if self.tuning.chains.is_on() {
            return Ok(());
        }
        let Self { running, platform, plan, .. } = self;
        let actual = u32::try_from(plan.actual()).unwrap_or(u32::MAX);
        if !running.reported_size.is_due(actual, plan.moves(), || platform.now()) {
            return Ok(());
        }
        running.virtio.device.write_config(offset_of!(BalloonConfig, actual), actual)?;
        running.reported_size.wrote(actual);
        self.counters.actual_writes += 1;
        self.changes |= Changes::ACTUAL;
        Ok(())
    }

    /// Whether the target is reached, and nothing is in flight or about to be.
    pub(super) fn is_settled(&self) -> bool {
        self.plan.is_settled() && !self.tuning.chains.is_on()
    }

    /// Ends the round: asks for the next interrupts. `was_settled`: before the round; `repoll`: it was due without an
    /// interrupt.
    pub(super) fn finish(&mut self, pending: Pending, was_settled: bool, repoll: bool) -> Progress {
        if self.is_settled() && (!was_settled || self.changes.contains(Changes::TARGET)) {
            self.changes |= Changes::SETTLED;
        }
        let next = self.arm();
        let interrupted = !pending.is_empty() && self.running.virtio.interrupts.mode() != InterruptMode::Polling;
        if interrupted && !repoll && !self.is_busy {
            self.counters.spurious += 1;
        }
        Progress { next, changes: self.changes }
    }

    /// Asks for the next interrupts, and finds out whether they are already due.
    fn arm(&mut self) -> Next {
        // With more to send, half of the requests in flight keep the device busy until the window is refilled; with
        // nothing more to send, there is nothing to do before all of them are done.
        let trial = self.tuning.chains.is_on();
        let more = !trial && matches!(self.plan.next(), Action::Inflate(_) | Action::Deflate(_));
        let Queues { pages, statistics, hinting, reporting, .. } = &mut self.running.queues;
        let (mut armed, mut in_flight) = (true, self.plan.inflating() + self.plan.deflating() > 0);
        for direction in [Direction::Inflate, Direction::Deflate] {
            let waits = pages.arm(direction, more);
            if let Some(kicked) = self.kicked.filter(|kicked| kicked.direction == direction) {
                self.tuning.kicks.kicked(kicked.requests, kicked.stalled, !waits);
            }
            armed &= waits;
        }
        if let Some(statistics) = statistics {
            armed &= statistics.arm();
        }
        if let Some(hinting) = hinting {
            armed &= hinting.arm() && !hinting.is_due();
            in_flight |= hinting.queue().outstanding() > 0;
        }
        if let Some(reporting) = reporting {
            armed &= reporting.arm() && !reporting.is_due();
            in_flight |= reporting.in_flight() > 0;
        }
        let more = more || trial;
        match (armed, in_flight) {
            (false, _) => Next::Now,
            // Something can be sent and nothing is in flight that would trigger it: a round was cut short.
            (true, false) if more => Next::Now,
            (true, true) => Next::Soon,
            (true, false) => Next::Idle,
        }
    }
}
