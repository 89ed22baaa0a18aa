//! A hot-plug slot, as its owner sees it: its controller, and the interrupts of the port that it is behind.

use super::controller::{Controller, SlotError, SlotReport};
use super::interrupt::{SlotEvents, SlotInterrupts, SlotMode};
use super::sequence::{Stage, Timing};
use crate::pci::express::SlotStatus;
use crate::pci::{Bdf, ConfigSpace, Function, Node};
use crate::platform::{Platform, Registers};

/// A hot-plug slot. Ends by [`Slot::release`].
#[must_use = "the port's interrupts stay on until the slot is released"]
pub struct Slot<R> {
    controller: Controller,
    /// `Some` once started.
    interrupts: Option<SlotInterrupts<R>>,
}

/// The state of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotState {
    /// The port above it.
    pub port: Bdf,
    /// The physical slot number, 0 to 8191.
    pub number: u16,
    /// Its stage.
    pub stage: Stage,
    /// How the port interrupts.
    pub mode: SlotMode,
    /// Number of interrupts.
    pub interrupts: u32,
    /// When to poll it if no interrupt comes first, on the platform's clock.
    pub deadline: Option<u64>,
}

impl<R: Registers + Send + 'static> Slot<R> {
    /// The hot-plug slot behind `port`; `None` if there is none.
    ///
    /// If the slot has power, its devices count as known.
    ///
    /// # Errors
    /// When the port's capability list is broken, or the port does not respond.
    pub fn find<C: ConfigSpace>(config: &C, port: &Function, timing: Timing) -> Result<Option<Self>, SlotError> {
        let controller = Controller::find(config, port, timing)?;
        Ok(controller.map(|controller| Self { controller, interrupts: None }))
    }

    /// The slot's state.
    pub fn status(&self) -> SlotState {
        let events = self.interrupts.as_ref().map(SlotInterrupts::events);
        SlotState {
            port: self.controller.port(),
            number: self.controller.number(),
            stage: self.controller.stage(),
            mode: self.interrupts.as_ref().map_or(SlotMode::Polling, SlotInterrupts::mode),
            interrupts: events.map_or(0, SlotEvents::count),
            deadline: self.controller.next_look(),
        }
    }

    /// Starts to serve the slot behind `port`; earlier events are dropped. The port interrupts in the `forced` mode, or
    /// else in the first that works; `name` is for the vector. Call [`Slot::poll`] at once.
    pub fn start<P>(&mut self, platform: &mut P, port: &Node, name: &str, forced: Option<SlotMode>)
    where
        P: Platform<Registers = R>,
    {
        let express = self.controller.express();
        self.interrupts = match SlotInterrupts::find(platform, port, express, name, forced) {
            Ok(interrupts) => Some(interrupts),
            Err(error) => {
                log::warn!("{name}: no interrupts: {error}");
                // Nothing would handle the line.
                port.function.set_intx(platform.config(), false);
                None
            }
        };
        let now = platform.now();
        self.controller.start(platform.config(), now);
    }

    /// Whether it must be polled. If called with interrupts off right before `sti; hlt`, `false` cannot be stale.
    pub fn is_pending(&self) -> bool {
        self.interrupts.as_ref().is_some_and(|interrupts| interrupts.events().is_pending())
    }

    /// Polls the slot: takes its events and advances. The work per call is bounded.
    ///
    /// # Errors
    /// When the port no longer responds. Then everything behind it is gone too.
    pub fn poll<P: Platform<Registers = R>>(&mut self, platform: &mut P) -> Result<SlotReport, SlotError> {
        let (now, interrupts) = (platform.now(), self.interrupts.as_ref());
        let noted = || interrupts.map_or(SlotStatus::empty(), |interrupts| interrupts.events().take());
        self.controller.poll(platform.config(), noted, now)
    }

    /// The devices behind the port were added; `any`: there is at least one function.
    pub fn added<P: Platform<Registers = R>>(&mut self, platform: &mut P, any: bool) -> Option<SlotError> {
        let now = platform.now();
        self.controller.added(platform.config(), any, now)
    }

    /// The devices behind the port were removed.
    pub fn removed<P: Platform<Registers = R>>(&mut self, platform: &mut P) {
        let now = platform.now();
        self.controller.removed(platform.config(), now);
    }

    /// The devices behind the port turned out to be gone, although the slot reported nothing: they must be removed,
    /// and the card is powered again.
    pub fn lose<P: Platform<Registers = R>>(&mut self, platform: &P) {
        self.controller.lose(platform.now());
    }

    /// Cuts the card's power without notice, as a fault would: for tests.
    pub fn cut_power<C: ConfigSpace>(&self, config: &mut C) {
        self.controller.cut_power(config);
    }

    /// Stops serving the slot and restores the port's interrupt enables. Power and indicators stay as they are.
    pub fn release<P: Platform<Registers = R>>(self, platform: &mut P) {
        self.controller.release(platform.config());
        self.forget(platform);
    }

    /// Releases the interrupts of a port that is gone.
    pub fn forget<P: Platform<Registers = R>>(self, platform: &mut P) {
        if let Some(interrupts) = self.interrupts {
            interrupts.release(platform);
        }
    }
}
