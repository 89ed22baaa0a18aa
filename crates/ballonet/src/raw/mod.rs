//! Ready-made parts of a platform, over raw pointers and ports: the only unsafe code of the library.
//!
//! A kernel implements [`Kernel`], four functions, and for a balloon [`BalloonKernel`], one more; [`RawPlatform`] is
//! then its [`Platform`](crate::platform::Platform). [`DmaFrames`] provides that one by the other four. The parts also serve alone, in a platform of the kernel's own:
//! [`RawRegisters`], [`RawMemory`], and configuration space by [`PortConfig`] or [`EcamConfig`].
//!
//! Unsafe code trusts the kernel: each constructor, and the trait [`Kernel`], says what must hold. Nothing that a
//! device writes is trusted. An access out of bounds or off its natural boundary panics.

mod chunk;
mod config;
mod dma_frames;
mod memory;
mod platform;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod port;
mod registers;
mod small_blocks;
#[cfg(test)]
mod tests;

pub use config::EcamConfig;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub use config::PortConfig;
pub use dma_frames::DmaFrames;
pub use memory::RawMemory;
pub use platform::{BalloonKernel, Kernel, RawPlatform};
pub use registers::RawRegisters;

/// Panics, for an access of `size` bytes at `offset` in `length` bytes. Out of line, so that each access contains only
/// the check.
#[cold]
#[inline(never)]
#[track_caller]
fn beyond(size: usize, offset: usize, length: usize) -> ! {
    panic!("access of {size} bytes at {offset:#x} in {length:#x} bytes");
}

/// Checks bounds and natural alignment of an access of `size` bytes.
#[inline]
#[track_caller]
fn check(size: usize, offset: usize, length: usize) {
    if offset % size != 0 || length.checked_sub(offset).is_none_or(|left| left < size) {
        beyond(size, offset, length);
    }
}
