//! Every port by its own width and in the order that the specification requires.

use super::*;
use crate::pci::Command;
use crate::pci::fake::{FakeConfig, FakeFunction};
use crate::virtio::fake::{FakePlatform, LoggedRegisters};
use crate::virtio::transport::Transport;

const PORTS: u64 = 0xc000;
const SIZE: u64 = 0x40;

/// A transitional balloon with ports in BAR 0, at `address`.
fn function(address: u32) -> FakeFunction {
    FakeFunction::new(0x1af4, 0x1002, 0x00ff00).raw(8, 0x00ff_0000).io(0, address, SIZE as u32).command(Command::IO)
}

fn find(function: FakeFunction) -> Result<LegacyPorts, LegacyError> {
    let (mut config, bdf) = FakeConfig::with(function);
    let function = Function::probe(&config, bdf).unwrap();
    let bars = Bars::size(&mut config, &function);
    LegacyPorts::find(&function, &bars)
}

struct Fixture {
    platform: FakePlatform,
    ports: LegacyPorts,
    registers: LoggedRegisters,
}

fn fixture() -> Fixture {
    let [registers, isr] = [SIZE as usize, 1].map(LoggedRegisters::new);
    let mut platform = FakePlatform::new();
    platform.windows = vec![(PORTS, registers.clone()), (PORTS + 0x13, isr)];
    Fixture { platform, ports: find(function(PORTS as u32)).unwrap(), registers }
}

impl Fixture {
    fn transport(&mut self) -> Transport<LoggedRegisters> {
        Legacy::new(&mut self.platform, &self.ports).unwrap().into()
    }
}

fn queue(number: u16) -> QueueIndex {
    QueueIndex::new(number).unwrap()
}

/// The addresses of a queue that starts here.
fn at(descriptors: u64) -> QueueAddresses {
    QueueAddresses { descriptors, driver: descriptors + 0x800, device: descriptors + 0x1000 }
}

#[test]
fn a_function_without_a_legacy_interface_is_refused_with_the_reason() {
    let modern_only = FakeFunction::new(0x1af4, 0x1045, 0x00ff00).io(0, 0xc000, 0x40);
    assert!(matches!(find(modern_only), Err(LegacyError::NotLegacy { device: 0x1045, .. })));
    let revised = function(0xc000).raw(8, 0x00ff_0001);
    assert!(matches!(find(revised), Err(LegacyError::NotLegacy { revision: 1, .. })));
    let transitional = || FakeFunction::new(0x1af4, 0x1002, 0x00ff00).raw(8, 0x00ff_0000);
    assert!(matches!(find(transitional()), Err(LegacyError::Bar(_))));
    assert!(matches!(find(transitional().memory32(0, 0xfe00_0000, 0x1000)), Err(LegacyError::NotPorts(_))));
    let small = transitional().io(0, 0xc000, 0x10);
    assert!(matches!(find(small), Err(LegacyError::Window(WindowError::Outside { .. }))));
}

#[test]
fn a_machine_that_assigns_no_ports_is_reported_as_the_reason() {
    let error = find(function(0)).unwrap_err();
    assert!(matches!(error, LegacyError::Window(WindowError::Unassigned { .. })));
    let message = error.to_string();
    assert!(message.contains("I/O ports") && message.contains("no address"), "{message}");
}

#[test]
fn opening_a_transport_accesses_no_register_and_releasing_it_unmaps_everything() {
    let mut fixture = fixture();
    let transport = fixture.transport();
    assert_eq!(fixture.platform.mapped, 2);
    transport.release(&mut fixture.platform);
    assert_eq!(fixture.platform.mapped, 0);
    assert!(fixture.registers.0.lock().unwrap().accesses.is_empty());
}

#[test]
fn a_failed_or_short_mapping_unmaps_the_earlier_ones() {
    for missing in 0..2 {
        let mut fixture = fixture();
        fixture.platform.windows.remove(missing);
        assert!(matches!(Legacy::new(&mut fixture.platform, &fixture.ports), Err(LegacyError::Map(_))));
        assert_eq!(fixture.platform.mapped, 0);
    }
    let mut fixture = fixture();
    fixture.platform.windows[0].1 = LoggedRegisters::new(0x20);
    let error = Legacy::new(&mut fixture.platform, &fixture.ports).unwrap_err();
    assert!(matches!(error, LegacyError::Short { length: 0x20, .. }));
    assert_eq!(fixture.platform.mapped, 0);
}

