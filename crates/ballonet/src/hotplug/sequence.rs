//! The states of a slot: a state machine without I/O.
//!
//! ```text
//!            card comes                       link is up, card answers         added
//!   Off ──────────────────▶ Rising ─▶ Settling ──────────────────────▶ Adding ──────▶ On
//!    ▲  button ─▶ ButtonGrace ───▲  │         │                             │            │
//!    │                           └─────────┴──────────┬──────────────────┘            │ button ─▶ ButtonGrace
//!    │                                                ▼                               ▼ card or link lost
//!    └─────────────────────── Draining ◀────────── Falling ◀───────────────────── Removing
//! ```
//!
//! A press of the button starts a change that a second press cancels; in between the power indicator blinks
//! (6.7.1.5). A card that appears is powered at once. If its presence or link changes while it is on, it counts as
//! removed even if a card is there now: it may be another one.

use derive_more::Display;

use crate::pci::express::Indicator;

const MILLISECOND: u64 = 1_000_000;

/// A slot's delays and time limits, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// From a press of the button until it takes effect; a second press cancels it (6.7.1.5).
    pub think: u64,
    /// From power-on until the link must be up, and from then until the card must answer.
    pub patience: u64,
    /// From link-up until the card is first accessed (6.6.1).
    pub settle: u64,
    /// As `settle`, if the port does not report its link state.
    pub settle_blindly: u64,
    /// From power-off until the power is surely gone (6.7.1.8).
    pub drain: u64,
    /// The time limit of a command (6.7.3.2).
    pub command: u64,
    /// Times that a card may appear within [`Timing::calm`]; more often indicates a loose contact.
    pub comings: u32,
    /// The period in which that counts.
    pub calm: u64,
}

impl Timing {
    /// For physical slots, by the specification.
    pub(crate) const STANDARD: Self = Self {
        think: 5000 * MILLISECOND,
        patience: 1000 * MILLISECOND,
        settle: 100 * MILLISECOND,
        settle_blindly: 1000 * MILLISECOND,
        drain: 1000 * MILLISECOND,
        command: 1000 * MILLISECOND,
        comings: 8,
        calm: 10_000 * MILLISECOND,
    };

    /// For virtual machines' slots: no accidental presses, no power to drain, no link to train.
    pub const PROMPT: Self = Self { think: 0, settle: 0, settle_blindly: 0, drain: 0, comings: 64, ..Self::STANDARD };
}

impl Default for Timing {
    /// For physical slots, by the specification.
    fn default() -> Self {
        Self::STANDARD
    }
}

/// A slot's stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub enum Stage {
    /// Without power.
    #[display("off")]
    Off,
    /// The button was pressed; the press takes effect at this time.
    #[display("about to switch {}", if *on { "on" } else { "off" })]
    ButtonGrace {
        /// Whether to switch power on.
        on: bool,
        /// When, in nanoseconds.
        until: u64,
    },
    /// Power is on; the link must come up by this time.
    #[display("waiting for the link")]
    Rising {
        /// In nanoseconds.
        until: u64,
    },
    /// The link is up: the card is left alone for a while, then must answer.
    #[display("waiting for the card")]
    Settling {
        /// When it may be accessed, in nanoseconds.
        from: u64,
        /// When it must have answered.
        until: u64,
    },
    /// The devices behind the port are being added.
    #[display("adding devices")]
    Adding,
    /// Powered and in use.
    #[display("on")]
    On,
    /// The devices behind the port are being removed.
    #[display("removing devices")]
    Removing,
    /// Power is being switched off.
    #[display("switching off")]
    Falling,
    /// Power is off; by this time it has drained.
    #[display("losing power")]
    Draining {
        /// In nanoseconds.
        until: u64,
    },
}

