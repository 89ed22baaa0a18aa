//! The driver of a running balloon: follows the target that the host sets, and answers its requests for statistics.
//!
//! It works only when it is polled, with a bounded amount of work a call; interrupt handlers leave bits for it and no
//! more. Several requests are in flight in one direction at a time. The next interrupt is asked for when a good share of
//! them is done, and whoever asks looks once more afterwards, so that none is waited for that does not come.

use alloc::boxed::Box;
use alloc::string::String;

use super::BalloonError;
use super::counters::Counters;
use super::options::Options;
use super::plan::Plan;
use super::progress::{BalloonStatus, Changes, Next, Progress};
use super::round::Round;
use super::running::Running;
use super::statistics::MemoryStatistics;
use crate::pci::Bdf;
use crate::platform::{PageFrames, Platform, Registers};
use crate::virtio::spec::Features;
use crate::virtio::{InterruptMode, Interrupts, Kick, Queue, RingFormat, Transport, TransportKind};

/// A driver and its device. `P` is the platform; the same value is to be given to every call.
///
/// It ends by [`Balloon::shutdown`]. Dropping it leaves the device running in memory that nobody owns.
#[must_use = "a balloon works only while it is polled"]
pub struct Balloon<P: Platform> {
    name: String,
    function: Bdf,
    features: Features,
    transport: TransportKind,
    mode: InterruptMode,
    plan: Plan,
    counters: Counters,
    /// Whether there is something to do that no interrupt announces.
    again: bool,
    state: State<P>,
}

enum State<P: Platform> {
    Running(Box<Running<P>>),
    /// The driver gave up, and why.
    Failed(BalloonError),
}

impl<P: Platform + PageFrames + MemoryStatistics> Balloon<P> {
    /// A driver whose device has just been started.
    pub(super) fn new(options: Options, mut running: Running<P>, statistics_kick: Option<Kick>) -> Self {
        let mut counters = Counters::default();
        if let Some((doorbell, kick)) = running.doorbells.statistics.zip(statistics_kick) {
            running.device.kick(doorbell, kick);
            counters.kicks += 1;
        }
        counters.statistics = u64::from(running.statistics.as_ref().is_some_and(|queue| queue.outstanding() > 0));
        Self {
            name: options.name,
            function: running.function.bdf(),
            features: running.device.features(),
            transport: running.device.transport().kind(),
            mode: running.interrupts.mode(),
            plan: Plan::new(options.adopted),
            counters,
            again: true,
            state: State::Running(Box::new(running)),
        }
    }

    /// Does what there is to do: takes what the device has finished, sends what it can take, answers for statistics.
    /// The work of a call is bounded by the requests that can be in flight.
    ///
    /// # Errors
    /// When the device is gone, breaks the rules, or asks for a reset. It has then been reset and told that the driver
    /// gave up; frames in flight have gone back, those that the host has stay ballooned, and every later call says
    /// the same.
    pub fn poll(&mut self, platform: &mut P) -> Result<Progress, BalloonError> {
        let State::Running(running) = &mut self.state else {
            return Err(self.failure());
        };
        self.counters.polls += 1;
        let mut round = Round {
            running,
            platform,
            plan: &mut self.plan,
            counters: &mut self.counters,
            changes: Changes::empty(),
            work: false,
        };
        match round.run(self.again) {
            Ok(progress) => {
                self.again = progress.next == Next::Now;
                Ok(progress)
            }
            Err(error) => {
                self.give_up(platform, error);
                Err(error)
            }
        }
    }

    /// Stops the device by a reset, and only then gives back vectors, mappings, queues and the frames in flight.
    /// Returns how many frames stay ballooned.
    ///
    /// Those remain the platform's to account for: the host has them, and a reset does not bring their contents back. A
    /// later driver can take them over by [`Options::adopted`] and deflate them.
    pub fn shutdown(self, platform: &mut P) -> u32 {
        if let State::Running(running) = self.state {
            running.stop(platform, false);
        }
        // Frame numbers have 32 bits, so a balloon has no more frames than that.
        self.plan.actual() as u32
    }