#[test]
fn features_are_one_word_of_32_bits() {
    let mut fixture = fixture();
    let mut transport = fixture.transport();
    fixture.registers.script(legacy::DEVICE_FEATURES, 0xffff_ffff);
    assert_eq!(transport.features().bits(), 0xffff_ffff);
    transport.set_features(Features::EVENT_IDX | Features::ANY_LAYOUT | Features::VERSION_1);
    assert_eq!(fixture.registers.writes(), [('w', 32, 0x04, 0x2800_0000)]);
}

#[test]
fn a_queue_is_enabled_by_its_frame_number_alone() {
    let mut fixture = fixture();
    let mut transport = fixture.transport();
    fixture.registers.hold(legacy::QUEUE_SIZE, &128u16.to_le_bytes());
    let doorbell = transport.enable_queue(queue(2), 128, at(0x1_2345_6000)).unwrap();
    assert_eq!(doorbell, Doorbell { offset: 0x10, number: 2 });
    assert_eq!(fixture.registers.writes(), [('w', 16, 0x0e, 2), ('w', 32, 0x08, 0x12_3456)]);
}

#[test]
fn a_queue_of_another_size_than_the_devices_own_is_not_enabled() {
    let mut fixture = fixture();
    let mut transport = fixture.transport();
    for (size, asked) in [(0u16, 128), (64, 128), (256, 128), (128, 0), (0, 0)] {
        fixture.registers.hold(legacy::QUEUE_SIZE, &size.to_le_bytes());
        let error = transport.enable_queue(queue(0), asked, at(0x1000)).unwrap_err();
        assert!(matches!(error, TransportError::QueueSize { size, .. } if size == asked), "{error}");
    }
    fixture.registers.hold(legacy::QUEUE_SIZE, &0x8001u16.to_le_bytes());
    assert!(matches!(transport.queue_size(queue(0)), Err(TransportError::QueueSize { size: 0x8001, .. })));
    assert!(fixture.registers.writes().iter().all(|write| write.2 == legacy::QUEUE_SELECT));
}

#[test]
fn a_queue_that_cannot_be_addressed_or_is_in_use_is_not_enabled() {
    let mut fixture = fixture();
    let mut transport = fixture.transport();
    fixture.registers.hold(legacy::QUEUE_SIZE, &128u16.to_le_bytes());
    for address in [0, 0x1800, 1 << 44, !0xfff] {
        let error = transport.enable_queue(queue(0), 128, QueueAddresses { descriptors: address, ..at(0) });
        assert!(matches!(error, Err(TransportError::QueueAddress { .. })), "{address:#x}");
    }
    fixture.registers.hold(legacy::QUEUE_ADDRESS, &7u32.to_le_bytes());
    let error = transport.enable_queue(queue(0), 128, at(0x1000)).unwrap_err();
    assert!(matches!(error, TransportError::QueueInUse { frame: 7, .. }));
    assert!(fixture.registers.writes().iter().all(|write| write.2 == legacy::QUEUE_SELECT));
    fixture.registers.hold(legacy::QUEUE_ADDRESS, &0u32.to_le_bytes());
    assert!(transport.enable_queue(queue(0), 128, at((1 << 44) - 0x1000)).is_ok(), "the last possible frame");
}

#[test]
fn the_device_configuration_moves_when_msix_is_turned_on_and_back_when_it_is_off() {
    let mut fixture = fixture();
    let mut transport = fixture.transport();
    for (offset, value) in [(0x14, 11u32), (0x18, 22), (0x1c, 33)] {
        fixture.registers.hold(offset, &value.to_le_bytes());
    }
    let fields = |transport: &Transport<_>| (transport.read_config::<u32>(0), transport.read_config::<u32>(4));
    assert_eq!((fields(&transport), transport.config_len()), ((Ok(11), Ok(22)), 0x2c));
    transport.set_msix(true);
    assert_eq!((fields(&transport), transport.config_len()), ((Ok(22), Ok(33)), 0x28));
    transport.write_config(4, 44_u32).unwrap();
    transport.set_msix(false);
    transport.write_config(4, 55_u32).unwrap();
    assert_eq!(fixture.registers.writes(), [('w', 32, 0x1c, 44), ('w', 32, 0x18, 55)]);
    assert!(matches!(transport.read_config::<u32>(0x2c), Err(TransportError::NoConfigField { .. })));
}

