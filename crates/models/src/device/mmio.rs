//! The registers of virtio over MMIO (4.2.2, 4.2.4) beyond device state and queues: identification, interrupts, kicks,
//! shared memory, and the device configuration.

use super::Balloon;
use crate::behaviour::MmioRegisters;
use crate::bug::Bug;
use crate::device::common::mmio::{self, Register};
use crate::feature;
use crate::world::Bus;

/// Where the device configuration starts.
const CONFIG: u64 = 0x100;

impl Balloon {
    fn mmio(&self) -> &MmioRegisters {
        self.behaviour.mmio.as_ref().expect("a device on MMIO")
    }

    pub(super) fn read_mmio(&mut self, offset: u64, width: u8, bus: &mut Bus) -> u32 {
        if let Some(at) = offset.checked_sub(CONFIG) {
            return self.read_device_config(at, width, bus);
        }
        let Some(register) = self.check_mmio(offset, width, false, bus) else { return u32::MAX };
        match register {
            Register::Magic => self.mmio().magic,
            Register::Version => self.mmio().version_lie.unwrap_or(if self.mmio().legacy { 1 } else { 2 }),
            Register::DeviceId if self.mmio().placeholder => 0,
            Register::DeviceId => self.behaviour.number().into(),
            Register::VendorId => 0x554d_4551,
            Register::InterruptStatus => self.interrupts.read_status(),
            Register::SharedMemory(part) => self.read_shared_memory(part),
            _ => {
                if matches!(register, Register::QueueReady | Register::QueueReset) {
                    self.finish_queue_reset(bus);
                }
                self.read_state(bus, |common, behaviour, bus| common.read_mmio(register, behaviour, bus))
            }
        }
    }

    pub(super) fn write_mmio(&mut self, offset: u64, width: u8, value: u32, bus: &mut Bus) {
        if let Some(at) = offset.checked_sub(CONFIG) {
            return self.write_device_config(at, width, value, bus);
        }
        let Some(register) = self.check_mmio(offset, width, true, bus) else { return };
        match register {
            Register::InterruptAck => self.interrupts.acknowledge(value, bus),
            Register::QueueNotify => {
                // PCI's clauses check the width of a kick; on MMIO every kick has 32 bits.
                let width = if self.common.accepted() & feature::NOTIFICATION_DATA == 0 { 2 } else { 4 };
                self.kick_queue(value as u16, width, value, bus);
            }
            _ => self.write_state(bus, |common, behaviour, bus| common.write_mmio(register, value, behaviour, bus)),
        }
    }

    /// The register at `offset`, if this access is allowed.
    fn check_mmio(&self, offset: u64, width: u8, writing: bool, bus: &mut Bus) -> Option<Register> {
        let verb = if writing { "write" } else { "read" };
        if width != 4 {
            bus.misstep("MMIO-REG-02", format!("{verb} of {width} bytes at {offset:#x}"));
            return None;
        }
        let register = mmio::find(offset, writing, self.mmio().legacy);
        if register.is_none() {
            bus.misstep("MMIO-REG-01", format!("{verb} at {offset:#x}, where no register allows it"));
        }
        let identifies = matches!(register, Some(Register::Magic | Register::Version | Register::DeviceId));
        if self.mmio().placeholder && !identifies {
            bus.misstep("MMIO-INIT-01", format!("{verb} at {offset:#x} of a placeholder"));
        }
        register
    }

    /// A half of length or address of the region that is selected; all ones if there is none.
    fn read_shared_memory(&self, part: usize) -> u32 {
        let selected = self.common.selected_shared_memory();
        let region = self.mmio().shared_memory.iter().find(|(id, ..)| Some(u32::from(*id)) == selected);
        let none = if self.behaviour.has(Bug::AbsentMemoryIsEmpty) { (0, 0) } else { (u64::MAX, u64::MAX) };
        let (address, length) = region.map_or(none, |(_, address, length)| (*address, *length));
        [length as u32, (length >> 32) as u32, address as u32, (address >> 32) as u32][part]
    }
}
