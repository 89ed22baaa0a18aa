//! Every register by its own width and in the order that the specification requires.

use core::mem::offset_of;

use super::*;
use crate::pci::Bdf;
use crate::virtio::capability::Notification;
use crate::virtio::fake::{Access, FakePlatform, LoggedRegisters};
use crate::virtio::spec::CommonConfig;
use crate::virtio::transport::{AnyTransport, Transport};

const ADDRESSES: QueueAddresses =
    QueueAddresses { descriptors: 0x1_2345_6000, driver: 0x2_2345_7000, device: 0x3_2345_8000 };

struct Fixture {
    platform: FakePlatform,
    capabilities: Capabilities,
    common: LoggedRegisters,
    notify: LoggedRegisters,
    device: LoggedRegisters,
}

fn function() -> Bdf {
    Bdf::new(0, 0, 3, 0).unwrap()
}

fn window(address: u64, length: u64) -> RegisterWindow {
    RegisterWindow { device: function().into(), bar: Some(4), io: false, address, length }
}

fn place(address: u64, length: u32) -> StructureLocation {
    let window = window(address, length.into());
    StructureLocation { function: function(), bar: 4, offset: 0, length, window: Some(window) }
}

/// A device with four structures, one of each address.
fn fixture() -> Fixture {
    let [common, notify, isr, device] = [0x40, 0x100, 1, 8].map(LoggedRegisters::new);
    let mut platform = FakePlatform::new();
    platform.windows = vec![(1, common.clone()), (2, notify.clone()), (3, isr.clone()), (4, device.clone())];
    let capabilities = Capabilities {
        common: place(1, 0x40),
        notify: Notification { place: place(2, 0x100), multiplier: 4 },
        isr: place(3, 1),
        device: Some(place(4, 8)),
        pci_access: None,
        shared_memory: Vec::new(),
        vendor_data: Vec::new(),
    };
    Fixture { platform, capabilities, common, notify, device }
}

impl Fixture {
    fn transport(&mut self) -> Transport<LoggedRegisters> {
        Modern::new(&mut self.platform, self.capabilities.clone()).unwrap().into()
    }
}

#[test]
fn a_shared_memory_region_is_found_by_its_number() {
    let mut fixture = fixture();
    let region = |id, address| SharedMemory { id, window: window(address, 0x1000) };
    fixture.capabilities.shared_memory = vec![region(3, 0x5000), region(0, 0x6000), region(3, 0x7000)];
    let mut transport = fixture.transport();
    assert_eq!(transport.shared_memory(3), Some(window(0x5000, 0x1000)), "the first of several");
    assert_eq!(transport.shared_memory(0), Some(window(0x6000, 0x1000)));
    assert_eq!(transport.shared_memory(1), None);
}

fn queue(number: u16) -> QueueIndex {
    QueueIndex::new(number).unwrap()
}

#[test]
fn opening_a_transport_accesses_no_register_and_releasing_it_unmaps_everything() {
    let mut fixture = fixture();
    let transport = fixture.transport();
    assert_eq!(fixture.platform.mapped, 4);
    transport.release(&mut fixture.platform);
    assert_eq!(fixture.platform.mapped, 0);
    assert!(fixture.common.0.lock().unwrap().accesses.is_empty());
}

#[test]
fn a_failed_or_short_mapping_unmaps_the_earlier_ones() {
    for missing in 0..4 {
        let mut fixture = fixture();
        fixture.platform.windows.remove(missing);
        assert!(matches!(Modern::new(&mut fixture.platform, fixture.capabilities.clone()), Err(ModernError::Map(_))));
        assert_eq!(fixture.platform.mapped, 0);
    }
    let mut fixture = fixture();
    fixture.capabilities.device = Some(place(4, 9));
    let error = Modern::new(&mut fixture.platform, fixture.capabilities.clone()).unwrap_err();
    assert_eq!(error, ModernError::Short { place: place(4, 9), length: 8 });
    assert_eq!(fixture.platform.mapped, 0);
}

#[test]
fn features_are_read_and_written_by_words() {
    let mut fixture = fixture();
    let mut transport = fixture.transport();
    fixture.common.script(offset_of!(CommonConfig, device_feature), 0x2000_0002);
    fixture.common.script(offset_of!(CommonConfig, device_feature), 1);
    assert_eq!(transport.features().bits(), 0x1_2000_0002);
    assert_eq!(fixture.common.writes(), [('w', 32, 0x00, 0), ('w', 32, 0x00, 1)]);
    transport.set_features(Features::from_bits_retain(0x1_2000_0002));
    let expected = [('w', 32, 0x08, 0), ('w', 32, 0x0c, 0x2000_0002), ('w', 32, 0x08, 1), ('w', 32, 0x0c, 1)];
    assert_eq!(fixture.common.writes(), expected);
}

