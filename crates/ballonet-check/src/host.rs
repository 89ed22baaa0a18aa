//! What checks ask of the host. By a new target of the balloon the host shows that it is done.

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
