//! A device in a stage of its initialization: the status sequence, as types (virtio 1.4, 3.1.1).
//!
//! [`Reset`] -> [`Acknowledged`] -> [`DriverFound`] -> [`FeaturesOk`] -> [`DriverOk`]. Each state offers only the steps
//! allowed in it: queues are set up between `FEATURES_OK` and `DRIVER_OK`, and can be kicked only after that. A driver
//! that gives up sets FAILED and gets its transport back only to unmap it.

#![allow(clippy::result_large_err, reason = "a transport returns with its error, once a bring-up")]

use super::negotiation::{self, NegotiationError, Wanted};
use super::queue::{Kick, QueueAddresses, QueueIndex, QueueQuiesced, Quiesced};
use super::spec::{Features, Status};
use super::transport::{ConfigField, Doorbell, QueueResetState, Transport, TransportError};
use crate::bus::{RegisterWindow, Registers};
use crate::pci::MsixVector;
use crate::platform::Platform;

/// How long a reset, of the device or of one queue, may take, in nanoseconds. Real devices take microseconds; the
/// specification sets no limit.
const RESET_LIMIT: u64 = 2_000_000_000;

/// State: reset.
#[derive(Debug)]
pub(super) struct Reset(());

/// State: the guest has found the device.
#[derive(Debug)]
pub(super) struct Acknowledged(());

/// State: the guest has a driver for it.
#[derive(Debug)]
pub(super) struct DriverFound(());

/// State: features are negotiated, queues can be set up.
#[derive(Debug)]
pub struct FeaturesOk {
    offered: Features,
    features: Features,
}

/// State: running.
#[derive(Debug)]
pub struct DriverOk {
    features: Features,
}

/// A device in state `S`.
///
/// A running device can be kicked:
/// ```
/// use ballonet::platform::Registers;
/// use ballonet::virtio::{Device, Doorbell, DriverOk, Kick};
///
/// fn kick<R: Registers + Send + Sync + 'static>(device: &mut Device<R, DriverOk>, doorbell: Doorbell, kick: Kick) {
///     device.kick(doorbell, kick);
/// }
/// ```
/// One that does not run yet cannot; this does not compile:
/// ```compile_fail,E0599
/// use ballonet::platform::Registers;
/// use ballonet::virtio::{Device, Doorbell, FeaturesOk, Kick};
///
/// fn kick<R: Registers + Send + Sync + 'static>(device: &mut Device<R, FeaturesOk>, doorbell: Doorbell, kick: Kick) {
///     device.kick(doorbell, kick);
/// }
/// ```
#[derive(Debug)]
pub struct Device<R, S> {
    transport: Transport<R>,
    /// The status bits set so far; only a reset clears any.
    status: Status,
    state: S,
}

/// A failed step, and the transport, which remains to be unmapped.
#[derive(Debug)]
pub(super) struct Failure<R, E> {
    /// The transport. FAILED is set, unless the device is gone.
    pub(super) transport: Transport<R>,
    /// Why.
    pub(super) error: E,
}

impl<R, E> Failure<R, E> {
    /// The same failure, with its error as another type.
    pub(super) fn convert<F: From<E>>(self) -> Failure<R, F> {
        Failure { transport: self.transport, error: self.error.into() }
    }
}

impl<R: Registers + Send + Sync + 'static, S> Device<R, S> {
    /// The transport, to read what is readable in any state.
    pub fn transport(&self) -> &Transport<R> {
        &self.transport
    }

    /// The shared memory region with this number; `None` if there is none, as on every legacy device.
    #[doc(alias = "get_shm_region")]
    pub fn shared_memory(&mut self, id: u8) -> Option<RegisterWindow> {
        self.transport.shared_memory(id)
    }

    /// Writes a field of the device configuration, of 8, 16 or 32 bits, in one store.
    ///
    /// # Errors
    /// When there is no such field.
    pub fn write_config<T: ConfigField>(&mut self, offset: usize, value: T) -> Result<(), TransportError> {
        self.transport.write_config(offset, value)
    }

    /// Adds a status bit and changes the state.
    fn advance<N>(mut self, bit: Status, state: N) -> Device<R, N> {
        self.add_status(bit);
        Device { transport: self.transport, status: self.status, state }
    }

    fn add_status(&mut self, bit: Status) {
        self.status |= bit;
        self.transport.set_status(self.status);
    }

    /// Gives up: sets FAILED in addition. The device is not touched again until a reset.
    fn fail<E>(mut self, error: E) -> Failure<R, E> {
        self.add_status(Status::FAILED);
        Failure { transport: self.transport, error }
    }

    /// Stops the device by a reset, after which it no longer uses memory. With `failed`, and always if it does not
    /// finish the reset, also sets FAILED.
    ///
    /// # Errors
    /// When the device does not finish the reset. It may still use its memory, which must then not be used for anything
    /// else.
    #[doc(alias = "reset")]
    #[doc(alias = "vp_reset")]
    pub(super) fn quiesce<P: Platform>(
        mut self,
        platform: &P,
        failed: bool,
    ) -> (Transport<R>, Result<Quiesced, TransportError>) {
        let may_refuse = !self.status.contains(Status::FAILED);
        let outcome = match reset(&mut self.transport, platform, may_refuse) {
            // A device that is gone does not use memory.
            Ok(()) | Err(TransportError::Gone(_)) => Ok(Quiesced::new()),
            Err(error) => Err(error),
        };
        if failed || outcome.is_err() {
            let left = match outcome {
                Err(TransportError::ResetTimeout { status, .. }) => status,
                _ => Status::empty(),
            };
            self.transport.set_status(left | Status::FAILED);
        }
        (self.transport, outcome)
    }
}

