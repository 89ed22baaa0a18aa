//! From a PCI function to a running device, and back: the initialization sequence (virtio 1.4, 3.1.1), once for every driver.
//!
//! [`Setup::open`] takes a function through reset and feature negotiation; [`Setup::connect`] has the driver make its queues
//! ([`Setup::add_queue`]), and gives them interrupts and doorbells; [`Connected::run`] sets `DRIVER_OK`; [`Running::stop`]
//! resets the device and returns what it was lent. Each step that fails undoes what came before: vectors, mappings and
//! the command register are as they were found, and the device has been told `FAILED`.

use alloc::string::String;
use alloc::vec::Vec;

use derive_more::{Display, Error, From};

use super::any::AnyTransport;
use super::device::{Device, DriverOk, Failure, FeaturesOk, Reset};
use super::interface::{Interface, InterfaceError};
use super::interrupt::{InterruptError, InterruptMode, Interrupts, QueueName, find_vqs};
use super::negotiation::{NegotiationError, Wanted};
use super::queue::{Kick, Queue, QueueOptions, UsedLength};
use super::quiesced::{QueueQuiesced, Quiesced};
use super::spec::Features;
use super::transport::{Doorbell, QueueAddresses, QueueIndex, Transport, TransportError, TransportKind};
use super::virtqueue::{RingLayout, Virtqueue};
use crate::pci::{Bars, Bdf, Command, Function};
use crate::platform::{DmaExhausted, Platform};

/// The transport of a platform.
pub type PlatformTransport<P> = AnyTransport<<P as Platform>::Registers>;

/// Why a device cannot be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error, From)]
pub enum BringUpError {
    /// There is no PCI function.
    #[display("there is no function at {_0}")]
    #[from(skip)]
    NoFunction(#[error(not(source))] Bdf),
    /// It is another kind of device than the driver's.
    #[display("{function} is no device of this driver: vendor {vendor:#06x}, device {device:#06x}")]
    #[from(skip)]
    WrongDevice {
        /// The function.
        function: Bdf,
        /// Its vendor ID.
        vendor: u16,
        /// Its device ID.
        device: u16,
    },
    /// It has no virtio interface that can be used.
    #[display("{_0}")]
    Interface(InterfaceError),
    /// Its registers do not work as they must.
    #[display("{_0}")]
    Transport(TransportError),
    /// Driver and device do not agree on features.
    #[display("{_0}")]
    Negotiation(NegotiationError),
    /// The interrupt mode that the caller forces is not available.
    #[display("{_0}")]
    Interrupt(InterruptError),
    /// There is no memory for queues and buffers.
    #[display("{_0}")]
    Memory(DmaExhausted),
}

/// What a user chooses for a device, whatever its type.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeviceOptions {
    /// The device's name, after which its vectors are named: `virtio0`.
    pub name: String,
    /// The interface to use; `None`: the modern one where the device has it.
    pub transport: Option<TransportKind>,
    /// Reaches all registers through the window in configuration space (4.1.4.9).
    pub through_config: bool,
    /// The interrupt mode; `None`: the first of [`InterruptMode::LADDER`] that works.
    pub interrupts: Option<InterruptMode>,
    /// Features not to accept.
    pub declined: Features,
}

impl DeviceOptions {
    /// The defaults, for a device of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            transport: None,
            through_config: false,
            interrupts: None,
            declined: Features::empty(),
        }
    }
}

/// What a driver lends its device: queues and DMA memory. They return only against the proof that the device has stopped.
pub trait Parts<P: Platform> {
    /// Gives everything back to the platform.
    fn release(self, platform: &mut P, proof: &Quiesced);
}

/// How a queue is made.
#[derive(Debug, Clone, Copy)]
pub struct QueueSetup {
    /// The queue.
    pub index: QueueIndex,
    /// Its name, after which its vector is named: `requests`. A queue without one does not interrupt.
    pub name: Option<&'static str>,
    /// Its format and size: see [`Setup::layout`].
    pub layout: RingLayout,
    /// The most descriptors of a request that goes through an indirect table; 0 for none.
    pub indirect_entries: u16,
    /// Which lengths of used buffers to believe. A legacy device's are always [`UsedLength::Ignored`].
    pub used_length: UsedLength,
}

/// A function that a driver has opened: it decodes, and its command register is restored in the end.
#[derive(Debug)]
struct Attachment {
    function: Function,
    bars: Bars,
    /// The command register as it was found.
    command: Command,
}

