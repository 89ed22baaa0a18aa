//! What a driver holds while its device runs.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem::ManuallyDrop;

use super::hinter::Hinter;
use super::parts::{Parts, Unstopped, Vring};
use super::poison::Poison;
use super::probe::Doorbells;
use super::reporter::Reporter;
use super::requests::{Request, Requests};
use super::statistics::Selection;
use crate::platform::{PageFrames, Platform};
use crate::virtio::spec::Status;
use crate::virtio::{self, Kick};

/// What there is while the device runs.
pub(super) struct Running<P: Platform> {
    /// The device, its interrupts and its function.
    pub(super) virtio: virtio::Running<P>,
    pub(super) inflate: Vring<P, Request>,
    pub(super) deflate: Vring<P, Request>,
    pub(super) statistics: Option<Vring<P, ()>>,
    pub(super) hinter: Option<Hinter<P>>,
    pub(super) reporter: Option<Reporter<P>>,
    /// Queues that are set up because the device wants that, and not used.
    idle: Vec<Vring<P, ()>>,
    /// What free frames hold, if the device was told.
    pub(super) poison: Option<Poison<P>>,
    pub(super) doorbells: Doorbells,
    /// The kick for the first statistics, which waits for the device to run.
    pub(super) statistics_kick: Option<Kick>,
    pub(super) requests: Requests<P::Memory>,
    pub(super) selection: Selection,
    /// The size that the host was told; none yet.
    pub(super) told: Option<u32>,
    /// The target has never been read.
    pub(super) fresh: bool,
}

impl<P: Platform> Running<P> {
    /// The device runs with these parts, all of which are there but for the queues that come with a feature.
    pub(super) fn new(
        virtio: virtio::Running<P>,
        parts: Parts<P>,
        selection: Selection,
        statistics_kick: Option<Kick>,
    ) -> Self
    where
        P: PageFrames,
    {
        let Parts { inflate, deflate, statistics, hinter, reporter, idle, poison, requests } = parts;
        let all = "set-up makes all of them or fails";
        let (inflate, deflate) = (inflate.expect(all), deflate.expect(all));
        let doorbells = Doorbells {
            inflate: virtio.doorbell(inflate.index()),
            deflate: virtio.doorbell(deflate.index()),
            statistics: statistics.as_ref().map(|queue| virtio.doorbell(queue.index())),
            hinting: hinter.as_ref().map(|hinter| virtio.doorbell(hinter.queue().index())),
            reporting: reporter.as_ref().map(|reporter| virtio.doorbell(reporter.queue().index())),
        };
        Self {
            virtio,
            inflate,
            deflate,
            statistics,
            hinter,
            reporter,
            idle,
            poison,
            doorbells,
            statistics_kick,
            requests: requests.expect(all),
            selection,
            told: None,
            fresh: true,
        }
    }

    /// Whether the device asks for a reset.
    pub(super) fn needs_reset(&self) -> bool {
        self.virtio.device.transport().status().is_ok_and(|status| status.contains(Status::DEVICE_NEEDS_RESET))
    }

    /// Stops the device and gives everything back. With `failed`, the device is told that the driver has given up.
    ///
    /// # Errors
    /// When the device would not stop. It keeps the memory that it was given, and the frames in flight with it.
    pub(super) fn stop(self, platform: &mut P, failed: bool) -> Result<(), Unstopped<P>>
    where
        P: PageFrames,
    {
        let parts = Parts {
            inflate: Some(self.inflate),
            deflate: Some(self.deflate),
            statistics: self.statistics,
            hinter: self.hinter,
            reporter: self.reporter,
            idle: self.idle,
            poison: self.poison,
            requests: Some(self.requests),
        };
        self.virtio.quiesce(platform, failed, |platform, stopped| match stopped {
            Ok(proof) => {
                parts.release_memory(platform, &proof);
                Ok(())
            }
            Err(error) => Err(Unstopped { error, parts: ManuallyDrop::new(Box::new(parts)) }),
        })
    }
}