impl<R: Registers + Send + Sync + 'static> Device<R, Reset> {
    /// Resets the device, whatever state it is in.
    ///
    /// # Errors
    /// When the device is gone, or does not finish the reset; FAILED is then set.
    #[doc(alias = "reset")]
    pub(super) fn new<P: Platform>(
        mut transport: Transport<R>,
        platform: &P,
    ) -> Result<Self, Failure<R, TransportError>> {
        match reset(&mut transport, platform, false) {
            Ok(()) => Ok(Self { transport, status: Status::empty(), state: Reset(()) }),
            Err(error) => {
                give_up_reset(&mut transport, &error);
                Err(Failure { transport, error })
            }
        }
    }

    /// Proof that the device uses no memory: it was just seen to be reset.
    pub(crate) fn quiesced(&self) -> Quiesced {
        Quiesced::new()
    }

    /// Sets ACKNOWLEDGE.
    pub(super) fn acknowledge(self) -> Device<R, Acknowledged> {
        self.advance(Status::ACKNOWLEDGE, Acknowledged(()))
    }
}

impl<R: Registers + Send + Sync + 'static> Device<R, Acknowledged> {
    /// Sets DRIVER.
    pub(super) fn driver(self) -> Device<R, DriverFound> {
        self.advance(Status::DRIVER, DriverFound(()))
    }
}

impl<R: Registers + Send + Sync + 'static> Device<R, DriverFound> {
    /// Negotiates features: accepts those offered that the driver wants, and checks that the device agrees.
    ///
    /// # Errors
    /// When a mandatory feature is missing, or the device refuses the choice.
    pub(super) fn negotiate(
        mut self,
        wanted: &Wanted<'_>,
    ) -> Result<Device<R, FeaturesOk>, Failure<R, NegotiationError>> {
        let offered = self.transport.features();
        if let Err(error) = self.transport.status() {
            return Err(self.fail(NegotiationError::Transport(error)));
        }
        let modern = !self.transport.kind().is_legacy();
        let accepted = match negotiation::choose(offered, wanted, modern) {
            Ok(accepted) => accepted,
            Err(error) => return Err(self.fail(error)),
        };
        self.transport.set_features(accepted);
        // A legacy device has no step between its features and its queues (3.1.2).
        if modern {
            self.add_status(Status::FEATURES_OK);
            match self.transport.status() {
                Ok(status) if status.contains(Status::FEATURES_OK) => {}
                Ok(status) => return Err(self.fail(NegotiationError::Refused { accepted, status })),
                Err(error) => return Err(self.fail(NegotiationError::Transport(error))),
            }
        }
        Ok(Device { transport: self.transport, status: self.status, state: FeaturesOk { offered, features: accepted } })
    }
}

impl<R: Registers + Send + Sync + 'static> Device<R, FeaturesOk> {
    /// The features that the device offers.
    pub fn offered(&self) -> Features {
        self.state.offered
    }

    /// The negotiated features.
    pub fn features(&self) -> Features {
        self.state.features
    }

    /// The transport, to set up queues and vectors.
    pub(super) fn transport_mut(&mut self) -> &mut Transport<R> {
        &mut self.transport
    }

    /// The largest size that a queue can have; 0 if there is no such queue.
    ///
    /// # Errors
    /// When the device is gone, or reports more than 32768.
    pub(crate) fn queue_size(&mut self, queue: QueueIndex) -> Result<u16, TransportError> {
        self.transport.queue_size(queue)
    }

    /// Enables a queue, in memory that the device may access until the next reset. Its vector must be set already.
    ///
    /// # Errors
    /// When the device has no such queue or doorbell, or refuses the size.
    pub(super) fn enable_queue(
        &mut self,
        queue: QueueIndex,
        size: u16,
        addresses: QueueAddresses,
    ) -> Result<Doorbell, TransportError> {
        self.transport.enable_queue(queue, size, addresses)
    }

    /// Sets `DRIVER_OK`: the device runs.
    pub(super) fn driver_ok(self) -> Device<R, DriverOk> {
        let features = self.state.features;
        self.advance(Status::DRIVER_OK, DriverOk { features })
    }
}