impl Attachment {
    /// Unmaps the registers, and puts decoding and bus mastering back to what was found. INTx stays off: nobody serves the
    /// line. A device that has not `stopped` keeps bus mastering off, even if firmware had it on.
    fn detach<P: Platform>(self, platform: &mut P, transport: PlatformTransport<P>, stopped: bool) {
        transport.release(platform);
        self.restore(platform, stopped);
    }

    fn restore<P: Platform>(mut self, platform: &mut P, stopped: bool) {
        self.command.set(Command::BUS_MASTER, stopped && self.command.contains(Command::BUS_MASTER));
        let ours = Command::IO | Command::MEMORY | Command::BUS_MASTER;
        self.function.disable(platform.config(), ours - self.command);
        self.function.enable(platform.config(), ours & self.command);
    }
}

/// A queue that the driver has made and the device does not know yet.
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
    device: Device<PlatformTransport<P>, FeaturesOk>,
    attachment: Attachment,
    options: DeviceOptions,
    queues: Vec<NewQueue>,
}

impl<P: Platform> Setup<P> {
    /// Opens the device at `function`, whose vendor and device `matches` takes for the driver's, resets it and settles the
    /// features: of those offered, what `implemented` names for
    /// the transport and the length of the device configuration, but for those that the user declines. Once the reset is
    /// seen to be done, `was_reset` gets the proof of it.
    ///
    /// # Errors
    /// When there is no usable virtio device, or it does not agree.
    pub fn open(
        platform: &mut P,
        function: Bdf,
        options: DeviceOptions,
        matches: impl FnOnce(u16, u16) -> bool,
        implemented: impl FnOnce(TransportKind, usize) -> Features,
        was_reset: impl FnOnce(&mut P, &Quiesced),
    ) -> Result<Self, BringUpError> {
        let function = Function::probe(platform.config(), function).ok_or(BringUpError::NoFunction(function))?;
        let (vendor, device) = (function.vendor(), function.device());
        if !matches(vendor, device) {
            return Err(BringUpError::WrongDevice { function: function.bdf(), vendor, device });
        }
        let bars = Bars::size(platform.config(), &function);
        let interface = Interface::find(platform.config(), &function, &bars, options.transport)?;
        let interface = if options.through_config { interface.through_config()? } else { interface };
        let command = function.enable(platform.config(), interface.decoding(&bars));
        let attachment = Attachment { function, bars, command };
        let transport = match interface.open(platform) {
            Ok(transport) => transport,
            Err(error) => {
                attachment.restore(platform, true);
                return Err(error.into());
            }
        };
        match Self::negotiate(platform, transport, &options, implemented, was_reset) {
            Ok(device) => {
                // The device was reset: from here it may use memory, but it has none.
                attachment.function.enable(platform.config(), Command::BUS_MASTER);
                Ok(Self { device, attachment, options, queues: Vec::new() })
            }
            Err(Failure { transport, error }) => {
                // One that was not reset may be at work for the driver before this one.
                let stopped = !matches!(error, BringUpError::Transport(TransportError::ResetTimeout { .. }));
                attachment.detach(platform, transport, stopped);
                Err(error)
            }
        }
    }

    /// Steps 1 to 6: reset, `ACKNOWLEDGE`, `DRIVER`, features.
    #[allow(clippy::type_complexity, reason = "the device's state, or its transport and the error")]
    fn negotiate(
        platform: &mut P,
        transport: PlatformTransport<P>,
        options: &DeviceOptions,
        implemented: impl FnOnce(TransportKind, usize) -> Features,
        was_reset: impl FnOnce(&mut P, &Quiesced),
    ) -> Result<Device<PlatformTransport<P>, FeaturesOk>, Failure<PlatformTransport<P>, BringUpError>> {
        let device = Device::<_, Reset>::new(transport, platform).map_err(Failure::convert)?;
        was_reset(platform, &device.quiesced());
        let implemented = implemented(device.transport().kind(), device.transport().config_len());
        let wanted = Wanted { implemented, declined: options.declined, dependencies: &[] };
        device.acknowledge().driver().negotiate(&wanted).map_err(Failure::convert)
    }

    /// The device, to read its configuration, sizes of queues and features.
    pub fn device(&mut self) -> &mut Device<PlatformTransport<P>, FeaturesOk> {
        &mut self.device
    }

    /// The PCI function.
    pub fn function(&self) -> Bdf {
        self.attachment.function.bdf()
    }

    /// The layout of a queue that gets `limit` entries at most. A legacy device's queue has the size that the device says,
    /// whatever the limit.
    ///
    /// # Errors
    /// When the device has no such queue, or its size is none.
    pub fn layout(&mut self, index: QueueIndex, limit: u16) -> Result<RingLayout, TransportError> {
        let is_there = index.number() < self.device.transport().queue_count();
        let size = if is_there { self.device.queue_size(index)? } else { 0 };
        self.layout_of(index, size, limit)
    }

