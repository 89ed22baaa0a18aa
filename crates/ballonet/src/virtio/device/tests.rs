//! The status sequence, step by step, and with devices that misbehave.

use super::*;
use crate::virtio::fake::{FakePlatform, FakeTransport, LoggedRegisters, QueueStep};

type FakeDevice<S> = Device<LoggedRegisters, S>;

const MINE: Features = Features::VERSION_1.union(Features::EVENT_IDX);

fn wanted() -> Wanted<'static> {
    Wanted { implemented: MINE, declined: Features::empty(), dependencies: &[] }
}

fn offering(offered: Features) -> FakeTransport {
    FakeTransport { offered, ..FakeTransport::default() }
}

fn start(transport: FakeTransport) -> FakeDevice<Reset> {
    Device::new(transport.into(), &FakePlatform::new()).expect("the reset works")
}

#[test]
fn each_step_adds_its_bit_and_drops_none() {
    let device = start(offering(MINE)).acknowledge().driver().negotiate(&wanted()).unwrap();
    assert_eq!(device.transport().fake().accepted, Some(MINE));
    let device = device.driver_ok();
    assert_eq!(device.features(), MINE);
    assert_eq!(device.transport().fake().statuses, [0, 1, 3, 11, 15]);
}

#[test]
fn a_reset_is_awaited() {
    let transport = FakeTransport { status: 15.into(), slow: 500.into(), ..offering(MINE) };
    let device = start(transport);
    assert_eq!(device.transport().fake().slow.get(), 0);
    assert_eq!(device.transport().fake().status.get(), 0);
}

#[test]
fn a_reset_that_does_not_end_is_given_up_in_bounded_time() {
    let transport = FakeTransport { status: 15.into(), slow: u32::MAX.into(), ..offering(MINE) };
    let Failure { transport, error } = FakeDevice::<Reset>::new(transport.into(), &FakePlatform::new()).unwrap_err();
    assert!(matches!(error, TransportError::ResetTimeout { waited_ms: 2000, status, .. } if status.bits() == 15));
    assert_eq!(transport.fake().statuses, [0, 15 | 128], "FAILED is set, then nothing is written");
}

#[test]
fn a_clock_jump_does_not_make_a_finished_reset_late() {
    let mut platform = FakePlatform::new();
    platform.tick = 10_000_000_000;
    let transport = FakeTransport { status: 15.into(), slow: 0.into(), ..offering(MINE) };
    assert!(FakeDevice::<Reset>::new(transport.into(), &platform).is_ok());
}

#[test]
fn features_that_the_device_refuses_end_in_failed_and_no_further_access() {
    let transport = FakeTransport { disliked: Features::EVENT_IDX, ..offering(MINE) };
    let Failure { transport, error } = start(transport).acknowledge().driver().negotiate(&wanted()).unwrap_err();
    assert!(matches!(error, NegotiationError::Refused { accepted, .. } if accepted == MINE));
    assert_eq!(transport.fake().statuses, [0, 1, 3, 11, 139]);
}

#[test]
fn a_modern_device_without_version_1_gets_failed() {
    let failure = start(offering(Features::EVENT_IDX)).acknowledge().driver().negotiate(&wanted()).unwrap_err();
    assert!(matches!(failure.error, NegotiationError::NoVersion1 { .. }));
    assert_eq!(failure.transport.fake().statuses, [0, 1, 3, 131]);
    assert_eq!(failure.transport.fake().accepted, None);
}

#[test]
fn a_legacy_device_needs_no_version_1_and_never_gets_features_ok() {
    let transport = FakeTransport { legacy: true, ..offering(Features::EVENT_IDX) };
    let device = start(transport).acknowledge().driver().negotiate(&wanted()).unwrap();
    assert_eq!(device.features(), Features::EVENT_IDX);
    assert_eq!(device.driver_ok().transport().fake().statuses, [0, 1, 3, 7]);
}

#[test]
fn a_device_that_is_gone_is_named_so() {
    let transport = FakeTransport { gone: true, ..offering(MINE) };
    let failure = FakeDevice::<Reset>::new(transport.into(), &FakePlatform::new()).unwrap_err();
    assert!(matches!(failure.error, TransportError::Gone(_)));
}

