//! The platform: registers, memory and time by the traits of `virtio-drivers`.

use core::marker::PhantomData;
use core::ptr::NonNull;

use ballonet::balloon::{BalloonPlatform, Statistics};
use ballonet::memory::PageFrames;
use ballonet::platform::{DmaExhausted, MapError, Platform, RegisterWindow};
use ballonet::raw::{BalloonKernel, Kernel, RawMemory, RawPlatform, RawRegisters};
use virtio_drivers::transport::pci::bus::ConfigurationAccess;
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE};

use super::HalConfig;

/// What a platform has from its `parts`: everything but registers.
macro_rules! from_parts {
    ($config:ty) => {
        type Config = $config;
        type Memory = RawMemory;

        fn config(&mut self) -> &mut $config {
            self.parts.config()
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
    };
}

/// The same for its page frames.
macro_rules! frames_from_parts {
    ($frames:ty) => {
        type Frames = $frames;

        fn frames(&mut self) -> &mut $frames {
            self.parts.frames()
        }

        fn statistics(&self) -> Statistics {
            self.parts.statistics()
        }
    };
}

pub(crate) use {frames_from_parts, from_parts};

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
    pub(crate) statistics: fn() -> Statistics,
    hal: PhantomData<fn() -> H>,
}

impl<H, F> Parts<H, F> {
    pub(crate) const fn new(frames: F, now: fn() -> u64) -> Self {
        Self { frames, now, statistics: Statistics::default, hal: PhantomData }
    }
}

impl<H: Hal, C: ConfigurationAccess, F: PageFrames> HalPlatform<H, C, F> {
    /// A platform that moves `frames` ([`HalFrames`](super::HalFrames), or the kernel's own). `now` is a monotonic
    /// clock in nanoseconds.
    pub const fn new(config: C, frames: F, now: fn() -> u64) -> Self {
        Self { parts: RawPlatform::new(Parts::new(frames, now), HalConfig(config)) }
    }

    /// The same with the memory statistics that the host is sent. See
    /// [`BalloonPlatform::statistics`](ballonet::balloon::BalloonPlatform::statistics).
    #[must_use]
    pub const fn with_statistics(mut self, statistics: fn() -> Statistics) -> Self {
        self.parts.kernel.statistics = statistics;
        self
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

    fn statistics(&self) -> Statistics {
        (self.statistics)()
    }
}

impl<H, F: PageFrames> BalloonKernel for Parts<H, F> {
    type Frames = F;

    fn frames(&mut self) -> &mut F {
        &mut self.frames
    }
}

impl<H: Hal, C: ConfigurationAccess, F: PageFrames> Platform for HalPlatform<H, C, F> {
    type Registers = RawRegisters;
    from_parts!(HalConfig<C>);

    fn map(&mut self, window: RegisterWindow) -> Result<RawRegisters, MapError> {
        self.parts.map(window)
    }
}

impl<H: Hal, C: ConfigurationAccess, F: PageFrames> BalloonPlatform for HalPlatform<H, C, F> {
    frames_from_parts!(F);
}