    /// The same for a queue whose largest size is known.
    ///
    /// # Errors
    /// When no queue has this size.
    pub fn layout_of(&self, index: QueueIndex, size: u16, limit: u16) -> Result<RingLayout, TransportError> {
        let kind = self.device.transport().kind();
        if kind == TransportKind::Legacy && size > limit {
            log::warn!(
                "{}: queue {index} has {size} entries, and a legacy device's cannot have fewer",
                self.options.name
            );
        }
        let layout = RingLayout::for_device(kind, self.device.features(), size, limit);
        layout.ok_or(TransportError::QueueSize { function: self.function(), queue: index, size })
    }

    /// Makes a queue in memory from the platform. The device learns of it in [`Setup::connect`].
    ///
    /// # Errors
    /// When there is no memory.
    pub fn add_queue<T>(
        &mut self,
        platform: &mut P,
        setup: &QueueSetup,
    ) -> Result<Virtqueue<P::Memory, T>, DmaExhausted> {
        let QueueSetup { index, name, layout, indirect_entries, used_length } = *setup;
        let kind = self.device.transport().kind();
        let options = QueueOptions::for_device(kind, self.device.features(), indirect_entries, used_length);
        let queue = Virtqueue::allocate(platform, index, layout, options)?;
        self.queues.push(NewQueue { index, name, size: layout.size(), addresses: queue.addresses() });
        Ok(queue)
    }

    /// Whether the driver has made this queue.
    pub fn has_queue(&self, index: QueueIndex) -> bool {
        self.queues.iter().any(|queue| queue.index == index)
    }

    /// Has `make` fill `parts`, the driver's queues and buffers, and connects the queues to the device. Returns the device,
    /// the parts and what `make` returned. The first buffers can be added now: the device sees the queues empty first.
    ///
    /// # Errors
    /// When `make` fails, or the device does not take its queues. Everything is undone; the parts have gone back to the platform,
    /// unless the device would not stop: then nobody uses their memory again.
    #[allow(clippy::type_complexity, reason = "the device, and what it was lent")]
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
                // Why the device could not be started is the error to report; that it would not stop is in the log.
                let _ = stop(platform, self.device, self.attachment, None, true, |platform, stopped| {
                    give_back(platform, parts, stopped)
                });
                Err(error)
            }
        }
    }

    /// Gives the queues interrupts, then shows them to the device: a queue's vector is set before the queue is enabled.
    #[allow(clippy::type_complexity, reason = "two values of one step")]
    fn attach(
        &mut self,
        platform: &mut P,
    ) -> Result<(Interrupts<P::Registers>, Vec<(QueueIndex, Doorbell)>), BringUpError> {
        let Self { device, attachment, options, queues } = self;
        let named = |queue: &NewQueue| queue.name.map(|name| QueueName { index: queue.index, name });
        let names: Vec<_> = queues.iter().filter_map(named).collect();
        let function = (&attachment.function, &attachment.bars);
        let interrupts = find_vqs(platform, device, function, &options.name, &names, options.interrupts)?;
        let enabled = queues.iter().map(|queue| {
            device.enable_queue(queue.index, queue.size, queue.addresses).map(|doorbell| (queue.index, doorbell))
        });
        match enabled.collect() {
            Ok(doorbells) => Ok((interrupts, doorbells)),
            Err(error) => {
                interrupts.release(platform, &attachment.function);
                Err(BringUpError::Transport(error))
            }
        }
    }

    /// Gives up before any queue was made: resets the device and undoes everything.
    ///
    /// # Errors
    /// When the device does not finish the reset.
    pub fn abandon(self, platform: &mut P) -> Result<(), TransportError> {
        stop(platform, self.device, self.attachment, None, false, |_, stopped| stopped.map(drop))
    }
}

/// A device that has its queues and does not run yet: the last moment before `DRIVER_OK`.
#[must_use = "a device does nothing before it runs"]
pub struct Connected<P: Platform> {
    device: Device<PlatformTransport<P>, FeaturesOk>,
    attachment: Attachment,
    interrupts: Interrupts<P::Registers>,
    doorbells: Vec<(QueueIndex, Doorbell)>,
}

impl<P: Platform> Connected<P> {
    /// Sets `DRIVER_OK`. Queues that hold buffers already can be kicked now.
    pub fn run(self) -> Running<P> {
        let Self { device, attachment, interrupts, doorbells } = self;
        Running { device: device.driver_ok(), attachment, interrupts, doorbells }
    }
}

