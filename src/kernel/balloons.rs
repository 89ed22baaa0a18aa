//! The balloons of the machine: started, served, and what they do told to people and programs.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::boot::{self, AccessChoice, IrqChoice, RingChoice, TransportChoice};
use crate::console::Movement;
use crate::machine::relief::Relieved;
use crate::machine::{Machine, frames, lines, log as serial};
use ballonet::balloon::wire::feature_names;
use ballonet::balloon::{
    Balloon, BalloonError, BalloonStatus, Changes, Manner, Next, Options, Progress, ReliefError, ReliefPolicy,
    ReportPolicy, Way,
};
use ballonet::memory::FRAME_SIZE;
use ballonet::pci::{Bdf, Function, Tree};
use ballonet::platform::{DeviceAddress, Platform};
use ballonet::virtio::spec::Features;
use ballonet::virtio::{InterruptMode, RingFormat, TransportKind};
use log::{error, info, warn};

mod lifecycle;

pub(super) use lifecycle::Verb;

/// Time between two progress lines on a terminal, and between two `balloon` events: 100 ms.
const REDRAW: u64 = 100_000_000;
/// Time between two progress lines where lines cannot be redrawn: 1 s.
const PLAIN: u64 = 1_000_000_000;
/// How often a balloon without interrupts is looked at while nothing moves: 10 ms.
const POLL_IDLE: u64 = 10_000_000;
/// How often while something moves: 100 µs.
const POLL_BUSY: u64 = 100_000;
/// How often a device is looked at that has requests and is not seen to finish any: 1 s. It may be gone, or need a reset,
/// and have no way to say so.
const STALL: u64 = 1_000_000_000;
/// The longest that a balloon that is to be taken away may take to ask everything back: 5 s.
const FAREWELL: u64 = 5_000_000_000;

/// Tells that no balloon has this name.
pub(super) fn tell_unknown(name: &str) {
    serial::line(format_args!("there is no balloon `{name}`; `virtio` lists those there are"));
}

/// What the kernel's options say of the driver of a balloon. Its name is still to be chosen.
pub(super) fn driver_options(options: &boot::Options<'_>) -> Options {
    let mut driver = Options::default();
    driver.transport = match options.transport {
        TransportChoice::Auto => None,
        TransportChoice::Modern => Some(TransportKind::Modern),
        TransportChoice::Legacy => Some(TransportKind::Legacy),
    };
    driver.through_config = options.access == AccessChoice::Window;
    driver.interrupts = match options.irq {
        IrqChoice::Auto => None,
        IrqChoice::Msix => Some(InterruptMode::PerQueue),
        IrqChoice::MsixShared => Some(InterruptMode::Shared),
        IrqChoice::Intx => Some(InterruptMode::Line),
        IrqChoice::Poll => Some(InterruptMode::Polling),
    };
    driver.ring = match options.ring {
        RingChoice::Auto => None,
        RingChoice::Split => Some(RingFormat::Split),
        RingChoice::Packed => Some(RingFormat::Packed),
    };
    driver.declined = Features::from_bits_retain(options.declined_features);
    driver.reporting = report_policy(options);
    driver.relief.cooldown = options.oom_cooldown.map_or(ReliefPolicy::default().cooldown, |ms| ms * 1_000_000);
    driver.poison = options.poison;
    driver.shape = options.request;
    driver.queue_size = options.queue_size.unwrap_or(driver.queue_size);
    driver
}

/// One balloon, and what is being told of it.
pub(super) struct Served {
    balloon: Balloon<Machine>,
    movement: Option<Movement>,
    /// The last movement that has come to its end.
    moved: Option<Movement>,
    /// When progress was last told.
    told: u64,
    /// When a balloon without interrupts is to be looked at next.
    look: u64,
    /// When its device is to be looked at if nothing has come of its requests by then; `None` without requests.
    stall: Option<u64>,
    /// It has been served since that moment was chosen.
    progressed: bool,
    /// It stops short of its target, which is told once nothing is on its way any more.
    short: bool,
    /// How frames go to the host, as was told last.
    manner: Option<Manner>,
    /// It is to be taken away, and has known that since then.
    leaving: Option<u64>,
    /// It is gone, which nobody has been told yet.
    gone: bool,
    /// Why it last gave less than an allocation wanted, if it did, and what has been told of that.
    refused: Option<ReliefError>,
    told_refusal: Option<ReliefError>,
    /// Frames that allocations had back, as far as that has been told.
    told_relief: u64,
}

