//! The driver of a running balloon: follows the target that the host sets, and answers its requests for statistics.
//!
//! It works only when it is polled, with a bounded amount of work a call; interrupt handlers leave bits for it and no
//! more. Several requests are in flight in one direction at a time. The next interrupt is asked for when a good share of
//! them is done, and whoever asks looks once more afterwards, so that none is waited for that does not come.

use alloc::string::String;

use bitflags::bitflags;

use super::BalloonError;
use super::counters::Counters;
use super::options::Options;
use super::parts::{Parts, Vring};
use super::plan::{Action, Plan};
use super::probe::{Doorbells, PlatformTransport};
use super::requests::{Request, Requests};
use super::statistics::{MemoryStatistics, Selection};
use super::wire::{CONFIG_ACTUAL, CONFIG_NUM_PAGES};
use crate::memory::FrameRun;
use crate::pci::{Bdf, Command, Function};
use crate::platform::{PageFrames, Platform};
use crate::virtio::spec::{Features, Status};
use crate::virtio::{
    Chain, Device, Doorbell, DriverOk, InterruptMode, Interrupts, Kick, Pending, Queue, QueueError, Transport,
};

/// When a balloon is to be polled next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once: there is more to do.
    Now,
    /// When an interrupt says so; requests are in flight. Without interrupts: soon.
    Soon,
    /// When an interrupt says so; nothing is in flight.
    Idle,
}

bitflags! {
    /// What a call of [`Balloon::poll`] changed.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Changes: u8 {
        /// The host set another target.
        const TARGET = 1 << 0;
        /// The size changed, and the host has been told.
        const ACTUAL = 1 << 1;
        /// The target was reached, with nothing in flight.
        const SETTLED = 1 << 2;
        /// The balloon stops short of the target, because the platform has no more frames for it. Once for each
        /// target. It goes on when [`Balloon::memory_freed`] or a new target gives it reason to.
        const SHORT = 1 << 3;
        /// Statistics were sent.
        const STATISTICS = 1 << 4;
    }
}

/// The outcome of a call of [`Balloon::poll`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it says when to poll again"]
pub struct Progress {
    /// When to poll again.
    pub next: Next,
    /// What changed.
    pub changes: Changes,
}

/// How a balloon stands. Counts are in 4 KiB frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BalloonStatus {
    /// The size that the host wants.
    pub target: u64,
    /// The size that the host has confirmed.
    pub actual: u64,
    /// Frames on their way to the host.
    pub inflating: u64,
    /// Frames on their way back.
    pub deflating: u64,
    /// Whether it stops short of the target because there are no more frames for it.
    pub short: bool,
}

/// A driver and its device. `P` is the platform; the same value is to be given to every call.
///
/// It ends by [`Balloon::shutdown`]. Dropping it leaves the device running in memory that nobody owns.
#[must_use = "a balloon works only while it is polled"]
pub struct Balloon<P: Platform> {
    name: String,
    function: Bdf,
    features: Features,
    mode: InterruptMode,
    plan: Plan,
    counters: Counters,
    /// Whether there is something to do that no interrupt announces.
    again: bool,
    state: State<P>,
}

enum State<P: Platform> {
    Running(Running<P>),
    /// The driver gave up, and why.
    Failed(BalloonError),
}

/// What there is while the device runs.
pub(super) struct Running<P: Platform> {
    device: Device<PlatformTransport<P>, DriverOk>,
    function: Function,
    command: Command,
    interrupts: Interrupts<P::Registers>,
    inflate: Vring<P, Request>,
    deflate: Vring<P, Request>,
    statistics: Option<Vring<P, ()>>,
    doorbells: Doorbells,
    requests: Requests<P::Memory>,
    selection: Selection,
    /// The size that the host was told; none yet.
    told: Option<u32>,
    /// The target has never been read.
    fresh: bool,
}

impl<P: Platform> Running<P> {
    /// The device runs with these parts, all of which are there but for the statistics queue.
    pub(super) fn new(
        device: Device<PlatformTransport<P>, DriverOk>,
        parts: Parts<P>,
        doorbells: Doorbells,
        selection: Selection,
    ) -> Self {
        let Parts { function, command, inflate, deflate, statistics, requests, interrupts } = parts;
        let all = "set-up makes all of them or fails";
        Self {
            device,
            function,
            command,
            interrupts: interrupts.expect(all),
            inflate: inflate.expect(all),
            deflate: deflate.expect(all),
            statistics,
            doorbells,
            requests: requests.expect(all),
            selection,
            told: None,
            fresh: true,
        }
    }

