//! A slot's controller: its sequence, and the registers of the port that it is behind.
//!
//! Slot control takes one command at a time; the next waits until that one is done, or has had its time (6.7.3.2). Slot
//! status is cleared by writing exactly the events that were read, so that none gets lost.

use derive_more::{Display, Error};

use super::sequence::{Sequence, SlotFault, SlotInputs, SlotOutputs, Stage, Task, Timing};
use crate::pci::express::{SlotCapabilities, SlotControl, SlotStatus};
use crate::pci::header::BusNumbers;
use crate::pci::register::VENDOR_ID;
use crate::pci::{Bdf, CapabilityError, ConfigSpace, Express, Function};

/// How often events are cleared before one that is still there is taken for stuck.
const CLEARINGS: usize = 16;
/// Polling interval of a slot that waits for something without an event: 10 ms.
const GLANCE: u64 = 10_000_000;
/// What vendor ID reads as while a function is not ready to be configured (PCIe 5.0, 2.3.2).
const NOT_READY: u16 = 0x0001;

/// What is wrong with a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum SlotError {
    /// The port's capability list is broken.
    #[display("{_0}")]
    Capability(CapabilityError),
    /// The port does not answer any more.
    #[display("port {_0} is gone")]
    Gone(#[error(not(source))] Bdf),
    /// Events are still there after they were cleared again and again. They are ignored from now on.
    #[display("port {port}: slot events {events:#06x} cannot be cleared and are ignored")]
    StuckEvents {
        /// The port.
        port: Bdf,
        /// The events, as bits of slot status.
        events: u16,
    },
    /// A command was not done in time. It and those to come are taken for done.
    #[display(
        "port {port}: slot control {control:#06x} was not completed in {ms} ms; completion is not waited for any more"
    )]
    CommandTimeout {
        /// The port.
        port: Bdf,
        /// What was written to slot control.
        control: u16,
        /// The time that it had.
        ms: u64,
    },
    /// The slot was switched off, or stays off.
    #[display("port {port}: {trouble}")]
    SlotFault {
        /// The port.
        port: Bdf,
        /// Why.
        #[error(not(source))]
        trouble: SlotFault,
    },
}

/// What a look at a slot led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "the task is given once"]
pub struct SlotReport {
    /// What the caller must do with the devices behind the port; then [`Slot::added`](super::Slot::added) or [`Slot::removed`](super::Slot::removed).
    pub task: Option<Task>,
    /// What went wrong; the slot goes on as well as it can.
    pub errors: [Option<SlotError>; 3],
}

/// A command that has not been completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pending {
    control: SlotControl,
    since: u64,
}

/// The controller of a hot-plug slot. Ends by [`Controller::release`].
#[derive(Debug)]
#[must_use = "the port's interrupts stay on until the slot is released"]
pub(super) struct Controller {
    express: Express,
    capabilities: SlotCapabilities,
    reports_link: bool,
    timing: Timing,
    sequence: Sequence,
    /// Slot control as it was found.
    found: SlotControl,
    /// Slot control as it was written last.
    control: SlotControl,
    command: Option<Pending>,
    /// Events that cannot be cleared.
    ignored: SlotStatus,
    look: Option<u64>,
}

impl Controller {
    /// The hot-plug slot behind `port`; `None` if there is none.
    ///
    /// A slot that has power counts as one whose devices are known.
    ///
    /// # Errors
    /// When the port's capability list is broken, or the port does not answer.
    pub(super) fn find<C: ConfigSpace>(config: &C, port: &Function, timing: Timing) -> Result<Option<Self>, SlotError> {
        let Some(express) = Express::find(config, port).map_err(SlotError::Capability)? else { return Ok(None) };
        if !express.has_slot() {
            return Ok(None);
        }
        let capabilities = express.slot_capabilities(config);
        if !capabilities.contains(SlotCapabilities::HOT_PLUG) {
            return Ok(None);
        }
        if !port.is_present(config) {
            return Err(SlotError::Gone(port.bdf));
        }
        let reports_link = express.reports_link(config);
        let timing = Timing { settle: if reports_link { timing.settle } else { timing.settle_blindly }, ..timing };
        let found = express.slot_control(config);
        let mut new = Self {
            express,
            capabilities,
            reports_link,
            timing,
            sequence: Sequence::new(timing, true, true),
            found,
            control: found,
            command: None,
            ignored: SlotStatus::empty(),
            look: None,
        };
        let powered =
            !capabilities.contains(SlotCapabilities::POWER_CONTROLLER) || !found.contains(SlotControl::POWER_OFF);
        let signs = new.signs(config, SlotStatus::empty(), express.slot_status(config));
        new.sequence = Sequence::new(timing, powered && (signs.link || !signs.present), signs.present);
        Ok(Some(new))
    }

