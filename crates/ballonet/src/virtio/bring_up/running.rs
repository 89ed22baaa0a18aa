//! A running device, and how to stop it.

use alloc::vec::Vec;

use super::parts::{Parts, give_back};
use crate::bus::DeviceAddress;
use crate::platform::Platform;
use crate::virtio::attachment::Attachment;
use crate::virtio::device::{Device, DriverOk, FeaturesOk};
use crate::virtio::handle::DeviceHandle;
use crate::virtio::interrupt::Interrupts;
use crate::virtio::queue::{Kick, QueueAddresses, QueueIndex, QueueQuiesced, Quiesced, Virtqueue};
use crate::virtio::transport::{Doorbell, TransportError};

/// A device with its queues set up, just before `DRIVER_OK`.
#[must_use = "a device does nothing before it runs"]
pub struct Connected<P: Platform> {
    pub(super) device: Device<P::Registers, FeaturesOk>,
    pub(super) attachment: Attachment,
    pub(super) interrupts: Interrupts<P::Registers>,
    pub(super) doorbells: Vec<(QueueIndex, Doorbell)>,
}

impl<P: Platform> Connected<P> {
    /// Sets `DRIVER_OK`. Queues that hold buffers already can be kicked now.
    pub fn run(self) -> Running<P> {
        let Self { device, attachment, interrupts, doorbells } = self;
        Running { device: device.driver_ok(), attachment, interrupts, doorbells }
    }
}

/// A running device, with its interrupts and doorbells. Ends by [`Running::stop`].
#[must_use = "a device runs until it is stopped"]
pub struct Running<P: Platform> {
    /// The device.
    pub device: Device<P::Registers, DriverOk>,
    attachment: Attachment,
    /// How the device interrupts, and the events that its handlers recorded.
    pub interrupts: Interrupts<P::Registers>,
    doorbells: Vec<(QueueIndex, Doorbell)>,
}

impl<P: Platform> Running<P> {
    /// The handle to open the device again.
    pub(crate) fn handle(&self) -> DeviceHandle {
        self.attachment.handle()
    }

    /// The device's address.
    pub(crate) fn address(&self) -> DeviceAddress {
        self.device.transport().address()
    }

    /// The doorbell of a queue. Panics if the driver has not created the queue.
    pub fn doorbell(&self, queue: QueueIndex) -> Doorbell {
        let known = self.doorbells.iter().find(|(index, _)| *index == queue);
        known.expect("the driver kicks only queues that it has created").1
    }

    /// Publishes the requests added to a queue, and kicks the device if it asks for it.
    pub fn publish<T>(&mut self, queue: &mut Virtqueue<P::Memory, T>) {
        if let Some(kick) = queue.publish() {
            self.kick(queue.index(), kick);
        }
    }

    /// Kicks a queue.
    pub(crate) fn kick(&mut self, queue: QueueIndex, kick: Kick) {
        let doorbell = self.doorbell(queue);
        self.device.kick(doorbell, kick);
    }

    /// Enables a queue again after its reset, set up from scratch with its old vector (2.6.1.2). Size and memory may
    /// differ from before.
    ///
    /// # Errors
    /// When the device does not accept the queue. It then stays idle until the device is reset.
    pub fn enable_queue_again(
        &mut self,
        proof: QueueQuiesced,
        size: u16,
        addresses: QueueAddresses,
    ) -> Result<(), TransportError> {
        let (queue, vector) = (proof.queue(), self.interrupts.queue_vector(proof.queue()));
        let doorbell = self.device.enable_queue_again(proof, vector, size, addresses)?;
        self.doorbells.iter_mut().filter(|(known, _)| *known == queue).for_each(|(_, known)| *known = doorbell);
        Ok(())
    }

    /// Resets the device, undoes everything, and releases the driver's `parts` to the platform. With `failed`, sets
    /// `FAILED`: the driver has given up.
    ///
    /// # Errors
    /// When the device does not finish the reset. It may still use its memory, so the parts are leaked.
    pub fn stop<T: Parts<P>>(self, platform: &mut P, parts: T, failed: bool) -> Result<(), TransportError> {
        self.quiesce(platform, failed, |platform, stopped| give_back(platform, parts, stopped))
    }

    /// As [`Running::stop`], for a driver that releases its parts itself: `release` gets the proof that the device no
    /// longer uses memory, or the error if it may. Bus mastering is off during `release`; it is restored afterwards if
    /// firmware had it on.
    #[doc(alias = "virtio_reset_device")]
    pub(crate) fn quiesce<R>(
        self,
        platform: &mut P,
        failed: bool,
        release: impl FnOnce(&mut P, Result<Quiesced, TransportError>) -> R,
    ) -> R {
        stop(platform, self.device, self.attachment, Some(self.interrupts), failed, release)
    }
}

/// Resets a device and turns bus mastering off, then releases its memory, then interrupts and mappings: in this order
/// nothing is used after its release.
pub(super) fn stop<P: Platform, S, R>(
    platform: &mut P,
    device: Device<P::Registers, S>,
    attachment: Attachment,
    interrupts: Option<Interrupts<P::Registers>>,
    failed: bool,
    release: impl FnOnce(&mut P, Result<Quiesced, TransportError>) -> R,
) -> R {
    let (transport, stopped) = device.quiesce(platform, failed);
    // From here the device can neither write memory nor send messages, whatever its status says.
    attachment.set_bus_master(platform, false);
    let has_stopped = stopped.is_ok();
    if let Err(error) = &stopped {
        log::error!("{error}; the memory it was given is not used again");
    }
    let released = release(platform, stopped);
    if let Some(interrupts) = interrupts {
        interrupts.release(platform);
    }
    attachment.detach(platform, transport, has_stopped);
    released
}