/// Every balloon of the machine.
pub(super) struct Balloons {
    served: Vec<Served>,
    /// How many are on PCI, but could not be started.
    refused: usize,
    /// What each is started with, but for its name and what it adopts.
    options: Options,
    /// Frames that balloons left with their hosts when they went: the next one that comes asks for them.
    orphans: u64,
    ansi: bool,
}

impl Balloons {
    /// Starts a driver for every balloon on PCI.
    pub(super) fn start(machine: &mut Machine, tree: &Tree) -> Self {
        let ansi = machine.options().term == boot::Terminal::Ansi;
        let options = driver_options(&machine.options());
        let mut new = Self { served: Vec::new(), refused: 0, options, orphans: 0, ansi };
        for node in tree.nodes() {
            new.add(machine, tree, node.function());
        }
        new
    }

    /// Starts a driver for a function, if it is a balloon. Returns its place among the balloons.
    pub(super) fn add(&mut self, machine: &mut Machine, tree: &Tree, function: &Function) -> Option<usize> {
        if !Balloon::<Machine>::matches(function.vendor(), function.device()) {
            return None;
        }
        tree.open_path(machine.config(), function.bdf());
        // Frame numbers have 32 bits, so no balloon adopts more than that.
        let adopted = u32::try_from(self.orphans).unwrap_or(u32::MAX);
        let mut options = self.options.clone();
        options.name = self.free_name();
        options.adopted = adopted;
        match Balloon::probe(machine, function.bdf(), options) {
            Ok(balloon) => {
                self.orphans -= u64::from(adopted);
                self.served.push(Served::new(balloon));
                Some(self.served.len() - 1)
            }
            Err(error) => {
                self.refused += 1;
                error!("balloon at {}: {error}", function.bdf());
                None
            }
        }
    }

    /// The first name that no balloon has.
    fn free_name(&self) -> String {
        let names = (0..).map(|number| format!("virtio{number}"));
        let mut free = names.filter(|name| self.drivers().all(|driver| driver.name() != name));
        free.next().unwrap_or_default()
    }

    /// Has the balloon at `function` ask back all that its host has, since it is to be taken away. `now` in nanoseconds.
    pub(super) fn leave(&mut self, function: Bdf, now: u64) {
        for served in self.served.iter_mut().filter(|served| served.balloon.address() == function.into()) {
            served.balloon.leave();
            served.leaving = Some(now);
        }
    }

    /// Has every balloon ask back all that its host has, since power is to go. `now` in nanoseconds.
    pub(super) fn leave_all(&mut self, now: u64) {
        for served in &mut self.served {
            served.balloon.leave();
            served.leaving = Some(now);
        }
    }

    /// Whether every one can be taken away: its host has given everything back, it has failed, or it has had its time.
    pub(super) fn have_left(&self, now: u64) -> bool {
        self.served.iter().all(|served| served.has_left(now))
    }

    /// Ends the driver at `function` if its host has given everything back, if it has failed, or has had its time; and in
    /// any case if `at_once`. Returns whether there is none any more.
    pub(super) fn remove(&mut self, machine: &mut Machine, function: Bdf, at_once: bool) -> bool {
        let Some(place) = self.served.iter().position(|served| served.balloon.address() == function.into()) else {
            return true;
        };
        if !at_once && !self.served[place].has_left(machine.now()) {
            return false;
        }
        let balloon = self.served.remove(place).balloon;
        let (name, actual) = (String::from(balloon.name()), balloon.status().actual);
        // What a device did with what was in flight does not count any more; what was given does.
        let orphans = balloon.shutdown(machine);
        self.orphans += u64::from(orphans);
        serial::emit("removed", |line| {
            line.text("name", &name).display("device", &function).number("ballooned", u64::from(orphans) * FRAME_SIZE);
        });
        match orphans {
            0 if actual == 0 => info!("{name}: balloon at {function} is given up"),
            0 => info!("{name}: balloon at {function} is gone; its {} MiB are the guest's again", actual / 256),
            left => info!("{name}: balloon at {function} is gone; the next one asks for its {} MiB", left / 256),
        }
        true
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.served.is_empty()
    }