    fn give_up(&mut self, platform: &mut P, error: BalloonError) {
        self.again = false;
        if let State::Running(running) = core::mem::replace(&mut self.state, State::Failed(error)) {
            self.counters = counted(self.counters, &running.interrupts);
            running.stop(platform, true);
            self.plan.stopped();
        }
    }

    fn failure(&self) -> BalloonError {
        match self.state {
            State::Failed(error) => error,
            State::Running(_) => unreachable!("a running balloon has not failed"),
        }
    }
}

impl<P: Platform> Balloon<P> {
    /// Whether it is to be polled: an interrupt came, or there is more to do. With interrupts off, right before the CPU
    /// is put to sleep by `sti; hlt`, no answer of *no* can be out of date.
    pub fn is_pending(&self) -> bool {
        self.again || matches!(&self.state, State::Running(running) if running.interrupts.events().is_pending())
    }

    /// Memory has become free. A balloon that stops short of its target goes on; returns whether it is to be polled.
    pub fn memory_freed(&mut self) -> bool {
        let resumes = matches!(self.state, State::Running(_)) && self.plan.memory_freed();
        self.again |= resumes;
        resumes
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
    /// When the queue has no vector, the platform cannot send it there, or the driver has given up.
    pub fn set_queue_affinity(&mut self, platform: &mut P, queue: &'static str, cpu: u32) -> Result<(), BalloonError> {
        match &mut self.state {
            State::Running(running) => Ok(running.interrupts.set_queue_affinity(platform, queue, cpu)?),
            State::Failed(error) => Err(*error),
        }
    }

    /// The CPU that a queue interrupts; `None` if it has no vector.
    pub fn queue_affinity(&self, platform: &P, queue: &str) -> Option<u32> {
        match &self.state {
            State::Running(running) => running.interrupts.queue_affinity(platform, queue),
            State::Failed(_) => None,
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

    /// When it is to be polled next if no interrupt comes before, on the platform's clock; `None` if there is no such
    /// time. To be asked right before sleeping: it depends on how much memory is free.
    pub fn deadline(&self, platform: &P) -> Option<u64>
    where
        P: PageFrames,
    {
        match &self.state {
            State::Running(running) => running.reporter.as_ref().and_then(|reporter| reporter.deadline(platform)),
            State::Failed(_) => None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The PCI function.
    pub fn function(&self) -> Bdf {
        self.function
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
            short: self.plan.is_short(),
        }
    }

    /// What the driver gave up for, if it did.
    pub fn failed(&self) -> Option<BalloonError> {
        match self.state {
            State::Failed(error) => Some(error),
            State::Running(_) => None,
        }
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        match &self.state {
            State::Running(running) => counted(self.counters, &running.interrupts),
            State::Failed(_) => self.counters,
        }
    }

    /// The queues in use: name and number of entries.
    pub fn queues(&self) -> impl Iterator<Item = (&'static str, u16)> {
        let sizes = match &self.state {
            State::Running(running) => [
                Some(("inflate", running.inflate.size())),
                Some(("deflate", running.deflate.size())),
                running.statistics.as_ref().map(|queue| ("stats", queue.size())),
                running.reporter.as_ref().map(|reporter| ("reporting", reporter.queue().size())),
            ],
            State::Failed(_) => [None; 4],
        };
        sizes.into_iter().flatten()
    }
}

/// The counters with what the interrupt handlers counted.
fn counted<R: Registers>(counters: Counters, interrupts: &Interrupts<R>) -> Counters {
    let events = interrupts.events();
    Counters {
        config_interrupts: events.config_interrupts() as u64,
        vring_interrupts: events.vring_interrupts() as u64,
        stray_interrupts: events.stray_interrupts() as u64,
        ..counters
    }
}
