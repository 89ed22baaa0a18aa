//! A device behind a [`Transport`] of `virtio-drivers`, presented as virtio-mmio registers, which this library can
//! drive.
//!
//! Each register access becomes the corresponding call. Features that the trait has no call for are not offered:
//! `NOTIF_CONFIG_DATA`, `NOTIFICATION_DATA`, `RING_RESET`, shared memory.

use alloc::sync::Arc;

use ballonet::platform::Registers;
use spin::Mutex;
use virtio_drivers::transport::{DeviceStatus, DeviceType, Transport};

/// The registers (virtio 1.4, 4.2.2 and 4.2.4).
mod register {
    pub(super) const MAGIC_VALUE: usize = 0x000;
    pub(super) const VERSION: usize = 0x004;
    pub(super) const DEVICE_ID: usize = 0x008;
    pub(super) const DEVICE_FEATURES: usize = 0x010;
    pub(super) const DEVICE_FEATURES_SELECT: usize = 0x014;
    pub(super) const DRIVER_FEATURES: usize = 0x020;
    pub(super) const DRIVER_FEATURES_SELECT: usize = 0x024;
    pub(super) const GUEST_PAGE_SIZE: usize = 0x028;
    pub(super) const QUEUE_SELECT: usize = 0x030;
    pub(super) const QUEUE_SIZE_LIMIT: usize = 0x034;
    pub(super) const QUEUE_SIZE: usize = 0x038;
    pub(super) const QUEUE_FRAME: usize = 0x040;
    pub(super) const QUEUE_READY: usize = 0x044;
    pub(super) const QUEUE_NOTIFY: usize = 0x050;
    pub(super) const STATUS: usize = 0x070;
    /// The descriptor, driver and device areas, 16 bytes apart, each in two halves.
    pub(super) const QUEUE_AREAS: usize = 0x080;
    pub(super) const QUEUE_AREAS_END: usize = 0x0a8;
    pub(super) const CONFIG_GENERATION: usize = 0x0fc;
    pub(super) const CONFIG: usize = 0x100;
}

/// `virt`, little-endian.
const MAGIC: u32 = 0x7472_6976;
/// `NOTIFICATION_DATA`, `NOTIF_CONFIG_DATA`, `RING_RESET`.
const NOT_OFFERED: u64 = 0b111 << 38;
/// Bytes of a page, the unit of a legacy queue's address.
const PAGE: u64 = 4096;

/// Bytes of the window: the registers, and room for the device configuration.
pub(crate) const LENGTH: usize = 0x200;

/// The transport, and the state of registers that it does not have.
#[derive(Debug)]
pub(crate) struct Device<T> {
    transport: T,
    features_word: u32,
    accepted_word: u32,
    accepted: u64,
    queue: u16,
    size: u32,
    /// The descriptor, driver and device areas.
    areas: [u64; 3],
}

impl<T: Transport> Device<T> {
    pub(crate) const fn new(transport: T) -> Self {
        Self { transport, features_word: 0, accepted_word: 0, accepted: 0, queue: 0, size: 0, areas: [0; 3] }
    }

    fn read(&mut self, register: usize) -> u32 {
        match register {
            register::MAGIC_VALUE => MAGIC,
            register::VERSION => 2 - u32::from(self.transport.requires_legacy_layout()),
            register::DEVICE_ID => match self.transport.device_type() {
                // `virtio-drivers` 0.13 takes a transitional balloon, PCI device 0x1002, for type 13, which does not
                // exist in practice.
                DeviceType::MemoryBalloon => DeviceType::MemoryBallooning as u32,
                other => other as u32,
            },
            register::DEVICE_FEATURES => word(self.transport.read_device_features() & !NOT_OFFERED, self.features_word),
            register::QUEUE_SIZE_LIMIT => self.transport.max_queue_size(self.queue),
            register::QUEUE_FRAME | register::QUEUE_READY => self.transport.queue_used(self.queue).into(),
            register::STATUS => self.transport.get_status().bits(),
            register::CONFIG_GENERATION => self.transport.read_config_generation(),
            _ => 0,
        }
    }

