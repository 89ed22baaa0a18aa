//! The driver of a balloon: follows the target that the host sets, and answers its requests for statistics.
//!
//! It works only when it is polled, with a bounded amount of work per call; interrupt handlers only set bits for it.
//! Several requests are in flight in one direction at a time. The driver asks for an interrupt once a good share of
//! them is done, and checks the queue again afterwards, so it never waits for an interrupt that does not come.

mod access;
mod lifecycle;
mod oom;
mod queue_reset;
mod round;
mod running;
mod send;
mod start;
mod withheld;

use alloc::vec::Vec;

pub use self::oom::{ReclaimError, Reclaimed};
pub use self::start::find_queues;

use self::running::Running;
use self::withheld::Withheld;
use super::counters::Counters;
use super::error::BalloonError;
use super::options::Options;
use super::platform::BalloonPlatform;
use super::policy::hint_plan::HintReport;
use super::policy::oom_policy::OomPlan;
use super::policy::recoveries::Recoveries;
use super::policy::silence::{Silence, Turn};
use super::policy::target::TargetPlan;
use super::policy::tuning::Tuning;
use super::status::{Changes, Next, Progress, ResetReport};
use crate::bus::Cause;
use crate::platform::{Platform, Registers};
use crate::virtio::spec::Features;
use crate::virtio::{DeviceHandle, InterruptMode, Interrupts, TransportKind};

