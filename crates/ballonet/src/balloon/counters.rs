//! Counters of a balloon's activity.

/// Counts since the driver started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Calls of [`super::Balloon::poll`].
    pub polls: u64,
    /// Calls of it after an interrupt for which there was nothing to do.
    pub spurious: u64,
    /// Kicks, of all queues.
    pub kicks: u64,
    /// Interrupts for configuration changes.
    pub config_interrupts: u64,
    /// Interrupts for used buffers.
    pub vring_interrupts: u64,
    /// Interrupts on a shared line that were not this device's.
    pub stray_interrupts: u64,
    /// Requests to take frames that the host has confirmed.
    pub inflate_requests: u64,
    /// Frames in them.
    pub inflate_frames: u64,
    /// Requests to give frames back that the host has confirmed.
    pub deflate_requests: u64,
    /// Frames in them.
    pub deflate_frames: u64,
    /// Times that statistics were sent, the first included.
    pub statistics: u64,
    /// Reports of free memory that the host has confirmed.
    pub reports: u64,
    /// Frames in them.
    pub reported_frames: u64,
    /// Frames that became free by the host's leave: asked back, or reported and not inflated afterwards.
    pub returned_frames: u64,
    /// Allocations that [`super::Balloon::relieve`] was called for.
    pub reliefs: u64,
    /// Those of them that got less than they wanted.
    pub reliefs_in_vain: u64,
    /// Frames that they got.
    pub relief_frames: u64,
    /// Rounds of hints that are over.
    pub hint_rounds: u64,
    /// Frames hinted in them, each round counted for itself.
    pub hinted_frames: u64,
    /// Hinted frames that were taken back before the host was done with them.
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
    /// Requests of all kinds that the device has given back, but for statistics, which it keeps as long as it wants.
    pub const fn answers(&self) -> u64 {
        self.inflate_requests + self.deflate_requests + self.reports
    }
}