/// A device that runs, with its interrupts and doorbells. Ends by [`Running::stop`].
#[must_use = "a device runs until it is stopped"]
pub struct Running<P: Platform> {
    pub(crate) device: Device<PlatformTransport<P>, DriverOk>,
    attachment: Attachment,
    pub(crate) interrupts: Interrupts<P::Registers>,
    doorbells: Vec<(QueueIndex, Doorbell)>,
}

impl<P: Platform> Running<P> {
    /// The device.
    pub fn device(&mut self) -> &mut Device<PlatformTransport<P>, DriverOk> {
        &mut self.device
    }

    /// The PCI function.
    pub fn function(&self) -> &Function {
        &self.attachment.function
    }

    /// How the device interrupts, and what its handlers noted.
    pub fn interrupts(&self) -> &Interrupts<P::Registers> {
        &self.interrupts
    }

    /// The same, to mask vectors or to move them.
    pub fn interrupts_mut(&mut self) -> &mut Interrupts<P::Registers> {
        &mut self.interrupts
    }

    /// The doorbell of a queue. Panics if the driver has not made it.
    pub fn doorbell(&self, queue: QueueIndex) -> Doorbell {
        let known = self.doorbells.iter().find(|(index, _)| *index == queue);
        known.expect("the driver kicks only queues that it has made").1
    }

    /// Publishes what was added to a queue, and kicks the device if it wants that.
    pub fn publish<T>(&mut self, queue: &mut impl Queue<T>) {
        if let Some(kick) = queue.publish() {
            self.kick(queue.index(), kick);
        }
    }

    /// Kicks a queue.
    pub fn kick(&mut self, queue: QueueIndex, kick: Kick) {
        let doorbell = self.doorbell(queue);
        self.device.kick(doorbell, kick);
    }

    /// Enables a queue that was reset again, in new memory, with the vector that it had (2.6.1.2).
    ///
    /// # Errors
    /// When the device does not take the queue. It then stays idle until the device is reset.
    pub(crate) fn enable_queue_again(
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

    /// Resets the device, and undoes everything but the driver's `parts`, which go back to the platform. With `failed`, the
    /// device is told that its driver has given up.
    ///
    /// # Errors
    /// When the device does not finish the reset. It may go on using its memory, so the parts are leaked.
    pub fn stop<T: Parts<P>>(self, platform: &mut P, parts: T, failed: bool) -> Result<(), TransportError> {
        self.quiesce(platform, failed, |platform, stopped| give_back(platform, parts, stopped))
    }

    /// The same for a driver that gives its parts back itself: `release` gets the proof that the device has let go of its
    /// memory, or the error of one that has not. Bus mastering is off then, and comes back only afterwards, if firmware had it
    /// on.
    #[doc(alias = "virtio_reset_device")]
    pub fn quiesce<R>(
        self,
        platform: &mut P,
        failed: bool,
        release: impl FnOnce(&mut P, Result<Quiesced, TransportError>) -> R,
    ) -> R {
        stop(platform, self.device, self.attachment, Some(self.interrupts), failed, release)
    }
}

/// Resets a device and cuts it off from memory; has its memory released; then undoes interrupts and mappings, in this order,
/// so that nobody is left with what is gone.
fn stop<P: Platform, S, R>(
    platform: &mut P,
    device: Device<PlatformTransport<P>, S>,
    attachment: Attachment,
    interrupts: Option<Interrupts<P::Registers>>,
    failed: bool,
    release: impl FnOnce(&mut P, Result<Quiesced, TransportError>) -> R,
) -> R {
    let (transport, stopped) = device.quiesce(platform, failed);
    // Whatever the device says of itself, from here it can write no memory and raise no message.
    attachment.function.disable(platform.config(), Command::BUS_MASTER);
    let has_stopped = stopped.is_ok();
    if let Err(error) = &stopped {
        log::error!("{error}; the memory it was given is not used again");
    }
    let released = release(platform, stopped);
    if let Some(interrupts) = interrupts {
        interrupts.release(platform, &attachment.function);
    }
    attachment.detach(platform, transport, has_stopped);
    released
}

/// Gives a driver's parts back, or leaks them if the device may still use their memory.
fn give_back<P: Platform, T: Parts<P>>(
    platform: &mut P,
    parts: T,
    stopped: Result<Quiesced, TransportError>,
) -> Result<(), TransportError> {
    match stopped {
        Ok(proof) => {
            parts.release(platform, &proof);
            Ok(())
        }
        Err(error) => {
            // Dropping them could give their memory back.
            core::mem::forget(parts);
            Err(error)
        }
    }
}
