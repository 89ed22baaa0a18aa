//! A transport that is chosen when the driver starts: modern or legacy, whatever the device and the user want.
//!
//! An enum rather than a type parameter, because which it is shows only at run time; a match an operation, which a kick
//! pays with one branch that is always the same.

use alloc::sync::Arc;

use derive_more::From;

use super::device::DriverOk;
use super::legacy::Legacy;
use super::modern::Modern;
use super::queue::Kick;
use super::spec::{Features, Status};
use super::transport::{
    Doorbell, QueueAddresses, QueueIndex, QueueResetState, Transport, TransportError, TransportKind,
};
use crate::pci::{BarWindow, Bdf, MsixVector};
use crate::platform::{Platform, Registers};

/// One of the transports.
#[derive(Debug, From)]
pub enum AnyTransport<R> {
    /// Version 1 and later.
    Modern(Modern<R>),
    /// Before version 1.
    Legacy(Legacy<R>),
}

/// Hands an operation on to whichever transport it is.
macro_rules! either {
    ($any:expr, $transport:ident => $operation:expr) => {
        match $any {
            AnyTransport::Modern($transport) => $operation,
            AnyTransport::Legacy($transport) => $operation,
        }
    };
}

impl<R: Registers + Send + Sync + 'static> Transport for AnyTransport<R> {
    type Registers = R;

    fn kind(&self) -> TransportKind {
        either!(self, transport => transport.kind())
    }

    fn function(&self) -> Bdf {
        either!(self, transport => transport.function())
    }

    fn features(&mut self) -> Features {
        either!(self, transport => transport.features())
    }

    fn set_features(&mut self, features: Features) {
        either!(self, transport => transport.set_features(features));
    }

    fn status(&self) -> Result<Status, TransportError> {
        either!(self, transport => transport.status())
    }

    fn set_status(&mut self, status: Status) {
        either!(self, transport => transport.set_status(status));
    }

    fn generation(&self) -> Option<u8> {
        either!(self, transport => transport.generation())
    }

    fn config_len(&self) -> usize {
        either!(self, transport => transport.config_len())
    }

    fn config8(&self, offset: usize) -> u8 {
        either!(self, transport => transport.config8(offset))
    }

    fn config16(&self, offset: usize) -> u16 {
        either!(self, transport => transport.config16(offset))
    }

    fn config32(&self, offset: usize) -> u32 {
        either!(self, transport => transport.config32(offset))
    }

    fn set_config8(&mut self, offset: usize, value: u8) {
        either!(self, transport => transport.set_config8(offset, value));
    }

    fn set_config16(&mut self, offset: usize, value: u16) {
        either!(self, transport => transport.set_config16(offset, value));
    }

    fn set_config32(&mut self, offset: usize, value: u32) {
        either!(self, transport => transport.set_config32(offset, value));
    }

    fn queue_count(&self) -> u16 {
        either!(self, transport => transport.queue_count())
    }

    fn queue_size(&mut self, queue: QueueIndex) -> Result<u16, TransportError> {
        either!(self, transport => transport.queue_size(queue))
    }

    fn set_msix(&mut self, on: bool) {
        either!(self, transport => transport.set_msix(on));
    }

    fn set_config_vector(&mut self, vector: Option<MsixVector>) -> Result<(), TransportError> {
        either!(self, transport => transport.set_config_vector(vector))
    }

    fn set_queue_vector(&mut self, queue: QueueIndex, vector: Option<MsixVector>) -> Result<(), TransportError> {
        either!(self, transport => transport.set_queue_vector(queue, vector))
    }

    fn enable_queue(
        &mut self,
        queue: QueueIndex,
        size: u16,
        addresses: QueueAddresses,
    ) -> Result<Doorbell, TransportError> {
        either!(self, transport => transport.enable_queue(queue, size, addresses))
    }

    fn start_queue_reset(&mut self, queue: QueueIndex) -> Result<(), TransportError> {
        either!(self, transport => transport.start_queue_reset(queue))
    }

    fn queue_reset_state(&mut self, queue: QueueIndex) -> Result<QueueResetState, TransportError> {
        either!(self, transport => transport.queue_reset_state(queue))
    }

    #[inline]
    fn ring(&mut self, running: &DriverOk, doorbell: Doorbell, kick: Kick) {
        either!(self, transport => transport.ring(running, doorbell, kick));
    }

    fn isr(&self) -> Arc<R> {
        either!(self, transport => transport.isr())
    }

    fn shared_memory(&self, id: u8) -> Option<BarWindow> {
        either!(self, transport => transport.shared_memory(id))
    }

    fn release<P: Platform<Registers = R>>(self, platform: &mut P) {
        either!(self, transport => transport.release(platform));
    }
}