/// The observed state and events of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct SlotInputs {
    /// The button was pressed.
    pub pressed: bool,
    /// A card has appeared or disappeared, or the latch moved.
    pub card_changed: bool,
    /// The link has come up or gone down.
    pub link_changed: bool,
    /// There was a power fault.
    pub power_fault: bool,
    /// A card is present, and its latch is closed.
    pub present: bool,
    /// The link is up, or the port does not report it.
    pub link: bool,
    /// The card answers.
    pub answers: bool,
    /// The slot is in the state of [`Sequence::lamps`] and no command is pending.
    pub settled: bool,
}

/// The wanted state of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotOutputs {
    /// Whether the slot has power.
    pub power: bool,
    /// The power indicator.
    pub power_indicator: Indicator,
    /// The attention indicator.
    pub attention_indicator: Indicator,
}

/// What the caller must do with the devices behind the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Find and start them; then call `Sequence::added`.
    Add,
    /// Stop and forget them; then call `Sequence::removed`.
    Remove {
        /// They are already gone.
        surprise: bool,
    },
}

/// Why a slot was powered off, or stays off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub enum SlotFault {
    /// The link did not come up, or went down again.
    #[display("the link does not come up")]
    NoLink,
    /// The card does not answer.
    #[display("the card does not answer")]
    NoAnswer,
    /// There was a power fault.
    #[display("there was a power fault")]
    PowerFault,
    /// The card disappeared before it was up.
    #[display("the card was removed before it was up")]
    Left,
    /// No device behind the port could be started.
    #[display("no device behind it could be started")]
    NothingUp,
    /// The card comes and goes too often.
    #[display("the card came {_0} times in a short while; the slot stays off until it calms down")]
    LooseContact(u32),
}

/// The outcome of [`Sequence::step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "the task is given once"]
pub(crate) struct Step {
    /// The next task, if any.
    pub task: Option<Task>,
    /// What went wrong, if anything.
    pub trouble: Option<SlotFault>,
}

impl Step {
    const NOTHING: Self = Self { task: None, trouble: None };
}

/// The state machine of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sequence {
    stage: Stage,
    timing: Timing,
    /// The last attempt failed; the attention indicator shows that.
    faulty: bool,
    /// The button was pressed while the slot was powering up.
    pressed: bool,
    /// The card being added may have been exchanged meanwhile.
    shaken: bool,
    /// A card appeared while the slot was powering down.
    newcomer: bool,
    /// Number of counted appearances, and since when.
    comings: (u32, u64),
}

impl Sequence {
    /// A slot as found: powered, with devices that are already known, or not. The first step powers a card that is
    /// off.
    pub(crate) const fn new(timing: Timing, powered: bool, present: bool) -> Self {
        let stage = match (powered, present) {
            (true, true) => Stage::On,
            (true, false) => Stage::Falling,
            (false, _) => Stage::Off,
        };
        let newcomer = present && !powered;
        Self { stage, timing, faulty: false, pressed: false, shaken: false, newcomer, comings: (0, 0) }
    }

    /// The slot's stage.
    pub(crate) const fn stage(&self) -> Stage {
        self.stage
    }

    /// The wanted state of the slot.
    pub(crate) const fn lamps(&self) -> SlotOutputs {
        let (power, power_indicator) = match self.stage {
            Stage::Off => (false, Indicator::Off),
            Stage::ButtonGrace { on: true, .. } | Stage::Falling | Stage::Draining { .. } => (false, Indicator::Blink),
            Stage::On => (true, Indicator::On),
            Stage::ButtonGrace { on: false, .. }
            | Stage::Rising { .. }
            | Stage::Settling { .. }
            | Stage::Adding
            | Stage::Removing => (true, Indicator::Blink),
        };
        let attention_indicator = if self.faulty { Indicator::On } else { Indicator::Off };
        SlotOutputs { power, power_indicator, attention_indicator }
    }

