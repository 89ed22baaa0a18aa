//! One call of [`super::Balloon::poll`]: what is done, and in which order.

use super::BalloonError;
use super::counters::Counters;
use super::engine::Engine;
use super::hint_plan::HintReport;
use super::pace::Allowance;
use super::plan::{Action, Plan};
use super::poison;
use super::progress::{Changes, Next, Progress};
use super::running::Running;
use super::send::{Direction, Kicked, Sent};
use super::statistics::MemoryStatistics;
use super::wire::{CONFIG_ACTUAL, CONFIG_FREE_PAGE_HINT_CMD_ID, CONFIG_NUM_PAGES};
use crate::platform::{PageFrames, Platform};
use crate::virtio::spec::Status;
use crate::virtio::{Doorbell, InterruptMode, Kick, Pending, QueueError};

/// The most hinted frames that are taken back for the balloon at once: 16 MiB, which have to be filled.
const RELINQUISHED: u64 = 4096;

/// One call of [`super::Balloon::poll`].
pub(super) struct Round<'a, P: Platform> {
    pub(super) running: &'a mut Running<P>,
    pub(super) platform: &'a mut P,
    pub(super) plan: &'a mut Plan,
    pub(super) engine: &'a mut Engine,
    counters: &'a mut Counters,
    changes: Changes,
    /// The round of hints that is over by now.
    hints: Option<HintReport>,
    /// Whether there was something to do.
    work: bool,
    /// What may be inflated, where that was settled when memory was reported.
    pub(super) allowance: Option<Allowance>,
    /// The kick of a queue that had been empty.
    pub(super) kicked: Option<Kicked>,
}

impl<'a, P: Platform + PageFrames + MemoryStatistics> Round<'a, P> {
    /// Nothing done yet.
    pub(super) fn new(
        running: &'a mut Running<P>,
        platform: &'a mut P,
        plan: &'a mut Plan,
        engine: &'a mut Engine,
        counters: &'a mut Counters,
    ) -> Self {
        let changes = Changes::empty();
        Self {
            running,
            platform,
            plan,
            engine,
            counters,
            changes,
            hints: None,
            work: false,
            allowance: None,
            kicked: None,
        }
    }

    /// Takes what has come back, and sends nothing: for an allocation that waits.
    pub(super) fn take_returned(&mut self) -> Result<Changes, BalloonError> {
        self.completions()?;
        self.reported()?;
        self.tell_actual()?;
        Ok(self.changes)
    }

    /// The same, and sends what the plan says.
    pub(super) fn follow_plan(&mut self) -> Result<Changes, BalloonError> {
        self.completions()?;
        self.reported()?;
        self.send()?;
        self.tell_actual()?;
        Ok(self.changes)
    }

    /// Does what there is to do. `again`: the call was due without an interrupt.
    pub(super) fn run(&mut self, again: bool) -> Result<Progress, BalloonError> {
        let pending = self.running.virtio.interrupts.take();
        let settled = self.is_settled();
        self.configuration(pending)?;
        self.completions()?;
        self.statistics()?;
        self.hint()?;
        self.report()?;
        self.send()?;
        // After the kick, which the device may be waiting for.
        self.tell_actual()?;
        if self.is_settled() && (!settled || self.changes.contains(Changes::TARGET)) {
            self.changes |= Changes::SETTLED;
        }
        let next = self.arm();
        let interrupted = !pending.is_empty() && self.running.virtio.interrupts.mode() != InterruptMode::Polling;
        if interrupted && !again && !self.work {
            self.counters.spurious += 1;
        }
        Ok(Progress { next, changes: self.changes })
    }

    /// Whether the target is reached, and nothing is in flight or about to be.
    fn is_settled(&self) -> bool {
        self.plan.is_settled() && !self.engine.chains.is_on()
    }

    /// The round of hints that was over in this call.
    pub(super) fn hints(&self) -> Option<HintReport> {
        self.hints
    }

