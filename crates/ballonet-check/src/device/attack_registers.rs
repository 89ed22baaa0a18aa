//! Single registers of any transport, writable with any value. A transport without the register skips the check.

use core::mem::offset_of;

use super::transport::{Transport, mmio, ports};
use super::{Role, TestDevice};
use crate::memory::MemoryEnds;
use crate::ring::LEGACY_PAGE;
use crate::verdict::{Stop, Verdict, skip_unless};
use ballonet::platform::Registers;
use ballonet::virtio::spec::{CapabilityType, CommonConfig};

impl TestDevice<'_> {
    /// Skips a check of registers that this transport lacks.
    fn lacks<T>(&self, what: &str) -> Verdict<T> {
        Err(Stop::skipped(format_args!("a device that is driven by {} has no {what}", self.transport.kind())))
    }

    /// Gives the selected queue this size.
    pub(crate) fn write_size(&mut self, size: u16) -> Verdict {
        match &mut self.transport {
            Transport::Modern(modern) => modern.common.write16(offset_of!(CommonConfig, queue_size), size),
            Transport::Mmio(mmio) => mmio.registers.write32(mmio::QUEUE_SIZE, size.into()),
            Transport::Legacy(_) => return self.lacks("register to size queues"),
        }
        Ok(())
    }

    /// Gives the selected queue these addresses: descriptors, driver area and device area.
    pub(crate) fn write_parts(&mut self, parts: [u64; 3]) -> Verdict {
        match &mut self.transport {
            Transport::Modern(modern) => modern.write_addresses(parts),
            Transport::Mmio(mmio) if mmio.version != 1 => mmio.write_addresses(parts),
            _ => return self.lacks("addresses of the parts of a queue"),
        }
        Ok(())
    }

    /// Writes what enables the selected queue.
    pub(crate) fn write_enable(&mut self, value: u16) -> Verdict {
        match &mut self.transport {
            Transport::Modern(modern) => modern.common.write16(offset_of!(CommonConfig, queue_enable), value),
            Transport::Mmio(mmio) if mmio.version != 1 => mmio.registers.write32(mmio::QUEUE_READY, value.into()),
            _ => return self.lacks("register to enable queues"),
        }
        Ok(())
    }

    /// Writes the register by which the selected queue is reset.
    pub(crate) fn write_queue_reset(&mut self, value: u16) -> Verdict {
        self.queue_reset()?;
        match &mut self.transport {
            Transport::Modern(modern) => modern.common.write16(offset_of!(CommonConfig, queue_reset), value),
            Transport::Mmio(mmio) => mmio.registers.write32(mmio::QUEUE_RESET, value.into()),
            Transport::Legacy(_) => {}
        }
        Ok(())
    }

    /// Accepts a word of features.
    pub(crate) fn write_feature_word(&mut self, select: u32, word: u32) -> Verdict {
        match &mut self.transport {
            Transport::Modern(modern) => {
                modern.common.write32(offset_of!(CommonConfig, driver_feature_select), select);
                modern.common.write32(offset_of!(CommonConfig, driver_feature), word);
            }
            Transport::Mmio(mmio) => {
                mmio.registers.write32(mmio::DRIVER_FEATURES_SEL, select);
                mmio.registers.write32(mmio::DRIVER_FEATURES, word);
            }
            Transport::Legacy(_) => return self.lacks("selector of features"),
        }
        Ok(())
    }

    /// Gives the selected legacy queue the block of pages that begins with this one.
    pub(crate) fn write_page(&mut self, page: u32) -> Verdict {
        match &mut self.transport {
            Transport::Legacy(legacy) => legacy.ports.write32(ports::QUEUE_ADDRESS, page),
            Transport::Mmio(mmio) if mmio.version == 1 => mmio.registers.write32(mmio::QUEUE_PFN, page),
            _ => return self.lacks("page of a queue"),
        }
        Ok(())
    }

    /// The page around an offset of the arena.
    pub(crate) fn page_of(&self, at: usize) -> u32 {
        (self.arena.address(at) / LEGACY_PAGE as u64) as u32
    }

    /// Writes `value` to the doorbell of a queue, if there is one, in any state.
    pub(crate) fn kick_number(&mut self, queue: u16, value: u16) {
        self.select(queue);
        match &mut self.transport {
            Transport::Legacy(legacy) => legacy.ports.write16(ports::QUEUE_NOTIFY, value),
            Transport::Mmio(mmio) => mmio.registers.write32(mmio::QUEUE_NOTIFY, value.into()),
            Transport::Modern(modern) => {
                let place = modern.common.read16(offset_of!(CommonConfig, queue_notify_off));
                let offset = usize::from(place) * modern.multiplier as usize;
                if offset.checked_add(2).is_some_and(|end| end <= modern.notify.len()) {
                    modern.notify.write16(offset, value);
                }
            }
        }
    }

    /// Writes the register that says why the device interrupts, which only the device may: these values in turn.
    pub(crate) fn write_isr(&mut self, values: [u8; 3]) -> Verdict {
        match &mut self.transport {
            Transport::Legacy(legacy) => values.iter().for_each(|value| legacy.ports.write8(ports::ISR, *value)),
            Transport::Mmio(mmio) => {
                values.iter().for_each(|value| mmio.registers.write32(mmio::INTERRUPT_STATUS, (*value).into()));
            }
            Transport::Modern(_) => {
                // The handlers use another mapping.
                let window = self.function()?.window(CapabilityType::Isr, 1)?;
                let mut isr = self.platform.map(window).map_err(|error| Stop::trouble(format_args!("{error}")))?;
                values.iter().for_each(|value| isr.write8(0, *value));
                self.platform.unmap(isr);
            }
        }
        Ok(())
    }

    /// Where the device's own registers are in memory.
    pub(crate) fn own_registers(&self) -> Verdict<u64> {
        if let Transport::Mmio(mmio) = &self.transport {
            return Ok(mmio.device.window.address);
        }
        let bars = (0..6).filter_map(|bar| self.pci_function().bars.get(bar).ok()).filter(|bar| !bar.is_io());
        let mut windows = bars.filter_map(|bar| bar.window(0, 64).ok());
        let none = || Stop::skipped(format_args!("the device has no BAR in memory"));
        windows.next().map(|window| window.address).ok_or_else(none)
    }

    /// Where memory ends; skips a check if that is not known.
    pub(crate) fn ends(&self) -> Verdict<MemoryEnds> {
        self.memory.ok_or_else(|| Stop::skipped(format_args!("where memory ends is not known")))
    }

    /// Skips the check for a device that writes buffers: memory that is not the tester's might contain any address.
    pub(crate) fn writes_nothing(&self) -> Verdict {
        let writes = self.payload(Role::Second, 0..8).is_ok_and(|payload| payload.writable > 0);
        skip_unless!(!writes, "such a device might write where the contents of others' memory say");
        Ok(())
    }

    /// Whether the tester knows requests to it.
    pub(crate) fn has_requests(&self) -> bool {
        self.payload(Role::First, 0..1).is_ok()
    }
}
