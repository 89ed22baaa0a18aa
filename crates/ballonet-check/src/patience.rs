//! How long the tester waits.

/// How long the tester waits, in nanoseconds, and how.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For something that must happen. A device that takes longer has stalled.
    pub stall: u64,
    /// For something that must not happen.
    pub quiet: u64,
    /// Sleeps for this many nanoseconds, until a timer's interrupt, instead of a busy wait. It leaves the host's CPU to
    /// the VMM; and one that emulates the timer in its main loop, as QEMU does without KVM, has served the device before
    /// the CPU wakes for the second time, however busy the host is.
    pub sleep: Option<fn(u64)>,
}

impl Default for Patience {
    /// Two seconds, most of which a busy host may steal; 4 ms for what must not happen; and no sleep.
    fn default() -> Self {
        Self { stall: 2_000_000_000, quiet: 4_000_000, sleep: None }
    }
}
