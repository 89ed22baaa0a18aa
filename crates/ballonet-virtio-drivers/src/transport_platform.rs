//! The platform of a device that is reached through a [`Transport`].

use alloc::sync::Arc;
use core::fmt;

use ballonet::balloon::BalloonPlatform;
use ballonet::memory::PageFrames;
use ballonet::platform::{DmaExhausted, MapError, Platform, RegisterWindow};
use ballonet::raw::{RawMemory, RawPlatform};
use ballonet::virtio::{DeviceHandle, MmioDevice};
use spin::Mutex;
use virtio_drivers::Hal;
use virtio_drivers::transport::Transport;
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

use super::HalConfig;
use super::platform::Parts;
use super::transport::{Device, LENGTH, TransportRegisters};

/// A stand-in for the device's address, in errors and logs.
const ADDRESS: u64 = 0;

/// A platform for one device, which is reached through a [`Transport`] `T` of `virtio-drivers`, over a [`Hal`] `H` and
/// page frames `F`.
pub struct TransportPlatform<H, T, F> {
    device: Arc<Mutex<Device<T>>>,
    parts: RawPlatform<Parts<H, F>, HalConfig<NoPci>>,
}

impl<H: Hal, T: Transport, F: PageFrames> TransportPlatform<H, T, F> {
    /// A platform for the device of `transport` that moves `frames`, as [`HalPlatform::new`](super::HalPlatform::new).
    pub fn new(transport: T, frames: F, now: fn() -> u64) -> Self {
        let device = Arc::new(Mutex::new(Device::new(transport)));
        Self { device, parts: RawPlatform::new(Parts::new(frames, now), HalConfig(NoPci(()))) }
    }

    /// The device for [`Balloon::probe`](ballonet::balloon::Balloon::probe).
    pub const fn device(&self) -> DeviceHandle {
        DeviceHandle::Mmio(MmioDevice::new(ADDRESS, LENGTH as u64, None))
    }
}

impl<H, T, F> fmt::Debug for TransportPlatform<H, T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportPlatform").finish_non_exhaustive()
    }
}

/// A bus without functions.
#[derive(Debug)]
pub struct NoPci(());

impl ConfigurationAccess for NoPci {
    fn read_word(&self, _function: DeviceFunction, _offset: u8) -> u32 {
        u32::MAX
    }

    fn write_word(&mut self, _function: DeviceFunction, _offset: u8, _value: u32) {}

    unsafe fn unsafe_clone(&self) -> Self {
        Self(())
    }
}

impl<H: Hal, T: Transport + Send + 'static, F: PageFrames> Platform for TransportPlatform<H, T, F> {
    type Config = HalConfig<NoPci>;
    type Registers = TransportRegisters<T>;
    type Memory = RawMemory;

    fn config(&mut self) -> &mut HalConfig<NoPci> {
        self.parts.config()
    }

    fn map(&mut self, window: RegisterWindow) -> Result<TransportRegisters<T>, MapError> {
        let registers = TransportRegisters::new(&self.device, window.address, window.length);
        registers.ok_or(MapError { window, reason: "the transport has no such registers" })
    }

    fn allocate_dma(&mut self, size: usize, align: usize) -> Result<RawMemory, DmaExhausted> {
        self.parts.allocate_dma(size, align)
    }

    fn release_dma(&mut self, memory: RawMemory) {
        self.parts.release_dma(memory);
    }

    fn now(&self) -> u64 {
        self.parts.now()
    }
}

impl<H: Hal, T: Transport + Send + 'static, F: PageFrames> BalloonPlatform for TransportPlatform<H, T, F> {
    type Frames = F;

    fn frames(&mut self) -> &mut F {
        self.parts.frames()
    }
}