    /// Frames that balloons left with their hosts when they went.
    pub(super) fn orphans(&self) -> u64 {
        self.orphans
    }

    /// How many are on PCI, but could not be started.
    pub(super) fn refused(&self) -> usize {
        self.refused
    }

    /// The drivers.
    pub(super) fn drivers(&self) -> impl Iterator<Item = &Balloon<Machine>> {
        self.served.iter().map(|served| &served.balloon)
    }

    /// The drivers, to be changed.
    pub(super) fn drivers_mut(&mut self) -> impl Iterator<Item = &mut Balloon<Machine>> {
        self.served.iter_mut().map(|served| &mut served.balloon)
    }

    /// Whether one of them is to be served at once. Holds with interrupts off, right before the CPU sleeps.
    pub(super) fn is_pending(&self) -> bool {
        self.served.iter().any(|served| served.balloon.is_pending())
    }

    /// Serves each of them once.
    pub(super) fn serve(&mut self, machine: &mut Machine) {
        for served in &mut self.served {
            served.serve(machine, self.ansi);
        }
    }

    /// When the next one is to be served although it has not interrupted, in nanoseconds since entry.
    pub(super) fn next_look(&self, machine: &Machine) -> Option<u64> {
        self.served.iter().filter_map(|served| served.next_look(machine)).min()
    }

    /// Has all free memory reported to the hosts that want to know; returns whether any does.
    pub(super) fn report_now(&mut self) -> bool {
        self.served.iter_mut().filter_map(|served| served.balloon.report_now().then_some(())).count() > 0
    }

    /// A balloon that turned out to be gone; each is named once.
    pub(super) fn take_gone(&mut self) -> Option<DeviceAddress> {
        let gone = self.served.iter_mut().find(|served| served.gone)?;
        gone.gone = false;
        Some(gone.balloon.address())
    }

    /// Has the drivers look at their devices although no interrupt has come.
    pub(super) fn look(&mut self) {
        self.served.iter_mut().for_each(|served| served.balloon.look());
    }

    /// The movement that is going on, if any.
    pub(super) fn movement(&self) -> Option<Movement> {
        self.served.iter().find_map(|served| served.movement)
    }

    /// The movement that is going on, else the last one.
    pub(super) fn last_movement(&self) -> Option<Movement> {
        self.movement().or_else(|| self.served.iter().find_map(|served| served.moved))
    }

    /// Memory was freed: a balloon that had stopped for lack of it may go on.
    pub(super) fn memory_freed(&mut self) {
        for served in &mut self.served {
            served.balloon.memory_freed();
        }
    }

    /// Why a balloon last gave less than an allocation wanted, if it did.
    pub(super) fn refusal(&self) -> Option<&ReliefError> {
        self.served.iter().find_map(|served| served.refused.as_ref())
    }

    /// Has memory back for an allocation that would fail: of one after the other, until it is enough.
    pub(super) fn relieve(&mut self, machine: &mut Machine, frames: u64) -> Relieved {
        let mut sum = Relieved::default();
        for served in &mut self.served {
            if sum.frames >= frames {
                break;
            }
            let relief = served.balloon.relieve(machine, frames - sum.frames);
            served.refused = relief.error;
            sum.frames += relief.frames;
            sum.asked += relief.asked;
        }
        sum
    }

    /// Resets every device, so that none writes to memory any more.
    pub(super) fn shutdown(self, machine: &mut Machine) {
        for served in self.served {
            let name = String::from(served.balloon.name());
            let failed = served.balloon.failed().is_some();
            let frames = served.balloon.shutdown(machine);
            let done = if failed { "given up on before" } else { "reset" };
            info!("{name}: {done}; {} MiB stay with the host", u64::from(frames) / 256);
        }
    }

    /// Says that they are ready.
    pub(super) fn announce(&self) {
        for place in 0..self.served.len() {
            self.announce_one(place);
        }
    }