#[test]
fn a_queue_is_enabled_last_and_its_addresses_go_in_halves() {
    let mut fixture = fixture();
    let mut transport = fixture.transport();
    fixture.common.hold(offset_of!(CommonConfig, queue_size), &256u16.to_le_bytes());
    fixture.common.hold(offset_of!(CommonConfig, queue_notify_off), &3u16.to_le_bytes());
    let doorbell = transport.enable_queue(queue(2), 128, ADDRESSES).unwrap();
    assert_eq!(doorbell, Doorbell { offset: 12, number: 2 });
    let expected: [Access; 9] = [
        ('w', 16, 0x16, 2),
        ('w', 16, 0x18, 128),
        ('w', 32, 0x20, 0x2345_6000),
        ('w', 32, 0x24, 1),
        ('w', 32, 0x28, 0x2345_7000),
        ('w', 32, 0x2c, 2),
        ('w', 32, 0x30, 0x2345_8000),
        ('w', 32, 0x34, 3),
        ('w', 16, 0x1c, 1),
    ];
    assert_eq!(fixture.common.writes(), expected);
}

#[test]
fn a_queue_that_is_missing_too_small_or_in_use_is_not_enabled() {
    let mut fixture = fixture();
    let mut transport = fixture.transport();
    for (size, asked) in [(0u16, 128), (64, 128), (128, 0)] {
        fixture.common.hold(offset_of!(CommonConfig, queue_size), &size.to_le_bytes());
        let error = transport.enable_queue(queue(0), asked, ADDRESSES).unwrap_err();
        assert!(matches!(error, TransportError::QueueSize { size, .. } if size == asked), "{error}");
    }
    fixture.common.hold(offset_of!(CommonConfig, queue_size), &0x8001u16.to_le_bytes());
    assert!(matches!(transport.queue_size(queue(0)), Err(TransportError::QueueSize { size: 0x8001, .. })));
    fixture.common.hold(offset_of!(CommonConfig, queue_size), &128u16.to_le_bytes());
    fixture.common.hold(offset_of!(CommonConfig, queue_enable), &1u16.to_le_bytes());
    let error = transport.enable_queue(queue(0), 128, ADDRESSES).unwrap_err();
    assert!(matches!(error, TransportError::QueueEnable { enabled: 1, .. }));
    assert!(fixture.common.writes().iter().all(|write| write.2 == offset_of!(CommonConfig, queue_select)));
}

#[test]
fn a_doorbell_outside_its_structure_or_misaligned_is_refused() {
    for (notify_off, multiplier, accepted) in [
        (0u16, 0u32, true),
        (0xffff, 0, true),
        (63, 4, true),
        (64, 4, false),
        (0xffff, u32::MAX, false),
        (1, 1, false),
        (2, 1, true),
        (254, 1, true),
        (255, 1, false),
    ] {
        let mut fixture = fixture();
        fixture.capabilities.notify.multiplier = multiplier;
        let mut transport = fixture.transport();
        fixture.common.hold(offset_of!(CommonConfig, queue_size), &128u16.to_le_bytes());
        fixture.common.hold(offset_of!(CommonConfig, queue_notify_off), &notify_off.to_le_bytes());
        let outcome = transport.enable_queue(queue(0), 128, ADDRESSES);
        assert_eq!(outcome.is_ok(), accepted, "{notify_off} * {multiplier}");
        let enabled = fixture.common.writes().contains(&('w', 16, 0x1c, 1));
        assert_eq!(enabled, accepted, "a queue that cannot be kicked is not enabled");
    }
}

