//! What checks ask of the host. By a new target of the balloon the host shows that it is done.

use core::cell::RefCell;

/// Something that only the host can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostAction {
    /// Nothing but the new target.
    Target,
    /// Ask the device for statistics. It may go on asking until the check ends.
    Statistics,
    /// Stop the virtual machine, and let it run on.
    Pause,
    /// Save the virtual machine's state, end the VMM, and go on from that state in another one.
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
    /// Has it do something, and then set the target to so many bytes. False if there is no host that does it.
    fn ask_host(&mut self, action: HostAction, target: u64) -> bool;
}

/// The way to the host, which whoever follows the run holds too.
pub(crate) type Host<'h> = &'h RefCell<dyn AskHost + 'h>;
