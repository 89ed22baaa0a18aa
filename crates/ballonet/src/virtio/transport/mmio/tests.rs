//! Every register with 32 bits and in the order that the specification requires.

use super::*;
use crate::bus::{Handled, Polarity, Trigger, WiredInterrupt};
use crate::virtio::fake::{Access, FakePlatform, LoggedRegisters};
use crate::virtio::transport::Transport;

const BASE: u64 = 0xfeb0_0e00;
const ADDRESSES: QueueAddresses =
    QueueAddresses { descriptors: 0x1_2345_6000, driver: 0x2_2345_7000, device: 0x3_2345_8000 };

struct Fixture {
    platform: FakePlatform,
    registers: LoggedRegisters,
    interrupt: LoggedRegisters,
}

/// A balloon with registers of this version.
fn fixture(version: u32) -> Fixture {
    let [registers, interrupt] = [0x200, MMIO_INTERRUPT_LENGTH].map(LoggedRegisters::new);
    for (offset, value) in [(mmio::MAGIC_VALUE, mmio::MAGIC), (mmio::VERSION, version), (mmio::DEVICE_ID, 5)] {
        registers.hold(offset, &value.to_le_bytes());
    }
    let mut platform = FakePlatform::new();
    platform.windows = vec![(BASE, registers.clone()), (BASE + MMIO_INTERRUPT as u64, interrupt.clone())];
    Fixture { platform, registers, interrupt }
}

fn device() -> MmioDevice {
    let wired = WiredInterrupt { gsi: 12, polarity: Polarity::ActiveHigh, trigger: Trigger::Edge };
    MmioDevice::new(BASE, 0x200, Some(wired))
}

impl Fixture {
    fn transport(&mut self) -> Transport<LoggedRegisters> {
        Mmio::open(&mut self.platform, &device()).unwrap().0.into()
    }

    fn hold(&self, register: usize, value: u32) {
        self.registers.hold(register, &value.to_le_bytes());
    }

    /// Offsets that were read, in order.
    fn reads(&self) -> Vec<usize> {
        let log = self.registers.0.lock().unwrap();
        log.accesses.iter().filter(|access| access.0 == 'r').map(|access| access.2).collect()
    }
}

fn queue(number: u16) -> QueueIndex {
    QueueIndex::new(number).unwrap()
}

fn open(fixture: &mut Fixture, device: MmioDevice) -> Result<MmioIdentity, MmioError> {
    Mmio::open(&mut fixture.platform, &device).map(|(_, identity)| identity)
}

#[test]
fn a_device_is_known_by_its_first_three_registers_in_their_order() {
    for version in [1, 2] {
        let mut fixture = fixture(version);
        assert_eq!(open(&mut fixture, device()), Ok(MmioIdentity { version, device_type: 5 }));
        assert_eq!(fixture.reads(), [0, 4, 8]);
        assert_eq!(fixture.registers.writes(), []);
    }
}

#[test]
fn other_contents_than_a_virtio_device_are_reported_with_the_value_read() {
    let (address, mut fixture) = (device().address(), fixture(2));
    fixture.hold(mmio::MAGIC_VALUE, 0x1234);
    assert_eq!(open(&mut fixture, device()), Err(MmioError::Magic { device: address, magic: 0x1234 }));
    assert_eq!(fixture.reads(), [0]);
    for version in [0, 3, u32::MAX] {
        let mut fixture = self::fixture(version);
        assert_eq!(open(&mut fixture, device()), Err(MmioError::Version { device: address, version }));
        assert_eq!((fixture.reads(), fixture.platform.mapped), (vec![0, 4], 0));
    }
}

#[test]
fn a_placeholder_is_not_an_error_and_only_its_identity_is_read() {
    let mut fixture = fixture(2);
    fixture.hold(mmio::DEVICE_ID, 0);
    assert_eq!(device().identify(&mut fixture.platform), Ok(None));
    assert_eq!((fixture.reads(), fixture.platform.mapped), (vec![0, 4, 8], 0));
    assert!(matches!(open(&mut fixture, device()), Err(MmioError::Placeholder(_))));
}

