//! A device between `FEATURES_OK` and `DRIVER_OK`: creates its queues and sets up interrupts.

use alloc::vec::Vec;

use super::error::BringUpError;
use super::open::open;
use super::options::DeviceOptions;
use super::parts::{Parts, give_back};
use super::running::{Connected, stop};
use crate::bus::{DeviceAddress, OutOfMemory, heap};
use crate::platform::Platform;
use crate::virtio::attachment::Attachment;
use crate::virtio::device::{Device, Failure, FeaturesOk, Reset};
use crate::virtio::handle::DeviceHandle;
use crate::virtio::interrupt::{Interrupts, QueueName, find_vqs};
use crate::virtio::negotiation::Wanted;
use crate::virtio::queue::{QueueAddresses, QueueIndex, QueueOptions, Quiesced, RingLayout, UsedLength, Virtqueue};
use crate::virtio::spec::{DeviceType, Features};
use crate::virtio::transport::{Doorbell, Transport, TransportError};
use crate::virtio::transport_kind::TransportKind;

/// The parameters of a queue.
#[derive(Debug, Clone, Copy)]
pub struct QueueSetup {
    /// The queue.
    pub index: QueueIndex,
    /// Its name, used for its vector's name: `requests`. A queue without one does not interrupt.
    pub name: Option<&'static str>,
    /// Its format and size: see [`Setup::layout`].
    pub layout: RingLayout,
    /// The most descriptors of a request that goes through an indirect table; 0 for none.
    pub indirect_entries: u16,
    /// Which used lengths to accept. A legacy device's are always [`UsedLength::Ignored`].
    pub used_length: UsedLength,
}

/// A queue that the driver has created but the device does not know yet.
#[derive(Debug, Clone, Copy)]
struct NewQueue {
    index: QueueIndex,
    name: Option<&'static str>,
    size: u16,
    addresses: QueueAddresses,
}

/// A device between `FEATURES_OK` and `DRIVER_OK`.
#[must_use = "a device stays open until it is connected or abandoned"]
pub struct Setup<P: Platform> {
    /// The device, to read its configuration, sizes of queues and features.
    pub device: Device<P::Registers, FeaturesOk>,
    attachment: Attachment,
    options: DeviceOptions,
    queues: Vec<NewQueue>,
}

impl<P: Platform> Setup<P> {
    /// Opens `device`, which is of the driver's type, resets it and negotiates features: those offered that
    /// `implemented` returns for the transport and the length of the device configuration, minus those that the user
    /// declines. After the reset, `was_reset` is called with the proof of it.
    ///
    /// # Errors
    /// When there is no usable virtio device, or negotiation fails.
    pub fn open(
        platform: &mut P,
        device: impl Into<DeviceHandle>,
        options: DeviceOptions,
        device_type: DeviceType,
        implemented: impl FnOnce(TransportKind, usize) -> Features,
        was_reset: impl FnOnce(&mut P, &Quiesced),
    ) -> Result<Self, BringUpError> {
        let (transport, attachment) = open(platform, device.into(), &options, device_type)?;
        match Self::negotiate(platform, transport, &options, implemented, was_reset) {
            Ok(device) => {
                // The device was reset: it may access memory from here on, but knows no addresses yet.
                attachment.set_bus_master(platform, true);
                Ok(Self { device, attachment, options, queues: Vec::new() })
            }
            Err(Failure { transport, error }) => {
                // A device that was not reset may still be active for a previous driver.
                let stopped = !matches!(error, BringUpError::Transport(TransportError::ResetTimeout { .. }));
                attachment.detach(platform, transport, stopped);
                Err(error)
            }
        }
    }

    /// Steps 1 to 6: reset, `ACKNOWLEDGE`, `DRIVER`, features.
    #[allow(clippy::type_complexity, reason = "the device's state, or its transport and the error")]
    #[allow(clippy::result_large_err, reason = "once a bring-up")]
    fn negotiate(
        platform: &mut P,
        transport: Transport<P::Registers>,
        options: &DeviceOptions,
        implemented: impl FnOnce(TransportKind, usize) -> Features,
        was_reset: impl FnOnce(&mut P, &Quiesced),
    ) -> Result<Device<P::Registers, FeaturesOk>, Failure<P::Registers, BringUpError>> {
        let device = Device::<P::Registers, Reset>::new(transport, platform).map_err(Failure::convert)?;
        was_reset(platform, &device.quiesced());
        let implemented = implemented(device.transport().kind(), device.transport().config_len());
        let wanted = Wanted { implemented, declined: options.declined, dependencies: &[] };
        device.acknowledge().driver().negotiate(&wanted).map_err(Failure::convert)
    }

    /// The device's address.
    pub(crate) fn address(&self) -> DeviceAddress {
        self.device.transport().address()
    }

