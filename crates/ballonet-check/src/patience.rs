//! How long the tester waits.

/// How long the tester waits, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For something that must happen. A device that takes longer has stalled.
    pub stall: u64,
    /// For something that must not happen.
    pub quiet: u64,
}

impl Default for Patience {
    /// Two seconds, most of which a busy host may steal; and 4 ms for what must not happen.
    fn default() -> Self {
        Self { stall: 2_000_000_000, quiet: 4_000_000 }
    }
}
