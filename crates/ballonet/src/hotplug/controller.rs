//! A slot's controller: its sequence, and the registers of its port.
//!
//! Slot control takes one command at a time; the next one waits until that is complete or its time limit has passed
//! (6.7.3.2). Slot status is cleared by writing exactly the events that were read, so that none is lost.

use derive_more::{Display, Error};

use super::sequence::{Sequence, SlotFault, SlotInputs, SlotOutputs, Stage, Task, Timing};
use crate::pci::express::{SlotCapabilities, SlotControl, SlotStatus};
use crate::pci::header::BusNumbers;
use crate::pci::register::VENDOR_ID;
use crate::pci::{Bdf, CapabilityError, ConfigSpace, Express, Function};

/// After this many clearings an event that stays set counts as stuck.
const CLEARINGS: usize = 16;
/// Polling interval of a slot that waits for something without an event: 10 ms.
const GLANCE: u64 = 10_000_000;
/// The vendor ID of a function that is not ready for configuration (PCIe 5.0, 2.3.2).
const NOT_READY: u16 = 0x0001;

/// A slot's errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum SlotError {
    /// The port's capability list is broken.
    #[display("{_0}")]
    Capability(CapabilityError),
    /// The port no longer responds.
    #[display("port {_0} is gone")]
    Gone(#[error(not(source))] Bdf),
    /// Events stay set after repeated clearing. They are ignored from now on.
    #[display("port {port}: slot events {events:#06x} cannot be cleared and are ignored")]
    StuckEvents {
        /// The port.
        port: Bdf,
        /// The events, as bits of slot status.
        events: u16,
    },
    /// A command did not complete in time. It and all later ones count as complete.
    #[display(
        "port {port}: slot control {control:#06x} was not completed in {ms} ms; not waiting for completions any more"
    )]
    CommandTimeout {
        /// The port.
        port: Bdf,
        /// The value written to slot control.
        control: u16,
        /// The time limit.
        ms: u64,
    },
    /// The slot was powered off, or stays off.
    #[display("port {port}: {trouble}")]
    SlotFault {
        /// The port.
        port: Bdf,
        /// Why.
        #[error(not(source))]
        trouble: SlotFault,
    },
}

/// The result of polling a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "the task is given once"]
pub struct SlotReport {
    /// What the caller must do with the devices behind the port; then [`Slot::added`](super::Slot::added) or
    /// [`Slot::removed`](super::Slot::removed).
    pub task: Option<Task>,
    /// What went wrong; the slot continues as well as it can.
    pub errors: [Option<SlotError>; 3],
}

/// A command that is not complete.
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
    /// Slot control as found.
    found: SlotControl,
    /// Slot control as last written.
    control: SlotControl,
    command: Option<Pending>,
    /// Events that cannot be cleared.
    ignored: SlotStatus,
    look: Option<u64>,
}

impl Controller {
    /// The hot-plug slot behind `port`; `None` if there is none.
    ///
    /// If the slot has power, its devices count as known.
    ///
    /// # Errors
    /// When the port's capability list is broken, or the port does not respond.
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

    /// The physical slot number.
    pub(super) const fn number(&self) -> u16 {
        self.capabilities.number()
    }

    /// Its stage.
    pub(super) const fn stage(&self) -> Stage {
        self.sequence.stage()
    }

    /// When to poll it without an interrupt, in nanoseconds.
    pub(super) const fn next_look(&self) -> Option<u64> {
        self.look
    }

    /// Starts at `now` (nanoseconds): drops earlier events and enables the port's interrupts. Call
    /// [`Controller::poll`] at once.
    pub(super) fn start<C: ConfigSpace>(&mut self, config: &mut C, now: u64) {
        self.express.clear_events(config, SlotStatus::EVENTS);
        self.look = Some(now);
        self.control_to(config, now);
    }