    /// The layout of a queue of at most `limit` entries. A legacy PCI device dictates the size, whatever the limit.
    ///
    /// # Errors
    /// When the device has no such queue, or its size is invalid.
    pub fn layout(&mut self, index: QueueIndex, limit: u16) -> Result<RingLayout, TransportError> {
        let is_there = index.number() < self.device.transport().queue_count();
        let size = if is_there { self.device.queue_size(index)? } else { 0 };
        self.layout_of(index, size, limit)
    }

    /// As [`Setup::layout`], for a queue whose largest size is known.
    ///
    /// # Errors
    /// When the size is invalid.
    pub(crate) fn layout_of(&self, index: QueueIndex, size: u16, limit: u16) -> Result<RingLayout, TransportError> {
        let kind = self.device.transport().kind();
        if kind == TransportKind::Legacy && size > limit {
            log::warn!(
                "{}: queue {index} has {size} entries, and a legacy device's cannot have fewer",
                self.options.name
            );
        }
        let layout = RingLayout::for_device(kind, self.device.features(), size, limit);
        layout.ok_or(TransportError::QueueSize { device: self.address(), queue: index, size })
    }

    /// Creates a queue in memory from the platform. [`Setup::connect`] announces it to the device.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn add_queue<T>(
        &mut self,
        platform: &mut P,
        setup: &QueueSetup,
    ) -> Result<Virtqueue<P::Memory, T>, OutOfMemory> {
        let QueueSetup { index, name, layout, indirect_entries, used_length } = *setup;
        let kind = self.device.transport().kind();
        let options = QueueOptions::for_device(kind, self.device.features(), indirect_entries, used_length);
        heap::reserve(&mut self.queues, 1)?;
        let queue = Virtqueue::allocate(platform, index, layout, options)?;
        self.queues.push(NewQueue { index, name, size: layout.size(), addresses: queue.addresses() });
        Ok(queue)
    }

    /// Whether the driver has created this queue.
    pub(crate) fn has_queue(&self, index: QueueIndex) -> bool {
        self.queues.iter().any(|queue| queue.index == index)
    }

    /// Calls `make` to fill `parts`, the driver's queues and buffers, and connects the queues to the device. Returns
    /// the device, the parts and the result of `make`. The first buffers can be added after this: the device must see
    /// the queues empty first.
    ///
    /// # Errors
    /// When `make` fails, or the device does not accept its queues. Everything is undone and the parts are released,
    /// unless the device does not stop: then their memory is leaked.
    #[allow(clippy::type_complexity, reason = "the device, and its parts")]
    pub fn connect<T: Parts<P>, R, E: From<BringUpError>>(
        mut self,
        platform: &mut P,
        mut parts: T,
        make: impl FnOnce(&mut P, &mut Self, &mut T) -> Result<R, E>,
    ) -> Result<(Connected<P>, T, R), E> {
        let made = make(platform, &mut self, &mut parts);
        match made.and_then(|made| Ok((made, self.attach(platform)?))) {
            Ok((made, (interrupts, doorbells))) => {
                let Self { device, attachment, .. } = self;
                Ok((Connected { device, attachment, interrupts, doorbells }, parts, made))
            }
            Err(error) => {
                // The first error is the one to report; a device that does not stop is in the log.
                let _ = stop(platform, self.device, self.attachment, None, true, |platform, stopped| {
                    give_back(platform, parts, stopped)
                });
                Err(error)
            }
        }
    }

    /// Sets up the queues' interrupts, then enables the queues: a queue's vector must be set first.
    #[allow(clippy::type_complexity, reason = "two values of one step")]
    fn attach(
        &mut self,
        platform: &mut P,
    ) -> Result<(Interrupts<P::Registers>, Vec<(QueueIndex, Doorbell)>), BringUpError> {
        let Self { device, attachment, options, queues } = self;
        let named = |queue: &NewQueue| queue.name.map(|name| QueueName { index: queue.index, name });
        let (mut names, mut doorbells) = (heap::vector(queues.len())?, heap::vector(queues.len())?);
        names.extend(queues.iter().filter_map(named));
        let transport = device.transport_mut();
        let interrupts = find_vqs(platform, transport, attachment, &options.name, names, options.interrupts)?;
        for queue in queues {
            match device.enable_queue(queue.index, queue.size, queue.addresses) {
                Ok(doorbell) => doorbells.push((queue.index, doorbell)),
                Err(error) => {
                    interrupts.release(platform);
                    return Err(BringUpError::Transport(error));
                }
            }
        }
        Ok((interrupts, doorbells))
    }

    /// Gives up before any queue was created: resets the device and undoes everything.
    ///
    /// # Errors
    /// When the device does not finish the reset.
    pub fn abandon(self, platform: &mut P) -> Result<(), TransportError> {
        stop(platform, self.device, self.attachment, None, false, |_, stopped| stopped.map(drop))
    }
}