    /// Says that the one at a place is ready.
    pub(super) fn announce_one(&self, place: usize) {
        if let Some(Served { balloon, .. }) = self.served.get(place) {
            let status = balloon.status();
            let names = || feature_names(balloon.features());
            serial::emit("ready", |line| {
                line.text("name", balloon.name())
                    .display("device", &balloon.address())
                    .text("irq", balloon.interrupt_mode().word())
                    .text("transport", balloon.transport().word())
                    .text("ring", balloon.ring_format().word())
                    .text_list("features", names())
                    .number("target", status.target * FRAME_SIZE)
                    .number("actual", status.actual * FRAME_SIZE);
            });
            if serial::is_text() {
                let features: Vec<_> = names().collect();
                let (transport, mode) = (balloon.transport(), balloon.interrupt_mode());
                info!(
                    "{}: balloon at {} ready: {transport}, {} rings, {mode}; {}",
                    balloon.name(),
                    balloon.address(),
                    balloon.ring_format(),
                    features.join(" ")
                );
            }
        }
    }
}

impl Served {
    fn new(balloon: Balloon<Machine>) -> Self {
        Self {
            balloon,
            movement: None,
            moved: None,
            told: 0,
            look: 0,
            stall: None,
            progressed: false,
            short: false,
            manner: None,
            leaving: None,
            gone: false,
            refused: None,
            told_refusal: None,
            told_relief: 0,
        }
    }

    /// Whether it can be taken away.
    fn has_left(&self, now: u64) -> bool {
        let late = self.leaving.is_none_or(|since| now.saturating_sub(since) >= FAREWELL);
        let status = self.balloon.status();
        self.balloon.failed().is_some()
            || status.frozen
            || late
            || (status.actual == 0 && status.inflating + status.deflating == 0)
    }

    /// Whether no interrupt may tell of the device: it has none, or the kernel had to mask a line that stormed.
    fn is_polled(&self) -> bool {
        match self.balloon.interrupt_mode() {
            InterruptMode::Polling => true,
            InterruptMode::Line => lines::storms() > 0,
            InterruptMode::PerQueue | InterruptMode::Shared => false,
        }
    }

    fn serve(&mut self, machine: &mut Machine, ansi: bool) {
        self.tell_relief();
        let now = machine.now();
        let due = self.is_due(now);
        let late = self.balloon.deadline(machine).is_some_and(|deadline| now >= deadline);
        if !(self.balloon.is_pending() || due || late) || self.balloon.failed().is_some() {
            return;
        }
        if due {
            self.balloon.look();
        }
        match self.balloon.poll(machine) {
            Ok(progress) => self.tell(progress, machine.now(), ansi),
            Err(error) => {
                self.gone = !self.balloon.is_present(machine);
                self.gave_up(&error);
            }
        }
    }

    /// Whether its device is to be looked at although nothing has come from it. Requests that nothing has come of for a
    /// while are a reason.
    fn is_due(&mut self, now: u64) -> bool {
        let polled = self.is_polled() && now >= self.look;
        let stalled = self.stall.is_some_and(|moment| now >= moment);
        if stalled {
            self.stall = self.in_flight().then_some(now + STALL);
        }
        polled || stalled && !core::mem::take(&mut self.progressed)
    }

    /// Whether the device has something of the guest's that it is to give back. What is hinted counts: that a host is done
    /// with it is told by an interrupt, which has been seen to get lost where a guest moved (QEMU 7.2).
    fn in_flight(&self) -> bool {
        let status = self.balloon.status();
        status.inflating + status.deflating + status.reporting + status.hinted > 0
    }

    /// When it is to be served although it has not interrupted.
    fn next_look(&self, machine: &Machine) -> Option<u64> {
        let running = self.balloon.failed().is_none() && !self.balloon.status().frozen;
        let look = self.is_polled().then_some(self.look);
        look.into_iter().chain(self.stall).chain(self.balloon.deadline(machine)).min().filter(|_| running)
    }

    /// The driver gave up. The kernel goes on without.
    fn gave_up(&mut self, error: &BalloonError) {
        (self.movement, self.stall, self.short) = (None, None, false);
        error!("{}: {error}; the driver gave up, the device is left alone", self.balloon.name());
        serial::emit("failed", |line| {
            line.text("name", self.balloon.name()).display("error", error);
        });
    }

