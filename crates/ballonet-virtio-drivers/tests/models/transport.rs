//! A `Transport` to a device of the models, as `virtio-drivers` has it to a device on MMIO.

use ballonet::pci::Bdf;
use ballonet::platform::Registers;
use ballonet::virtio::DeviceHandle;
use ballonet_models::Machine;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PAGE_SIZE, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::world::{self, ModelRegisters};

/// Where the device configuration starts, and its length in bytes.
const CONFIG: usize = 0x100;
const CONFIG_LENGTH: usize = 8;

/// The transport.
pub struct ModelTransport {
    /// `None` only once it is dropped.
    registers: Option<ModelRegisters>,
    legacy: bool,
}

impl ModelTransport {
    /// The transport to the device at `at`, which is on MMIO.
    pub fn new(machine: &Machine, at: Bdf) -> Self {
        let DeviceHandle::Mmio(device) = machine.handle(at) else { panic!("it is on PCI") };
        let registers = world::map(device.window).expect("a device");
        let legacy = registers.read32(0x004) == 1;
        Self { registers: Some(registers), legacy }
    }

    fn read(&self, at: usize) -> u32 {
        self.registers.as_ref().expect("it is in use").read32(at)
    }

    fn registers(&mut self) -> &mut ModelRegisters {
        self.registers.as_mut().expect("it is in use")
    }

    fn write(&mut self, at: usize, value: u32) {
        self.registers().write32(at, value);
    }

    fn words(&self) -> u32 {
        if self.legacy { 1 } else { 2 }
    }
}

impl Drop for ModelTransport {
    fn drop(&mut self) {
        if let Some(registers) = self.registers.take() {
            world::unmap(registers);
        }
    }
}

impl Transport for ModelTransport {
    fn device_type(&self) -> DeviceType {
        assert_eq!(self.read(0x008), 5);
        DeviceType::MemoryBalloon
    }
    fn read_device_features(&mut self) -> u64 {
        (0..self.words()).fold(0, |features, word| {
            self.write(0x014, word);
            features | u64::from(self.read(0x010)) << (32 * word)
        })
    }
    fn write_driver_features(&mut self, features: u64) {
        for word in 0..self.words() {
            self.write(0x024, word);
            self.write(0x020, (features >> (32 * word)) as u32);
        }
    }
    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.write(0x030, queue.into());
        self.read(0x034)
    }
    fn notify(&mut self, queue: u16) {
        self.write(0x050, queue.into());
    }
    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_retain(self.read(0x070))
    }
    fn set_status(&mut self, status: DeviceStatus) {
        self.write(0x070, status.bits());
    }
    fn set_guest_page_size(&mut self, size: u32) {
        assert!(self.legacy);
        self.write(0x028, size);
    }
    fn requires_legacy_layout(&self) -> bool {
        self.legacy
    }
    fn queue_set(&mut self, queue: u16, size: u32, descriptors: u64, driver: u64, device: u64) {
        self.write(0x030, queue.into());
        self.write(0x038, size);
        if self.legacy {
            assert_eq!(driver, descriptors + 16 * u64::from(size));
            assert_eq!(device, (driver + 6 + 2 * u64::from(size)).next_multiple_of(PAGE_SIZE as u64));
            self.write(0x03c, PAGE_SIZE as u32);
            self.write(0x040, (descriptors / PAGE_SIZE as u64) as u32);
            return;
        }
        for (at, area) in [(0x080, descriptors), (0x090, driver), (0x0a0, device)] {
            self.registers().write64(at, area);
        }
        self.write(0x044, 1);
    }
    fn queue_unset(&mut self, queue: u16) {
        self.write(0x030, queue.into());
        self.write(if self.legacy { 0x040 } else { 0x044 }, 0);
    }
    fn queue_used(&mut self, queue: u16) -> bool {
        self.write(0x030, queue.into());
        self.read(if self.legacy { 0x040 } else { 0x044 }) != 0
    }
    fn ack_interrupt(&mut self) -> InterruptStatus {
        unreachable!("the driver is polled")
    }
    fn read_config_generation(&self) -> u32 {
        if self.legacy { 0 } else { self.read(0x0fc) }
    }
    fn read_config_space<V: FromBytes + IntoBytes>(&self, offset: usize) -> Result<V> {
        if offset + size_of::<V>() > CONFIG_LENGTH {
            return Err(Error::ConfigSpaceTooSmall);
        }
        assert_eq!(size_of::<V>(), 4, "fields of a balloon");
        Ok(V::read_from_bytes(&self.read(CONFIG + offset).to_le_bytes()).expect("4 bytes"))
    }
    fn write_config_space<V: IntoBytes + Immutable>(&mut self, offset: usize, value: V) -> Result<()> {
        if offset + size_of::<V>() > CONFIG_LENGTH {
            return Err(Error::ConfigSpaceTooSmall);
        }
        let bytes = value.as_bytes().try_into().expect("fields of a balloon");
        self.write(CONFIG + offset, u32::from_le_bytes(bytes));
        Ok(())
    }
}
