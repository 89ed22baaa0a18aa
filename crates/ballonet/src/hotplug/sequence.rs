//! What a slot goes through: a state machine without I/O.
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
//! A press of the button starts what a second press takes back; in between the power indicator blinks (6.7.1.5). A card
//! that comes is powered at once. One whose presence or link has changed while it was on is taken for gone, even if
//! there is one again: nobody knows that it is the same.

use derive_more::Display;

use crate::pci::express::Indicator;

const MILLISECOND: u64 = 1_000_000;

/// How long a slot waits for what, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// From a press of the button until it counts; a second press takes it back (6.7.1.5).
    pub think: u64,
    /// From when power is switched on until the link has to be up, and from then until the card has to answer.
    pub patience: u64,
    /// From when the link is up until the card is spoken to (6.6.1).
    pub settle: u64,
    /// The same, where the port does not tell whether its link is up.
    pub settle_blindly: u64,
    /// From when power is switched off until it is taken for gone (6.7.1.8).
    pub drain: u64,
    /// From a command until it has to be done (6.7.3.2).
    pub command: u64,
    /// Times that a card may appear within [`Timing::calm`]; more is a loose contact.
    pub comings: u32,
    /// The time within which that counts.
    pub calm: u64,
}

impl Timing {
    /// For slots that a hand reaches into: as the specification has it.
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

    /// For slots of virtual machines: nobody presses by mistake, and there is no power to drain nor a link to train.
    pub const PROMPT: Self = Self { think: 0, settle: 0, settle_blindly: 0, drain: 0, comings: 64, ..Self::STANDARD };
}

impl Default for Timing {
    /// As the specification has it, for slots that a hand reaches into.
    fn default() -> Self {
        Self::STANDARD
    }
}

/// Where a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub enum Stage {
    /// Without power.
    #[display("off")]
    Off,
    /// The button was pressed: at this moment it counts.
    #[display("about to switch {}", if *on { "on" } else { "off" })]
    ButtonGrace {
        /// Whether to switch power on.
        on: bool,
        /// When, in nanoseconds.
        until: u64,
    },
    /// Power is on, and the link has until then to come up.
    #[display("waiting for the link")]
    Rising {
        /// In nanoseconds.
        until: u64,
    },
    /// The link is up, and the card is left alone for a while, and then has a while to answer.
    #[display("waiting for the card")]
    Settling {
        /// When it may be spoken to, in nanoseconds.
        from: u64,
        /// When it has to answer.
        until: u64,
    },
    /// The devices behind the port are being brought up.
    #[display("bringing devices up")]
    Adding,
    /// With power, and in use.
    #[display("on")]
    On,
    /// The devices behind the port are being given up.
    #[display("giving devices up")]
    Removing,
    /// Power is being switched off.
    #[display("switching off")]
    Falling,
    /// Power is off, and what is left of it is gone then.
    #[display("losing power")]
    Draining {
        /// In nanoseconds.
        until: u64,
    },
}

/// What was seen of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct SlotInputs {
    /// The button was pressed.
    pub pressed: bool,
    /// A card has come or gone, or the latch was moved.
    pub card_changed: bool,
    /// The link has come up or gone down.
    pub link_changed: bool,
    /// There was a power fault.
    pub power_fault: bool,
    /// There is a card, and the latch that holds it is closed.
    pub present: bool,
    /// The link is up, or the port does not tell.
    pub link: bool,
    /// The card answers.
    pub answers: bool,
    /// The slot is as [`Sequence::lamps`] said, and has no command to carry out.
    pub settled: bool,
}

/// The wanted state of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotOutputs {
    /// Whether it has power.
    pub power: bool,
    /// The power indicator.
    pub power_indicator: Indicator,
    /// The attention indicator.
    pub attention_indicator: Indicator,
}

/// What the caller must do with the devices behind the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Find them and bring them up; then `Sequence::added`.
    Add,
    /// Give them up; then `Sequence::removed`.
    Remove {
        /// They are gone already.
        surprise: bool,
    },
}