    /// Serves the slot at `now` (nanoseconds): takes all events, `noted` by an interrupt handler or not, and
    /// advances. The work per call is bounded.
    ///
    /// # Errors
    /// When the port no longer responds. Then everything behind it is gone too.
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
        // Each pass advances by a stage, and every cycle of stages has one that waits.
        for _ in 0..4 {
            signs.settled = self.is_settled();
            let step = self.sequence.step(signs, now);
            if let Some(trouble) = step.trouble {
                *went_wrong = Some(SlotError::SlotFault { port: self.port(), trouble });
            }
            self.control_to(config, now);
            report.task = step.task;
            // The events have taken effect.
            signs =
                SlotInputs { pressed: false, card_changed: false, link_changed: false, power_fault: false, ..signs };
            if report.task.is_some() || !self.sequence.is_ready(now) {
                break;
            }
        }
        self.look = self.when_to_look(now);
        Ok(report)
    }

    /// The devices behind the port were added; `any`: there is at least one function.
    pub(super) fn added<C: ConfigSpace>(&mut self, config: &mut C, any: bool, now: u64) -> Option<SlotError> {
        let trouble = self.sequence.added(any);
        self.control_to(config, now);
        self.look = Some(now);
        trouble.map(|trouble| SlotError::SlotFault { port: self.port(), trouble })
    }

    /// The devices behind the port were removed.
    pub(super) fn removed<C: ConfigSpace>(&mut self, config: &mut C, now: u64) {
        self.sequence.removed();
        self.control_to(config, now);
        self.look = Some(now);
    }

    /// The devices behind the port turned out to be gone, although the slot reported nothing: they must be removed,
    /// and the card must be powered again.
    pub(super) const fn lose(&mut self, now: u64) {
        self.sequence.lose();
        self.look = Some(now);
    }

    /// Cuts the card's power, whatever the sequence's state.
    pub(super) fn cut_power<C: ConfigSpace>(&self, config: &mut C) {
        let control = self.express.slot_control(config) | SlotControl::POWER_OFF;
        self.express.set_slot_control(config, control);
    }

    /// Stops serving the slot and restores the port's interrupt enables. Power and indicators stay as they are.
    pub(super) fn release<C: ConfigSpace>(&self, config: &mut C) {
        let interrupts = every_interrupt();
        self.express
            .set_slot_control(config, self.control.difference(interrupts) | self.found.intersection(interrupts));
    }

    /// Reads and clears events until there are none. Returns them, the last status, and the error if some cannot be
    /// cleared.
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
            // Read after the register: a handler records an event before it clears it.
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

    /// Records that the command is complete or its time limit has passed.
    fn complete(&mut self, events: SlotStatus, now: u64) -> Option<SlotError> {
        let Pending { control, since } = self.command?;
        let done = events.contains(SlotStatus::COMMAND_COMPLETED);
        let late = now.saturating_sub(since) >= self.timing.command;
        if done || late {
            self.command = None;
        }
        if late && !done {
            // A port that fails to report a completion once will not report the next either.
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

    /// Whether a function behind the port is ready for configuration.
    fn card_answers<C: ConfigSpace>(&self, config: &C) -> bool {
        let secondary = BusNumbers::read(config, self.port()).secondary;
        let first = Bdf::new(self.port().segment(), secondary, 0, 0);
        first.is_some_and(|first| !matches!(config.read16(first, VENDOR_ID), NOT_READY | u16::MAX))
    }

    /// Whether the slot is in the desired state.
    fn is_settled(&self) -> bool {
        self.command.is_none() && self.control == self.wanted()
    }

    /// The desired slot control.
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

    /// The interrupts to enable: for the slot's features, unless they cannot be cleared.
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

    /// Moves the slot to the desired state, unless a command is pending.
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
        // An overdue step waits for a condition that only polling detects.
        let due = self.sequence.due().filter(|due| *due > now);
        [due, late, glance, at_once].into_iter().flatten().min()
    }
}

/// All interrupt enable bits.
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
