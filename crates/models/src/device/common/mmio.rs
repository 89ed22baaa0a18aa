//! Device state and queues by the registers of virtio over MMIO, with checks of the driver.

use super::CommonConfig;
use crate::behaviour::Behaviour;
use crate::bug::Bug;
use crate::queue::Purpose;
use crate::world::Bus;

/// A register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Register {
    Magic,
    Version,
    DeviceId,
    VendorId,
    DeviceFeatures,
    DeviceFeaturesSelect,
    DriverFeatures,
    DriverFeaturesSelect,
    GuestPageSize,
    QueueSelect,
    QueueSizeLimit,
    QueueSize,
    QueueAlign,
    QueueFrame,
    QueueReady,
    QueueNotify,
    InterruptStatus,
    InterruptAck,
    Status,
    /// A half of an address of the queue.
    QueueAddress(usize),
    SharedMemorySelect,
    /// A half of length or address of a region.
    SharedMemory(usize),
    QueueReset,
    Generation,
}

/// The versions that have a register.
#[derive(Clone, Copy, PartialEq, Eq)]
enum In {
    Both,
    Legacy,
    Modern,
}

const READ: u8 = 1;
const WRITE: u8 = 2;

/// Offset, register, allowed accesses, and versions that have it.
const REGISTERS: [(u64, Register, u8, In); 32] = [
    (0x00, Register::Magic, READ, In::Both),
    (0x04, Register::Version, READ, In::Both),
    (0x08, Register::DeviceId, READ, In::Both),
    (0x0c, Register::VendorId, READ, In::Both),
    (0x10, Register::DeviceFeatures, READ, In::Both),
    (0x14, Register::DeviceFeaturesSelect, WRITE, In::Both),
    (0x20, Register::DriverFeatures, WRITE, In::Both),
    (0x24, Register::DriverFeaturesSelect, WRITE, In::Both),
    (0x28, Register::GuestPageSize, WRITE, In::Legacy),
    (0x30, Register::QueueSelect, WRITE, In::Both),
    (0x34, Register::QueueSizeLimit, READ, In::Both),
    (0x38, Register::QueueSize, WRITE, In::Both),
    (0x3c, Register::QueueAlign, WRITE, In::Legacy),
    (0x40, Register::QueueFrame, READ | WRITE, In::Legacy),
    (0x44, Register::QueueReady, READ | WRITE, In::Modern),
    (0x50, Register::QueueNotify, WRITE, In::Both),
    (0x60, Register::InterruptStatus, READ, In::Both),
    (0x64, Register::InterruptAck, WRITE, In::Both),
    (0x70, Register::Status, READ | WRITE, In::Both),
    (0x80, Register::QueueAddress(0), WRITE, In::Modern),
    (0x84, Register::QueueAddress(1), WRITE, In::Modern),
    (0x90, Register::QueueAddress(2), WRITE, In::Modern),
    (0x94, Register::QueueAddress(3), WRITE, In::Modern),
    (0xa0, Register::QueueAddress(4), WRITE, In::Modern),
    (0xa4, Register::QueueAddress(5), WRITE, In::Modern),
    (0xac, Register::SharedMemorySelect, WRITE, In::Modern),
    (0xb0, Register::SharedMemory(0), READ, In::Modern),
    (0xb4, Register::SharedMemory(1), READ, In::Modern),
    (0xb8, Register::SharedMemory(2), READ, In::Modern),
    (0xbc, Register::SharedMemory(3), READ, In::Modern),
    (0xc0, Register::QueueReset, READ | WRITE, In::Modern),
    (0xfc, Register::Generation, READ, In::Modern),
];

/// The register at `offset` of this version, if this access is allowed.
pub(crate) fn find(offset: u64, writing: bool, legacy: bool) -> Option<Register> {
    let wanted = if writing { WRITE } else { READ };
    let is_in = |place: In| place == In::Both || (place == In::Legacy) == legacy;
    let found = REGISTERS.iter().find(|(at, _, access, place)| *at == offset && access & wanted != 0 && is_in(*place));
    found.map(|(_, register, ..)| *register)
}

