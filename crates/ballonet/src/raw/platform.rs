//! A platform over a handful of functions.

use core::fmt;
use core::ptr::NonNull;

use super::small_blocks::SmallBlocks;
use super::{RawMemory, RawRegisters};
use crate::balloon::{BalloonPlatform, Statistics};
use crate::memory::PageFrames;
use crate::pci::ConfigSpace;
use crate::platform::{
    DmaExhausted, DmaMemory, Handler, MapError, Platform, RegisterWindow, Registers, Vector, VectorError,
};

/// What [`RawPlatform`] needs of a kernel. Four functions; interrupts are two more.
///
/// # Safety
/// [`RawPlatform`] uses the pointers without a check of its own: what [`Kernel::map`] and [`Kernel::allocate_dma`]
/// promise must hold.
pub unsafe trait Kernel {
    /// Maps device registers: `length` bytes at the physical address `address`, uncached, readable and writable, until
    /// [`Kernel::unmap`]. A window may be a single byte and begin anywhere in a page; the pointer keeps that offset in
    /// its page. `None` if it cannot be mapped.
    fn map(&mut self, address: u64, length: usize) -> Option<NonNull<u8>>;

    /// Ends a mapping. By default the mapping stays, as part of a permanent map of all memory would.
    fn unmap(&mut self, _start: NonNull<u8>, _length: usize) {}

    /// Allocates `size` bytes that are contiguous for the device, aligned to `align`, a power of two and at least 8, in
    /// both address spaces, until [`Kernel::release_dma`]. They need not be zeroed. Returns their address for the CPU
    /// and for the device (without an IOMMU, the physical address). `None` if there is no such memory.
    fn allocate_dma(&mut self, size: usize, align: usize) -> Option<(NonNull<u8>, u64)>;

    /// Frees memory from [`Kernel::allocate_dma`] of this `size`, which the device no longer uses.
    fn release_dma(&mut self, start: NonNull<u8>, device: u64, size: usize);

    /// As [`Platform::allocate_vector`]. By default there are no interrupts, and the driver is polled.
    ///
    /// # Errors
    /// As [`Platform::allocate_vector`].
    fn allocate_vector(
        &mut self,
        _name: fmt::Arguments<'_>,
        _handler: Handler<RawRegisters>,
    ) -> Result<Vector, VectorError> {
        Err(VectorError::NoMessages)
    }

    /// As [`Platform::release_vector`].
    fn release_vector(&mut self, _vector: Vector) {}

    /// Time since some fixed moment, in nanoseconds. Monotonic.
    fn now(&self) -> u64;

    /// As [`BalloonPlatform::statistics`]. By default there are none.
    fn statistics(&self) -> Statistics {
        Statistics::default()
    }
}

/// A kernel whose page frames a balloon may move. [`DmaFrames`](super::DmaFrames) makes one of any [`Kernel`].
pub trait BalloonKernel {
    /// The kernel's page frame allocator; [`memory::Frames`](crate::memory::Frames) if it has none.
    type Frames: PageFrames;

    /// The page frames.
    fn frames(&mut self) -> &mut Self::Frames;
}

/// A platform over a kernel's functions `K` and configuration space `C`.
///
/// Blocks of DMA memory of at most half a frame share frames of 4 KiB, if the kernel can allocate those.
#[derive(Debug)]
pub struct RawPlatform<K, C> {
    /// The kernel's functions.
    pub kernel: K,
    /// Configuration space.
    pub config: C,
    small: SmallBlocks,
}

impl<K: Kernel, C: ConfigSpace> RawPlatform<K, C> {
    /// A platform of these parts.
    pub const fn new(kernel: K, config: C) -> Self {
        Self { kernel, config, small: SmallBlocks::new() }
    }
}

/// A window in port space.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn ports(window: RegisterWindow) -> Option<RawRegisters> {
    let base = u16::try_from(window.address).ok()?;
    let length = u16::try_from(window.length).ok().filter(|length| base.checked_add(length - 1).is_some())?;
    // SAFETY: the caller got the window from a device's BAR, and the device decodes it.
    Some(unsafe { RawRegisters::ports(base, length.into()) })
}

/// There is no port space.
#[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
fn ports(_window: RegisterWindow) -> Option<RawRegisters> {
    None
}

impl<K: Kernel, C: ConfigSpace> Platform for RawPlatform<K, C> {
    type Config = C;
    type Registers = RawRegisters;
    type Memory = RawMemory;

    fn config(&mut self) -> &mut C {
        &mut self.config
    }

    fn map(&mut self, window: RegisterWindow) -> Result<RawRegisters, MapError> {
        if window.io {
            return ports(window).ok_or(MapError { window, reason: "these ports do not exist" });
        }
        let length = usize::try_from(window.length).ok();
        let mapped = length.and_then(|length| Some((self.kernel.map(window.address, length)?, length)));
        let (start, length) = mapped.ok_or(MapError { window, reason: "the kernel does not map it" })?;
        // SAFETY: the kernel promises that it stays mapped until `unmap`. Registers of PCI devices affect memory only
        // through DMA, and the driver gives devices only the addresses of DMA memory.
        Ok(unsafe { RawRegisters::memory(start, length) })
    }

    fn unmap(&mut self, registers: RawRegisters) {
        if let Some(start) = registers.pointer() {
            self.kernel.unmap(start, registers.len());
        }
    }

    fn allocate_dma(&mut self, size: usize, align: usize) -> Result<RawMemory, DmaExhausted> {
        let exhausted = DmaExhausted { size, align };
        let block = self.small.allocate(&mut self.kernel, size, align.max(8));
        let (start, device) = block.ok_or(exhausted)?;
        // SAFETY: the kernel promises that nothing else uses it until it is released.
        Ok(unsafe { RawMemory::new(start, device, size) })
    }

    fn release_dma(&mut self, memory: RawMemory) {
        self.small.release(&mut self.kernel, memory.pointer(), memory.device_address(), memory.len());
    }

    fn allocate_vector(
        &mut self,
        name: fmt::Arguments<'_>,
        handler: Handler<RawRegisters>,
    ) -> Result<Vector, VectorError> {
        self.kernel.allocate_vector(name, handler)
    }

    fn release_vector(&mut self, vector: Vector) {
        self.kernel.release_vector(vector);
    }

    fn now(&self) -> u64 {
        self.kernel.now()
    }
}

impl<K: Kernel + BalloonKernel, C: ConfigSpace> BalloonPlatform for RawPlatform<K, C> {
    type Frames = K::Frames;

    fn frames(&mut self) -> &mut K::Frames {
        self.kernel.frames()
    }

    fn statistics(&self) -> Statistics {
        self.kernel.statistics()
    }
}