    fn tell(&mut self, progress: Progress, now: u64, ansi: bool) {
        self.look = now + if progress.next == Next::Idle { POLL_IDLE } else { POLL_BUSY };
        self.progressed = true;
        if self.stall.is_none() && progress.next != Next::Idle {
            self.stall = Some(now + STALL);
        }
        if progress.changes.contains(Changes::RESET) {
            self.tell_reset();
        }
        let status = self.balloon.status();
        let (actual, target) = (status.actual * FRAME_SIZE, status.target * FRAME_SIZE);
        let changes = progress.changes;
        if changes.contains(Changes::TARGET) {
            self.movement = (actual != target).then(|| Movement::begin(actual, target, now));
            self.told = now;
            emit(&status);
        }
        if let Some(movement) = &mut self.movement {
            movement.advance(actual, now);
        }
        if changes.contains(Changes::SILENT) {
            self.tell_silence(&status);
        }
        if changes.contains(Changes::ANSWERS) {
            self.tell_answers();
        }
        if changes.contains(Changes::FLUSHED) {
            self.tell_reported();
        }
        if changes.contains(Changes::HINTED) {
            self.tell_hints();
        }
        if changes.contains(Changes::UNHINTED) {
            self.tell_unhinted();
        }
        self.short = (self.short && status.short) || changes.contains(Changes::SHORT);
        if self.short && status.inflating == 0 {
            self.short = false;
            self.tell_short(&status);
        }
        if changes.contains(Changes::SETTLED) {
            self.finish(&status);
        } else if self.movement.is_some() && now.saturating_sub(self.told) >= if ansi { REDRAW } else { PLAIN } {
            self.told = now;
            self.tell_progress(&status, ansi);
        }
    }

    /// Tells of memory that allocations had back, or did not: once, however often it is refused for the same reason. Apart
    /// from where that happens, since there they wait.
    fn tell_relief(&mut self) {
        let frames = self.balloon.counters().relief_frames;
        if (frames, self.refused) == (self.told_relief, self.told_refusal) {
            return;
        }
        let counters = self.balloon.counters();
        (self.told_relief, self.told_refusal) = (frames, self.refused);
        let status = self.balloon.status();
        serial::emit("relief", |line| {
            line.text("name", self.balloon.name())
                .number("reliefs", counters.reliefs)
                .number("in_vain", counters.reliefs_in_vain)
                .number("bytes", counters.relief_frames * FRAME_SIZE)
                .number("actual", status.actual * FRAME_SIZE);
            if let Some(error) = &self.refused {
                line.display("error", error);
            }
        });
        emit(&status);
        match self.refused {
            // Without the feature it is as it has to be.
            Some(ReliefError::Forbidden | ReliefError::Empty | ReliefError::Stopped) | None => {}
            Some(error) => warn!("{}: memory ran out: {error}", self.balloon.name()),
        }
    }

    /// Reports that the device returns no requests: what is in flight, what it returned before, and the usual causes.
    fn tell_silence(&self, status: &BalloonStatus) {
        let answers = self.balloon.counters().answers();
        let [taken, returned, reported] =
            [status.inflating, status.deflating, status.reporting].map(|frames| frames * FRAME_SIZE);
        let message = format!(
            "the device has returned no requests for seconds, though its registers answer. In flight: {} MiB to inflate, \
             {} MiB to deflate, {} MiB reported as free; {answers} requests returned before. The host's target is not \
             known. The usual causes: an IOMMU that blocks the device's access to memory, or a device that is stuck; \
             `reset {}` at the console restarts it",
            taken >> 20,
            returned >> 20,
            reported >> 20,
            self.balloon.name()
        );
        warn!("{}: {message}", self.balloon.name());
        serial::emit("silent", |line| {
            line.text("name", self.balloon.name())
                .number("inflating", taken)
                .number("deflating", returned)
                .number("reporting", reported)
                .number("answers", answers)
                .text("message", &message);
        });
    }

