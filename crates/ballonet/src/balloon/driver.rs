//! The driver of a running balloon: follows the target that the host sets, and answers its requests for statistics.
//!
//! It works only when it is polled, with a bounded amount of work a call; interrupt handlers leave bits for it and no
//! more. Several requests are in flight in one direction at a time. The device is asked to interrupt once a good share of
//! them is done, and the queue is checked again afterwards, so that the driver never waits for an interrupt that does not come.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::BalloonError;
use super::counters::Counters;
use super::engine::{Engine, Manner};
use super::hint_plan::HintReport;
use super::hinter::Hinter;
use super::options::Options;
use super::plan::Plan;
use super::progress::{BalloonStatus, Changes, Next, Progress};
use super::recovery::{Recoveries, ResetReport};
use super::relief::ReliefPlan;
use super::reporter::Reporter;
use super::round::Round;
use super::running::Running;
use super::silence::{Silence, Turn};
use super::statistics::MemoryStatistics;
use super::withheld::Withheld;
use crate::platform::{DeviceAddress, PageFrames, Platform, Registers};
use crate::virtio::spec::Features;
use crate::virtio::{DeviceHandle, InterruptMode, Interrupts, RingFormat, TransportKind};

/// A driver and its device. `P` is the platform; pass the same value to every call.
///
/// End it by [`Balloon::shutdown`]. Dropping it leaves the device running in memory without an owner.
#[must_use = "a balloon works only while it is polled"]
pub struct Balloon<P: Platform> {
    /// What it was started with, and is started with again after a reset.
    pub(super) options: Options,
    pub(super) device: DeviceHandle,
    features: Features,
    transport: TransportKind,
    mode: InterruptMode,
    pub(super) plan: Plan,
    pub(super) engine: Engine,
    pub(super) counters: Counters,
    pub(super) relief: ReliefPlan,
    /// What changed outside of polls, which the next one tells.
    pub(super) untold: Changes,
    /// Whether there is something to do that no interrupt announces.
    pub(super) again: bool,
    pub(super) state: State<P>,
    pub(super) recoveries: Recoveries,
    pub(super) last_reset: Option<ResetReport>,
    last_hints: Option<HintReport>,
    silence: Silence,
    /// Memory of a device that would not stop: it is not used.
    pub(super) withheld: Withheld<P>,
    /// The CPUs that queues were given, to be given again after a reset.
    affinities: Vec<(&'static str, u32)>,
}

/// What a driver is up to.
pub(super) enum State<P: Platform> {
    Running(Box<Running<P>>),
    /// The device is reset and waits to be started again.
    Frozen,
    /// The driver gave up, and why.
    Failed(BalloonError),
}

impl<P: Platform + PageFrames + MemoryStatistics> Balloon<P> {
    /// A driver whose device has just been started.
    pub(super) fn new(options: Options, running: Running<P>) -> Self {
        let mut balloon = Self {
            device: running.virtio.handle(),
            features: running.virtio.device.features(),
            transport: running.virtio.device.transport().kind(),
            mode: running.virtio.interrupts.mode(),
            plan: Plan::new(options.adopted),
            engine: Engine::new(options.shape),
            counters: Counters::default(),
            relief: ReliefPlan::new(options.relief),
            untold: Changes::empty(),
            again: true,
            state: State::Frozen,
            recoveries: Recoveries::new(options.recoveries, options.recovery_window),
            last_reset: None,
            last_hints: None,
            silence: Silence::default(),
            withheld: Withheld::new(),
            affinities: Vec::new(),
            options,
        };
        balloon.run(running);
        balloon
    }

    /// The device runs, for the first time or again.
    pub(super) fn run(&mut self, mut running: Running<P>) {
        if let Some((doorbell, kick)) = running.doorbells.statistics.zip(running.statistics_kick.take()) {
            running.virtio.device.kick(doorbell, kick);
            self.counters.kicks += 1;
        }
        self.counters.statistics += u64::from(running.statistics.as_ref().is_some_and(|queue| queue.outstanding() > 0));
        self.features = running.virtio.device.features();
        self.transport = running.virtio.device.transport().kind();
        self.mode = running.virtio.interrupts.mode();
        self.again = true;
        self.state = State::Running(Box::new(running));
    }

    /// Gives the queues the CPUs that they had.
    pub(super) fn restore_affinities(&mut self, platform: &mut P) {
        let State::Running(running) = &mut self.state else { return };
        for (queue, cpu) in &self.affinities {
            if let Err(error) = running.virtio.interrupts.set_queue_affinity(platform, queue, *cpu) {
                log::warn!("{}: queue {queue} does not go back to CPU {cpu}: {error}", self.options.name);
            }
        }
    }