    /// Reads the target and the host's word on hints, if they may have changed.
    fn configuration(&mut self, pending: Pending) -> Result<(), BalloonError> {
        let running = &mut *self.running;
        if !pending.config() && !running.fresh {
            return Ok(());
        }
        running.fresh = false;
        let transport = running.virtio.device.transport();
        let (device, status) = (transport.address(), transport.status()?);
        if status.contains(Status::DEVICE_NEEDS_RESET) {
            return Err(BalloonError::NeedsReset(device));
        }
        // Where nothing answers, some buses read as zeros.
        if !status.contains(Status::DRIVER_OK) {
            return Err(BalloonError::Forgotten { device, status: status.bits() });
        }
        let target = transport.read_config32(CONFIG_NUM_PAGES)?;
        if let Some(hinter) = &mut running.hinter {
            self.work |= hinter.set_command(transport.read_config32(CONFIG_FREE_PAGE_HINT_CMD_ID)?);
        }
        self.counters.target_reads += 1;
        if self.plan.set_target(target) {
            self.work = true;
            self.changes |= Changes::TARGET;
        }
        Ok(())
    }

    /// Takes the requests that the device is done with.
    pub(super) fn completions(&mut self) -> Result<(), BalloonError> {
        let Running { inflate, deflate, requests, poison, .. } = &mut *self.running;
        if inflate.outstanding() > 0 {
            inflate.disarm();
        }
        while let Some(done) = inflate.pop().map_err(broken("inflate"))? {
            let request = done.token;
            if self.engine.chains.is_given() {
                self.engine.chains.taken();
            } else {
                request.runs().iter().for_each(|run| self.platform.confirm_ballooned(*run));
                self.engine.pace.confirmed(request.frames().into(), self.platform.now());
            }
            self.plan.inflated(request.frames());
            self.counters.inflate_requests += 1;
            self.counters.inflate_frames += u64::from(request.frames());
            requests.put(request);
            self.work = true;
        }
        if deflate.outstanding() > 0 {
            deflate.disarm();
        }
        while let Some(done) = deflate.pop().map_err(broken("deflate"))? {
            let request = done.token;
            for run in request.runs() {
                if self.engine.chains.is_on() {
                    self.engine.chains.returned(*run, self.platform.marks(*run));
                }
                poison::release(*poison, self.platform, *run);
            }
            self.plan.deflated(request.frames());
            self.counters.deflate_requests += 1;
            self.counters.deflate_frames += u64::from(request.frames());
            self.counters.returned_frames += u64::from(request.frames());
            requests.put(request);
            self.work = true;
        }
        Ok(())
    }

    /// Fills the statistics buffer again if the device has given it back, which is how it asks.
    fn statistics(&mut self) -> Result<(), BalloonError> {
        let Running { virtio, statistics, doorbells, requests, selection, .. } = &mut *self.running;
        let Some((queue, doorbell)) = statistics.as_mut().zip(doorbells.statistics) else {
            return Ok(());
        };
        if queue.pop().map_err(broken("statistics"))?.is_none() {
            return Ok(());
        }
        self.work = true;
        self.counters.statistics += 1;
        self.changes |= Changes::STATISTICS;
        if let Some(kick) = requests.offer_statistics(queue, selection, self.platform) {
            virtio.device.kick(doorbell, kick);
            self.counters.kicks += 1;
        }
        Ok(())
    }

    /// Takes back what the host has been told of. What was to be inflated, and will not be, is free with the rest.
    fn reported(&mut self) -> Result<(), BalloonError> {
        let inflating = matches!(self.plan.next(), Action::Inflate(_));
        let Some(reporter) = self.running.reporter.as_mut() else { return Ok(()) };
        let (reports, frames, mut free) = reporter.completions(self.platform).map_err(broken("reporting"))?;
        if !inflating {
            free += reporter.give_back(self.platform);
        }
        self.counters.reports += reports;
        self.counters.reported_frames += frames;
        self.counters.returned_frames += free;
        self.work |= reports > 0;
        if free > 0 {
            // A balloon that stopped for lack of memory may have lacked just these.
            self.plan.memory_freed();
        }
        Ok(())
    }

    /// Tells a host that is about to copy memory what of it need not be copied, and has that back once the host is done.
    fn hint(&mut self) -> Result<(), BalloonError> {
        let Some((hinter, doorbell)) = self.running.hinter.as_mut().zip(self.running.doorbells.hinting) else {
            return Ok(());
        };
        hinter.disarm();
        let returned = hinter.completions().map_err(broken("hinting"))?;
        let sent = hinter.send(self.platform).map_err(broken("hinting"))?;
        let back = hinter.give_back(self.platform);
        if back > 0 && hinter.hinted() == 0 {
            self.changes |= Changes::UNHINTED;
        }
        if let Some(report) = sent.report {
            self.changes |= Changes::HINTED;
            self.hints = Some(report);
            self.counters.hint_rounds += 1;
            self.counters.hinted_frames += report.frames;
        }
        self.work |= returned + back > 0 || sent.kick.is_some();
        if back > 0 {
            self.plan.memory_freed();
        }
        if let Some(kick) = sent.kick {
            self.kick(doorbell, kick);
        }
        Ok(())
    }