    /// The port.
    pub(super) const fn port(&self) -> Bdf {
        self.express.function()
    }

    /// The port's PCI Express capability.
    pub(super) const fn express(&self) -> &Express {
        &self.express
    }

    /// The number that is written on the slot.
    pub(super) const fn number(&self) -> u16 {
        self.capabilities.number()
    }

    /// Where it is.
    pub(super) const fn stage(&self) -> Stage {
        self.sequence.stage()
    }

    /// When to poll it if no interrupt comes before, in nanoseconds.
    pub(super) const fn next_look(&self) -> Option<u64> {
        self.look
    }

    /// Starts, at `now` (nanoseconds): what happened before is forgotten, and from now on the port interrupts for what
    /// happens. Call [`Controller::poll`] at once.
    pub(super) fn start<C: ConfigSpace>(&mut self, config: &mut C, now: u64) {
        self.express.clear_events(config, SlotStatus::EVENTS);
        self.look = Some(now);
        self.control_to(config, now);
    }

    /// Looks at the slot at `now` (nanoseconds): takes what has happened, `noted` by an interrupt handler or not, and
    /// goes on. The work of a call is bounded.
    ///
    /// # Errors
    /// When the port does not answer any more. Everything behind it is gone too.
    pub(super) fn poll<C: ConfigSpace>(
        &mut self,
        config: &mut C,
        mut noted: impl FnMut() -> SlotStatus,
        now: u64,
    ) -> Result<SlotReport, SlotError> {
        let mut report = SlotReport::default();
        let [stuck, late, went_wrong] = &mut report.errors;
        let (events, status, remain) = self.take_events(config, &mut noted)?;
        *stuck = remain;
        *late = self.complete(events, now);
        let mut signs = self.signs(config, events, status);
        // Each pass gets a stage further, and there is no round of stages without one that waits.
        for _ in 0..4 {
            signs.settled = self.is_settled();
            let step = self.sequence.step(signs, now);
            if let Some(trouble) = step.trouble {
                *went_wrong = Some(SlotError::SlotFault { port: self.port(), trouble });
            }
            self.control_to(config, now);
            report.task = step.task;
            // What happened has had its effect.
            signs =
                SlotInputs { pressed: false, card_changed: false, link_changed: false, power_fault: false, ..signs };
            if report.task.is_some() || !self.sequence.is_ready(now) {
                break;
            }
        }
        self.look = self.when_to_look(now);
        Ok(report)
    }

    /// The devices behind the port were brought up; `any`: there is at least one function.
    pub(super) fn added<C: ConfigSpace>(&mut self, config: &mut C, any: bool, now: u64) -> Option<SlotError> {
        let trouble = self.sequence.added(any);
        self.control_to(config, now);
        self.look = Some(now);
        trouble.map(|trouble| SlotError::SlotFault { port: self.port(), trouble })
    }

    /// The devices behind the port were given up.
    pub(super) fn removed<C: ConfigSpace>(&mut self, config: &mut C, now: u64) {
        self.sequence.removed();
        self.control_to(config, now);
        self.look = Some(now);
    }

    /// The devices behind the port were found to be gone, although nothing was seen of the slot: they are to be given up,
    /// and the card is to get power anew.
    pub(super) const fn lose(&mut self, now: u64) {
        self.sequence.lose();
        self.look = Some(now);
    }