    fn write(&mut self, register: usize, value: u32) {
        match register {
            register::DEVICE_FEATURES_SELECT => self.features_word = value,
            register::DRIVER_FEATURES_SELECT => self.accepted_word = value,
            register::DRIVER_FEATURES => {
                set_word(&mut self.accepted, self.accepted_word, value);
                self.transport.write_driver_features(self.accepted);
            }
            register::GUEST_PAGE_SIZE => self.transport.set_guest_page_size(value),
            // Both have 16 bits.
            register::QUEUE_SELECT => self.queue = value as u16,
            register::QUEUE_NOTIFY => self.transport.notify(value as u16),
            register::QUEUE_SIZE => self.size = value,
            register::QUEUE_FRAME => {
                // The rings of a legacy queue are contiguous (2.7.2).
                let descriptors = u64::from(value) * PAGE;
                let driver = descriptors + 16 * u64::from(self.size);
                let device = (driver + 6 + 2 * u64::from(self.size)).next_multiple_of(PAGE);
                self.areas = [descriptors, driver, device];
                self.enable(value != 0);
            }
            register::QUEUE_READY => self.enable(value != 0),
            register::STATUS => self.transport.set_status(DeviceStatus::from_bits_retain(value)),
            register::QUEUE_AREAS..register::QUEUE_AREAS_END => {
                let place = register - register::QUEUE_AREAS;
                // Each area has a register for its low half and one for its high half.
                set_word(&mut self.areas[place / 16], (place % 16 / 4) as u32, value);
            }
            _ => {}
        }
    }

    fn enable(&mut self, on: bool) {
        let [descriptors, driver, device] = self.areas;
        if on {
            self.transport.queue_set(self.queue, self.size, descriptors, driver, device);
        } else {
            self.transport.queue_unset(self.queue);
        }
    }
}

/// A 32-bit word of 64 bits.
const fn word(bits: u64, number: u32) -> u32 {
    if number < 2 { (bits >> (32 * number)) as u32 } else { 0 }
}

fn set_word(bits: &mut u64, number: u32, value: u32) {
    if number < 2 {
        *bits = *bits & !(0xFFFF_FFFF << (32 * number)) | u64::from(value) << (32 * number);
    }
}

/// A window of a device's registers.
#[derive(Debug)]
pub struct TransportRegisters<T> {
    device: Arc<Mutex<Device<T>>>,
    start: usize,
    length: usize,
}

impl<T> TransportRegisters<T> {
    /// The registers from `start` on; `None` if they are outside the window.
    pub(crate) fn new(device: &Arc<Mutex<Device<T>>>, start: u64, length: u64) -> Option<Self> {
        let (start, length) = (usize::try_from(start).ok()?, usize::try_from(length).ok()?);
        let end = start.checked_add(length)?;
        (end <= LENGTH).then(|| Self { device: Arc::clone(device), start, length })
    }

    /// The register offset of the window's `offset`; panics unless `size` bytes are inside.
    #[track_caller]
    fn at(&self, offset: usize, size: usize) -> usize {
        let inside = offset.checked_add(size).is_some_and(|end| end <= self.length);
        assert!(
            inside && offset.is_multiple_of(size),
            "access of {size} bytes at {offset:#x} in {:#x} bytes",
            self.length
        );
        self.start + offset
    }
}

/// The offset of a register in the device configuration, if it belongs there.
fn config(register: usize) -> Option<usize> {
    register.checked_sub(register::CONFIG)
}

impl<T: Transport> Registers for TransportRegisters<T> {
    fn len(&self) -> usize {
        self.length
    }

    fn read8(&self, offset: usize) -> u8 {
        let device = self.device.lock();
        config(self.at(offset, 1)).and_then(|at| device.transport.read_config_space(at).ok()).unwrap_or(u8::MAX)
    }

    fn read16(&self, offset: usize) -> u16 {
        let device = self.device.lock();
        config(self.at(offset, 2)).and_then(|at| device.transport.read_config_space(at).ok()).unwrap_or(u16::MAX)
    }

    fn read32(&self, offset: usize) -> u32 {
        let (mut device, register) = (self.device.lock(), self.at(offset, 4));
        match config(register) {
            Some(at) => device.transport.read_config_space(at).unwrap_or(u32::MAX),
            None => device.read(register),
        }
    }

    fn write8(&mut self, offset: usize, value: u8) {
        if let Some(at) = config(self.at(offset, 1)) {
            self.write_config(at, |transport| transport.write_config_space(at, value));
        }
    }

    fn write16(&mut self, offset: usize, value: u16) {
        if let Some(at) = config(self.at(offset, 2)) {
            self.write_config(at, |transport| transport.write_config_space(at, value));
        }
    }

    fn write32(&mut self, offset: usize, value: u32) {
        let register = self.at(offset, 4);
        match config(register) {
            Some(at) => self.write_config(at, |transport| transport.write_config_space(at, value)),
            None => self.device.lock().write(register, value),
        }
    }
}

impl<T: Transport> TransportRegisters<T> {
    /// Writes to the device configuration. A write to a missing field is ignored, as on a bus, and logged.
    fn write_config(&self, at: usize, write: impl FnOnce(&mut T) -> virtio_drivers::Result<()>) {
        if let Err(error) = write(&mut self.device.lock().transport) {
            log::warn!("device configuration at {at:#x}: {error}");
        }
    }
}

#[cfg(test)]
mod tests;
