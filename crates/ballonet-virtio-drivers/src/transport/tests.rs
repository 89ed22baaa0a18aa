use std::vec;
use std::vec::Vec;

use virtio_drivers::transport::InterruptStatus;
use virtio_drivers::{Error, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::*;

/// A call of a transport that changes state.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Features(u64),
    Notify(u16),
    Status(u32),
    PageSize(u32),
    Queue(u16, u32, [u64; 3]),
    NoQueue(u16),
}

/// A transport with a device configuration of 8 bytes, which records its calls.
#[derive(Default)]
struct Fake {
    legacy: bool,
    calls: Vec<Call>,
    status: u32,
    config: [u8; 8],
}

impl Transport for Fake {
    fn device_type(&self) -> DeviceType {
        DeviceType::MemoryBallooning
    }
    fn read_device_features(&mut self) -> u64 {
        1 << 40 | 1 << 39 | 1 << 38 | 1 << 34 | 1 << 32 | 0b10
    }
    fn write_driver_features(&mut self, features: u64) {
        self.calls.push(Call::Features(features));
    }
    fn max_queue_size(&mut self, queue: u16) -> u32 {
        if queue < 3 { 128 } else { 0 }
    }
    fn notify(&mut self, queue: u16) {
        self.calls.push(Call::Notify(queue));
    }
    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_retain(self.status)
    }
    fn set_status(&mut self, status: DeviceStatus) {
        self.status = status.bits();
        self.calls.push(Call::Status(status.bits()));
    }
    fn set_guest_page_size(&mut self, size: u32) {
        self.calls.push(Call::PageSize(size));
    }
    fn requires_legacy_layout(&self) -> bool {
        self.legacy
    }
    fn queue_set(&mut self, queue: u16, size: u32, descriptors: u64, driver: u64, device: u64) {
        self.calls.push(Call::Queue(queue, size, [descriptors, driver, device]));
    }
    fn queue_unset(&mut self, queue: u16) {
        self.calls.push(Call::NoQueue(queue));
    }
    fn queue_used(&mut self, queue: u16) -> bool {
        queue == 1
    }
    fn ack_interrupt(&mut self) -> InterruptStatus {
        unreachable!("the driver is polled")
    }
    fn read_config_generation(&self) -> u32 {
        77
    }
    fn read_config_space<V: FromBytes + IntoBytes>(&self, offset: usize) -> Result<V> {
        let bytes = self.config.get(offset..).and_then(|bytes| bytes.get(..size_of::<V>()));
        bytes.and_then(|bytes| V::read_from_bytes(bytes).ok()).ok_or(Error::ConfigSpaceTooSmall)
    }
    fn write_config_space<V: IntoBytes + Immutable>(&mut self, offset: usize, value: V) -> Result<()> {
        let bytes = self.config.get_mut(offset..).and_then(|bytes| bytes.get_mut(..size_of::<V>()));
        bytes.ok_or(Error::ConfigSpaceTooSmall)?.copy_from_slice(value.as_bytes());
        Ok(())
    }
}

/// All registers of a device behind `fake`.
fn registers(fake: Fake) -> TransportRegisters<Fake> {
    TransportRegisters::new(&Arc::new(Mutex::new(Device::new(fake))), 0, LENGTH as u64).unwrap()
}

fn calls(registers: &TransportRegisters<Fake>) -> Vec<Call> {
    core::mem::take(&mut registers.device.lock().transport.calls)
}

#[test]
fn registers_read_as_the_transport_reports() {
    let mut it = registers(Fake::default());
    assert_eq!([0x000, 0x004, 0x008, 0x0fc].map(|at| it.read32(at)), [MAGIC, 2, 5, 77]);
    it.write32(0x014, 1);
    assert_eq!(it.read32(0x010), 1 << 2 | 1, "no feature without a call");
    it.write32(0x014, 0);
    assert_eq!(it.read32(0x010), 0b10);
    for (queue, size, used) in [(1, 128, 1), (3, 0, 0)] {
        it.write32(0x030, queue);
        assert_eq!([it.read32(0x034), it.read32(0x044)], [size, used]);
    }
    assert_eq!(calls(&it), []);
}

#[test]
fn writes_become_calls() {
    let mut it = registers(Fake::default());
    it.write32(0x070, 11);
    assert_eq!(it.read32(0x070), 11);
    for (word, value) in [(0, 2), (1, 1)] {
        it.write32(0x024, word);
        it.write32(0x020, value);
    }
    it.write32(0x030, 2);
    it.write32(0x038, 64);
    for (at, value) in [(0x080, 0x1_2345_6000), (0x090, 0x7000), (0x0a0, 0x2_0000_8000_u64)] {
        it.write64(at, value);
    }
    it.write32(0x044, 1);
    it.write32(0x050, 2);
    it.write32(0x044, 0);
    let areas = [0x1_2345_6000, 0x7000, 0x2_0000_8000];
    let expected = vec![
        Call::Status(11),
        Call::Features(2),
        Call::Features(1 << 32 | 2),
        Call::Queue(2, 64, areas),
        Call::Notify(2),
        Call::NoQueue(2),
    ];
    assert_eq!(calls(&it), expected);
}

#[test]
fn a_legacy_queue_is_located_by_its_frame() {
    let mut it = registers(Fake { legacy: true, ..Fake::default() });
    assert_eq!(it.read32(0x004), 1);
    it.write32(0x028, 4096);
    it.write32(0x030, 0);
    it.write32(0x038, 256);
    it.write32(0x040, 0x123);
    let areas = [0x12_3000, 0x12_4000, 0x12_5000];
    assert_eq!(calls(&it), [Call::PageSize(4096), Call::Queue(0, 256, areas)]);
}

#[test]
fn the_device_configuration_has_its_own_length() {
    let mut it = registers(Fake::default());
    it.write32(0x104, 0x0403_0201);
    it.write8(0x100, 9);
    it.write16(0x102, 0x0807);
    assert_eq!(
        (it.read32(0x104), it.read8(0x105), it.read16(0x102), it.read32(0x100)),
        (0x0403_0201, 2, 0x0807, 0x0807_0009)
    );
    it.write32(0x108, 1);
    assert_eq!((it.read32(0x108), it.read8(0x1ff)), (u32::MAX, u8::MAX));
    assert!(std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| it.read32(0x200))).is_err());
    let shared = it.device.clone();
    assert!(TransportRegisters::new(&shared, 0x1fc, 8).is_none());
    assert_eq!(TransportRegisters::new(&shared, 0x104, 4).unwrap().read32(0), 0x0403_0201);
}