    /// Does what there is to do: takes what the device has finished, sends what it can take, answers for statistics.
    /// The work of a call is bounded by the requests that can be in flight.
    ///
    /// A device that says that it needs a reset (2.1.1) gets one, and is started again with what it was started with
    /// before: [`Changes::RESET`]. That is done as often as [`Options::recoveries`] allows. While the device is frozen,
    /// nothing is done.
    ///
    /// # Errors
    /// When the device is gone, breaks the rules, or needs resets without end. It has then been reset and told that the
    /// driver gave up; frames in flight have gone back, those that the host has stay ballooned, and every later call
    /// says the same until [`Balloon::reset`].
    pub fn poll(&mut self, platform: &mut P) -> Result<Progress, BalloonError> {
        let running = match &mut self.state {
            State::Running(running) => running,
            State::Frozen => return Ok(Progress { next: Next::Idle, changes: Changes::empty() }),
            State::Failed(error) => return Err(*error),
        };
        self.counters.polls += 1;
        if self.relief.is_cooling() && self.relief.is_over(platform.now()) {
            self.plan.lift();
        }
        let mut round = Round::new(running, platform, &mut self.plan, &mut self.engine, &mut self.counters);
        let (outcome, hints) = (round.run(self.again), round.hints());
        match outcome {
            Ok(_) if self.engine.chains.deadline().is_some_and(|deadline| platform.now() >= deadline) => {
                self.reset_unanswered(platform)
            }
            Ok(progress) => {
                self.last_hints = hints.or(self.last_hints);
                self.again = progress.next == Next::Now;
                let untold = core::mem::take(&mut self.untold) | self.listen(platform.now());
                Ok(Progress { changes: progress.changes | untold, ..progress })
            }
            Err(error) => self.recover(platform, error),
        }
    }

    /// Whether the device has fallen silent, or answers again.
    fn listen(&mut self, now: u64) -> Changes {
        let is_asked = self.plan.inflating() + self.plan.deflating() + self.reporting() > 0;
        match self.silence.look(now, is_asked, self.counters.answers()) {
            Some(Turn::Silent) => Changes::SILENT,
            Some(Turn::Answers) => Changes::ANSWERS,
            None => Changes::empty(),
        }
    }
}

impl<P: Platform> Balloon<P> {
    /// Whether it must be polled: an interrupt came, or there is more to do. Ask with interrupts off, right before `sti; hlt`:
    /// then `false` cannot be out of date.
    pub fn is_pending(&self) -> bool {
        self.again || matches!(&self.state, State::Running(running) if running.virtio.interrupts.events().is_pending())
    }

    /// Memory has become free. A balloon that stopped short of its target continues; returns whether it must be polled.
    pub fn memory_freed(&mut self) -> bool {
        let resumes = matches!(self.state, State::Running(_)) && self.plan.memory_freed();
        self.again |= resumes;
        resumes
    }

    /// The device is about to be removed: asks everything back from its host, and ignores the target from now on.
    /// Once [`BalloonStatus::actual`] is 0, or that has taken too long, [`Balloon::shutdown`] follows.
    pub fn leave(&mut self) {
        self.pin(0);
    }

    /// Sets the balloon's size to `frames` frames and ignores the host's target from now on: for measurements.
    pub fn pin(&mut self, frames: u32) {
        self.plan.pin(frames);
        self.again |= matches!(self.state, State::Running(_));
    }

    /// Makes the next poll look at the device although no interrupt has come: for a platform that has lost the device's
    /// interrupts, say because it had to mask their line.
    pub fn look(&mut self) {
        if let State::Running(running) = &mut self.state {
            running.fresh = true;
            self.again = true;
        }
    }

    /// Has a queue (`inflate`, `deflate`, `stats`) interrupt another CPU. Where queues share a vector, all of them move.
    ///
    /// # Errors
    /// When the queue has no vector, the platform cannot send it there, or the device does not run.
    pub fn set_queue_affinity(&mut self, platform: &mut P, queue: &'static str, cpu: u32) -> Result<(), BalloonError> {
        match &mut self.state {
            State::Running(running) => running.virtio.interrupts.set_queue_affinity(platform, queue, cpu)?,
            State::Frozen => return Err(BalloonError::Frozen(self.address())),
            State::Failed(error) => return Err(*error),
        }
        self.affinities.retain(|(known, _)| *known != queue);
        self.affinities.push((queue, cpu));
        Ok(())
    }

    /// Waits until none of the device's interrupt handlers is running. They can run again right after.
    pub fn synchronize(&self, platform: &mut P) {
        if let State::Running(running) = &self.state {
            running.virtio.interrupts.synchronize(platform);
        }
    }

    /// The CPU that a queue interrupts; `None` if it has no vector.
    pub fn queue_affinity(&self, platform: &P, queue: &str) -> Option<u32> {
        match &self.state {
            State::Running(running) => running.virtio.interrupts.queue_affinity(platform, queue),
            State::Frozen | State::Failed(_) => None,
        }
    }

    /// Has all free memory reported to the host at once, if the device wants to know; returns whether it does.
    pub fn report_now(&mut self) -> bool {
        let State::Running(running) = &mut self.state else { return false };
        let Some(reporter) = &mut running.reporter else { return false };
        reporter.flush();
        self.again = true;
        true
    }

