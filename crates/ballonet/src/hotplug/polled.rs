//! A hot-plug slot whose port does not interrupt: its owner polls it, with configuration space and the time alone.

use super::controller::{Controller, SlotError, SlotReport};
use super::sequence::{Stage, Timing};
use crate::pci::express::SlotStatus;
use crate::pci::{Command, ConfigSpace, Function};

/// A hot-plug slot that its owner polls. Ends by [`PolledSlot::release`].
#[must_use = "the port's registers stay changed until the slot is released"]
pub struct PolledSlot {
    controller: Controller,
    port: Function,
    /// The port's command register as found.
    command: Command,
}

impl PolledSlot {
    /// The hot-plug slot behind `port`; `None` if there is none. Nothing is written yet.
    ///
    /// If the slot has power, its devices count as known.
    ///
    /// # Errors
    /// When the port's capability list is broken, or the port does not respond.
    pub fn find<C: ConfigSpace>(config: &C, port: &Function, timing: Timing) -> Result<Option<Self>, SlotError> {
        let controller = Controller::find(config, port, timing)?;
        let command = port.command(config);
        Ok(controller.map(|controller| Self { controller, port: *port, command }))
    }

    /// Its stage.
    pub const fn stage(&self) -> Stage {
        self.controller.stage()
    }

    /// When something is due without an event, in nanoseconds; `None` if the slot is in the state of its stage.
    pub const fn deadline(&self) -> Option<u64> {
        self.controller.next_look()
    }

    /// Starts to serve the slot at `now` (nanoseconds): drops earlier events, and turns the port's line off, which
    /// nothing would handle. The port's MSI and MSI-X must be off.
    pub fn start<C: ConfigSpace>(&mut self, config: &mut C, now: u64) {
        self.port.set_intx(config, false);
        self.controller.start(config, now);
    }

    /// Takes the slot's events at `now` (nanoseconds), and advances. The work per call is bounded.
    ///
    /// # Errors
    /// When the port no longer responds. Then everything behind it is gone too.
    pub fn poll<C: ConfigSpace>(&mut self, config: &mut C, now: u64) -> Result<SlotReport, SlotError> {
        self.controller.poll(config, SlotStatus::empty, now)
    }

    /// The devices behind the port were added; `any`: there is at least one function.
    pub fn added<C: ConfigSpace>(&mut self, config: &mut C, any: bool, now: u64) -> Option<SlotError> {
        self.controller.added(config, any, now)
    }

    /// The devices behind the port were removed.
    pub fn removed<C: ConfigSpace>(&mut self, config: &mut C, now: u64) {
        self.controller.removed(config, now);
    }

    /// Stops serving the slot, and restores the port's interrupt enables. Power and indicators stay as they are.
    pub fn release<C: ConfigSpace>(self, config: &mut C) {
        self.controller.release(config);
        if !self.command.contains(Command::INTX_DISABLE) {
            self.port.set_intx(config, true);
        }
    }
}
