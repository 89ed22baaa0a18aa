//! A balloon's status: when to poll it next, what changed, its state, its last reset.

use bitflags::bitflags;

use super::error::BalloonError;
use super::policy::hint_plan::HintReport;
use super::policy::tuning::SendStrategy;
use super::queue_numbers::BalloonQueue;
use crate::platform::DeviceAddress;
use crate::virtio::spec::Features;
use crate::virtio::{InterruptMode, RingFormat, TransportKind};

/// When to poll a balloon next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once: there is more to do.
    Now,
    /// At the next interrupt; requests are in flight. Without interrupts: soon.
    Soon,
    /// At the next interrupt; nothing is in flight.
    Idle,
}

bitflags! {
    /// What a call of [`super::Balloon::poll`] changed.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Changes: u16 {
        /// The host set another target.
        const TARGET = 1 << 0;
        /// The size changed, and was written for the host.
        const ACTUAL = 1 << 1;
        /// The target was reached, with nothing in flight.
        const SETTLED = 1 << 2;
        /// The balloon stops short of the target because the platform has no more frames for it. Reported once per
        /// target; [`super::Balloon::memory_freed`] or a new target makes it continue.
        const SHORT = 1 << 3;
        /// Statistics were sent.
        const STATISTICS = 1 << 4;
        /// All free memory has been reported: at the start, or on request.
        const FLUSHED = 1 << 5;
        /// The device needed a reset and runs again: [`BalloonStatus::last_reset`].
        const RESET = 1 << 6;
        /// A round of hints is over: [`BalloonStatus::last_hints`].
        const HINTED = 1 << 7;
        /// The host is done with hints, and all hinted frames have returned to the kernel.
        const UNHINTED = 1 << 8;
        /// The device has returned no requests for seconds: [`BalloonStatus::silent`].
        const SILENT = 1 << 9;
        /// A silent device has returned a request.
        const ANSWERS = 1 << 10;
    }
}

/// The outcome of [`super::Balloon::poll`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it tells when to poll again"]
#[non_exhaustive]
pub struct Progress {
    /// When to poll again.
    pub next: Next,
    /// What changed.
    pub changes: Changes,
}

impl Progress {
    /// Nothing to do, and nothing changed.
    pub(super) const IDLE: Self = Self { next: Next::Idle, changes: Changes::empty() };
    /// The device was reset and runs again.
    pub(super) const RESET: Self = Self { next: Next::Now, changes: Changes::RESET };
}

/// The state of a balloon and its device. Counts are in 4 KiB frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BalloonStatus {
    /// The device's address.
    pub address: DeviceAddress,
    /// The negotiated features.
    pub features: Features,
    /// The transport.
    pub transport: TransportKind,
    /// The format of the queues.
    pub ring: RingFormat,
    /// How the device interrupts.
    pub interrupts: InterruptMode,
    /// The size that the host wants.
    pub target: u64,
    /// The size that the host has confirmed.
    pub actual: u64,
    /// Frames in inflate requests.
    pub inflating: u64,
    /// Frames in deflate requests.
    pub deflating: u64,
    /// Free frames in reports in flight, which cannot be allocated.
    pub reporting: u64,
    /// Free frames that the driver holds because they were hinted to the host.
    pub hinted: u64,
    /// Whether it stops short of the target because there are no more frames for it.
    pub short: bool,
    /// Whether its device is frozen: the host keeps its frames, and nothing moves.
    pub frozen: bool,
    /// Frames that were in flight when a reset of the device did not finish. The device may still use them, so nothing
    /// else may until a later reset finishes.
    pub withheld: u64,
    /// Until when it stays smaller than the host wants because the guest was short of memory, in nanoseconds on the
    /// platform's clock; `None` outside of a cooldown.
    pub cooling: Option<u64>,
    /// Whether the device has returned no requests for seconds. The host's target is then unknown.
    pub silent: bool,
    /// How frames go to the host, as far as measured.
    pub strategy: SendStrategy,
    /// Why the driver gave up, if it did.
    pub failed: Option<BalloonError>,
    /// The last reset that the driver recovered from.
    pub last_reset: Option<ResetReport>,
    /// The last finished round of hints.
    pub last_hints: Option<HintReport>,
}

/// Why a device was reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetReason {
    /// The device requested it (`DEVICE_NEEDS_RESET`, virtio 1.4, 2.1.1).
    NeedsReset,
    /// The kernel requested it.
    Asked,
    /// The device did not complete a request of several descriptors. It gets no more of them.
    Unanswered,
}

impl From<ResetReason> for &'static str {
    /// Its name in logs: `needs-reset`, `asked` or `unanswered`.
    fn from(value: ResetReason) -> Self {
        match value {
            ResetReason::NeedsReset => "needs-reset",
            ResetReason::Asked => "asked",
            ResetReason::Unanswered => "unanswered",
        }
    }
}

/// A reset, and the frames in flight at that time. Counts are in 4 KiB frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResetReport {
    /// Why.
    pub reason: ResetReason,
    /// The queue that was reset; `None` for the whole device.
    pub queue: Option<BalloonQueue>,
    /// Frames being inflated. After a reset of the device they are free; after one of a queue they are still in flight.
    pub inflating: u64,
    /// Frames being deflated. After a reset of the device they are still ballooned; after one of a queue they are still
    /// in flight.
    pub deflating: u64,
}