    /// Cuts the card's power, whatever the sequence wants.
    pub(super) fn cut_power<C: ConfigSpace>(&self, config: &mut C) {
        let control = self.express.slot_control(config) | SlotControl::POWER_OFF;
        self.express.set_slot_control(config, control);
    }

    /// Leaves the slot alone from now on: its port interrupts as it was found to. Power and indicators stay as they are.
    pub(super) fn release<C: ConfigSpace>(&self, config: &mut C) {
        let interrupts = every_interrupt();
        self.express
            .set_slot_control(config, self.control.difference(interrupts) | self.found.intersection(interrupts));
    }

    /// Reads and clears events until there are none. Returns them, with the status that was read last, and the error if
    /// some cannot be cleared.
    fn take_events<C: ConfigSpace>(
        &mut self,
        config: &mut C,
        noted: &mut impl FnMut() -> SlotStatus,
    ) -> Result<(SlotStatus, SlotStatus, Option<SlotError>), SlotError> {
        let port = self.port();
        let mut events = SlotStatus::empty();
        for _ in 0..CLEARINGS {
            let status = self.express.slot_status(config);
            if status.bits() == u16::MAX && config.read16(port, VENDOR_ID) == u16::MAX {
                return Err(SlotError::Gone(port));
            }
            let new = status.intersection(SlotStatus::EVENTS).difference(self.ignored);
            // Only after the register was read: a handler that clears an event meanwhile has noted it before.
            events |= noted().difference(self.ignored);
            if new.is_empty() {
                return Ok((events, status, None));
            }
            events |= new;
            self.express.clear_events(config, new);
        }
        let status = self.express.slot_status(config);
        let stuck = status.intersection(SlotStatus::EVENTS).difference(self.ignored);
        self.ignored |= stuck;
        let error = SlotError::StuckEvents { port, events: stuck.bits() };
        Ok((events, status, (!stuck.is_empty()).then_some(error)))
    }

    /// Notes that a command is done, or has had its time.
    fn complete(&mut self, events: SlotStatus, now: u64) -> Option<SlotError> {
        let Pending { control, since } = self.command?;
        let done = events.contains(SlotStatus::COMMAND_COMPLETED);
        let late = now.saturating_sub(since) >= self.timing.command;
        if done || late {
            self.command = None;
        }
        if late && !done {
            // A port that does not tell once will not tell the next time either.
            self.ignored |= SlotStatus::COMMAND_COMPLETED;
        }
        (late && !done).then(|| SlotError::CommandTimeout {
            port: self.port(),
            control: control.bits(),
            ms: self.timing.command / 1_000_000,
        })
    }

    fn signs<C: ConfigSpace>(&self, config: &C, events: SlotStatus, status: SlotStatus) -> SlotInputs {
        let has = |part| self.capabilities.contains(part);
        let has_latch = has(SlotCapabilities::LATCH_SENSOR);
        let latch_moved = has_latch && events.contains(SlotStatus::LATCH_MOVED);
        let open = has_latch && status.contains(SlotStatus::LATCH_OPEN);
        let waits = matches!(self.sequence.stage(), Stage::Rising { .. } | Stage::Settling { .. });
        SlotInputs {
            pressed: has(SlotCapabilities::ATTENTION_BUTTON) && events.contains(SlotStatus::ATTENTION_BUTTON),
            card_changed: events.contains(SlotStatus::PRESENCE_CHANGED) || latch_moved,
            link_changed: self.reports_link && events.contains(SlotStatus::LINK_CHANGED),
            power_fault: has(SlotCapabilities::POWER_CONTROLLER) && events.contains(SlotStatus::POWER_FAULT),
            present: status.contains(SlotStatus::PRESENT) && !open,
            link: !self.reports_link || self.express.is_link_up(config),
            answers: waits && self.card_answers(config),
            settled: false,
        }
    }

