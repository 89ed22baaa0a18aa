//! The registers of a device on MMIO, and their lies.

/// A shared memory region: number, address and length.
type SharedMemory = (u8, u64, u64);

/// The registers of a device on MMIO.
#[derive(Debug, Clone)]
pub struct MmioRegisters {
    /// Version 1, in place of 2.
    pub legacy: bool,
    /// `MagicValue`.
    pub magic: u32,
    /// A wrong `Version`.
    pub version_lie: Option<u32>,
    /// A window without a device: `DeviceID` is 0.
    pub placeholder: bool,
    /// A wrong `QueueSizeMax`.
    pub size_lie: Option<u32>,
    /// `QueueReady` or `QueuePFN` before the driver has written it.
    pub in_use: u32,
    /// Bits of `Status` beyond the lower eight.
    pub status_junk: u32,
    /// The device offers `RING_RESET` but has no `QueueReset`, as in QEMU.
    pub no_queue_reset: bool,
    /// The device's regions of shared memory.
    pub shared_memory: Vec<SharedMemory>,
}

impl MmioRegisters {
    /// Correct registers of version 2.
    pub(crate) fn modern() -> Self {
        Self {
            legacy: false,
            magic: 0x7472_6976,
            version_lie: None,
            placeholder: false,
            size_lie: None,
            in_use: 0,
            status_junk: 0,
            no_queue_reset: false,
            shared_memory: Vec::new(),
        }
    }

    /// Correct registers of version 1.
    pub(crate) fn legacy() -> Self {
        Self { legacy: true, ..Self::modern() }
    }
}