/// State behind registers that only MMIO has.
#[derive(Debug, Default)]
pub(super) struct MmioState {
    /// The driver has selected a word of features since the last reset.
    device_selected: bool,
    driver_selected: bool,
    page_size: u32,
    /// Sizes and alignments that the driver has given to queues.
    sized: Vec<u16>,
    aligned: Vec<u16>,
    shared_memory: Option<u32>,
}

impl CommonConfig {
    pub(crate) fn selected_shared_memory(&self) -> Option<u32> {
        self.mmio.shared_memory
    }

    /// Checks that only status and identification are accessed before the first reset.
    fn check_reset(&self, register: Register, bus: &mut Bus) {
        if register == Register::Status {
            return;
        }
        if !self.ever_reset {
            bus.misstep("INIT-02", format!("{register:?} accessed before the first reset"));
        } else if self.resetting() {
            bus.misstep("RESET-01", format!("{register:?} accessed before the reset is done"));
        }
    }

    pub(crate) fn read_mmio(&mut self, register: Register, behaviour: &Behaviour, bus: &mut Bus) -> u32 {
        self.check_reset(register, bus);
        let registers = behaviour.mmio.as_ref().expect("a device on MMIO");
        let queue = self.queues.get(usize::from(self.queue_select)).filter(|q| q.purpose != Purpose::Missing);
        let in_use = queue.filter(|q| q.enabled || q.shown_enabled);
        match register {
            Register::DeviceFeatures if registers.legacy => {
                self.check_selected(self.mmio.device_selected, "MMIO-REG-06", bus);
                if self.device_select == 0 { self.legacy_offer(behaviour) as u32 } else { 0 }
            }
            Register::DeviceFeatures => {
                self.check_selected(self.mmio.device_selected, "MMIO-REG-06", bus);
                self.read_feature_word(behaviour)
            }
            Register::QueueSizeLimit => {
                let size = queue.map_or(0, |queue| behaviour.size_lie.unwrap_or(queue.max_size));
                registers.size_lie.unwrap_or(size.into())
            }
            Register::QueueFrame => in_use.map_or(registers.in_use, |queue| (queue.ring_start() / 4096) as u32),
            Register::QueueReady => in_use.map_or(registers.in_use, |_| 1),
            Register::QueueReset => queue.is_some_and(|q| q.resetting.is_some() && !registers.no_queue_reset).into(),
            Register::Status => u32::from(self.read_status(bus.now, behaviour)) | registers.status_junk,
            Register::Generation => {
                self.generation_seen = true;
                if behaviour.quirks.registers.no_generation { 0 } else { self.generation.into() }
            }
            _ => u32::MAX,
        }
    }

    fn check_selected(&self, selected: bool, clause: &'static str, bus: &mut Bus) {
        if !selected {
            bus.misstep(clause, "features accessed before a word of them was selected");
        }
    }

    pub(crate) fn write_mmio(&mut self, register: Register, value: u32, behaviour: &Behaviour, bus: &mut Bus) {
        self.check_reset(register, bus);
        let legacy = behaviour.mmio.as_ref().is_some_and(|registers| registers.legacy);
        if self.failed() && register != Register::Status {
            bus.misstep("STATUS-03", format!("{register:?} written after FAILED"));
        }
        match register {
            Register::DeviceFeaturesSelect if self.mmio.device_selected && behaviour.has(Bug::SelectorIsIgnored) => {}
            Register::DeviceFeaturesSelect => (self.device_select, self.mmio.device_selected) = (value, true),
            Register::DriverFeaturesSelect => (self.driver_select, self.mmio.driver_selected) = (value, true),
            Register::DriverFeatures => {
                self.check_selected(self.mmio.driver_selected, "MMIO-REG-07", bus);
                self.write_mmio_features(value, legacy, behaviour, bus);
            }
            Register::GuestPageSize => self.mmio.page_size = value,
            Register::QueueSelect => self.queue_select = value as u16,
            Register::SharedMemorySelect => self.mmio.shared_memory = Some(value),
            Register::Status => {
                self.legacy = legacy;
                let status = u8::try_from(value).unwrap_or_else(|_| {
                    bus.misstep("MMIO-REG-01", format!("{value:#x} written to Status"));
                    value as u8
                });
                self.write_status(status, behaviour, bus);
            }
            _ => self.write_mmio_queue(register, value, behaviour, bus),
        }
    }