    /// When [`Sequence::step`] is due without new events, in nanoseconds.
    pub(crate) const fn due(&self) -> Option<u64> {
        match self.stage {
            Stage::ButtonGrace { until, .. } | Stage::Rising { until } | Stage::Draining { until } => Some(until),
            Stage::Settling { from, .. } => Some(from),
            Stage::Off | Stage::Adding | Stage::On | Stage::Removing | Stage::Falling => None,
        }
    }

    /// Whether it waits for something that causes no event, so that it must be polled.
    pub(crate) const fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Rising { .. } | Stage::Settling { .. } | Stage::Falling)
    }

    /// Advances by the inputs observed at `now` (nanoseconds).
    pub(crate) fn step(&mut self, signs: SlotInputs, now: u64) -> Step {
        match self.stage {
            Stage::Off => self.off(signs, now),
            Stage::ButtonGrace { on: true, until } => self.thinking_of_on(signs, now, until),
            Stage::On => self.on(signs, now),
            Stage::ButtonGrace { on: false, until } => {
                if let Some(step) = self.lost(signs) {
                    return step;
                }
                if signs.pressed {
                    self.stage = Stage::On;
                } else if now >= until {
                    return self.remove(false);
                }
                Step::NOTHING
            }
            Stage::Rising { .. } | Stage::Settling { .. } => self.coming_up(signs, now),
            Stage::Adding => {
                self.pressed |= signs.pressed;
                self.shaken |= signs.card_changed || signs.link_changed || signs.power_fault;
                Step::NOTHING
            }
            Stage::Removing => {
                self.newcomer |= signs.card_changed;
                Step::NOTHING
            }
            Stage::Falling => {
                self.newcomer |= signs.card_changed;
                if signs.settled {
                    self.stage = Stage::Draining { until: now.saturating_add(self.timing.drain) };
                }
                Step::NOTHING
            }
            Stage::Draining { until } => {
                self.newcomer |= signs.card_changed;
                if now < until {
                    return Step::NOTHING;
                }
                self.stage = Stage::Off;
                // A card that will get power again must not be shown as removable in between.
                self.off(SlotInputs { pressed: false, ..signs }, now)
            }
        }
    }

    /// The devices behind the port turned out to be gone, although the slot reported nothing.
    pub(crate) const fn lose(&mut self) {
        self.shaken = true;
    }

    /// The devices behind the port were added; `any`: there is at least one function.
    pub(crate) fn added(&mut self, any: bool) -> Option<SlotFault> {
        if self.stage != Stage::Adding {
            return None;
        }
        if any {
            self.faulty = false;
            self.stage = Stage::On;
            return None;
        }
        self.fall(SlotFault::NothingUp).trouble
    }

    /// The devices behind the port were removed.
    pub(crate) fn removed(&mut self) {
        if self.stage == Stage::Removing {
            self.stage = Stage::Falling;
        }
    }

    /// Whether to step again at once: the last step reached a stage that need not wait.
    pub(crate) const fn is_ready(&self, now: u64) -> bool {
        match self.stage {
            Stage::ButtonGrace { until, .. } | Stage::Draining { until } => now >= until,
            Stage::Off => self.newcomer,
            Stage::On => self.pressed || self.shaken,
            Stage::Rising { .. } | Stage::Settling { .. } | Stage::Adding | Stage::Removing | Stage::Falling => false,
        }
    }

    fn off(&mut self, signs: SlotInputs, now: u64) -> Step {
        let came = core::mem::take(&mut self.newcomer) || signs.card_changed;
        if !signs.present {
            return Step::NOTHING;
        }
        if came {
            return self.come(now);
        }
        if signs.pressed {
            self.stage = Stage::ButtonGrace { on: true, until: now.saturating_add(self.timing.think) };
        }
        Step::NOTHING
    }

    fn thinking_of_on(&mut self, signs: SlotInputs, now: u64, until: u64) -> Step {
        if signs.pressed || !signs.present {
            self.stage = Stage::Off;
        } else if signs.card_changed {
            return self.come(now);
        } else if now >= until {
            // A press of the button confirms that the contact is good.
            self.comings = (0, now);
            self.rise(now);
        }
        Step::NOTHING
    }

    /// A card appeared by itself.
    fn come(&mut self, now: u64) -> Step {
        let (count, since) = self.comings;
        let fresh = now.saturating_sub(since) >= self.timing.calm;
        self.comings = if fresh { (1, now) } else { (count.saturating_add(1), since) };
        if self.comings.0 > self.timing.comings {
            self.faulty = true;
            self.stage = Stage::Off;
            // Reported once.
            let told = self.comings.0 > self.timing.comings + 1;
            let trouble = SlotFault::LooseContact(self.comings.0);
            return Step { task: None, trouble: (!told).then_some(trouble) };
        }
        self.rise(now);
        Step::NOTHING
    }

    fn rise(&mut self, now: u64) {
        (self.faulty, self.pressed, self.shaken) = (false, false, false);
        self.stage = Stage::Rising { until: now.saturating_add(self.timing.patience) };
    }

    /// Powered but not yet in use. Presence and link may change now, as long as both are there in the end.
    fn coming_up(&mut self, signs: SlotInputs, now: u64) -> Step {
        self.pressed |= signs.pressed;
        if signs.power_fault {
            return self.fall(SlotFault::PowerFault);
        }
        if !signs.present {
            return self.fall(SlotFault::Left);
        }
        match self.stage {
            Stage::Rising { .. } if signs.settled && signs.link => {
                let from = now.saturating_add(self.timing.settle);
                self.stage = Stage::Settling { from, until: from.saturating_add(self.timing.patience) };
                // Without a delay, do not wait for the next poll.
                if self.timing.settle == 0 { self.coming_up(signs, now) } else { Step::NOTHING }
            }
            // The time counts from power-on.
            Stage::Rising { .. } if !signs.settled => {
                self.stage = Stage::Rising { until: now.saturating_add(self.timing.patience) };
                Step::NOTHING
            }
            Stage::Rising { until } if now >= until => self.fall(SlotFault::NoLink),
            Stage::Settling { .. } if !signs.link => self.fall(SlotFault::NoLink),
            Stage::Settling { from, .. } if now >= from && signs.answers => {
                self.stage = Stage::Adding;
                Step { task: Some(Task::Add), trouble: None }
            }
            Stage::Settling { until, .. } if now >= until => self.fall(SlotFault::NoAnswer),
            _ => Step::NOTHING,
        }
    }

    fn on(&mut self, signs: SlotInputs, now: u64) -> Step {
        let pressed = core::mem::take(&mut self.pressed) || signs.pressed;
        if let Some(step) = self.lost(signs) {
            return step;
        }
        if pressed {
            self.stage = Stage::ButtonGrace { on: false, until: now.saturating_add(self.timing.think) };
        }
        Step::NOTHING
    }

    /// Removes the devices in use if they may be gone.
    fn lost(&mut self, signs: SlotInputs) -> Option<Step> {
        let changed = core::mem::take(&mut self.shaken) || signs.card_changed || signs.link_changed;
        if signs.power_fault {
            self.faulty = true;
            let step = self.remove(true);
            self.newcomer = false;
            return Some(Step { trouble: Some(SlotFault::PowerFault), ..step });
        }
        (changed || !signs.present || !signs.link).then(|| self.remove(true))
    }

    fn remove(&mut self, surprise: bool) -> Step {
        // After a surprise removal, any card present is a new one.
        self.newcomer = surprise;
        self.stage = Stage::Removing;
        Step { task: Some(Task::Remove { surprise }), trouble: None }
    }

    /// Powers off after a failed power-up.
    const fn fall(&mut self, trouble: SlotFault) -> Step {
        self.faulty = true;
        self.newcomer = false;
        self.stage = Stage::Falling;
        Step { task: None, trouble: Some(trouble) }
    }
}

#[cfg(test)]
mod tests;