    /// Tells the host of free memory, and takes back what it has been told of.
    fn report(&mut self) -> Result<(), BalloonError> {
        let first = self.report_first().unwrap_or(0);
        self.reported()?;
        let Some((reporter, doorbell)) = self.running.reporter.as_mut().zip(self.running.doorbells.reporting) else {
            return Ok(());
        };
        let flushing = reporter.is_flushing();
        let kick = reporter.send(self.platform, first).map_err(broken("reporting"))?;
        if flushing && !reporter.is_flushing() {
            self.changes |= Changes::FLUSHED;
        }
        self.work |= kick.is_some();
        if let Some(kick) = kick {
            self.kick(doorbell, kick);
        }
        Ok(())
    }

    pub(super) fn kick(&mut self, doorbell: Doorbell, kick: Kick) {
        self.running.virtio.device.kick(doorbell, kick);
        self.counters.kicks += 1;
    }

    /// Has the hinter give up memory that the host wants more than a guest that is quick to copy. Returns the frames.
    pub(super) fn relinquish(&mut self, wanted: u64) -> u64 {
        let Some(hinter) = &mut self.running.hinter else { return 0 };
        let relinquished = hinter.relinquish(self.platform, wanted.min(RELINQUISHED));
        self.counters.relinquished_frames += relinquished;
        relinquished
    }

    pub(super) fn note(&mut self, sent: &Sent) {
        self.work |= sent.frames > 0;
        if !sent.enough && self.plan.ran_short() {
            self.changes |= Changes::SHORT;
        }
    }

    /// Tells the host the size, if it changed: one store for all requests of this round. A trial leaves it as it was.
    fn tell_actual(&mut self) -> Result<(), BalloonError> {
        if self.engine.chains.is_on() {
            return Ok(());
        }
        let actual = u32::try_from(self.plan.actual()).unwrap_or(u32::MAX);
        if self.running.told != Some(actual) {
            self.running.virtio.device.write_config32(CONFIG_ACTUAL, actual)?;
            self.running.told = Some(actual);
            self.counters.actual_writes += 1;
            self.changes |= Changes::ACTUAL;
        }
        Ok(())
    }

    /// Asks for the next interrupts, and finds out whether they are already due.
    fn arm(&mut self) -> Next {
        // With more to send, half of what is in flight keeps the device busy until the rest of the window is filled
        // again; with nothing more to send, there is nothing to do before all of it is done.
        let trial = self.engine.chains.is_on();
        let more = !trial && matches!(self.plan.next(), Action::Inflate(_) | Action::Deflate(_));
        let share = |outstanding: u16| if more { outstanding.div_ceil(2) } else { outstanding };
        let Running { inflate, deflate, statistics, hinter, reporter, .. } = &mut *self.running;
        let (mut armed, mut in_flight) = (true, self.plan.inflating() + self.plan.deflating() > 0);
        for (queue, direction) in [(inflate, Direction::Inflate), (deflate, Direction::Deflate)] {
            let outstanding = queue.outstanding();
            let waits = outstanding == 0 || queue.arm(share(outstanding));
            if let Some(kicked) = self.kicked.filter(|kicked| kicked.direction == direction) {
                self.engine.batch.kicked(kicked.requests, kicked.held, !waits);
            }
            armed &= waits;
        }
        if let Some(queue) = statistics {
            armed &= queue.arm(1);
        }
        if let Some(hinter) = hinter {
            armed &= hinter.arm() && !hinter.is_due();
            in_flight |= hinter.queue().outstanding() > 0;
        }
        if let Some(reporter) = reporter {
            armed &= reporter.arm() && !reporter.is_due();
            in_flight |= reporter.in_flight() > 0;
        }
        let more = more || trial;
        match (armed, in_flight) {
            (false, _) => Next::Now,
            // Something can be sent and nothing is in flight that would call for it: a round was cut short.
            (true, false) if more => Next::Now,
            (true, true) => Next::Soon,
            (true, false) => Next::Idle,
        }
    }
}

/// Names the queue that was broken.
pub(super) fn broken(queue: &'static str) -> impl Fn(QueueError) -> BalloonError {
    move |error| BalloonError::Queue { queue, error }
}
