//! A balloon's report on itself: when to poll it next, what changed, its status.

use bitflags::bitflags;

/// When to poll a balloon next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once: there is more to do.
    Now,
    /// When an interrupt says so; requests are in flight. Without interrupts: soon.
    Soon,
    /// When an interrupt says so; nothing is in flight.
    Idle,
}

bitflags! {
    /// What a call of [`super::Balloon::poll`] changed.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Changes: u16 {
        /// The host set another target.
        const TARGET = 1 << 0;
        /// The size changed, and the host has been told.
        const ACTUAL = 1 << 1;
        /// The target was reached, with nothing in flight.
        const SETTLED = 1 << 2;
        /// The balloon stops short of the target, because the platform has no more frames for it. Once for each
        /// target. [`super::Balloon::memory_freed`] or a new target makes it continue.
        const SHORT = 1 << 3;
        /// Statistics were sent.
        const STATISTICS = 1 << 4;
        /// Everything that was free has been reported: at the start, or when it was asked for.
        const FLUSHED = 1 << 5;
        /// The device was reset because it needed that, and runs again; [`super::Balloon::last_reset`] has the rest.
        const RESET = 1 << 6;
        /// A round of hints is over; [`super::Balloon::last_hints`] has the rest.
        const HINTED = 1 << 7;
        /// The host is done with hints, and the last hinted frame is the kernel's again.
        const UNHINTED = 1 << 8;
        /// The device has returned no requests for seconds: [`BalloonStatus::silent`].
        const SILENT = 1 << 9;
        /// A device that was silent has given something back.
        const ANSWERS = 1 << 10;
    }
}

/// The outcome of a call of [`super::Balloon::poll`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it says when to poll again"]
pub struct Progress {
    /// When to poll again.
    pub next: Next,
    /// What changed.
    pub changes: Changes,
}

/// How a balloon stands. Counts are in 4 KiB frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BalloonStatus {
    /// The size that the host wants.
    pub target: u64,
    /// The size that the host has confirmed.
    pub actual: u64,
    /// Frames on their way to the host.
    pub inflating: u64,
    /// Frames on their way back.
    pub deflating: u64,
    /// Free frames in reports that the host has not returned: not available meanwhile.
    pub reporting: u64,
    /// Free frames that the driver has because the host was told that it need not copy them.
    pub hinted: u64,
    /// Whether it stops short of the target because there are no more frames for it.
    pub short: bool,
    /// Whether its device is frozen: what the host has it keeps, and nothing moves.
    pub frozen: bool,
    /// Frames that were in flight when a reset of the device did not finish. It may still use them, so nothing else does, until
    /// a later reset has finished.
    pub withheld: u64,
    /// Until when it stays smaller than the host wants, because the guest lacked memory: nanoseconds on the platform's
    /// clock. `None` if nothing keeps it from growing.
    pub cooling: Option<u64>,
    /// Whether the device has returned no requests for seconds. The host's target is not known then.
    pub silent: bool,
}