#[test]
fn a_window_that_is_too_small_misaligned_or_unmappable_is_refused() {
    let mut fixture = fixture(2);
    for (base, length) in [(BASE, 0xff), (BASE + 2, 0x200), (u64::MAX - 0xff, 0x200)] {
        let error = open(&mut fixture, MmioDevice::new(base, length, None)).unwrap_err();
        assert!(matches!(error, MmioError::Small(_)), "{error}");
    }
    assert!(matches!(open(&mut fixture, MmioDevice::new(0x1000, 0x200, None)), Err(MmioError::Map(_))));
    assert!(matches!(
        open(&mut fixture, MmioDevice::new(BASE, 0x400, None)),
        Err(MmioError::Short { length: 0x200, .. })
    ));
    fixture.platform.windows.truncate(1);
    assert!(matches!(open(&mut fixture, device()), Err(MmioError::Map(_))));
    assert_eq!(fixture.platform.mapped, 0);
}

#[test]
fn features_are_read_and_written_by_selected_words() {
    let mut fixture = fixture(2);
    let mut transport = fixture.transport();
    fixture.registers.script(mmio::DEVICE_FEATURES, 0x2000_0002);
    // `NOTIF_CONFIG_DATA` does not exist here, whatever the device offers.
    fixture.registers.script(mmio::DEVICE_FEATURES, 0x81);
    assert_eq!(transport.features().bits(), 0x1_2000_0002);
    assert_eq!(fixture.registers.writes(), [('w', 32, 0x14, 0), ('w', 32, 0x14, 1)]);
    transport.set_features(Features::from_bits_retain(0x1_2000_0002));
    let expected = [('w', 32, 0x24, 0), ('w', 32, 0x20, 0x2000_0002), ('w', 32, 0x24, 1), ('w', 32, 0x20, 1)];
    assert_eq!(fixture.registers.writes(), expected);
}

#[test]
fn a_legacy_device_has_32_features_and_learns_the_size_of_pages() {
    let mut fixture = fixture(1);
    let mut transport = fixture.transport();
    fixture.hold(mmio::DEVICE_FEATURES, 0x2000_0002);
    assert_eq!(transport.features().bits(), 0x2000_0002);
    transport.set_features(Features::from_bits_retain(0x2000_0002));
    let expected = [('w', 32, 0x14, 0), ('w', 32, 0x24, 0), ('w', 32, 0x20, 0x2000_0002), ('w', 32, 0x28, 4096)];
    assert_eq!(fixture.registers.writes(), expected);
    assert_eq!((transport.kind(), transport.generation()), (TransportKind::MmioLegacy, None));
}

#[test]
fn a_queue_is_made_ready_last_and_its_addresses_go_in_halves() {
    let mut fixture = fixture(2);
    let mut transport = fixture.transport();
    fixture.hold(mmio::QUEUE_SIZE_LIMIT, 256);
    let doorbell = transport.enable_queue(queue(2), 128, ADDRESSES).unwrap();
    assert_eq!(doorbell, Doorbell { offset: 0x50, number: 2 });
    let expected: [Access; 10] = [
        ('w', 32, 0x30, 2),
        ('w', 32, 0x30, 2),
        ('w', 32, 0x38, 128),
        ('w', 32, 0x80, 0x2345_6000),
        ('w', 32, 0x84, 1),
        ('w', 32, 0x90, 0x2345_7000),
        ('w', 32, 0x94, 2),
        ('w', 32, 0xa0, 0x2345_8000),
        ('w', 32, 0xa4, 3),
        ('w', 32, 0x44, 1),
    ];
    assert_eq!(fixture.registers.writes(), expected);
}