/// The writes of a kick of queue 1 after 77 buffers, with these accepted features, to a device that chose the number
/// 0x701.
fn kick_with(features: Features) -> Vec<Access> {
    use crate::virtio::device::Device;
    use crate::virtio::negotiation::Wanted;
    let mut fixture = fixture();
    let transport = fixture.transport();
    let features = Features::VERSION_1 | features;
    fixture.common.script(offset_of!(CommonConfig, device_status), 0);
    fixture.common.script(offset_of!(CommonConfig, device_feature), <[u32; 2]>::from(features)[0].into());
    fixture.common.script(offset_of!(CommonConfig, device_feature), <[u32; 2]>::from(features)[1].into());
    fixture.common.hold(offset_of!(CommonConfig, queue_size), &64u16.to_le_bytes());
    fixture.common.hold(offset_of!(CommonConfig, queue_notify_off), &1u16.to_le_bytes());
    fixture.common.hold(offset_of!(CommonConfig, queue_notif_config_data), &0x701u16.to_le_bytes());
    let wanted = Wanted { implemented: features, declined: Features::empty(), dependencies: &[] };
    let device = Device::new(transport, &fixture.platform).unwrap().acknowledge().driver();
    let mut device = device.negotiate(&wanted).unwrap();
    let doorbell = device.enable_queue(queue(1), 64, ADDRESSES).unwrap();
    let mut device = device.driver_ok();
    fixture.common.writes();
    device.kick(doorbell, Kick { progress: 77 });
    assert!(fixture.common.writes().is_empty(), "a kick selects no queue");
    fixture.notify.writes()
}

#[test]
fn a_kick_is_one_store_of_the_width_and_value_that_was_negotiated() {
    let (data, config) = (Features::NOTIFICATION_DATA, Features::NOTIF_CONFIG_DATA);
    assert_eq!(kick_with(Features::empty()), [('w', 16, 4, 1)]);
    assert_eq!(kick_with(config), [('w', 16, 4, 0x701)]);
    assert_eq!(kick_with(data), [('w', 32, 4, 77 << 16 | 1)]);
    assert_eq!(kick_with(data | config), [('w', 32, 4, 77 << 16 | 0x701)]);
}

#[test]
fn a_wide_kick_that_leaves_the_doorbells_or_is_misaligned_is_refused() {
    for (notify_off, multiplier, start, accepted) in
        [(63u16, 4u32, 0x1000, true), (127, 2, 0x1000, false), (1, 2, 0x1000, false), (63, 4, 0x1002, false)]
    {
        let mut fixture = fixture();
        fixture.capabilities.notify.multiplier = multiplier;
        let mut transport = fixture.transport();
        let AnyTransport::Modern(modern) = &mut transport.0 else { panic!("it is modern") };
        modern.notify_offset = start;
        transport.set_features(Features::NOTIFICATION_DATA);
        fixture.common.hold(offset_of!(CommonConfig, queue_size), &128u16.to_le_bytes());
        fixture.common.hold(offset_of!(CommonConfig, queue_notify_off), &notify_off.to_le_bytes());
        let outcome = transport.enable_queue(queue(0), 128, ADDRESSES);
        assert_eq!(outcome.is_ok(), accepted, "{notify_off} * {multiplier} at {start}");
    }
}

#[test]
fn a_feature_whose_register_is_missing_does_not_count_as_offered() {
    let (name, reset) = (Features::NOTIF_CONFIG_DATA, Features::RING_RESET);
    for (length, offered) in
        [(0x38, Features::empty()), (0x39, Features::empty()), (0x3a, name), (0x3b, name), (0x3c, name | reset)]
    {
        let mut fixture = fixture();
        fixture.common = LoggedRegisters::new(length);
        fixture.platform.windows[0].1 = fixture.common.clone();
        fixture.capabilities.common = place(1, length as u32);
        let mut transport = fixture.transport();
        fixture.common.hold(offset_of!(CommonConfig, device_feature), &[0xff; 4]);
        assert_eq!(transport.features() & (name | reset), offered, "{length:#x} bytes");
    }
}

#[test]
fn a_queue_is_reset_by_its_own_registers() {
    let mut fixture = fixture();
    let mut transport = fixture.transport();
    assert!(matches!(transport.start_queue_reset(queue(2)), Err(TransportError::NoQueueReset { .. })));
    assert!(matches!(transport.queue_reset_state(queue(2)), Err(TransportError::NoQueueReset { .. })));
    transport.set_features(Features::VERSION_1 | Features::RING_RESET);
    fixture.common.writes();
    transport.start_queue_reset(queue(2)).unwrap();
    assert_eq!(fixture.common.writes(), [('w', 16, 0x16, 2), ('w', 16, 0x3a, 1)]);
    fixture.common.hold(offset_of!(CommonConfig, queue_enable), &[1, 0]);
    assert_eq!(transport.queue_reset_state(queue(1)), Ok(QueueResetState { reset: 1, enabled: 1 }));
    assert_eq!(fixture.common.writes(), [('w', 16, 0x16, 1)]);
}

