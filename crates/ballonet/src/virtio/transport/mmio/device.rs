//! A virtio-mmio device as announced by firmware or the user, and its identification by its first registers (virtio
//! 1.4, 4.2.3.1.1).

use core::fmt;

use derive_more::{Display, Error};

use crate::bus::{DeviceAddress, RegisterWindow, Registers, WiredInterrupt};
use crate::platform::{MapError, Platform};
use crate::virtio::spec::mmio;

/// The most bytes of a window that are mapped. No device has a longer configuration.
const WINDOW_LIMIT: u64 = 1 << 16;

/// The announced location of a virtio-mmio device. There may be none: see [`MmioDevice::identify`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MmioDevice {
    /// Its registers and its configuration.
    pub window: RegisterWindow,
    /// Its interrupt input; `None` if it has no interrupt.
    pub interrupt: Option<WiredInterrupt>,
}

/// The identity that a virtio-mmio device reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MmioIdentity {
    /// Version of the registers: 1 (legacy) or 2.
    pub version: u32,
    /// The type of the device (5): 5 is a balloon.
    pub device_type: u32,
}

/// Why a window holds no usable virtio device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum MmioError {
    /// The window has no room for the registers.
    #[display("{_0} is too small for the registers: {} bytes", mmio::CONFIG)]
    Small(#[error(not(source))] RegisterWindow),
    /// The platform could not map it.
    #[display("{_0}")]
    Map(MapError),
    /// A mapping is smaller than requested.
    #[display("{window} was mapped with {length} bytes only")]
    Short {
        /// The window requested.
        window: RegisterWindow,
        /// Bytes mapped.
        length: usize,
    },
    /// There is no virtio device.
    #[display("{device} has no virtio device: MagicValue reads {magic:#x}, not {:#x}", mmio::MAGIC)]
    Magic {
        /// The device.
        device: DeviceAddress,
        /// The value read.
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
    /// The window is a placeholder without a device (4.2.2.2).
    #[display("{_0} is a placeholder without a device")]
    Placeholder(#[error(not(source))] DeviceAddress),
    /// The CPU is big-endian, so a legacy device's rings would be too.
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

    /// Its address, which identifies it.
    pub const fn address(&self) -> DeviceAddress {
        self.window.device
    }

    /// Identifies the device; `None` for a placeholder, which is not an error. Writes no register, and reads only the
    /// first three of a placeholder.
    ///
    /// # Errors
    /// When there is no virtio device that this library could drive, whatever its type.
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

    /// Whether a device responds at its address. If that cannot be determined, it counts as present.
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

    /// Reads the three identification registers, in their order (4.2.3.1.1).
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

/// Maps a whole window.
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
