//! Free page hinting as the driver goes through it (virtio 1.4, 5.5.6.5): a state machine without I/O.
//!
//! The host asks for hints by a command in the device configuration: STOP, DONE, or the id of a round, 2 or more. A round is
//! opened by a buffer with its id, and closed by one with STOP, always, whether the driver has nothing left to hint or the
//! host wants no more: only then may the device use the id again. What was hinted stays the driver's until DONE.
//!
//! A command that is there no longer when the driver looks was never given. The id of a round that has been opened opens no
//! other before DONE, however often it is read.

use super::wire::{CMD_ID_DONE, CMD_ID_STOP};

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HintAction {
    /// Nothing.
    Rest,
    /// Tell the host that the round with this id begins.
    Open(u32),
    /// Hint free memory, as much as there is.
    Hint,
    /// Tell the host that the round is over.
    Close,
}

/// Why a round was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HintOutcome {
    /// Nothing was left to hint.
    Complete,
    /// The host said STOP.
    Stopped,
    /// The host said DONE.
    Done,
    /// The host asked for another round.
    Superseded,
}

impl HintOutcome {
    /// The word for it: `complete`, `stopped`, `done` or `superseded`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Stopped => "stopped",
            Self::Done => "done",
            Self::Superseded => "superseded",
        }
    }
}

/// A round of hints that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HintReport {
    /// The host's id for it.
    pub id: u32,
    /// Frames hinted in it.
    pub frames: u64,
    /// Why it is over.
    pub outcome: HintOutcome,
}

/// The state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HintPlan {
    /// What the host wants, as read last.
    command: u32,
    /// The round that was opened last, unless the host has been done since.
    round: Option<u32>,
    /// It has not been closed.
    open: bool,
    /// Frames hinted in it.
    hinted: u64,
    /// Nothing is left to hint.
    exhausted: bool,
}

impl HintPlan {
    /// No round, and none wanted.
    pub const fn new() -> Self {
        Self { command: CMD_ID_STOP, round: None, open: false, hinted: 0, exhausted: false }
    }

    /// The host's command is this now. Returns whether it is another than before.
    pub fn set_command(&mut self, command: u32) -> bool {
        let changed = core::mem::replace(&mut self.command, command) != command;
        self.forget();
        changed
    }

    /// What to do next.
    pub const fn next(&self) -> HintAction {
        match (self.open, self.round) {
            (true, Some(id)) if id == self.command && !self.exhausted => HintAction::Hint,
            (true, _) => HintAction::Close,
            (false, Some(id)) if id == self.command => HintAction::Rest,
            (false, _) if self.command > CMD_ID_DONE => HintAction::Open(self.command),
            (false, _) => HintAction::Rest,
        }
    }

    /// The round that is open, or was open last.
    pub const fn round(&self) -> Option<u32> {
        self.round
    }

    /// Whether a round is open.
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// Whether hinted memory may be used again.
    pub const fn is_done(&self) -> bool {
        self.command == CMD_ID_DONE
    }

    /// The host has been told that the round with this id begins.
    pub const fn opened(&mut self, id: u32) {
        *self = Self { round: Some(id), open: true, hinted: 0, exhausted: false, ..*self };
    }

    /// This many frames have been hinted.
    pub const fn sent(&mut self, frames: u64) {
        self.hinted += frames;
    }

    /// There is nothing left to hint.
    pub const fn exhausted(&mut self) {
        self.exhausted = true;
    }

    /// The host has been told that the round is over. `None` if none was open.
    pub fn closed(&mut self) -> Option<HintReport> {
        let id = self.round.filter(|_| self.open)?;
        let outcome = match self.command {
            CMD_ID_STOP => HintOutcome::Stopped,
            CMD_ID_DONE => HintOutcome::Done,
            command if command == id => HintOutcome::Complete,
            _ => HintOutcome::Superseded,
        };
        self.open = false;
        self.forget();
        Some(HintReport { id, frames: self.hinted, outcome })
    }

