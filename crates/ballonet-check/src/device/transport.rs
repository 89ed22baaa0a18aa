//! The mapped registers of the device under test, by transport, and the offsets that the library does not export.
//!
//! The methods of `super::registers` access what every transport has; a check of one transport accesses its registers
//! directly.

use alloc::sync::Arc;
use core::mem::offset_of;

use spin::Mutex;

use super::PciFunction;
use crate::platform::{AnyPlatform, Mapped};
use crate::verdict::{Stop, Verdict, ensure, fail};
use ballonet::platform::{InterruptLine, RegisterWindow, Registers};
use ballonet::virtio::spec::{CapabilityType, CommonConfig};
use ballonet::virtio::{MmioDevice, TransportKind};

/// Offsets of the legacy interface's registers in the I/O ports of the first BAR (4.1.4.10).
pub(crate) mod ports {
    pub(crate) const DEVICE_FEATURES: usize = 0x00;
    pub(crate) const DRIVER_FEATURES: usize = 0x04;
    pub(crate) const QUEUE_ADDRESS: usize = 0x08;
    pub(crate) const QUEUE_SIZE: usize = 0x0c;
    pub(crate) const QUEUE_SELECT: usize = 0x0e;
    pub(crate) const QUEUE_NOTIFY: usize = 0x10;
    pub(crate) const DEVICE_STATUS: usize = 0x12;
    pub(crate) const ISR: usize = 0x13;
    pub(crate) const CONFIG_MSIX_VECTOR: usize = 0x14;
    pub(crate) const QUEUE_MSIX_VECTOR: usize = 0x16;
    /// Where the device configuration starts while MSI-X is off.
    pub(crate) const CONFIG: usize = 0x14;
    /// How far it moves when MSI-X is turned on.
    pub(crate) const VECTORS: usize = 4;
}

/// Offsets of the registers of virtio over MMIO (4.2.2, 4.2.4).
pub(crate) mod mmio {
    pub(crate) const MAGIC_VALUE: usize = 0x000;
    pub(crate) const VERSION: usize = 0x004;
    pub(crate) const DEVICE_ID: usize = 0x008;
    pub(crate) const VENDOR_ID: usize = 0x00c;
    pub(crate) const DEVICE_FEATURES: usize = 0x010;
    pub(crate) const DEVICE_FEATURES_SEL: usize = 0x014;
    pub(crate) const DRIVER_FEATURES: usize = 0x020;
    pub(crate) const DRIVER_FEATURES_SEL: usize = 0x024;
    pub(crate) const GUEST_PAGE_SIZE: usize = 0x028;
    pub(crate) const QUEUE_SEL: usize = 0x030;
    pub(crate) const QUEUE_SIZE_MAX: usize = 0x034;
    pub(crate) const QUEUE_SIZE: usize = 0x038;
    pub(crate) const QUEUE_ALIGN: usize = 0x03c;
    pub(crate) const QUEUE_PFN: usize = 0x040;
    pub(crate) const QUEUE_READY: usize = 0x044;
    pub(crate) const QUEUE_NOTIFY: usize = 0x050;
    pub(crate) const INTERRUPT_STATUS: usize = 0x060;
    pub(crate) const INTERRUPT_ACK: usize = 0x064;
    pub(crate) const STATUS: usize = 0x070;
    pub(crate) const QUEUE_DESC: usize = 0x080;
    pub(crate) const QUEUE_DRIVER: usize = 0x090;
    pub(crate) const QUEUE_DEVICE: usize = 0x0a0;
    pub(crate) const SHM_SEL: usize = 0x0ac;
    pub(crate) const SHM_LEN: usize = 0x0b0;
    pub(crate) const SHM_BASE: usize = 0x0b8;
    pub(crate) const QUEUE_RESET: usize = 0x0c0;
    pub(crate) const CONFIG_GENERATION: usize = 0x0fc;
    pub(crate) const CONFIG: usize = 0x100;
    /// `virt`, little-endian.
    pub(crate) const MAGIC: u32 = 0x7472_6976;
}

/// The structures of virtio over PCI since version 1.
pub(crate) struct Modern {
    pub(crate) common: Mapped,
    pub(crate) notify: Mapped,
    pub(crate) notify_window: RegisterWindow,
    pub(crate) multiplier: u32,
}

impl Modern {
    /// Writes the addresses of the selected queue: descriptors, driver area and device area.
    pub(crate) fn write_addresses(&mut self, addresses: [u64; 3]) {
        let registers = [
            offset_of!(CommonConfig, queue_desc),
            offset_of!(CommonConfig, queue_driver),
            offset_of!(CommonConfig, queue_device),
        ];
        for (register, address) in registers.into_iter().zip(addresses) {
            self.common.write64(register, address);
        }
    }
}