/// A driver and its device. `P` is the platform; pass the same value to every call.
///
/// The value is some 4.5 KiB: no part of it is boxed.
///
/// End it by [`Balloon::shutdown`]. Dropping it leaves the device running in memory without an owner.
#[must_use = "a balloon works only while it is polled"]
pub struct Balloon<P: Platform> {
    /// The options of each start.
    options: Options,
    device: DeviceHandle,
    features: Features,
    transport: TransportKind,
    mode: InterruptMode,
    plan: TargetPlan,
    tuning: Tuning,
    counters: Counters,
    oom: OomPlan,
    /// Changes outside of polls, which the next poll reports.
    unreported_changes: Changes,
    /// Whether there is something to do that no interrupt announces.
    repoll: bool,
    state: State<P>,
    recoveries: Recoveries,
    last_reset: Option<ResetReport>,
    last_hints: Option<HintReport>,
    silence: Silence,
    /// The memory of a device that did not stop.
    withheld: Withheld<P>,
    /// The CPUs chosen for queues, to be set again after a reset.
    affinities: Vec<(&'static str, u32)>,
}

/// The state of the device.
#[allow(clippy::large_enum_variant, reason = "a box cannot be allocated when the heap is full")]
enum State<P: Platform> {
    Running(Running<P>),
    /// Reset, until it is started again.
    Frozen,
    /// The driver gave up, for this reason.
    Failed(BalloonError),
}

impl<P: BalloonPlatform> Balloon<P> {
    /// A driver whose device has just been started.
    fn new(options: Options, running: Running<P>) -> Self {
        let mut balloon = Self {
            device: running.virtio.handle(),
            features: running.virtio.device.features(),
            transport: running.virtio.device.transport().kind(),
            mode: running.virtio.interrupts.mode(),
            plan: TargetPlan::new(options.adopted),
            tuning: Tuning::new(options.shape),
            counters: Counters::default(),
            oom: OomPlan::new(options.oom),
            unreported_changes: Changes::empty(),
            repoll: true,
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

    /// Enters the running state, for the first time or again.
    fn run(&mut self, mut running: Running<P>) {
        if let Some(statistics) = &mut running.queues.statistics {
            if let Some(kick) = statistics.first_kick.take() {
                running.virtio.kick(statistics.queue.index(), kick);
                self.counters.kicks += 1;
            }
            self.counters.statistics += u64::from(statistics.queue.outstanding() > 0);
        }
        self.features = running.virtio.device.features();
        self.transport = running.virtio.device.transport().kind();
        self.mode = running.virtio.interrupts.mode();
        self.repoll = true;
        self.state = State::Running(running);
    }

    /// Does the work that is due: takes completed requests, sends new ones as far as there is room, answers requests
    /// for statistics. The work per call is bounded by the requests that can be in flight.
    ///
    /// A device that needs a reset (2.1.1) is reset and started again with the same options ([`Changes::RESET`]), as
    /// often as [`Options::recoveries`] allows. Does nothing while the device is frozen.
    ///
    /// # Errors
    /// When the device is gone, breaks the rules, or needs too many resets. It has then been reset, with FAILED set;
    /// frames in flight have been returned, ballooned frames stay ballooned, and every later call returns the same
    /// error until [`Balloon::reset`].
    pub fn poll(&mut self, platform: &mut P) -> Result<Progress, BalloonError> {
        match self.state {
            State::Running(_) => self.counters.polls += 1,
            State::Frozen => return Ok(Progress::IDLE),
            State::Failed(error) => return Err(error),
        }
        self.end_cooldown(platform);
        let repoll = self.repoll;
        let outcome = self.round(platform, |round| {
            let (pending, was_settled) = (round.take_interrupts(), round.is_settled());
            round.read_config(pending)?;
            round.complete_pages()?;
            round.answer_statistics()?;
            round.hint_free_memory()?;
            round.report_free_memory()?;
            round.send_pages()?;
            // Only after the kick: the device may be waiting for it.
            round.write_actual()?;
            Ok(round.finish(pending, was_settled, repoll))
        });
        match outcome {
            Ok(_) if self.chain_trial_is_late(platform) => self.reset_unanswered(platform),
            Ok(progress) => Ok(self.conclude(platform, progress)),
            Err(error) => self.recover(platform, error),
        }
    }

    /// Lets the balloon grow again once the cooldown is over.
    fn end_cooldown(&mut self, platform: &P) {
        if self.oom.is_cooling() && self.oom.is_over(platform.now()) {
            self.plan.lift();
        }
    }

    /// Whether the device's time for the trial request of several descriptors is over.
    fn chain_trial_is_late(&self, platform: &P) -> bool {
        self.tuning.chains.deadline().is_some_and(|deadline| platform.now() >= deadline)
    }

    /// Adds changes outside of the round.
    fn conclude(&mut self, platform: &P, progress: Progress) -> Progress {
        self.repoll = progress.next == Next::Now;
        let unreported = core::mem::take(&mut self.unreported_changes) | self.observe_silence(platform.now());
        Progress { changes: progress.changes | unreported, ..progress }
    }

    /// Whether the device has fallen silent, or answers again.
    fn observe_silence(&mut self, now: u64) -> Changes {
        let is_asked = self.plan.inflating() + self.plan.deflating() + self.reporting() > 0;
        match self.silence.observe(now, is_asked, self.counters.answers()) {
            Some(Turn::Silent) => Changes::SILENT,
            Some(Turn::Answers) => Changes::ANSWERS,
            None => Changes::empty(),
        }
    }
}

impl<P: Platform> Balloon<P> {
    /// The running device, if any.
    fn running(&self) -> Option<&Running<P>> {
        match &self.state {
            State::Running(running) => Some(running),
            State::Frozen | State::Failed(_) => None,
        }
    }

    /// Frames in reports in flight.
    fn reporting(&self) -> u64 {
        self.running().map_or(0, |running| running.queues.frames_reporting())
    }
}

/// The counters, including the interrupt handlers' counts since the start of the device.
fn counted<R: Registers>(counters: Counters, interrupts: &Interrupts<R>) -> Counters {
    let events = interrupts.events();
    Counters {
        config_interrupts: counters.config_interrupts + events.count(Cause::Config) as u64,
        vring_interrupts: counters.vring_interrupts + events.count(Cause::Vring) as u64,
        stray_interrupts: counters.stray_interrupts + events.count(Cause::Stray) as u64,
        ..counters
    }
}
