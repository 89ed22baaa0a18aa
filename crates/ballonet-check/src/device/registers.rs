//! Single registers of the device, over any transport.

use core::mem::offset_of;

use super::transport::{Legacy, Mmio, Modern, Transport, mmio, ports};
use super::{PciFunction, TestDevice};
use crate::platform::Mapped;
use crate::ring::{Areas, LEGACY_PAGE};
use crate::verdict::{Stop, Verdict, ensure, skip_unless};
use ballonet::platform::Registers;
use ballonet::virtio::spec::{CommonConfig, Features, NO_VECTOR, Status};

impl TestDevice<'_> {
    /// The structures of virtio over PCI; skips a check of a device that is driven otherwise.
    pub(crate) fn modern(&mut self) -> Verdict<&mut Modern> {
        match &mut self.transport {
            Transport::Modern(modern) => Ok(modern),
            other => Err(Stop::skipped(format_args!("the device is driven by {}, not by modern PCI", other.kind()))),
        }
    }

    /// The same for a check of a chapter that runs on modern PCI alone.
    ///
    /// # Panics
    /// On another transport.
    pub(crate) fn modern_registers(&mut self) -> &mut Modern {
        match &mut self.transport {
            Transport::Modern(modern) => modern,
            _ => unreachable!("the chapter is for modern PCI"),
        }
    }

    /// The function, for a check of a chapter that only runs on PCI.
    ///
    /// # Panics
    /// If the device is not on PCI.
    pub(crate) fn pci_function(&self) -> &PciFunction {
        self.pci.as_ref().unwrap_or_else(|| unreachable!("the chapter is for PCI"))
    }

    /// The common structure; modern PCI only.
    pub(crate) fn common(&mut self) -> Verdict<&mut Mapped> {
        self.modern().map(|modern| &mut modern.common)
    }

    /// The ports of the legacy interface; legacy PCI only.
    pub(crate) fn legacy(&mut self) -> Verdict<&mut Legacy> {
        match &mut self.transport {
            Transport::Legacy(legacy) => Ok(legacy),
            other => Err(Stop::skipped(format_args!("the device is driven by {}, not by legacy PCI", other.kind()))),
        }
    }

    /// The registers on MMIO, of either version; MMIO only.
    pub(crate) fn mmio(&mut self) -> Verdict<&mut Mmio> {
        match &mut self.transport {
            Transport::Mmio(mmio) => Ok(mmio),
            _ => Err(Stop::skipped(format_args!("the device is not on MMIO"))),
        }
    }

    /// The PCI function; skips a check of a device that is none.
    pub(crate) fn function(&self) -> Verdict<&PciFunction> {
        self.pci.as_ref().ok_or_else(|| Stop::skipped(format_args!("the device is not on PCI")))
    }

    /// Whether the interface is from before version 1: 32 feature bits, no `FEATURES_OK`, queues in one block.
    pub(crate) fn is_legacy(&self) -> bool {
        self.transport.kind().is_legacy()
    }

    pub(crate) fn status(&self) -> Verdict<Status> {
        let byte = |value: u8| if value == u8::MAX { u32::MAX } else { value.into() };
        let value = match &self.transport {
            Transport::Modern(modern) => byte(modern.common.read8(offset_of!(CommonConfig, device_status))),
            Transport::Legacy(legacy) => byte(legacy.ports.read8(ports::DEVICE_STATUS)),
            Transport::Mmio(mmio) => mmio.registers.read32(mmio::STATUS),
        };
        match u8::try_from(value) {
            Ok(status) => Ok(Status::from_bits_retain(status)),
            Err(_) if value == u32::MAX => Err(Stop::gone()),
            Err(_) => Err(Stop::failed(format_args!("Status reads as {value:#x}"))),
        }
    }

    pub(crate) fn set_status(&mut self, status: Status) {
        match &mut self.transport {
            Transport::Modern(modern) => modern.common.write8(offset_of!(CommonConfig, device_status), status.bits()),
            Transport::Legacy(legacy) => legacy.ports.write8(ports::DEVICE_STATUS, status.bits()),
            Transport::Mmio(mmio) => mmio.registers.write32(mmio::STATUS, status.bits().into()),
        }
    }

    /// The bits of the status before `DRIVER_OK` that this interface has.
    pub(crate) fn settled(&self) -> Status {
        let found = Status::ACKNOWLEDGE | Status::DRIVER;
        if self.is_legacy() { found } else { found | Status::FEATURES_OK }
    }

    /// A word of the offered features.
    pub(crate) fn feature_word(&mut self, select: u32) -> u32 {
        match &mut self.transport {
            Transport::Modern(modern) => {
                modern.common.write32(offset_of!(CommonConfig, device_feature_select), select);
                modern.common.read32(offset_of!(CommonConfig, device_feature))
            }
            Transport::Legacy(legacy) if select == 0 => legacy.ports.read32(ports::DEVICE_FEATURES),
            Transport::Legacy(_) => 0,
            Transport::Mmio(mmio) => {
                mmio.registers.write32(mmio::DEVICE_FEATURES_SEL, select);
                mmio.registers.read32(mmio::DEVICE_FEATURES)
            }
        }
    }

    pub(crate) fn read_offered(&mut self) -> Features {
        let low = self.feature_word(0);
        let high = if self.is_legacy() { 0 } else { self.feature_word(1) };
        Features::from([low, high])
    }

    pub(crate) fn accept(&mut self, features: Features) {
        let count = if self.is_legacy() { 1 } else { 2 };
        for (select, word) in (0..).zip(<[u32; 2]>::from(features)).take(count) {
            match &mut self.transport {
                Transport::Modern(modern) => {
                    modern.common.write32(offset_of!(CommonConfig, driver_feature_select), select);
                    modern.common.write32(offset_of!(CommonConfig, driver_feature), word);
                }
                Transport::Legacy(legacy) => legacy.ports.write32(ports::DRIVER_FEATURES, word),
                Transport::Mmio(mmio) => {
                    mmio.registers.write32(mmio::DRIVER_FEATURES_SEL, select);
                    mmio.registers.write32(mmio::DRIVER_FEATURES, word);
                }
            }
        }
        // A legacy device on MMIO learns the size of pages before any queue is used (4.2.4).
        match &mut self.transport {
            Transport::Mmio(mmio) if mmio.version == 1 => {
                mmio.registers.write32(mmio::GUEST_PAGE_SIZE, LEGACY_PAGE as u32);
            }
            _ => {}
        }
    }

    pub(crate) fn select(&mut self, queue: u16) {
        match &mut self.transport {
            Transport::Modern(modern) => modern.common.write16(offset_of!(CommonConfig, queue_select), queue),
            Transport::Legacy(legacy) => legacy.ports.write16(ports::QUEUE_SELECT, queue),
            Transport::Mmio(mmio) => mmio.registers.write32(mmio::QUEUE_SEL, queue.into()),
        }
    }

    /// The entries of a queue: its size, or on MMIO the maximum; 0 if it does not exist.
    pub(crate) fn queue_size(&mut self, queue: u16) -> u16 {
        self.select(queue);
        match &self.transport {
            Transport::Modern(modern) => modern.common.read16(offset_of!(CommonConfig, queue_size)),
            Transport::Legacy(legacy) => legacy.ports.read16(ports::QUEUE_SIZE),
            Transport::Mmio(mmio) => u16::try_from(mmio.registers.read32(mmio::QUEUE_SIZE_MAX)).unwrap_or(u16::MAX),
        }
    }

    /// The register that enables a queue: `queue_enable`, `QueueReady`, or a legacy queue's page.
    pub(crate) fn in_use(&mut self, queue: u16) -> u32 {
        self.select(queue);
        match &self.transport {
            Transport::Modern(modern) => modern.common.read16(offset_of!(CommonConfig, queue_enable)).into(),
            Transport::Legacy(legacy) => legacy.ports.read32(ports::QUEUE_ADDRESS),
            Transport::Mmio(mmio) if mmio.version == 1 => mmio.registers.read32(mmio::QUEUE_PFN),
            Transport::Mmio(mmio) => mmio.registers.read32(mmio::QUEUE_READY),
        }
    }

    /// Whether [`TestDevice::in_use`] reads as it must for an enabled queue.
    pub(crate) fn shows_use(&mut self, queue: u16) -> bool {
        let value = self.in_use(queue);
        if self.is_legacy() { value != 0 } else { value == 1 }
    }

    /// The numbers of the queues that exist.
    pub(crate) fn present(&self) -> impl Iterator<Item = u16> + use<> {
        let sizes = self.sizes.clone();
        (0..).zip(sizes).filter(|(_, size)| *size != 0).map(|(queue, _)| queue)
    }

    /// The number after that of the last queue.
    pub(crate) fn first_absent(&self) -> u16 {
        self.present().last().map_or(0, |last| last + 1)
    }

    /// Writes the vector of a queue, or of configuration changes, and reads it back.
    pub(crate) fn try_vector(&mut self, queue: Option<u16>, vector: u16) -> Verdict<u16> {
        if let Some(queue) = queue {
            self.select(queue);
        }
        let (registers, [of_config, of_queue]) = match &mut self.transport {
            Transport::Modern(modern) => (
                &mut modern.common,
                [offset_of!(CommonConfig, config_msix_vector), offset_of!(CommonConfig, queue_msix_vector)],
            ),
            Transport::Legacy(legacy) => (&mut legacy.ports, [ports::CONFIG_MSIX_VECTOR, ports::QUEUE_MSIX_VECTOR]),
            Transport::Mmio(_) => return Err(Stop::skipped(format_args!("there are no vectors on MMIO"))),
        };
        let register = if queue.is_some() { of_queue } else { of_config };
        registers.write16(register, vector);
        Ok(registers.read16(register))
    }

    pub(super) fn set_vector(&mut self, queue: Option<u16>, vector: u16) -> Verdict {
        let read = self.try_vector(queue, vector)?;
        skip_unless!(read != NO_VECTOR, "the device refuses vector {vector}");
        ensure!(read == vector, "vector {vector} reads back as {read:#06x}");
        Ok(())
    }

    /// Gives the selected queue its size, if that is not its own already.
    pub(super) fn set_size(&mut self, size: u16, now: u16) {
        match &mut self.transport {
            Transport::Modern(modern) if size != now => {
                modern.common.write16(offset_of!(CommonConfig, queue_size), size);
            }
            // It shows its maximum, not its size.
            Transport::Mmio(mmio) => mmio.registers.write32(mmio::QUEUE_SIZE, size.into()),
            _ => {}
        }
    }

    /// Gives the selected queue its addresses. A legacy queue is in use from here on.
    pub(crate) fn write_areas(&mut self, areas: Areas) {
        let addresses = [areas.descriptors, areas.driver, areas.device].map(|area| self.arena.address(area));
        let page = (addresses[0] / LEGACY_PAGE as u64) as u32;
        match &mut self.transport {
            Transport::Modern(modern) => modern.write_addresses(addresses),
            Transport::Legacy(legacy) => legacy.ports.write32(ports::QUEUE_ADDRESS, page),
            Transport::Mmio(mmio) if mmio.version == 1 => {
                mmio.registers.write32(mmio::QUEUE_ALIGN, LEGACY_PAGE as u32);
                mmio.registers.write32(mmio::QUEUE_PFN, page);
            }
            Transport::Mmio(mmio) => mmio.write_addresses(addresses),
        }
    }

    /// Enables the selected queue.
    pub(super) fn switch_on(&mut self) {
        match &mut self.transport {
            Transport::Modern(modern) => modern.common.write16(offset_of!(CommonConfig, queue_enable), 1),
            Transport::Mmio(mmio) if mmio.version != 1 => mmio.registers.write32(mmio::QUEUE_READY, 1),
            _ => {}
        }
    }

    /// Rings a queue's doorbell: with its number, and the driver's position if `NOTIFICATION_DATA` was negotiated.
    pub(crate) fn ring_doorbell(&mut self, queue: u16, progress: u16) -> Verdict {
        let wide = self.features.contains(Features::NOTIFICATION_DATA);
        let data = if wide { u32::from(progress) << 16 } else { 0 };
        if let Transport::Modern(_) = self.transport {
            let (offset, number) = self.doorbell(queue)?;
            let notify = &mut self.modern()?.notify;
            if wide {
                notify.write32(offset, data | u32::from(number));
            } else {
                notify.write16(offset, number);
            }
            return Ok(());
        }
        match &mut self.transport {
            Transport::Legacy(legacy) => legacy.ports.write16(ports::QUEUE_NOTIFY, queue),
            Transport::Mmio(mmio) => mmio.registers.write32(mmio::QUEUE_NOTIFY, data | u32::from(queue)),
            Transport::Modern(_) => {}
        }
        Ok(())
    }

    /// Where a queue is kicked on modern PCI, and with what.
    pub(crate) fn doorbell(&mut self, queue: u16) -> Verdict<(usize, u16)> {
        self.select(queue);
        let features = self.features;
        let modern = self.modern()?;
        let offset =
            u64::from(modern.common.read16(offset_of!(CommonConfig, queue_notify_off))) * u64::from(modern.multiplier);
        let width = if features.contains(Features::NOTIFICATION_DATA) { 4 } else { 2 };
        let (length, address) = (modern.notify.len() as u64, modern.notify_window.address);
        ensure!(
            offset + width <= length && (address + offset) % width == 0,
            "the doorbell of queue {queue} is at {offset:#x}, of {length:#x} bytes"
        );
        let number = if features.contains(Features::NOTIF_CONFIG_DATA) {
            let room = modern.common.len() >= offset_of!(CommonConfig, queue_notif_config_data) + 2;
            ensure!(room, "there is no queue_notif_config_data");
            modern.common.read16(offset_of!(CommonConfig, queue_notif_config_data))
        } else {
            queue
        };
        Ok((offset as usize, number))
    }

    /// Counts changes of the configuration; `None` where there is no such counter.
    pub(crate) fn generation(&self) -> Option<u32> {
        match &self.transport {
            Transport::Modern(modern) => Some(modern.common.read8(offset_of!(CommonConfig, config_generation)).into()),
            Transport::Mmio(mmio) if mmio.version != 1 => Some(mmio.registers.read32(mmio::CONFIG_GENERATION)),
            _ => None,
        }
    }

    /// The register by which single queues are reset, for the selected queue; skips where there is none.
    pub(crate) fn queue_reset(&mut self) -> Verdict<u32> {
        match &self.transport {
            Transport::Modern(modern) if modern.common.len() >= offset_of!(CommonConfig, queue_reset) + 2 => {
                Ok(modern.common.read16(offset_of!(CommonConfig, queue_reset)).into())
            }
            Transport::Mmio(mmio) if mmio.version != 1 => Ok(mmio.registers.read32(mmio::QUEUE_RESET)),
            other => Err(Stop::skipped(format_args!("{} has no queue_reset here", other.kind()))),
        }
    }

    /// Starts the reset of the selected queue.
    pub(crate) fn start_queue_reset(&mut self) {
        match &mut self.transport {
            Transport::Modern(modern) => modern.common.write16(offset_of!(CommonConfig, queue_reset), 1),
            Transport::Mmio(mmio) => mmio.registers.write32(mmio::QUEUE_RESET, 1),
            Transport::Legacy(_) => {}
        }
    }
}