#[test]
fn a_legacy_queue_gets_size_alignment_and_then_its_page() {
    let mut fixture = fixture(1);
    let mut transport = fixture.transport();
    fixture.hold(mmio::QUEUE_SIZE_LIMIT, 256);
    let addresses = QueueAddresses { descriptors: 0x2345_6000, driver: 0x2345_6800, device: 0x2345_7000 };
    transport.enable_queue(queue(1), 128, addresses).unwrap();
    let last = [('w', 32, 0x38, 128), ('w', 32, 0x3c, 4096), ('w', 32, 0x40, 0x23456)];
    assert_eq!(fixture.registers.writes()[2..], last);
    fixture.hold(mmio::QUEUE_FRAME, 0);
    for descriptors in [0, 0x2345_6010, 1 << 44] {
        let wrong = QueueAddresses { descriptors, ..addresses };
        let error = transport.enable_queue(queue(0), 128, wrong).unwrap_err();
        assert!(matches!(error, TransportError::QueueAddress { address, .. } if address == descriptors), "{error}");
    }
    assert!(fixture.registers.writes().iter().all(|write| write.2 == mmio::QUEUE_SELECT));
}

#[test]
fn a_queue_that_is_missing_too_small_or_in_use_is_not_enabled() {
    for (version, in_use) in [(2, mmio::QUEUE_READY), (1, mmio::QUEUE_FRAME)] {
        let mut fixture = fixture(version);
        let mut transport = fixture.transport();
        for (size, asked) in [(0, 128), (64, 128), (128, 0)] {
            fixture.hold(mmio::QUEUE_SIZE_LIMIT, size);
            let error = transport.enable_queue(queue(0), asked, ADDRESSES).unwrap_err();
            assert!(matches!(error, TransportError::QueueSize { size, .. } if size == asked), "{error}");
        }
        for value in [0x8001, 0x1_0080, u32::MAX] {
            fixture.hold(mmio::QUEUE_SIZE_LIMIT, value);
            let error = transport.queue_size(queue(0)).unwrap_err();
            let is_it =
                matches!(error, TransportError::Register { register: "QueueSizeMax", value: v, .. } if v == value);
            assert!(is_it, "{error}");
        }
        fixture.hold(mmio::QUEUE_SIZE_LIMIT, 128);
        fixture.hold(in_use, 7);
        let error = transport.enable_queue(queue(0), 128, ADDRESSES).unwrap_err();
        assert!(matches!(error, TransportError::Register { value: 7, .. }), "{error}");
    }
}

#[test]
fn all_ones_mean_that_the_device_is_gone_and_other_high_status_bits_are_reported() {
    let mut fixture = fixture(2);
    let mut transport = fixture.transport();
    fixture.hold(mmio::STATUS, u32::MAX);
    assert_eq!(transport.status(), Err(TransportError::Gone(device().address())));
    fixture.hold(mmio::QUEUE_SIZE_LIMIT, u32::MAX);
    assert_eq!(transport.queue_size(queue(0)), Err(TransportError::Gone(device().address())));
    fixture.hold(mmio::STATUS, 0x100);
    assert!(matches!(transport.status(), Err(TransportError::Register { register: "Status", value: 0x100, .. })));
}

#[test]
fn a_queue_is_reset_once_both_of_its_registers_are_0() {
    let mut fixture = fixture(2);
    let mut transport = fixture.transport();
    assert!(matches!(transport.start_queue_reset(queue(1)), Err(TransportError::NoQueueReset { .. })));
    transport.set_features(Features::RING_RESET);
    fixture.registers.writes();
    transport.start_queue_reset(queue(1)).unwrap();
    assert_eq!(fixture.registers.writes(), [('w', 32, 0x30, 1), ('w', 32, 0xc0, 1)]);
    for (reset, ready, done) in [(1, 1, false), (0, 1, false), (1, 0, false), (0, 0, true)] {
        fixture.hold(mmio::QUEUE_RESET, reset);
        fixture.hold(mmio::QUEUE_READY, ready);
        assert_eq!(transport.queue_reset_state(queue(1)).unwrap().is_done(), done);
    }
    fixture.hold(mmio::QUEUE_RESET, 0x1_0000);
    assert!(matches!(transport.queue_reset_state(queue(1)), Err(TransportError::Register { .. })));
}

