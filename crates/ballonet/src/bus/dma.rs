//! Memory that driver and device share.

use derive_more::{Display, Error, From};

/// Memory that a driver and its device share: zeroed, physically contiguous, owned by this value.
///
/// Offsets are in bytes from the start. Multi-byte accesses are naturally aligned, in the CPU's byte order,
/// single-copy atomic and *relaxed*: [`crate::virtio::barrier`] orders them. An access outside the memory is a bug of
/// the caller and panics.
pub trait DmaMemory {
    /// The address that the device uses for the first byte.
    fn device_address(&self) -> u64;
    /// Size in bytes.
    fn len(&self) -> usize;

    /// Whether there is no memory at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Loads 16 bits.
    fn load16(&self, offset: usize) -> u16;
    /// Loads 32 bits.
    fn load32(&self, offset: usize) -> u32;
    /// Loads 64 bits.
    fn load64(&self, offset: usize) -> u64;
    /// Stores 16 bits.
    fn store16(&mut self, offset: usize, value: u16);
    /// Stores 32 bits.
    fn store32(&mut self, offset: usize, value: u32);
    /// Stores 64 bits.
    fn store64(&mut self, offset: usize, value: u64);
    /// Copies `bytes` in, in unspecified order. Any alignment.
    fn write_bytes(&mut self, offset: usize, bytes: &[u8]);
    /// Copies bytes out, in unspecified order. Any alignment.
    fn read_bytes(&self, offset: usize, bytes: &mut [u8]);
}

/// No DMA memory is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
#[display("no {size} bytes of contiguous DMA memory aligned to {align}")]
pub struct DmaExhausted {
    /// Size asked for, in bytes.
    pub size: usize,
    /// Alignment asked for, in bytes.
    pub align: usize,
}

/// Memory that a driver could not get. Memory it had already allocated has been released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error, From)]
#[non_exhaustive]
pub enum OutOfMemory {
    /// Memory shared with the device.
    #[display("{_0}")]
    Dma(DmaExhausted),
    /// The driver's own memory: bytes requested.
    #[display("no {_0} bytes of heap")]
    #[from(skip)]
    Heap(#[error(not(source))] usize),
}