impl<R: Registers + Send + Sync + 'static> Device<R, DriverOk> {
    /// The negotiated features.
    pub fn features(&self) -> Features {
        self.state.features
    }

    /// Kicks a queue.
    #[inline]
    pub fn kick(&mut self, doorbell: Doorbell, kick: Kick) {
        self.transport.notify(doorbell, kick);
    }

    /// Resets one queue, after which the device no longer uses its memory or its requests in flight; the other queues
    /// continue (2.6.1). Late interrupts of the queue are harmless: they find nothing.
    ///
    /// # Errors
    /// When `RING_RESET` was not negotiated, the device is gone, or it does not finish the reset. It may then still use
    /// the memory, until it is reset as a whole.
    #[doc(alias = "disable_vq_and_reset")]
    pub fn reset_queue<P: Platform>(
        &mut self,
        queue: QueueIndex,
        platform: &P,
    ) -> Result<QueueQuiesced, TransportError> {
        if !self.state.features.contains(Features::RING_RESET) {
            return Err(TransportError::NoQueueReset { device: self.transport.address(), queue });
        }
        reset_queue(&mut self.transport, queue, platform)?;
        Ok(QueueQuiesced::new(queue))
    }

    /// Enables a queue again after its reset, set up from scratch (2.6.1.2): size, memory and vector may differ from
    /// before. `vector` is its MSI-X table entry, which [`super::Running::enable_queue_again`] knows.
    ///
    /// # Errors
    /// When the device refuses the vector, the size or the addresses. The queue then stays idle until the device is
    /// reset.
    #[doc(alias = "enable_vq_after_reset")]
    pub fn enable_queue_again(
        &mut self,
        proof: QueueQuiesced,
        vector: Option<MsixVector>,
        size: u16,
        addresses: QueueAddresses,
    ) -> Result<Doorbell, TransportError> {
        let queue = proof.spend();
        self.transport.set_queue_vector(queue, vector)?;
        self.transport.enable_queue(queue, size, addresses)
    }
}

/// Sets FAILED on a device that did not finish its reset, unless it is gone.
fn give_up_reset<R: Registers + Send + Sync + 'static>(transport: &mut Transport<R>, error: &TransportError) {
    if let TransportError::ResetTimeout { status, .. } = error {
        transport.set_status(*status | Status::FAILED);
    }
}

/// Resets a device and waits until it has happened (2.4.2, 4.1.4.3.2). With `may_refuse`, FAILED ends the wait: no
/// driver has set it, so the device has; Firecracker up to 1.16 does so, because it cannot reset.
fn reset<R, P>(transport: &mut Transport<R>, platform: &P, may_refuse: bool) -> Result<(), TransportError>
where
    R: Registers + Send + Sync + 'static,
    P: Platform,
{
    let start = platform.now();
    transport.set_status(Status::empty());
    loop {
        // Read the clock before the status: if the host deschedules the CPU in between, a finished reset must not look
        // late.
        let waited = platform.now().saturating_sub(start);
        let status = transport.status()?;
        if status.is_empty() {
            return Ok(());
        }
        if waited >= RESET_LIMIT || may_refuse && status.contains(Status::FAILED) {
            let device = transport.address();
            return Err(TransportError::ResetTimeout { device, waited_ms: waited / 1_000_000, status });
        }
        platform.relax();
    }
}

/// Resets a queue and waits until it has happened (2.6.1.1, 4.1.4.3.2).
fn reset_queue<R, P>(transport: &mut Transport<R>, queue: QueueIndex, platform: &P) -> Result<(), TransportError>
where
    R: Registers + Send + Sync + 'static,
    P: Platform,
{
    let start = platform.now();
    transport.start_queue_reset(queue)?;
    loop {
        // As above: read the clock before the registers.
        let waited = platform.now().saturating_sub(start);
        let state = transport.queue_reset_state(queue)?;
        if state.is_done() {
            return Ok(());
        }
        if waited >= RESET_LIMIT {
            let (device, QueueResetState { reset, enabled }) = (transport.address(), state);
            return Err(TransportError::QueueResetTimeout {
                device,
                queue,
                waited_ms: waited / 1_000_000,
                reset,
                enabled,
            });
        }
        platform.relax();
    }
}

#[cfg(test)]
mod tests;
