//! Counters of a balloon's activity.

/// Counts since the driver started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Calls of [`super::Balloon::poll`].
    pub polls: u64,
    /// Calls after an interrupt that found nothing to do.
    pub spurious: u64,
    /// Kicks, of all queues.
    pub kicks: u64,
    /// Interrupts for configuration changes.
    pub config_interrupts: u64,
    /// Interrupts for used buffers.
    pub vring_interrupts: u64,
    /// Interrupts on a shared line that were not this device's.
    pub stray_interrupts: u64,
    /// Inflate requests that the host has confirmed.
    pub inflate_requests: u64,
    /// Frames in them.
    pub inflate_frames: u64,
    /// Deflate requests that the host has confirmed.
    pub deflate_requests: u64,
    /// Frames in them.
    pub deflate_frames: u64,
    /// Statistics buffers sent, the first included.
    pub statistics: u64,
    /// Reports of free memory that the host has confirmed.
    pub reports: u64,
    /// Frames in them.
    pub reported_frames: u64,
    /// Frames that became free: deflated, or reported and not inflated afterwards.
    pub returned_frames: u64,
    /// Calls of [`super::Balloon::reclaim`].
    pub reclaims: u64,
    /// Calls that got fewer frames than they wanted.
    pub failed_reclaims: u64,
    /// Frames reclaimed.
    pub reclaimed_frames: u64,
    /// Finished rounds of hints.
    pub hint_rounds: u64,
    /// Frames hinted in them; each round counts separately.
    pub hinted_frames: u64,
    /// Hinted frames taken back before the host was done.
    pub relinquished_frames: u64,
    /// Reads of the target.
    pub target_reads: u64,
    /// Writes of the balloon's size.
    pub actual_writes: u64,
    /// Device resets that the driver recovered from, requested by either side. Freezing does not count.
    pub resets: u64,
    /// Resets of single queues.
    pub queue_resets: u64,
}

impl Counters {
    /// Requests that the device has returned, except statistics, which it may keep indefinitely.
    pub const fn answers(&self) -> u64 {
        self.inflate_requests + self.deflate_requests + self.reports
    }
}