    /// After DONE any id is a new one.
    fn forget(&mut self) {
        if self.is_done() && !self.open {
            self.round = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A plan whose host has given this command, with the round for it open.
    fn open(id: u32) -> HintPlan {
        let mut plan = HintPlan::new();
        assert!(plan.set_command(id));
        assert_eq!(plan.next(), HintAction::Open(id));
        plan.opened(id);
        assert_eq!(plan.next(), HintAction::Hint);
        plan
    }

    #[test]
    fn a_round_is_opened_hinted_and_closed_when_nothing_is_left() {
        let mut plan = open(7);
        plan.sent(10);
        plan.sent(5);
        plan.exhausted();
        assert_eq!(plan.next(), HintAction::Close);
        assert_eq!(plan.closed(), Some(HintReport { id: 7, frames: 15, outcome: HintOutcome::Complete }));
        assert_eq!((plan.next(), plan.closed(), plan.is_done()), (HintAction::Rest, None, false));
    }

    #[test]
    fn the_host_ends_a_round_by_stop_done_or_another() {
        for (command, outcome) in [
            (0, HintOutcome::Stopped),
            (1, HintOutcome::Done),
            (8, HintOutcome::Superseded),
            (2, HintOutcome::Superseded),
        ] {
            let mut plan = open(7);
            plan.set_command(command);
            assert_eq!(plan.next(), HintAction::Close, "{command}");
            assert_eq!(plan.closed().map(|report| report.outcome), Some(outcome), "{command}");
            let next = if command > 1 { HintAction::Open(command) } else { HintAction::Rest };
            assert_eq!((plan.next(), plan.is_done()), (next, command == 1));
        }
    }

    #[test]
    fn the_same_id_opens_no_other_round_before_the_host_is_done() {
        let mut plan = open(7);
        assert!(!plan.set_command(7));
        plan.set_command(0);
        plan.closed();
        plan.set_command(7);
        assert_eq!(plan.next(), HintAction::Rest, "it was stopped and has been seen");
        plan.set_command(1);
        assert_eq!((plan.next(), plan.is_done()), (HintAction::Rest, true));
        plan.set_command(7);
        assert_eq!(plan.next(), HintAction::Open(7), "the host was done with the other");
    }

    #[test]
    fn a_command_that_came_back_before_the_driver_acted_changes_nothing() {
        let mut plan = open(7);
        for command in [9, 1, 0, 7] {
            plan.set_command(command);
        }
        assert_eq!(plan.next(), HintAction::Hint);
        plan.set_command(1);
        plan.set_command(7);
        assert_eq!(plan.next(), HintAction::Hint, "a round that is open is not forgotten");
    }

    #[test]
    fn a_round_that_was_superseded_before_it_was_opened_is_not_opened() {
        let mut plan = HintPlan::new();
        plan.set_command(7);
        plan.set_command(8);
        assert_eq!(plan.next(), HintAction::Open(8));
        plan.set_command(0);
        assert_eq!(plan.next(), HintAction::Rest);
    }

    #[test]
    fn every_id_that_is_neither_stop_nor_done_is_a_round() {
        for id in [2, 0x8000_0000, u32::MAX] {
            assert_eq!(open(id).round(), Some(id));
        }
    }

    proptest! {
        /// Whatever the host says and whenever the driver acts: rounds are opened and closed in turn, each by the id that
        /// stands there, and never twice the same without DONE between.
        #[test]
        fn rounds_come_one_after_the_other(steps in prop::collection::vec((0..5u32, any::<bool>()), 0..200)) {
            let mut plan = HintPlan::new();
            let (mut command, mut last) = (0, None);
            for (next, acts) in steps {
                plan.set_command(next);
                command = next;
                if command == 1 && !plan.is_open() {
                    last = None;
                }
                if !acts {
                    continue;
                }
                match plan.next() {
                    HintAction::Open(id) => {
                        prop_assert!(!plan.is_open() && id == command && id > 1 && last != Some(id));
                        last = Some(id);
                        plan.opened(id);
                    }
                    HintAction::Hint => {
                        prop_assert!(plan.is_open() && last == Some(command));
                        plan.exhausted();
                    }
                    HintAction::Close => {
                        prop_assert!(plan.is_open());
                        prop_assert_eq!(plan.closed().map(|report| Some(report.id)), Some(last));
                        if command == 1 {
                            last = None;
                        }
                    }
                    HintAction::Rest => prop_assert!(!plan.is_open()),
                }
            }
            prop_assert_eq!(plan.is_done(), command == 1);
        }
    }
}