#[test]
fn all_ones_during_a_queue_reset_mean_gone_unless_the_status_responds() {
    let mut fixture = fixture();
    let mut transport = fixture.transport();
    transport.set_features(Features::VERSION_1 | Features::RING_RESET);
    fixture.common.script(offset_of!(CommonConfig, queue_reset), 0xffff);
    assert_eq!(transport.queue_reset_state(queue(0)), Ok(QueueResetState { reset: 0xffff, enabled: 0 }));
    fixture.common.hold(0, &[0xff; 0x40]);
    assert!(matches!(transport.queue_reset_state(queue(0)), Err(TransportError::Gone(_))));
}

#[test]
fn a_vector_is_read_back_and_a_refusal_is_named() {
    let mut fixture = fixture();
    let mut transport = fixture.transport();
    let vector = MsixVector::new(1).unwrap();
    assert_eq!(transport.set_queue_vector(queue(1), Some(vector)), Ok(()));
    assert_eq!(fixture.common.writes(), [('w', 16, 0x16, 1), ('w', 16, 0x1a, 1)]);
    for (offset, answer) in
        [(offset_of!(CommonConfig, queue_msix_vector), 0xffff), (offset_of!(CommonConfig, queue_msix_vector), 0)]
    {
        fixture.common.script(offset, answer);
        let error = transport.set_queue_vector(queue(1), Some(vector)).unwrap_err();
        assert!(matches!(error, TransportError::VectorRefused { read, .. } if u64::from(read) == answer));
    }
    fixture.common.script(offset_of!(CommonConfig, config_msix_vector), 0xffff);
    assert!(transport.set_config_vector(Some(vector)).is_err());
    assert_eq!(transport.set_config_vector(None), Ok(()));
    assert_eq!(fixture.common.writes().last(), Some(&('w', 16, 0x10, 0xffff)));
}

#[test]
fn a_field_is_read_again_while_the_generation_changes() {
    let mut fixture = fixture();
    let transport = fixture.transport();
    for generation in [1, 2, 2, 2] {
        fixture.common.script(offset_of!(CommonConfig, config_generation), generation);
    }
    fixture.device.script(0, 0x1111);
    fixture.device.script(0, 0x2222);
    assert_eq!(transport.read_config::<u32>(0), Ok(0x2222));
}

#[test]
fn a_configuration_that_keeps_changing_is_given_up() {
    let mut fixture = fixture();
    let transport = fixture.transport();
    for generation in 0..1000 {
        fixture.common.script(offset_of!(CommonConfig, config_generation), generation % 251);
    }
    assert!(matches!(transport.read_config::<u32>(4), Err(TransportError::ConfigUnstable { offset: 4, .. })));
}

#[test]
fn an_all_ones_field_is_a_value_while_the_device_responds_and_means_gone_otherwise() {
    let mut fixture = fixture();
    let transport = fixture.transport();
    fixture.device.hold(0, &[0xff; 4]);
    assert_eq!(transport.read_config::<u32>(0), Ok(u32::MAX));
    fixture.common.hold(0, &[0xff; 0x40]);
    assert!(matches!(transport.read_config::<u32>(0), Err(TransportError::Gone(_))));
    assert!(matches!(transport.status(), Err(TransportError::Gone(_))));
}

#[test]
fn fields_outside_the_configuration_or_misaligned_are_refused() {
    let mut fixture = fixture();
    let mut transport = fixture.transport();
    for offset in [5, 8, 1, usize::MAX, usize::MAX - 3] {
        assert!(matches!(transport.read_config::<u32>(offset), Err(TransportError::NoConfigField { .. })), "{offset}");
        assert!(transport.write_config(offset, 0_u32).is_err());
    }
    assert!(transport.read_config::<u8>(8).is_err());
    assert!(transport.read_config::<u16>(7).is_err());
    assert!(fixture.device.writes().is_empty());
}

#[test]
fn a_32_bit_field_is_written_in_one_store() {
    let mut fixture = fixture();
    let mut transport = fixture.transport();
    transport.write_config(4, 0x0102_0304_u32).unwrap();
    transport.write_config(2, 0x0506_u16).unwrap();
    transport.write_config(7, 0x08_u8).unwrap();
    assert_eq!(fixture.device.writes(), [('w', 32, 4, 0x0102_0304), ('w', 16, 2, 0x0506), ('w', 8, 7, 8)]);
    assert!(transport.write_config(7, 0_u16).is_err() && transport.write_config(8, 0_u8).is_err());
}
