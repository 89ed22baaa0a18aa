//! Requests of checks to the host. The host signals completion by a new target of the balloon, or the slot of the device
//! shows it.

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
    /// Ask the guest to let go of the device in its hot-plug slot.
    Unplug,
    /// Once it has, put the same device into the slot.
    Plug,
}

impl HostAction {
    /// Every action.
    pub const ALL: &'static [Self] =
        &[Self::Target, Self::Statistics, Self::Pause, Self::Restore, Self::Unplug, Self::Plug];

    /// The word for it: `target`, `statistics`, `pause`, `restore`, `unplug`, `plug`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Statistics => "statistics",
            Self::Pause => "pause",
            Self::Restore => "restore",
            Self::Unplug => "unplug",
            Self::Plug => "plug",
        }
    }

    /// The action of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.word() == word)
    }
}

/// Passes a request on to the host.
pub(crate) trait AskHost {
    /// Requests an action, after which the host sets the target to this many bytes, if any. `false` if no host can do it.
    fn ask_host(&mut self, action: HostAction, target: Option<u64>) -> bool;
}

/// The connection to the host, shared with the observer of the run.
pub(crate) type Host<'h> = &'h RefCell<dyn AskHost + 'h>;
