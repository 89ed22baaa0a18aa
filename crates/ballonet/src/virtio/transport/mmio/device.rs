//! A virtio-mmio device as firmware or the user announces it, and what its first registers say (virtio 1.4, 4.2.3.1.1).

use core::fmt;

use derive_more::{Display, Error};

use crate::bus::{DeviceAddress, RegisterWindow, Registers, WiredInterrupt};
use crate::platform::{MapError, Platform};
use crate::virtio::spec::mmio;

/// The most of a window that is mapped, in bytes. No device has a longer configuration.
const WINDOW_LIMIT: u64 = 1 << 16;

/// Where a virtio-mmio device is said to be. There may be none: see [`MmioDevice::identify`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MmioDevice {
    /// Its registers and its configuration.
    pub window: RegisterWindow,
    /// The input that it interrupts, if it interrupts.
    pub interrupt: Option<WiredInterrupt>,
}

/// What a virtio-mmio device says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MmioIdentity {
    /// Version of the registers: 1 (legacy) or 2.
    pub version: u32,
    /// The type of the device (5): 5 is a balloon.
    pub device_type: u32,
}

/// Why a window holds no virtio device that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum MmioError {
    /// The window has no room for the registers.
    #[display("{_0} is too small for the registers: {} bytes", mmio::CONFIG)]
    Small(#[error(not(source))] RegisterWindow),
    /// The platform could not map it.
    #[display("{_0}")]
    Map(MapError),
    /// A mapping is smaller than what was to be mapped.
    #[display("{window} was mapped with {length} bytes only")]
    Short {
        /// What was to be mapped.
        window: RegisterWindow,
        /// What was, in bytes.
        length: usize,
    },
    /// No virtio device is there.
    #[display("{device} has no virtio device: MagicValue reads {magic:#x}, not {:#x}", mmio::MAGIC)]
    Magic {
        /// The device.
        device: DeviceAddress,
        /// What is in place of the magic value.
        magic: u32,
    },
    /// The registers have a version that the driver does not know.
    #[display("{device} has registers of version {version}; known: 1 (legacy) and 2")]
    Version {
        /// The device.
        device: DeviceAddress,
        /// The version.
        version: u32,
    },
    /// The window is a placeholder, into which the host has put no device (4.2.2.2).
    #[display("{_0} is a placeholder without a device")]
    Placeholder(#[error(not(source))] DeviceAddress),
    /// The CPU is big-endian, and so would be a legacy device's rings.
    #[display("{_0}: legacy rings are in the CPU's byte order, and the driver's are little-endian")]
    ByteOrder(#[error(not(source))] DeviceAddress),
}

impl MmioDevice {
    /// A device whose registers start at `base`, in a window of `length` bytes.
    pub const fn new(base: u64, length: u64, interrupt: Option<WiredInterrupt>) -> Self {
        let length = if length > WINDOW_LIMIT { WINDOW_LIMIT } else { length };
        let device = DeviceAddress::Mmio(base);
        Self { window: RegisterWindow { device, bar: None, io: false, address: base, length }, interrupt }
    }

    /// Its address, by which it is named.
    pub const fn address(&self) -> DeviceAddress {
        self.window.device
    }

    /// Reads what the device is; `None` for a placeholder, which is no error. No register is written, and of a
    /// placeholder only the first three are read.
    ///
    /// # Errors
    /// When no virtio device is there that this library could drive, whatever its type.
    #[doc(alias = "virtio_mmio_probe")]
    pub fn identify<P: Platform>(&self, platform: &mut P) -> Result<Option<MmioIdentity>, MmioError> {
        match self.map(platform) {
            Ok((registers, identity)) => {
                platform.unmap(registers);
                Ok(Some(identity))
            }
            Err(MmioError::Placeholder(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether something answers at its address. Without a way to tell it is taken to be there.
    pub(in crate::virtio) fn is_present<P: Platform>(&self, platform: &mut P) -> bool {
        let Ok(registers) = self.check_size().and_then(|()| map(platform, self.window)) else { return true };
        let magic = registers.read32(mmio::MAGIC_VALUE);
        platform.unmap(registers);
        magic != u32::MAX
    }

    /// Maps the window, once it is known to hold a device.
    pub(super) fn map<P: Platform>(&self, platform: &mut P) -> Result<(P::Registers, MmioIdentity), MmioError> {
        self.check_size()?;
        let registers = map(platform, self.window)?;
        match self.read_identity(&registers) {
            Ok(identity) => Ok((registers, identity)),
            Err(error) => {
                platform.unmap(registers);
                Err(error)
            }
        }
    }

    fn check_size(&self) -> Result<(), MmioError> {
        let fits = self.window.length >= mmio::CONFIG as u64
            && self.window.address % 4 == 0
            && self.window.address.checked_add(self.window.length).is_some();
        if fits { Ok(()) } else { Err(MmioError::Small(self.window)) }
    }

    /// The three registers that say what is there, in their order (4.2.3.1.1).
    fn read_identity<R: Registers>(&self, registers: &R) -> Result<MmioIdentity, MmioError> {
        let device = self.address();
        let magic = registers.read32(mmio::MAGIC_VALUE);
        if magic != mmio::MAGIC {
            return Err(MmioError::Magic { device, magic });
        }
        let version = registers.read32(mmio::VERSION);
        if version != mmio::VERSION_MODERN && version != mmio::VERSION_LEGACY {
            return Err(MmioError::Version { device, version });
        }
        let device_type = registers.read32(mmio::DEVICE_ID);
        if device_type == 0 {
            return Err(MmioError::Placeholder(device));
        }
        if version == mmio::VERSION_LEGACY && cfg!(target_endian = "big") {
            return Err(MmioError::ByteOrder(device));
        }
        Ok(MmioIdentity { version, device_type })
    }
}

/// Maps a window in full.
pub(super) fn map<P: Platform>(platform: &mut P, window: RegisterWindow) -> Result<P::Registers, MmioError> {
    let registers = platform.map(window).map_err(MmioError::Map)?;
    let length = registers.len();
    if u64::try_from(length).is_ok_and(|length| length < window.length) {
        platform.unmap(registers);
        return Err(MmioError::Short { window, length });
    }
    Ok(registers)
}

impl fmt::Display for MmioDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}+{:#x}, ", self.window.address, self.window.length)?;
        match self.interrupt {
            Some(interrupt) => write!(f, "{interrupt}"),
            None => f.write_str("no interrupt"),
        }
    }
}