    fn write_mmio_features(&mut self, value: u32, legacy: bool, behaviour: &Behaviour, bus: &mut Bus) {
        match (legacy, self.driver_select) {
            (false, _) => self.write_features(value, bus),
            (true, 0) => self.write_legacy_features(value.into(), behaviour, bus),
            (true, word) => bus.misstep("LEG-MMIO-01", format!("feature word {word} of a legacy device")),
        }
    }

    fn write_mmio_queue(&mut self, register: Register, value: u32, behaviour: &Behaviour, bus: &mut Bus) {
        let select = self.queue_select;
        let queue = self.queues.get(usize::from(select));
        let (enabled, most) = queue.map_or((false, 0), |queue| (queue.enabled, queue.max_size));
        let given_back = value == 0 && matches!(register, Register::QueueReady | Register::QueueFrame);
        if enabled && given_back && behaviour.has(Bug::QueueStaysReady) {
            return;
        }
        if enabled && given_back && register == Register::QueueReady {
            self.queues[usize::from(select)].reset();
            self.mmio.sized.retain(|known| *known != select);
            return;
        }
        if enabled && !given_back && register != Register::QueueReset {
            bus.misstep("MMIO-REG-09", format!("queue {select}: {register:?} written while it is in use"));
            return;
        }
        match register {
            Register::QueueSize => {
                if value > most.into() {
                    bus.misstep("MMIO-REG-08", format!("queue {select}: size {value} of {most}"));
                }
                self.mmio.sized.push(select);
                self.write_queue(0x18, value, behaviour, bus);
            }
            Register::QueueAlign => {
                if value != 4096 {
                    bus.misstep("LEG-MMIO-03", format!("queue {select}: alignment {value}"));
                }
                self.mmio.aligned.push(select);
            }
            Register::QueueFrame => self.write_mmio_frame(value, bus),
            Register::QueueReady => {
                if !self.mmio.sized.contains(&select) {
                    bus.misstep("MMIO-REG-08", format!("queue {select}: no size was written"));
                }
                self.write_queue(0x1c, value, behaviour, bus);
            }
            Register::QueueAddress(half) => self.write_queue(0x20 + 4 * half as u64, value, behaviour, bus),
            Register::QueueReset if behaviour.mmio.as_ref().is_some_and(|registers| registers.no_queue_reset) => {}
            _ => self.write_queue(0x3a, value, behaviour, bus),
        }
        if register == Register::QueueReset {
            self.mmio.sized.retain(|known| *known != select);
        }
    }

    /// `QueuePFN`, which follows the page size and the queue's size and alignment (4.2.4).
    fn write_mmio_frame(&mut self, frame: u32, bus: &mut Bus) {
        let select = self.queue_select;
        if self.mmio.page_size != 4096 {
            bus.misstep("LEG-MMIO-02", format!("QueuePFN written with pages of {} bytes", self.mmio.page_size));
        }
        if !self.mmio.sized.contains(&select) || !self.mmio.aligned.contains(&select) {
            bus.misstep("LEG-MMIO-03", format!("queue {select}: QueuePFN written before size and alignment"));
        }
        self.write_frame(frame, bus);
    }
}