    /// Stops the device and gives everything back.
    fn stop(self, platform: &mut P, failed: bool)
    where
        P: PageFrames,
    {
        let (transport, stopped) = self.device.quiesce(platform, failed);
        let parts = Parts {
            function: self.function,
            command: self.command,
            inflate: Some(self.inflate),
            deflate: Some(self.deflate),
            statistics: self.statistics,
            requests: Some(self.requests),
            interrupts: Some(self.interrupts),
        };
        parts.dismantle(platform, transport, stopped);
    }
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
            mode: running.interrupts.mode(),
            plan: Plan::new(options.adopted),
            counters,
            again: true,
            state: State::Running(running),
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
            ],
            State::Failed(_) => [None; 3],
        };
        sizes.into_iter().flatten()
    }
}

/// The counters with what the interrupt handlers counted.
fn counted<R: crate::platform::Registers>(counters: Counters, interrupts: &Interrupts<R>) -> Counters {
    let events = interrupts.events();
    Counters {
        config_interrupts: events.config_interrupts() as u64,
        vring_interrupts: events.vring_interrupts() as u64,
        stray_interrupts: events.stray_interrupts() as u64,
        ..counters
    }
}

/// One call of [`Balloon::poll`].
struct Round<'a, P: Platform> {
    running: &'a mut Running<P>,
    platform: &'a mut P,
    plan: &'a mut Plan,
    counters: &'a mut Counters,
    changes: Changes,
    /// Whether there was something to do.
    work: bool,
}

