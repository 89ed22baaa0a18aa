//! A running device: its interrupts and registers, its queues, and the last known device configuration.

use core::mem::ManuallyDrop;

use crate::balloon::platform::BalloonPlatform;
use crate::balloon::policy::reported_size::ReportedSize;
use crate::balloon::queues::Queues;
use crate::platform::Platform;
use crate::virtio::spec::Status;
use crate::virtio::{self, TransportError};

/// A running device.
pub(super) struct Running<P: Platform> {
    /// The device, its interrupts and its function.
    pub(super) virtio: virtio::Running<P>,
    pub(super) queues: Queues<P>,
    /// The size last written for the host.
    pub(super) reported_size: ReportedSize,
    /// The next round reads the device configuration even without an interrupt.
    pub(super) config_unread: bool,
}

/// A device that did not stop, and its queues. Dropping this releases nothing to the platform.
pub(super) struct Unstopped<P: Platform> {
    pub(super) error: TransportError,
    pub(super) queues: ManuallyDrop<Queues<P>>,
}

impl<P: BalloonPlatform> Running<P> {
    pub(super) fn new(virtio: virtio::Running<P>, queues: Queues<P>) -> Self {
        Self { virtio, queues, reported_size: ReportedSize::default(), config_unread: true }
    }

    /// Whether the device asks for a reset.
    pub(super) fn needs_reset(&self) -> bool {
        self.virtio.device.transport().status().is_ok_and(|status| status.contains(Status::DEVICE_NEEDS_RESET))
    }

    /// Stops the device and releases everything to the platform. With `failed`, sets FAILED.
    ///
    /// # Errors
    /// When the device does not stop. It keeps its memory, and the frames in flight with it.
    #[allow(clippy::result_large_err, reason = "a box cannot be allocated when the heap is full; once per stop")]
    pub(super) fn stop(self, platform: &mut P, failed: bool) -> Result<(), Unstopped<P>> {
        let Self { virtio, queues, .. } = self;
        virtio.quiesce(platform, failed, |platform, stopped| match stopped {
            Ok(proof) => {
                queues.release(platform, &proof);
                Ok(())
            }
            Err(error) => Err(Unstopped { error, queues: ManuallyDrop::new(queues) }),
        })
    }
}
