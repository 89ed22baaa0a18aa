//! The rounds of free page hinting (virtio 1.4, 5.5.6.5): a state machine without I/O.
//!
//! The host sets a command in the device configuration: STOP, DONE, or the id of a round, 2 or more. The driver opens a
//! round by a buffer with its id and always closes it by one with STOP, whether nothing is left to hint or the host
//! wants no more: only then may the device use the id again. Hinted frames stay with the driver until DONE.
//!
//! A command that was replaced before the driver read it was never given. The id of an opened round opens no other
//! round before DONE, however often it is read.

use crate::balloon::wire::{CMD_ID_DONE, CMD_ID_STOP};

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HintAction {
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

impl From<HintOutcome> for &'static str {
    /// Its name in logs: `complete`, `stopped`, `done` or `superseded`.
    fn from(value: HintOutcome) -> Self {
        match value {
            HintOutcome::Complete => "complete",
            HintOutcome::Stopped => "stopped",
            HintOutcome::Done => "done",
            HintOutcome::Superseded => "superseded",
        }
    }
}

/// A finished round of hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HintReport {
    /// The host's id for it.
    pub id: u32,
    /// Frames hinted in it.
    pub frames: u64,
    /// Why it ended.
    pub outcome: HintOutcome,
}

/// The host's command and the current round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct HintPlan {
    /// The host's command as last read.
    command: u32,
    /// The last opened round, unless DONE came since.
    round: Option<u32>,
    /// It is not closed yet.
    open: bool,
    /// Frames hinted in it.
    hinted: u64,
    /// Nothing is left to hint.
    exhausted: bool,
}

impl HintPlan {
    /// No round, and none wanted.
    pub(crate) const fn new() -> Self {
        Self { command: CMD_ID_STOP, round: None, open: false, hinted: 0, exhausted: false }
    }

    /// The host's command is now `command`. Returns whether it changed.
    pub(crate) fn set_command(&mut self, command: u32) -> bool {
        let changed = core::mem::replace(&mut self.command, command) != command;
        self.forget();
        changed
    }

    /// The next step.
    pub(crate) const fn next(&self) -> HintAction {
        match (self.open, self.round) {
            (true, Some(id)) if id == self.command && !self.exhausted => HintAction::Hint,
            (true, _) => HintAction::Close,
            (false, Some(id)) if id == self.command => HintAction::Rest,
            (false, _) if self.command > CMD_ID_DONE => HintAction::Open(self.command),
            (false, _) => HintAction::Rest,
        }
    }

    /// The open round, or the last one.
    pub(crate) const fn round(&self) -> Option<u32> {
        self.round
    }

    /// Whether hinted memory may be used again.
    pub(crate) const fn is_done(&self) -> bool {
        self.command == CMD_ID_DONE
    }

    /// The host has been told that the round with this id begins.
    pub(crate) const fn opened(&mut self, id: u32) {
        *self = Self { round: Some(id), open: true, hinted: 0, exhausted: false, ..*self };
    }

    /// `frames` have been hinted.
    pub(crate) const fn sent(&mut self, frames: u64) {
        self.hinted += frames;
    }

    /// Nothing is left to hint.
    pub(crate) const fn exhausted(&mut self) {
        self.exhausted = true;
    }

    /// The host has been told that the round is over. `None` if none was open.
    pub(crate) fn closed(&mut self) -> Option<HintReport> {
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
    fn an_id_opens_no_second_round_before_done() {
        let mut plan = open(7);
        assert!(!plan.set_command(7));
        plan.set_command(0);
        plan.closed();
        plan.set_command(7);
        assert_eq!(plan.next(), HintAction::Rest, "it was read and stopped");
        plan.set_command(1);
        assert_eq!((plan.next(), plan.is_done()), (HintAction::Rest, true));
        plan.set_command(7);
        assert_eq!(plan.next(), HintAction::Open(7), "the host was done with the first");
    }

    #[test]
    fn a_command_restored_before_the_driver_acts_changes_nothing() {
        let mut plan = open(7);
        for command in [9, 1, 0, 7] {
            plan.set_command(command);
        }
        assert_eq!(plan.next(), HintAction::Hint);
        plan.set_command(1);
        plan.set_command(7);
        assert_eq!(plan.next(), HintAction::Hint, "an open round is not forgotten");
    }

    #[test]
    fn a_round_superseded_before_its_opening_is_not_opened() {
        let mut plan = HintPlan::new();
        plan.set_command(7);
        plan.set_command(8);
        assert_eq!(plan.next(), HintAction::Open(8));
        plan.set_command(0);
        assert_eq!(plan.next(), HintAction::Rest);
    }

    #[test]
    fn every_id_but_stop_and_done_is_a_round() {
        for id in [2, 0x8000_0000, u32::MAX] {
            assert_eq!(open(id).round(), Some(id));
        }
    }

    proptest! {
        /// Whatever the host says and whenever the driver acts: rounds open and close in turn, each with the current
        /// id, and no id twice without DONE between.
        #[test]
        fn rounds_open_and_close_in_turn(steps in prop::collection::vec((0..5u32, any::<bool>()), 0..200)) {
            let mut plan = HintPlan::new();
            let (mut command, mut last) = (0, None);
            for (next, acts) in steps {
                plan.set_command(next);
                command = next;
                if command == 1 && !plan.open {
                    last = None;
                }
                if !acts {
                    continue;
                }
                match plan.next() {
                    HintAction::Open(id) => {
                        prop_assert!(!plan.open && id == command && id > 1 && last != Some(id));
                        last = Some(id);
                        plan.opened(id);
                    }
                    HintAction::Hint => {
                        prop_assert!(plan.open && last == Some(command));
                        plan.exhausted();
                    }
                    HintAction::Close => {
                        prop_assert!(plan.open);
                        prop_assert_eq!(plan.closed().map(|report| Some(report.id)), Some(last));
                        if command == 1 {
                            last = None;
                        }
                    }
                    HintAction::Rest => prop_assert!(!plan.open),
                }
            }
            prop_assert_eq!(plan.is_done(), command == 1);
        }
    }
}
