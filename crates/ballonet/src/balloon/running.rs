//! What a driver holds while its device runs.

use alloc::vec::Vec;

use super::hinter::Hinter;
use super::parts::{Parts, Unstopped, Vring};
use super::poison::Poison;
use super::probe::{Doorbells, PlatformTransport, Ready};
use super::reporter::Reporter;
use super::requests::{Request, Requests};
use super::statistics::Selection;
use crate::pci::{Command, Function};
use crate::platform::{PageFrames, Platform};
use crate::virtio::spec::Status;
use crate::virtio::{Device, DriverOk, Interrupts, Kick, Transport};

/// What there is while the device runs.
pub(super) struct Running<P: Platform> {
    pub(super) device: Device<PlatformTransport<P>, DriverOk>,
    pub(super) function: Function,
    command: Command,
    pub(super) interrupts: Interrupts<P::Registers>,
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
    pub(super) fn new(device: Device<PlatformTransport<P>, DriverOk>, parts: Parts<P>, ready: Ready) -> Self {
        let Ready { doorbells, selection, statistics_kick, .. } = ready;
        let Parts { function, command, inflate, deflate, statistics, hinter, reporter, .. } = parts;
        let Parts { idle, poison, requests, interrupts, .. } = parts;
        let all = "set-up makes all of them or fails";
        Self {
            device,
            function,
            command,
            interrupts: interrupts.expect(all),
            inflate: inflate.expect(all),
            deflate: deflate.expect(all),
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
        self.device.transport().status().is_ok_and(|status| status.contains(Status::DEVICE_NEEDS_RESET))
    }

    /// Stops the device and gives everything back. With `failed`, the device is told that the driver has given up.
    ///
    /// # Errors
    /// When the device would not stop. It keeps the memory that it was given, and the frames in flight with it.
    pub(super) fn stop(self, platform: &mut P, failed: bool) -> Result<(), Unstopped<P>>
    where
        P: PageFrames,
    {
        let (transport, stopped) = self.device.quiesce(platform, failed);
        let parts = Parts {
            function: self.function,
            command: self.command,
            inflate: Some(self.inflate),
            deflate: Some(self.deflate),
            statistics: self.statistics,
            hinter: self.hinter,
            reporter: self.reporter,
            idle: self.idle,
            poison: self.poison,
            requests: Some(self.requests),
            interrupts: Some(self.interrupts),
        };
        parts.dismantle(platform, transport, stopped)
    }
}