    /// Returns hinted frames to the kernel although the host is not done with them, for a kernel that runs out of memory: the
    /// number asked for, or up to 2 MiB more. Returns how many; 0 if the platform cannot fill frames ([`PageFrames::filler`]),
    /// which must be done first. Allocates nothing.
    pub fn relinquish_hinted(&mut self, platform: &mut P, frames: u64) -> u64
    where
        P: PageFrames,
    {
        let State::Running(running) = &mut self.state else { return 0 };
        let relinquished = running.hinter.as_mut().map_or(0, |hinter| hinter.relinquish(platform, frames));
        self.counters.relinquished_frames += relinquished;
        self.counters.returned_frames += relinquished;
        relinquished
    }

    /// When to poll next if no interrupt comes before, on the platform's clock; `None` if there is no such time. Ask right before
    /// sleeping: it depends on how much memory is free.
    pub fn deadline(&self, platform: &P) -> Option<u64>
    where
        P: PageFrames,
    {
        match &self.state {
            State::Running(running) => {
                let reports = running.reporter.as_ref().and_then(|reporter| reporter.deadline(platform));
                let others = [self.engine.chains.deadline(), self.relief.deadline()];
                reports.into_iter().chain(others.into_iter().flatten()).min()
            }
            State::Frozen | State::Failed(_) => None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Whether a device is there still; one that was pulled out is not.
    pub fn is_present(&self, platform: &mut P) -> bool {
        self.device.is_present(platform)
    }

    /// The device's address.
    pub fn address(&self) -> DeviceAddress {
        self.device.address()
    }

    /// The features that driver and device agreed on.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Which transport it is driven by.
    pub fn transport(&self) -> TransportKind {
        self.transport
    }

    /// The format of its queues.
    pub fn ring_format(&self) -> RingFormat {
        RingFormat::of(self.features)
    }

    /// How the device interrupts.
    pub fn interrupt_mode(&self) -> InterruptMode {
        self.mode
    }

    /// How it stands.
    pub fn status(&self) -> BalloonStatus {
        BalloonStatus {
            target: self.plan.target(),
            actual: self.plan.actual(),
            inflating: self.plan.inflating(),
            deflating: self.plan.deflating(),
            reporting: self.reporting(),
            hinted: match &self.state {
                State::Running(running) => running.hinter.as_ref().map_or(0, Hinter::hinted),
                State::Frozen | State::Failed(_) => 0,
            },
            short: self.plan.is_short(),
            frozen: matches!(self.state, State::Frozen),
            withheld: self.withheld.frames(),
            cooling: self.relief.deadline(),
            silent: self.silence.is_told(),
        }
    }

    /// Frames in the reports that have not come back.
    pub(super) fn reporting(&self) -> u64 {
        match &self.state {
            State::Running(running) => running.reporter.as_ref().map_or(0, Reporter::in_flight),
            State::Frozen | State::Failed(_) => 0,
        }
    }

    /// How frames go to the host, as far as that has been found out.
    pub fn manner(&self) -> Manner {
        match &self.state {
            State::Running(running) => self.engine.manner(running.requests.descriptors(), running.reporter.is_some()),
            State::Frozen | State::Failed(_) => self.engine.manner(1, false),
        }
    }

    /// What the driver gave up for, if it did.
    pub fn failed(&self) -> Option<BalloonError> {
        match self.state {
            State::Failed(error) => Some(error),
            State::Running(_) | State::Frozen => None,
        }
    }

    /// The last reset that the driver came through.
    pub fn last_reset(&self) -> Option<ResetReport> {
        self.last_reset
    }

    /// The last round of hints that is over.
    pub fn last_hints(&self) -> Option<HintReport> {
        self.last_hints
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        match &self.state {
            State::Running(running) => counted(self.counters, &running.virtio.interrupts),
            State::Frozen | State::Failed(_) => self.counters,
        }
    }

    /// The queues in use: name and number of entries.
    pub fn queues(&self) -> impl Iterator<Item = (&'static str, u16)> {
        let sizes = match &self.state {
            State::Running(running) => [
                Some(("inflate", running.inflate.size())),
                Some(("deflate", running.deflate.size())),
                running.statistics.as_ref().map(|queue| ("stats", queue.size())),
                running.hinter.as_ref().map(|hinter| ("hinting", hinter.queue().size())),
                running.reporter.as_ref().map(|reporter| ("reporting", reporter.queue().size())),
            ],
            State::Frozen | State::Failed(_) => [None; 5],
        };
        sizes.into_iter().flatten()
    }
}

/// The counters with what the interrupt handlers have counted since the device was started.
pub(super) fn counted<R: Registers>(counters: Counters, interrupts: &Interrupts<R>) -> Counters {
    let events = interrupts.events();
    Counters {
        config_interrupts: counters.config_interrupts + events.config_interrupts() as u64,
        vring_interrupts: counters.vring_interrupts + events.vring_interrupts() as u64,
        stray_interrupts: counters.stray_interrupts + events.stray_interrupts() as u64,
        ..counters
    }
}