#[test]
fn a_kick_is_a_store_of_32_bits_with_progress_if_negotiated() {
    let mut fixture = fixture(2);
    let mut transport = fixture.transport();
    let doorbell = Doorbell { offset: mmio::QUEUE_NOTIFY, number: 3 };
    transport.notify(doorbell, Kick { progress: 0x8001 });
    transport.set_features(Features::NOTIFICATION_DATA);
    assert_eq!(fixture.registers.writes()[0], ('w', 32, 0x50, 3));
    transport.notify(doorbell, Kick { progress: 0x8001 });
    assert_eq!(fixture.registers.writes(), [('w', 32, 0x50, 0x8001_0003)]);
}

#[test]
fn shared_memory_is_selected_by_its_number() {
    let mut fixture = fixture(2);
    let mut transport = fixture.transport();
    let region = |length: u64, base: u64| {
        fixture.registers.hold(mmio::SHARED_MEMORY_LENGTH, &length.to_le_bytes());
        fixture.registers.hold(mmio::SHARED_MEMORY_BASE, &base.to_le_bytes());
    };
    region(0x1_0000_0000, 0x80_0000_0000);
    let found = transport.shared_memory(3).unwrap();
    assert_eq!((found.address, found.length, found.device), (0x80_0000_0000, 0x1_0000_0000, device().address()));
    assert_eq!(fixture.registers.writes(), [('w', 32, 0xac, 3)]);
    for (length, base) in [(u64::MAX, u64::MAX), (0, 0x1000), (0x1000, u64::MAX)] {
        region(length, base);
        assert_eq!(transport.shared_memory(3), None);
    }
    assert_eq!(self::fixture(1).transport().shared_memory(3), None);
}

static EVENTS: Events = Events::new();

/// Runs the handler of a device whose interrupt status reads as `statuses`, and then as 0. Returns its result, the
/// writes, and whether it recorded events.
fn interrupt(
    fixture: &Fixture,
    handler: &mut Handler<LoggedRegisters>,
    statuses: &[u64],
) -> (Handled, Vec<Access>, bool) {
    statuses.iter().for_each(|status| fixture.interrupt.script(0, *status));
    fixture.interrupt.hold(0, &[0; 4]);
    (handler.run(), fixture.interrupt.writes(), EVENTS.take() != 0)
}

#[test]
fn the_known_bits_of_an_interrupt_are_acknowledged_until_none_is_set() {
    let mut fixture = fixture(2);
    let mut handler = fixture.transport().line_handler(&EVENTS, 1).unwrap();
    let ack = mmio::INTERRUPT_ACK - MMIO_INTERRUPT;
    let (handled, writes, pending) = interrupt(&fixture, &mut handler, &[0xf0f1, 0x2]);
    assert_eq!((handled, writes, pending), (Handled::Yes, vec![('w', 32, ack, 1), ('w', 32, ack, 2)], true));
    assert_eq!(interrupt(&fixture, &mut handler, &[0xf0]), (Handled::No, vec![], false), "only undefined bits");
    assert_eq!(interrupt(&fixture, &mut handler, &[]), (Handled::No, vec![], false));
    let (handled, writes, pending) = interrupt(&fixture, &mut handler, &[u64::from(u32::MAX)]);
    assert_eq!((handled, writes, pending), (Handled::No, vec![], true), "for one that is gone, the driver must check");
    let (handled, writes, pending) = interrupt(&fixture, &mut handler, &[1; 100]);
    assert_eq!((handled, writes.len(), pending), (Handled::Yes, 8, true), "one that never deasserts is given up on");
}

#[test]
fn the_handler_can_be_taken_only_once() {
    let mut transport = fixture(2).transport();
    assert!(transport.line_handler(&EVENTS, 1).is_some() && transport.line_handler(&EVENTS, 1).is_none());
}

#[test]
fn releasing_ends_both_mappings() {
    let mut fixture = fixture(2);
    let transport = fixture.transport();
    assert_eq!(fixture.platform.mapped, 2);
    transport.release(&mut fixture.platform);
    assert_eq!(fixture.platform.mapped, 0);
}