/// Why a slot was switched off, or stays off.
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
    /// The card was gone before it was up.
    #[display("the card was gone before it was up")]
    Left,
    /// Nothing behind the port could be brought up.
    #[display("nothing behind it could be brought up")]
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
    /// What went wrong, if anything did.
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
    /// The last attempt went wrong: the attention indicator says so.
    faulty: bool,
    /// The button was pressed while the slot was on its way up.
    pressed: bool,
    /// What was being brought up may have been exchanged meanwhile.
    shaken: bool,
    /// A card has come while the slot was on its way down.
    newcomer: bool,
    /// Comings of cards that count, and since when.
    comings: (u32, u64),
}

impl Sequence {
    /// A slot as it is found, with power (and devices that are known already) or without. A card that has none is powered
    /// by the first step.
    pub(crate) const fn new(timing: Timing, powered: bool, present: bool) -> Self {
        let stage = match (powered, present) {
            (true, true) => Stage::On,
            (true, false) => Stage::Falling,
            (false, _) => Stage::Off,
        };
        let newcomer = present && !powered;
        Self { stage, timing, faulty: false, pressed: false, shaken: false, newcomer, comings: (0, 0) }
    }

    /// Where the slot is.
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

    /// When [`Sequence::step`] is due although nothing was seen, in nanoseconds.
    pub(crate) const fn due(&self) -> Option<u64> {
        match self.stage {
            Stage::ButtonGrace { until, .. } | Stage::Rising { until } | Stage::Draining { until } => Some(until),
            Stage::Settling { from, .. } => Some(from),
            Stage::Off | Stage::Adding | Stage::On | Stage::Removing | Stage::Falling => None,
        }
    }

    /// Whether it waits for something without an event, so that it must be polled.
    pub(crate) const fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Rising { .. } | Stage::Settling { .. } | Stage::Falling)
    }

    /// Goes on, by what was seen at `now` (nanoseconds).
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
                // A card that is to have power again is not told to be free to be pulled in between.
                self.off(SlotInputs { pressed: false, ..signs }, now)
            }
        }
    }

    /// The devices behind the port were found to be gone, although nothing was seen of the slot.
    pub(crate) const fn lose(&mut self) {
        self.shaken = true;
    }

    /// The devices behind the port were brought up; `any`: there is at least one function.
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

    /// The devices behind the port were given up.
    pub(crate) fn removed(&mut self) {
        if self.stage == Stage::Removing {
            self.stage = Stage::Falling;
        }
    }

    /// Whether there is something to do at once: a step has changed the stage to one that need not wait.
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
            // A hand on the button vouches for the card.
            self.comings = (0, now);
            self.rise(now);
        }
        Step::NOTHING
    }

    /// A card appeared on its own.
    fn come(&mut self, now: u64) -> Step {
        let (count, since) = self.comings;
        let fresh = now.saturating_sub(since) >= self.timing.calm;
        self.comings = if fresh { (1, now) } else { (count.saturating_add(1), since) };
        if self.comings.0 > self.timing.comings {
            self.faulty = true;
            self.stage = Stage::Off;
            // Told once.
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

    /// With power, and not in use yet. Presence and link may change now, as long as there are both in the end.
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
                // No time to wait is no reason to wait for the next look.
                if self.timing.settle == 0 { self.coming_up(signs, now) } else { Step::NOTHING }
            }
            // The time counts from when power is on.
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

    /// Gives up the devices in use if they may be gone.
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
        // Whatever is there after a surprise came after it.
        self.newcomer = surprise;
        self.stage = Stage::Removing;
        Step { task: Some(Task::Remove { surprise }), trouble: None }
    }

    /// Switches off what did not come up.
    const fn fall(&mut self, trouble: SlotFault) -> Step {
        self.faulty = true;
        self.newcomer = false;
        self.stage = Stage::Falling;
        Step { task: None, trouble: Some(trouble) }
    }
}

#[cfg(test)]
mod tests;