#[test]
fn a_field_is_read_until_two_reads_agree_and_a_byte_once() {
    let mut fixture = fixture();
    let transport = fixture.transport();
    for value in [1, 2, 3, 3] {
        fixture.registers.script(0x14, value);
    }
    // Two reads make an attempt: 1 and 2, then 3 and 3.
    assert_eq!(transport.read_config::<u32>(0), Ok(3));
    (0..128).for_each(|value| fixture.registers.script(0x14, value));
    assert!(matches!(transport.read_config::<u32>(0), Err(TransportError::ConfigUnstable { offset: 0, .. })));
    fixture.registers.writes();
    assert_eq!(transport.read_config::<u8>(8), Ok(0));
    assert_eq!(fixture.registers.0.lock().unwrap().accesses.len(), 1);
}

#[test]
fn vectors_exist_only_while_msix_is_on_and_are_read_back() {
    let mut fixture = fixture();
    let mut transport = fixture.transport();
    let vector = MsixVector::new(1);
    assert!(transport.set_config_vector(vector).is_err(), "its offset holds configuration");
    assert_eq!(transport.set_config_vector(None), Ok(()));
    assert!(fixture.registers.writes().is_empty());
    transport.set_msix(true);
    assert_eq!(transport.set_queue_vector(queue(1), vector), Ok(()));
    assert_eq!(transport.set_config_vector(vector), Ok(()));
    let expected = [('w', 16, 0x0e, 1), ('w', 16, 0x16, 1), ('w', 16, 0x14, 1)];
    assert_eq!(fixture.registers.writes(), expected);
    fixture.registers.script(0x16, 0xffff);
    let error = transport.set_queue_vector(queue(1), vector).unwrap_err();
    assert!(matches!(error, TransportError::VectorRefused { read: 0xffff, .. }));
    assert_eq!(transport.set_config_vector(None), Ok(()));
    assert_eq!(fixture.registers.writes().last(), Some(&('w', 16, 0x14, 0xffff)));
}

#[test]
fn a_device_that_is_gone_is_named_so() {
    let mut fixture = fixture();
    let transport = fixture.transport();
    fixture.registers.hold(0, &[0xff; SIZE as usize]);
    assert!(matches!(transport.status(), Err(TransportError::Gone(_))));
    assert!(matches!(transport.read_config::<u32>(0), Err(TransportError::Gone(_))));
}

#[test]
fn a_kick_is_one_store_of_16_bits_and_selects_no_queue() {
    use crate::virtio::device::Device;
    use crate::virtio::negotiation::Wanted;
    let mut fixture = fixture();
    let transport = fixture.transport();
    fixture.registers.script(legacy::DEVICE_STATUS, 0);
    fixture.registers.hold(legacy::QUEUE_SIZE, &64u16.to_le_bytes());
    let wanted = Wanted { implemented: Features::EVENT_IDX, declined: Features::empty(), dependencies: &[] };
    let device = Device::new(transport, &fixture.platform).unwrap().acknowledge().driver();
    let mut device = device.negotiate(&wanted).unwrap();
    let doorbell = device.enable_queue(queue(1), 64, at(0x1000)).unwrap();
    let mut device = device.driver_ok();
    fixture.registers.writes();
    device.kick(doorbell, Kick { progress: 77 });
    assert_eq!(fixture.registers.writes(), [('w', 16, 0x10, 1)]);
}

#[test]
fn a_single_queue_cannot_be_reset() {
    let mut fixture = fixture();
    let mut transport = fixture.transport();
    let error = transport.start_queue_reset(queue(1)).unwrap_err();
    assert!(matches!(error, TransportError::NoQueueReset { queue, .. } if queue.number() == 1), "{error}");
    assert_eq!(transport.queue_reset_state(queue(1)), Err(error));
    assert!(fixture.registers.writes().is_empty());
}
