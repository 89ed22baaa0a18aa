//! Requests of checks to the host. The host signals completion by a new target of the balloon.

use core::cell::RefCell;

/// An action that only the host can perform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostAction {
    /// Only set the new target.
    Target,
    /// Ask the device for statistics, possibly repeatedly until the check ends.
    Statistics,
    /// Pause the virtual machine, and resume it.
    Pause,
    /// Save the virtual machine's state, end the VMM, and continue from that state in another one.
    Restore,
}

impl HostAction {
    /// Every action.
    pub const ALL: &'static [Self] = &[Self::Target, Self::Statistics, Self::Pause, Self::Restore];

    /// The word for it: `target`, `statistics`, `pause`, `restore`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Statistics => "statistics",
            Self::Pause => "pause",
            Self::Restore => "restore",
        }
    }

    /// The action of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.word() == word)
    }
}

/// Passes a request on to the host.
pub(crate) trait AskHost {
    /// Requests an action, after which the host sets the target to this many bytes. `false` if no host can do it.
    fn ask_host(&mut self, action: HostAction, target: u64) -> bool;
}

/// The connection to the host, shared with the observer of the run.
pub(crate) type Host<'h> = &'h RefCell<dyn AskHost + 'h>;