impl<P: Platform + PageFrames + MemoryStatistics> Round<'_, P> {
    fn run(&mut self, again: bool) -> Result<Progress, BalloonError> {
        let pending = self.running.interrupts.take();
        let settled = self.plan.is_settled();
        self.configuration(pending)?;
        self.completions()?;
        self.statistics()?;
        self.send()?;
        // After the kick, which the device may be waiting for.
        self.tell_actual()?;
        if self.plan.is_settled() && (!settled || self.changes.contains(Changes::TARGET)) {
            self.changes |= Changes::SETTLED;
        }
        let next = self.arm();
        let interrupted = !pending.is_empty() && self.running.interrupts.mode() != InterruptMode::Polling;
        if interrupted && !again && !self.work {
            self.counters.spurious += 1;
        }
        Ok(Progress { next, changes: self.changes })
    }

    /// Reads the target, if it may have changed.
    fn configuration(&mut self, pending: Pending) -> Result<(), BalloonError> {
        let running = &mut *self.running;
        if !pending.config() && !running.fresh {
            return Ok(());
        }
        running.fresh = false;
        let transport = running.device.transport();
        if transport.status()?.contains(Status::DEVICE_NEEDS_RESET) {
            return Err(BalloonError::NeedsReset(running.function.bdf()));
        }
        let target = transport.read_config32(CONFIG_NUM_PAGES)?;
        self.counters.target_reads += 1;
        if self.plan.set_target(target) {
            self.work = true;
            self.changes |= Changes::TARGET;
        }
        Ok(())
    }

    /// Takes the requests that the device is done with.
    fn completions(&mut self) -> Result<(), BalloonError> {
        let Running { inflate, deflate, requests, .. } = &mut *self.running;
        if inflate.outstanding() > 0 {
            inflate.disarm();
        }
        while let Some(done) = inflate.pop().map_err(broken("inflate"))? {
            let request = done.token;
            request.runs().iter().for_each(|run| self.platform.confirm_ballooned(*run));
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
            request.runs().iter().for_each(|run| self.platform.release(*run));
            self.plan.deflated(request.frames());
            self.counters.deflate_requests += 1;
            self.counters.deflate_frames += u64::from(request.frames());
            requests.put(request);
            self.work = true;
        }
        Ok(())
    }

    /// Fills the statistics buffer again if the device has given it back, which is how it asks.
    fn statistics(&mut self) -> Result<(), BalloonError> {
        let Running { device, statistics, doorbells, requests, selection, .. } = &mut *self.running;
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
            device.kick(doorbell, kick);
            self.counters.kicks += 1;
        }
        Ok(())
    }

    /// Sends what the plan says, as many requests as there is room for, by one publication and at most one kick.
    fn send(&mut self) -> Result<(), BalloonError> {
        let (kick, doorbell) = match self.plan.next() {
            Action::Rest | Action::Wait => return Ok(()),
            Action::Inflate(frames) => (self.inflate(frames)?, self.running.doorbells.inflate),
            Action::Deflate(frames) => (self.deflate(frames)?, self.running.doorbells.deflate),
        };
        if let Some(kick) = kick {
            self.kick(doorbell, kick);
        }
        Ok(())
    }

    fn kick(&mut self, doorbell: Doorbell, kick: Kick) {
        self.running.device.kick(doorbell, kick);
        self.counters.kicks += 1;
    }

    fn inflate(&mut self, most: u64) -> Result<Option<Kick>, BalloonError> {
        let Running { inflate, requests, .. } = &mut *self.running;
        let sent =
            fill::<P>(inflate, requests, self.platform, most, Frames { take: P::take_free, put_back: P::release });
        let Sent { frames, enough } = sent.map_err(broken("inflate"))?;
        self.plan.inflate_sent(frames);
        self.note(frames, enough);
        Ok(self.running.inflate.publish())
    }

    fn deflate(&mut self, most: u64) -> Result<Option<Kick>, BalloonError> {
        let Running { deflate, requests, .. } = &mut *self.running;
        let sent = fill::<P>(
            deflate,
            requests,
            self.platform,
            most,
            Frames { take: P::take_ballooned, put_back: P::confirm_ballooned },
        );
        let Sent { frames, enough } = sent.map_err(broken("deflate"))?;
        self.plan.deflate_sent(frames);
        self.note(frames, enough);
        Ok(self.running.deflate.publish())
    }

    fn note(&mut self, frames: u32, enough: bool) {
        self.work |= frames > 0;
        if !enough && self.plan.ran_short() {
            self.changes |= Changes::SHORT;
        }
    }

    /// Tells the host the size, if it changed: one store for all requests of this round.
    fn tell_actual(&mut self) -> Result<(), BalloonError> {
        let actual = u32::try_from(self.plan.actual()).unwrap_or(u32::MAX);
        if self.running.told != Some(actual) {
            self.running.device.write_config32(CONFIG_ACTUAL, actual)?;
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
        let more = matches!(self.plan.next(), Action::Inflate(_) | Action::Deflate(_));
        let share = |outstanding: u16| if more { outstanding.div_ceil(2) } else { outstanding };
        let Running { inflate, deflate, statistics, .. } = &mut *self.running;
        let mut armed = true;
        for queue in [inflate, deflate] {
            let outstanding = queue.outstanding();
            armed &= outstanding == 0 || queue.arm(share(outstanding));
        }
        if let Some(queue) = statistics {
            armed &= queue.arm(1);
        }
        let in_flight = self.plan.inflating() + self.plan.deflating() > 0;
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
fn broken(queue: &'static str) -> impl Fn(QueueError) -> BalloonError {
    move |error| BalloonError::Queue { queue, error }
}

/// Where a direction's frames come from, and where they go back to when they could not be sent.
struct Frames<P> {
    take: fn(&mut P, u32) -> Option<FrameRun>,
    put_back: fn(&mut P, FrameRun),
}

/// What was put into a queue.
struct Sent {
    frames: u32,
    /// Whether the platform had all the frames that were asked for.
    enough: bool,
}

/// Puts as many requests into `queue` as it and the pool have room for, of at most `most` frames in all.
fn fill<P: Platform>(
    queue: &mut Vring<P, Request>,
    requests: &mut Requests<P::Memory>,
    platform: &mut P,
    most: u64,
    frames: Frames<P>,
) -> Result<Sent, QueueError> {
    let mut sent = Sent { frames: 0, enough: true };
    while sent.enough && u64::from(sent.frames) < most && queue.free() > 0 {
        let Some(mut request) = requests.take() else { break };
        sent.enough = request.collect(most - u64::from(sent.frames), |wanted| (frames.take)(platform, wanted));
        let count = request.frames();
        if count == 0 {
            requests.put(request);
            break;
        }
        let segment = requests.write(&request);
        if let Err(rejected) = queue.add(Chain::readable(&[segment]), request) {
            // Only a queue that is out of use refuses what it has room for. The device has not seen these frames.
            rejected.token.runs().iter().for_each(|run| (frames.put_back)(platform, *run));
            requests.put(rejected.token);
            return queue.poisoned().map_or(Ok(sent), Err);
        }
        sent.frames += count;
    }
    Ok(sent)
}