#[test]
fn giving_up_resets_first_and_then_sets_failed() {
    let device = start(offering(MINE)).acknowledge().driver().negotiate(&wanted()).unwrap().driver_ok();
    let (transport, stopped) = device.quiesce(&FakePlatform::new(), true);
    assert!(stopped.is_ok());
    assert_eq!(transport.fake().statuses[5..], [0, 128]);
}

#[test]
fn without_a_finished_reset_there_is_no_proof_that_memory_is_free() {
    let device = start(offering(MINE)).acknowledge().driver().negotiate(&wanted()).unwrap().driver_ok();
    device.transport().fake().slow.set(u32::MAX);
    let (transport, stopped) = device.quiesce(&FakePlatform::new(), false);
    assert!(matches!(stopped, Err(TransportError::ResetTimeout { .. })));
    assert_eq!(transport.fake().statuses[5..], [0, 143], "FAILED is set, and no bit is dropped");
}

const RESETTABLE: Features = MINE.union(Features::RING_RESET);

fn queue(number: u16) -> QueueIndex {
    QueueIndex::new(number).unwrap()
}

/// A running device whose queue under reset reads as these states in turn.
fn running(features: Features, states: &[(u16, u16)]) -> FakeDevice<DriverOk> {
    let queue_reset = states.iter().map(|&(reset, enabled)| QueueResetState { reset, enabled }).collect();
    let transport = FakeTransport { queue_reset, ..offering(features) };
    let wanted = Wanted { implemented: RESETTABLE, ..wanted() };
    start(transport).acknowledge().driver().negotiate(&wanted).unwrap().driver_ok()
}

#[test]
fn a_queue_is_reset_once_both_its_registers_read_0() {
    let mut device = running(RESETTABLE, &[(1, 1), (1, 0), (0, 1), (0, 0)]);
    let proof = device.reset_queue(queue(2), &FakePlatform::new()).unwrap();
    assert_eq!(proof.queue(), queue(2));
    let look = QueueStep::Look(2);
    assert_eq!(device.transport().fake().queue_steps, [QueueStep::Reset(2), look, look, look, look]);
    assert_eq!(device.transport().fake().statuses, [0, 1, 3, 11, 15], "the device keeps running");
}

#[test]
fn a_queue_reset_that_does_not_end_is_given_up_in_bounded_time_with_the_registers_read() {
    for last in [(1, 1), (1, 0), (0, 1), (7, 0)] {
        let mut device = running(RESETTABLE, &[last]);
        let error = device.reset_queue(queue(1), &FakePlatform::new()).unwrap_err();
        let TransportError::QueueResetTimeout { waited_ms: 2000, reset, enabled, .. } = error else {
            panic!("{error}");
        };
        assert_eq!((reset, enabled), last);
    }
}

#[test]
fn a_clock_jump_does_not_make_a_finished_queue_reset_late() {
    let mut platform = FakePlatform::new();
    platform.tick = 10_000_000_000;
    assert!(running(RESETTABLE, &[(0, 0)]).reset_queue(queue(1), &platform).is_ok());
}

#[test]
fn a_queue_of_a_device_that_is_gone_is_not_reset() {
    let mut device = running(RESETTABLE, &[(1, 1)]);
    device.transport.fake_mut().gone = true;
    assert!(matches!(device.reset_queue(queue(1), &FakePlatform::new()), Err(TransportError::Gone(_))));
}

#[test]
fn without_ring_reset_no_queue_is_touched() {
    let mut device = running(MINE, &[(0, 0)]);
    let error = device.reset_queue(queue(1), &FakePlatform::new()).unwrap_err();
    assert!(matches!(error, TransportError::NoQueueReset { queue, .. } if queue.number() == 1), "{error}");
    assert_eq!(device.transport().fake().queue_steps, []);
}

#[test]
fn a_queue_is_set_up_from_scratch_after_its_reset() {
    let mut device = running(RESETTABLE, &[(0, 0)]);
    let proof = device.reset_queue(queue(1), &FakePlatform::new()).unwrap();
    let addresses = QueueAddresses { descriptors: 0x5000, driver: 0x6000, device: 0x7000 };
    device.enable_queue_again(proof, MsixVector::new(3), 32, addresses).unwrap();
    assert_eq!(
        device.transport().fake().queue_steps[2..],
        [QueueStep::Vector(1, Some(3)), QueueStep::Enable(1, 32, 0x5000)]
    );
}