    /// Whether there is a function behind the port that is ready to be configured.
    fn card_answers<C: ConfigSpace>(&self, config: &C) -> bool {
        let secondary = BusNumbers::read(config, self.port()).secondary;
        let first = Bdf::new(self.port().segment(), secondary, 0, 0);
        first.is_some_and(|first| !matches!(config.read16(first, VENDOR_ID), NOT_READY | u16::MAX))
    }

    /// Whether the slot is in the wanted state.
    fn is_settled(&self) -> bool {
        self.command.is_none() && self.control == self.wanted()
    }

    /// The wanted slot control.
    fn wanted(&self) -> SlotControl {
        let SlotOutputs { power, power_indicator, attention_indicator } = self.sequence.lamps();
        let has = |part| self.capabilities.contains(part);
        let mut control = self.control.difference(every_interrupt()) | self.interrupts();
        if has(SlotCapabilities::POWER_INDICATOR) {
            control = control.with_power(power_indicator);
        }
        if has(SlotCapabilities::ATTENTION_INDICATOR) {
            control = control.with_attention(attention_indicator);
        }
        if has(SlotCapabilities::POWER_CONTROLLER) {
            control.set(SlotControl::POWER_OFF, !power);
        }
        control.difference(SlotControl::INTERLOCK)
    }

    /// The interrupts to ask for: of what the slot has, and can be cleared.
    fn interrupts(&self) -> SlotControl {
        let has = |part| self.capabilities.contains(part);
        let sources = [
            (SlotControl::ATTENTION_BUTTON, SlotStatus::ATTENTION_BUTTON, has(SlotCapabilities::ATTENTION_BUTTON)),
            (SlotControl::POWER_FAULT, SlotStatus::POWER_FAULT, has(SlotCapabilities::POWER_CONTROLLER)),
            (SlotControl::LATCH, SlotStatus::LATCH_MOVED, has(SlotCapabilities::LATCH_SENSOR)),
            (SlotControl::PRESENCE, SlotStatus::PRESENCE_CHANGED, true),
            (SlotControl::COMMAND_COMPLETED, SlotStatus::COMMAND_COMPLETED, self.tells_completion()),
            (SlotControl::LINK, SlotStatus::LINK_CHANGED, self.reports_link),
        ];
        let wanted = sources.into_iter().filter(|(_, event, has)| *has && !self.ignored.contains(*event));
        wanted.fold(SlotControl::INTERRUPT, |bits, (bit, ..)| bits | bit)
    }

    fn tells_completion(&self) -> bool {
        !self.capabilities.contains(SlotCapabilities::NO_COMMAND_COMPLETED)
            && !self.ignored.contains(SlotStatus::COMMAND_COMPLETED)
    }

    /// Brings the slot to the wanted state, unless a command is in progress.
    fn control_to<C: ConfigSpace>(&mut self, config: &mut C, now: u64) {
        let control = self.wanted();
        if self.command.is_some() || control == self.control {
            return;
        }
        self.express.set_slot_control(config, control);
        self.control = control;
        if self.tells_completion() {
            self.command = Some(Pending { control, since: now });
        }
    }

    fn when_to_look(&self, now: u64) -> Option<u64> {
        let late = self.command.map(|command| command.since.saturating_add(self.timing.command));
        let behind = self.command.is_none() && !self.is_settled();
        let glance = (self.sequence.is_waiting() || behind).then(|| now.saturating_add(GLANCE));
        let at_once = self.sequence.is_ready(now).then_some(now);
        // What is due and was not done waits for a sign, which a glance finds.
        let due = self.sequence.due().filter(|due| *due > now);
        [due, late, glance, at_once].into_iter().flatten().min()
    }
}

/// All bits that ask for interrupts.
const fn every_interrupt() -> SlotControl {
    SlotControl::ATTENTION_BUTTON
        .union(SlotControl::POWER_FAULT)
        .union(SlotControl::LATCH)
        .union(SlotControl::PRESENCE)
        .union(SlotControl::COMMAND_COMPLETED)
        .union(SlotControl::INTERRUPT)
        .union(SlotControl::LINK)
}

#[cfg(test)]
mod tests;