    fn tell_answers(&self) {
        info!("{}: the device answers again", self.balloon.name());
        serial::emit("answers", |line| {
            line.text("name", self.balloon.name());
        });
    }

    fn tell_reported(&self) {
        let bytes = self.balloon.counters().reported_frames * FRAME_SIZE;
        serial::emit("report", |line| {
            line.text("name", self.balloon.name()).number("bytes", bytes);
        });
    }

    /// Tells of a round of hints that is over.
    fn tell_hints(&self) {
        let Some(report) = self.balloon.last_hints() else { return };
        let (name, outcome, bytes) = (self.balloon.name(), report.outcome.word(), report.frames * FRAME_SIZE);
        serial::emit("hint", |line| {
            line.text("name", name).number("id", report.id.into()).number("bytes", bytes).text("outcome", outcome);
        });
        if serial::is_text() {
            info!(
                "{name}: the host need not copy {} MiB of free memory (round {:#x}, {outcome})",
                bytes >> 20,
                report.id
            );
        }
    }

    /// Tells that the host is done, and what was hinted is free again.
    fn tell_unhinted(&self) {
        serial::emit("unhint", |line| {
            line.text("name", self.balloon.name());
        });
        if serial::is_text() {
            info!("{}: the host is done copying", self.balloon.name());
        }
    }

    fn tell_progress(&self, status: &BalloonStatus, ansi: bool) {
        emit(status);
        // On a terminal the movement stands in the status line, which whoever draws that takes from `Balloons`.
        if let Some(movement) = self.movement.filter(|_| !ansi && serial::is_text()) {
            info!("{}: {movement}", self.balloon.name());
        }
    }

    /// Tells how frames go to the host, if that is news.
    fn tell_manner(&mut self) {
        let manner = self.balloon.manner();
        if self.manner.replace(manner) == Some(manner) {
            return;
        }
        serial::emit("manner", |line| {
            line.text("name", self.balloon.name())
                .display("request", &manner.request)
                .text("chains", manner.chains.word())
                .text("way", manner.way.map_or("plain", Way::word));
            if let Some(rates) = manner.rates {
                line.number("report_first", rates.report_first).number("plain", rates.plain);
            }
        });
    }

    fn finish(&mut self, status: &BalloonStatus) {
        self.tell_manner();
        emit(status);
        if let Some(movement) = self.movement.take() {
            self.moved = Some(movement);
            if serial::is_text() {
                info!("{}: {movement} in {} ms", self.balloon.name(), movement.elapsed() / 1_000_000);
            }
        }
    }

    fn tell_short(&mut self, status: &BalloonStatus) {
        let (actual, target) = (status.actual * FRAME_SIZE, status.target * FRAME_SIZE);
        let counts = frames::counts();
        let mib = |frames: u64| (frames * FRAME_SIZE) >> 20;
        // A host counts memory as the guest's that the guest may not use, or not find.
        let reason = if target > counts.total * FRAME_SIZE {
            format!("because the guest has only {} MiB, and needs the rest itself", mib(counts.total))
        } else {
            format!(
                "because {} MiB are in use, and the kernel keeps {} MiB free for itself",
                mib(counts.used),
                mib(counts.free)
            )
        };
        let message =
            format!("the host asks for {} MiB; the balloon stops at {} MiB, {reason}", target >> 20, actual >> 20);
        self.movement = None;
        emit(status);
        warn!("{}: {message}", self.balloon.name());
        serial::emit("floor", |line| {
            line.number("target", target).number("actual", actual).text("message", &message);
        });
    }
}

/// When free memory is reported, as the command line has it.
fn report_policy(options: &boot::Options<'_>) -> ReportPolicy {
    let default = ReportPolicy::default();
    let frames = |bytes: Option<u64>, default| bytes.map_or(default, |bytes| bytes / FRAME_SIZE);
    ReportPolicy {
        age: options.report_age.map_or(default.age, |ms| ms * 1_000_000),
        threshold: frames(options.report_threshold, default.threshold),
        budget: frames(options.report_budget, default.budget),
    }
}

fn emit(status: &BalloonStatus) {
    serial::emit("balloon", |line| {
        line.number("target", status.target * FRAME_SIZE).number("actual", status.actual * FRAME_SIZE);
    });
}