/// The ports of the legacy interface.
pub(crate) struct Legacy {
    pub(crate) ports: Mapped,
}

/// The registers of virtio over MMIO.
pub(crate) struct Mmio {
    pub(crate) registers: Mapped,
    pub(crate) device: MmioDevice,
    /// Of the registers: 1 or 2.
    pub(crate) version: u32,
}

impl Mmio {
    /// Writes the addresses of the selected queue, of version 2: descriptors, driver area and device area.
    pub(crate) fn write_addresses(&mut self, addresses: [u64; 3]) {
        let registers = [mmio::QUEUE_DESC, mmio::QUEUE_DRIVER, mmio::QUEUE_DEVICE];
        for (register, address) in registers.into_iter().zip(addresses) {
            self.registers.write64(register, address);
        }
    }
}

/// The registers, by transport.
pub(crate) enum Transport {
    Modern(Modern),
    Legacy(Legacy),
    Mmio(Mmio),
}

impl Transport {
    pub(crate) fn kind(&self) -> TransportKind {
        match self {
            Self::Modern(_) => TransportKind::Modern,
            Self::Legacy(_) => TransportKind::Legacy,
            Self::Mmio(mmio) if mmio.version == 1 => TransportKind::MmioLegacy,
            Self::Mmio(_) => TransportKind::Mmio,
        }
    }

    /// The interrupt line, used without MSI-X.
    pub(crate) fn line(&self, function: Option<&PciFunction>) -> Option<InterruptLine> {
        if let Self::Mmio(mmio) = self {
            return mmio.device.interrupt.map(InterruptLine::Wired);
        }
        let function = function?.function;
        function.interrupt_pin.map(|pin| InterruptLine::Pin { function: function.bdf, pin })
    }
}

/// The reason of an interrupt, and its acknowledgement: the ISR byte, or two registers on MMIO.
pub(crate) enum Isr {
    /// On PCI reading clears.
    Byte(Mapped),
    /// On MMIO what was read is acknowledged. The mapping holds both registers.
    Registers(Mutex<Mapped>),
}

impl Isr {
    /// Reads and clears it. All ones come from a device that is gone.
    pub(crate) fn take(&self) -> u8 {
        match self {
            Self::Byte(byte) => byte.read8(0),
            Self::Registers(registers) => {
                let mut registers = registers.lock();
                let bits = registers.read32(0);
                if bits != 0 && bits != u32::MAX {
                    registers.write32(mmio::INTERRUPT_ACK - mmio::INTERRUPT_STATUS, bits);
                }
                bits as u8
            }
        }
    }
}

/// The device configuration. Without one it has length 0, reads as all ones and drops what is written.
pub(crate) struct ConfigRegisters {
    registers: Option<Mapped>,
    /// Its start: on the legacy interface 4 bytes later while MSI-X is on.
    pub(super) start: usize,
}

impl Registers for ConfigRegisters {
    fn len(&self) -> usize {
        self.registers.as_ref().map_or(0, |registers| registers.len().saturating_sub(self.start))
    }

    fn read8(&self, offset: usize) -> u8 {
        self.registers.as_ref().map_or(u8::MAX, |registers| registers.read8(self.start + offset))
    }

    fn read16(&self, offset: usize) -> u16 {
        self.registers.as_ref().map_or(u16::MAX, |registers| registers.read16(self.start + offset))
    }

    fn read32(&self, offset: usize) -> u32 {
        self.registers.as_ref().map_or(u32::MAX, |registers| registers.read32(self.start + offset))
    }

    fn write8(&mut self, offset: usize, value: u8) {
        if let Some(registers) = &mut self.registers {
            registers.write8(self.start + offset, value);
        }
    }

    fn write16(&mut self, offset: usize, value: u16) {
        if let Some(registers) = &mut self.registers {
            registers.write16(self.start + offset, value);
        }
    }

    fn write32(&mut self, offset: usize, value: u32) {
        if let Some(registers) = &mut self.registers {
            registers.write32(self.start + offset, value);
        }
    }
}

/// Everything of a device that is mapped.
pub(crate) struct Mapping {
    pub(crate) transport: Transport,
    pub(crate) isr: Arc<Isr>,
    pub(crate) config: ConfigRegisters,
}

impl Mapping {
    /// Maps the structures that modern capabilities name. `config` is the least length of the device configuration.
    pub(crate) fn modern(platform: &mut dyn AnyPlatform, pci: &PciFunction, config: usize) -> Verdict<Self> {
        let notify_window = pci.window(CapabilityType::Notify, 2)?;
        let mut windows = alloc::vec![
            pci.window(CapabilityType::Common, CommonConfig::SIZE as u64)?,
            notify_window,
            pci.window(CapabilityType::Isr, 1)?,
        ];
        if config > 0 || pci.has(CapabilityType::Device) {
            windows.push(pci.window(CapabilityType::Device, config.max(1) as u64)?);
        }
        let mut mapped = map_all(platform, &windows)?.into_iter();
        let (Some(common), Some(notify), Some(isr)) = (mapped.next(), mapped.next(), mapped.next()) else {
            unreachable!("three windows were mapped");
        };
        let transport = Transport::Modern(Modern { common, notify, notify_window, multiplier: pci.multiplier() });
        Ok(Self::new(transport, Isr::Byte(isr), mapped.next()))
    }

