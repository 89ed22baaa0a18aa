//! The platform: registers, memory and time by the traits of `virtio-drivers`.

use core::marker::PhantomData;
use core::ptr::NonNull;

use ballonet::balloon::{BalloonPlatform, Statistics};
use ballonet::memory::PageFrames;
use ballonet::platform::MapError;
use ballonet::platform::{DmaExhausted, Platform, RegisterWindow};
use ballonet::raw::{BalloonKernel, Kernel, RawMemory, RawPlatform, RawRegisters};
use virtio_drivers::transport::pci::bus::ConfigurationAccess;
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE};

use super::HalConfig;

/// A platform over a [`Hal`] `H`, a [`ConfigurationAccess`] `C` and page frames `F`.
#[derive(Debug)]
pub struct HalPlatform<H, C, F> {
    parts: RawPlatform<Parts<H, F>, HalConfig<C>>,
}

/// The kernel's part of it.
#[derive(Debug)]
pub(crate) struct Parts<H, F> {
    frames: F,
    now: fn() -> u64,
    hal: PhantomData<fn() -> H>,
}

impl<H, F> Parts<H, F> {
    pub(crate) const fn new(frames: F, now: fn() -> u64) -> Self {
        Self { frames, now, hal: PhantomData }
    }
}

impl<H: Hal, C: ConfigurationAccess, F: PageFrames> HalPlatform<H, C, F> {
    /// A platform that moves `frames` ([`HalFrames`](super::HalFrames), or the kernel's own). `now` is a monotonic
    /// clock in nanoseconds.
    pub const fn new(config: C, frames: F, now: fn() -> u64) -> Self {
        Self { parts: RawPlatform::new(Parts::new(frames, now), HalConfig(config)) }
    }
}

// SAFETY: an implementation of `Hal` promises what `Kernel` requires: mapped registers, and memory that nothing else
// uses until it is deallocated.
unsafe impl<H: Hal, F> Kernel for Parts<H, F> {
    fn map(&mut self, address: u64, length: usize) -> Option<NonNull<u8>> {
        // SAFETY: the window is part of a device's BAR.
        Some(unsafe { H::mmio_phys_to_virt(address, length) })
    }

    fn allocate_dma(&mut self, size: usize, align: usize) -> Option<(NonNull<u8>, u64)> {
        if align > PAGE_SIZE {
            return None;
        }
        let (device, start) = H::dma_alloc(size.div_ceil(PAGE_SIZE).max(1), BufferDirection::Both);
        // Address 0 means that there is no memory, as in `virtio-drivers`' own queues.
        (device != 0).then_some((start, device))
    }

    fn release_dma(&mut self, start: NonNull<u8>, device: u64, size: usize) {
        // SAFETY: it was allocated with these values, and the device no longer uses it.
        let status = unsafe { H::dma_dealloc(device, start, size.div_ceil(PAGE_SIZE).max(1)) };
        if status != 0 {
            log::error!("DMA memory at {device:#x}: releasing it failed with error {status}");
        }
    }

    fn now(&self) -> u64 {
        (self.now)()
    }
}

impl<H, F: PageFrames> BalloonKernel for Parts<H, F> {
    type Frames = F;

    fn frames(&mut self) -> &mut F {
        &mut self.frames
    }
}

impl<H: Hal, C: ConfigurationAccess, F: PageFrames> Platform for HalPlatform<H, C, F> {
    type Config = HalConfig<C>;
    type Registers = RawRegisters;
    type Memory = RawMemory;

    fn config(&mut self) -> &mut HalConfig<C> {
        self.parts.config()
    }

    fn map(&mut self, window: RegisterWindow) -> Result<RawRegisters, MapError> {
        self.parts.map(window)
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

impl<H: Hal, C: ConfigurationAccess, F: PageFrames> BalloonPlatform for HalPlatform<H, C, F> {
    type Frames = F;

    fn frames(&mut self) -> &mut F {
        self.parts.frames()
    }

    fn statistics(&self) -> Statistics {
        Statistics::default()
    }
}