    /// Maps the ports of the legacy interface.
    pub(crate) fn legacy(platform: &mut dyn AnyPlatform, pci: &PciFunction) -> Verdict<Self> {
        let failed = |error: &dyn core::fmt::Display| Stop::failed(format_args!("no usable legacy interface: {error}"));
        let bar = pci.bars.get(0).map_err(|error| failed(&error))?;
        ensure!(bar.is_io(), "no usable legacy interface: BAR0 is in memory");
        let header = (ports::CONFIG + ports::VECTORS) as u64;
        ensure!(bar.size > header, "no usable legacy interface: BAR0 has {} bytes", bar.size);
        let window = |offset: u64, length: u64| bar.window(offset, length).map_err(|error| failed(&error));
        let start = ports::CONFIG as u64;
        let length = bar.size.min(PORTS_MAX);
        let windows = [window(0, header)?, window(ports::ISR as u64, 1)?, window(start, length - start)?];
        let mut mapped = map_all(platform, &windows)?.into_iter();
        let (Some(registers), Some(isr)) = (mapped.next(), mapped.next()) else {
            unreachable!("three windows were mapped");
        };
        Ok(Self::new(Transport::Legacy(Legacy { ports: registers }), Isr::Byte(isr), mapped.next()))
    }

    /// Maps the registers of a device on MMIO.
    pub(crate) fn mmio(platform: &mut dyn AnyPlatform, device: MmioDevice) -> Verdict<Self> {
        let whole = device.window;
        let interrupts = mmio::INTERRUPT_ACK + 4 - mmio::INTERRUPT_STATUS;
        let header = whole.part(0, mmio::CONFIG as u64);
        let isr = whole.part(mmio::INTERRUPT_STATUS as u64, interrupts as u64);
        let (Some(header), Some(isr)) = (header, isr) else {
            fail!("{whole} is too small for the registers");
        };
        let config = whole.part(mmio::CONFIG as u64, whole.length - mmio::CONFIG as u64);
        let windows: alloc::vec::Vec<_> = [header, isr].into_iter().chain(config).collect();
        let mut mapped = map_all(platform, &windows)?.into_iter();
        let (Some(registers), Some(isr)) = (mapped.next(), mapped.next()) else {
            unreachable!("two windows were mapped");
        };
        let version = registers.read32(mmio::VERSION);
        let transport = Transport::Mmio(Mmio { registers, device, version });
        let mapping = Self::new(transport, Isr::Registers(Mutex::new(isr)), mapped.next());
        if version == 1 || version == 2 {
            return Ok(mapping);
        }
        mapping.unmap(platform);
        fail!("the registers have version {version}; there are 1 and 2");
    }

    fn new(transport: Transport, isr: Isr, config: Option<Mapped>) -> Self {
        Self { transport, isr: Arc::new(isr), config: ConfigRegisters { registers: config, start: 0 } }
    }

    /// Ends all mappings. No handler is left.
    pub(crate) fn unmap(self, platform: &mut dyn AnyPlatform) {
        match self.transport {
            Transport::Modern(modern) => {
                platform.unmap(modern.common);
                platform.unmap(modern.notify);
            }
            Transport::Legacy(legacy) => platform.unmap(legacy.ports),
            Transport::Mmio(mmio) => platform.unmap(mmio.registers),
        }
        match Arc::into_inner(self.isr) {
            Some(Isr::Byte(byte)) => platform.unmap(byte),
            Some(Isr::Registers(registers)) => platform.unmap(registers.into_inner()),
            None => {}
        }
        if let Some(config) = self.config.registers {
            platform.unmap(config);
        }
    }
}

/// The most ports that are mapped.
const PORTS_MAX: u64 = 256;

/// Maps all windows or none.
fn map_all(platform: &mut dyn AnyPlatform, windows: &[RegisterWindow]) -> Verdict<alloc::vec::Vec<Mapped>> {
    let mut mapped = alloc::vec::Vec::with_capacity(windows.len());
    for window in windows {
        match platform.map(*window) {
            Ok(registers) => mapped.push(registers),
            Err(error) => {
                mapped.into_iter().for_each(|registers| platform.unmap(registers));
                return Err(Stop::trouble(format_args!("{error}")));
            }
        }
    }
    Ok(mapped)
}
