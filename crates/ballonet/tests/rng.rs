//! The entropy driver, from PCI configuration space up, against a model of its device.

#![forbid(unsafe_code)]
#![allow(clippy::std_instead_of_core, clippy::alloc_instead_of_core, reason = "this program has a standard library")]

use std::ops::Range;

use ballonet::pci::Bdf;
use ballonet::rng::{REQUEST_SIZE, Rng, RngError};
use ballonet::virtio::spec::Features;
use ballonet::virtio::{
    BringUpError, DeviceOptions, InterruptMode, NegotiationError, QueueError, RingFormat, TransportError, TransportKind,
};
use ballonet_models::{Allocated, Behaviour, Lie, Machine, ModelPlatform};

const SEED: u64 = 0x5eed;
/// Polls after which no answer will come.
const PATIENCE: u32 = 1000;
const FAILED: u8 = 128;

/// A machine with one entropy device.
struct Guest {
    machine: Machine,
    platform: ModelPlatform,
    at: Bdf,
}

impl Guest {
    fn new(behaviour: Behaviour) -> Self {
        let machine = Machine::new(8);
        let at = Bdf::new(0, 0, 3, 0).expect("a function number");
        machine.plug(at, behaviour);
        Self { platform: ModelPlatform::new(&machine), machine, at }
    }

    fn probe(&mut self, choose: impl FnOnce(&mut DeviceOptions)) -> Result<Rng<ModelPlatform>, BringUpError> {
        let mut options = DeviceOptions::new("rng0");
        choose(&mut options);
        Rng::probe(&mut self.platform, self.machine.handle(self.at), options)
    }

    #[track_caller]
    fn expect_up(&mut self) -> Rng<ModelPlatform> {
        self.probe(|_| {}).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Waits for the answer as a kernel does: asleep until an interrupt, if there are interrupts.
    #[track_caller]
    fn receive(&self, rng: &mut Rng<ModelPlatform>) -> Result<Vec<u8>, RngError> {
        let mut bytes = vec![0; REQUEST_SIZE];
        for _ in 0..PATIENCE {
            let interrupts = &rng.running.interrupts;
            let is_awake = interrupts.mode() == InterruptMode::Polling || interrupts.events().is_pending();
            if is_awake && let Some(count) = rng.poll(&mut bytes)? {
                bytes.truncate(count);
                return Ok(bytes);
            }
            self.machine.sleep();
        }
        panic!("no answer came: {:#?}", self.machine.missteps());
    }

    #[track_caller]
    fn ask(&self, rng: &mut Rng<ModelPlatform>, length: usize) -> Result<Vec<u8>, RngError> {
        rng.request(length);
        self.receive(rng)
    }

    /// All bytes that the device has sent.
    fn given(&self) -> Vec<u8> {
        self.machine
            .balloon(self.at, |device, _| device.behaviour.entropy.as_ref().map(|entropy| entropy.given.clone()))
            .expect("an entropy device")
    }

    /// Panics unless the driver left everything as it found it.
    #[track_caller]
    fn expect_clean(&self) {
        assert_eq!(self.machine.allocated(), Allocated::default());
        self.machine.expect_no_missteps();
        self.machine.balloon(self.at, |device, _| {
            assert_eq!(device.config.decoding(), device.behaviour.command);
            assert!(!device.config.msix_enabled() && device.config.bars_restored());
        });
    }

    /// Panics unless a failed start was undone, with FAILED set if the registers were ever reached.
    #[track_caller]
    fn expect_given_up(&self) {
        self.expect_clean();
        let writes = self.machine.balloon(self.at, |device, _| device.common.status_writes.clone());
        assert!(writes.last().is_none_or(|last| last & FAILED != 0), "FAILED was not set: {writes:x?}");
    }

    #[track_caller]
    fn finish(mut self, rng: Rng<ModelPlatform>) {
        rng.shutdown(&mut self.platform).unwrap_or_else(|error| panic!("{error}"));
        self.expect_clean();
        assert!(self.machine.balloon(self.at, |device, _| device.common.is_reset()));
    }
}

/// Each interface and ring format, and what the driver must choose.
fn devices() -> Vec<(Behaviour, TransportKind, RingFormat)> {
    use RingFormat::{Packed, Split};
    use TransportKind::{Legacy, Mmio, MmioLegacy, Modern};
    let devices = [
        (Behaviour::conforming(), Modern, Split),
        (Behaviour::conforming().packed(), Modern, Packed),
        (Behaviour::conforming().in_order(true), Modern, Split),
        (Behaviour::conforming().packed().in_order(true), Modern, Packed),
        (Behaviour::conforming().transitional(), Modern, Split),
        (Behaviour::conforming().legacy(), Legacy, Split),
        (Behaviour::conforming().on_mmio(), Mmio, Split),
        (Behaviour::conforming().packed().in_order(true).on_mmio(), Mmio, Packed),
        (Behaviour::conforming().on_legacy_mmio(), MmioLegacy, Split),
        (Behaviour::qemu_7_2().with_vectors(None), Modern, Split),
        (Behaviour::qemu_10(2), Modern, Split),
    ];
    devices.map(|(behaviour, kind, ring)| (behaviour.entropy(SEED), kind, ring)).into()
}

/// Panics unless each request in this mode returns new bytes, exactly as the device wrote them.
#[track_caller]
fn expect_bytes(behaviour: Behaviour, kind: TransportKind, ring: RingFormat, mode: InterruptMode) {
    let mut guest = Guest::new(behaviour);
    let mut rng = guest.probe(|options| options.interrupts = Some(mode)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(rng.running.interrupts.mode(), mode);
    assert_eq!(rng.running.device.transport().kind(), kind);
    let packed = rng.running.device.features().contains(Features::RING_PACKED);
    assert_eq!(packed, ring == RingFormat::Packed);
    let mut received = Vec::new();
    let mut last = Vec::new();
    for length in [16, 16, 64, 1, 1000, REQUEST_SIZE].into_iter().cycle().take(100) {
        let bytes = guest.ask(&mut rng, length).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(bytes.len(), length);
        assert!(length == 1 || bytes != last, "the same {length} bytes twice");
        received.extend_from_slice(&bytes);
        last = bytes;
    }
    assert!(received == guest.given(), "not the bytes that the device sent");
    guest.finish(rng);
}

#[test]
fn bytes_arrive_by_each_interface_ring_format_and_interrupt_mode() {
    for (behaviour, kind, ring) in devices() {
        for mode in InterruptMode::LADDER {
            let msix = matches!(mode, InterruptMode::PerQueue | InterruptMode::Shared);
            if msix && behaviour.vectors.is_none() {
                continue;
            }
            println!("{kind:?} {ring:?} {mode:?}");
            expect_bytes(behaviour.clone(), kind, ring, mode);
        }
    }
}

#[test]
fn an_immediate_answer_is_received() {
    for behaviour in [Behaviour::conforming(), Behaviour::conforming().packed(), Behaviour::conforming().legacy()] {
        let behaviour = Behaviour { handling: ballonet_models::Handling::AtOnce, ..behaviour.entropy(SEED) };
        let mut guest = Guest::new(behaviour);
        let mut rng = guest.expect_up();
        for _ in 0..10 {
            assert_eq!(guest.ask(&mut rng, 32).map(|bytes| bytes.len()), Ok(32));
        }
        guest.finish(rng);
    }
}

#[test]
fn out_of_range_lengths_are_clamped() {
    let mut guest = Guest::new(Behaviour::conforming().entropy(SEED));
    let mut rng = guest.expect_up();
    for (asked, given) in [(0, 1), (REQUEST_SIZE + 1, REQUEST_SIZE), (usize::MAX, REQUEST_SIZE)] {
        assert_eq!(guest.ask(&mut rng, asked).map(|bytes| bytes.len()), Ok(given));
    }
    guest.finish(rng);
}

#[test]
fn no_second_request_is_made_while_one_is_in_flight() {
    let mut guest = Guest::new(Behaviour::conforming().entropy(SEED));
    let mut rng = guest.expect_up();
    rng.request(8);
    rng.request(16);
    assert_eq!(guest.receive(&mut rng).map(|bytes| bytes.len()), Ok(8));
    assert_eq!(guest.given().len(), 8);
    assert_eq!(rng.poll(&mut [0; 16]), Ok(None), "there is no second answer");
    guest.finish(rng);
}

/// Bytes beyond the caller's buffer are dropped, and a device may return fewer bytes than requested.
#[test]
fn an_answer_is_as_long_as_its_shortest_limit() {
    let mut behaviour = Behaviour::conforming().entropy(SEED);
    behaviour.entropy.as_mut().expect("an entropy device").most = 5;
    let mut guest = Guest::new(behaviour);
    let mut rng = guest.expect_up();
    let bytes = guest.ask(&mut rng, 100).expect("five bytes");
    assert_eq!(bytes, guest.given());
    assert_eq!(bytes.len(), 5);
    rng.request(100);
    while !rng.running.interrupts.events().is_pending() {
        assert!(guest.machine.sleep(), "an interrupt is due");
    }
    let mut few = [0; 3];
    assert_eq!(rng.poll(&mut few), Ok(Some(3)));
    assert_eq!(few, guest.given()[5..8]);
    guest.finish(rng);
}

#[test]
fn an_empty_answer_is_an_error_that_the_driver_survives() {
    for behaviour in [Behaviour::conforming(), Behaviour::conforming().packed(), Behaviour::conforming().legacy()] {
        let mut guest = Guest::new(behaviour.entropy(SEED));
        let mut rng = guest.expect_up();
        for most in [0, 16, 0, 16] {
            guest.machine.balloon(guest.at, |device, _| {
                device.behaviour.entropy.as_mut().expect("an entropy device").most = most;
            });
            let answer = guest.ask(&mut rng, 16).map(|bytes| bytes.len());
            assert_eq!(answer, if most == 0 { Err(RngError::Empty) } else { Ok(16) });
        }
        guest.finish(rng);
    }
}

#[test]
fn a_wrong_length_or_id_is_detected() {
    for behaviour in [Behaviour::conforming(), Behaviour::conforming().packed()] {
        for lie in [Lie::LengthTooLong, Lie::IdOutOfRange] {
            let mut guest = Guest::new(Behaviour { lie: Some((2, lie)), ..behaviour.clone().entropy(SEED) });
            let mut rng = guest.expect_up();
            for _ in 0..2 {
                assert_eq!(guest.ask(&mut rng, 16).map(|bytes| bytes.len()), Ok(16));
            }
            let error = guest.ask(&mut rng, 16).expect_err("a lie");
            let RngError::Queue(found) = error else { panic!("{lie:?}: {error}") };
            match lie {
                Lie::LengthTooLong => assert!(matches!(found, QueueError::UsedLength { limit: 16, .. }), "{found}"),
                _ => assert!(!matches!(found, QueueError::UsedLength { .. }), "{found}"),
            }
            assert_eq!(rng.poll(&mut [0; 16]), Err(error), "the queue is broken");
            guest.finish(rng);
        }
    }
}

#[test]
fn a_function_that_is_not_an_entropy_device_is_refused_untouched() {
    for (behaviour, id) in [
        (Behaviour::conforming(), 0x1045),
        (Behaviour::conforming().transitional(), 0x1002),
        (Behaviour { device_id: 0x1003, ..Behaviour::conforming() }, 0x1003),
    ] {
        let mut guest = Guest::new(behaviour);
        let error = guest.probe(|_| {}).err().expect("it is not an entropy device");
        assert_eq!(error, BringUpError::WrongDevice { function: guest.at, vendor: 0x1af4, device: id });
        let said = error.to_string();
        assert!(said.contains("00:03.0") && said.contains(&format!("{id:#06x}")), "{said}");
        guest.expect_clean();
        assert!(guest.machine.balloon(guest.at, |device, _| device.common.status_writes.is_empty()));
    }
    let mut guest = Guest::new(Behaviour::conforming().entropy(SEED));
    let nobody = Bdf::new(0, 0, 4, 0).expect("a function number");
    let error =
        Rng::probe(&mut guest.platform, nobody, DeviceOptions::new("rng0")).err().expect("there is no function");
    assert_eq!(error, BringUpError::NoFunction(nobody));
}

/// Starts a driver and requests bytes, while the platform refuses the requests in `refused`. Returns whether it
/// started, and the number of requests to the platform.
fn live(behaviour: &Behaviour, refused: Range<u64>) -> (bool, u64) {
    let mut guest = Guest::new(behaviour.clone());
    guest.machine.refuse(refused);
    match guest.probe(|_| {}) {
        Ok(mut rng) => {
            let asked = guest.machine.asked();
            assert_eq!(guest.ask(&mut rng, 16).map(|bytes| bytes.len()), Ok(16));
            let machine = guest.machine.clone();
            guest.finish(rng);
            assert_eq!(machine.asked(), asked, "a driver that runs or shuts down requests nothing that can be refused");
            (true, asked)
        }
        Err(_) => {
            guest.expect_given_up();
            (false, guest.machine.asked())
        }
    }
}

#[test]
fn any_refusal_of_the_platform_is_worked_around_or_undone() {
    for (behaviour, kind, ring) in devices() {
        // Off, or on, as firmware may leave it.
        for command in [0, 7] {
            let behaviour = Behaviour { command, ..behaviour.clone() };
            let (up, asked) = live(&behaviour, 0..0);
            assert!(up);
            let mut without = 0;
            for first in 0..asked {
                without += u64::from(live(&behaviour, first..first + 1).0);
                live(&behaviour, first..u64::MAX);
            }
            println!("{kind:?} {ring:?}: {asked} requests, {without} of them not needed");
            // Registers, a queue and a buffer are necessary; an interrupt is not.
            assert!(asked >= 4 && without >= 1 && without + 3 <= asked, "{without} of {asked}");
        }
    }
}

#[test]
fn a_device_that_fails_its_own_start_gets_failed() {
    let conforming = || Behaviour::conforming().entropy(SEED);
    let legacy = || Behaviour::conforming().legacy().entropy(SEED);
    for (name, behaviour) in [
        ("no VERSION_1", conforming().with_features(1)),
        ("features refused", Behaviour { refuses_features: true, ..conforming() }),
        ("no queue", Behaviour { num_queues: Some(0), ..conforming() }),
        ("an invalid size", Behaviour { size_lie: Some(0xffff), ..conforming() }),
        ("a doorbell out of range", Behaviour { notify_off: Some(0x2000), ..conforming() }),
        ("a legacy queue of an odd size", Behaviour { size_lie: Some(48), ..legacy() }),
        ("a reset that never ends", Behaviour { reset_time: u64::MAX, ..conforming() }),
        ("a legacy reset that never ends", Behaviour { reset_time: u64::MAX, ..legacy() }),
    ] {
        let mut guest = Guest::new(behaviour);
        let error = guest.probe(|_| {}).err().unwrap_or_else(|| panic!("{name}: no error"));
        println!("{name}: {error}");
        match name {
            "features refused" => {
                assert!(matches!(error, BringUpError::Negotiation(NegotiationError::Refused { .. })), "{error}");
            }
            "a reset that never ends" | "a legacy reset that never ends" => {
                assert!(matches!(error, BringUpError::Transport(TransportError::ResetTimeout { .. })), "{error}");
            }
            _ => {}
        }
        guest.expect_given_up();
        assert!(guest.machine.balloon(guest.at, |device, _| device.common.failed()), "{name}: FAILED was not set");
    }
}

/// The device may still write to its queue and its buffer, so they are leaked.
#[test]
fn a_device_that_does_not_finish_its_reset_keeps_its_memory() {
    for behaviour in [Behaviour::conforming(), Behaviour::conforming().packed(), Behaviour::conforming().legacy()] {
        for in_flight in [false, true] {
            let mut guest = Guest::new(behaviour.clone().entropy(SEED));
            let mut rng = guest.expect_up();
            assert_eq!(guest.ask(&mut rng, 16).map(|bytes| bytes.len()), Ok(16));
            if in_flight {
                rng.request(16);
            }
            let lent = guest.machine.allocated().dma;
            guest.machine.balloon(guest.at, |device, _| device.behaviour.reset_time = u64::MAX);
            let error = rng.shutdown(&mut guest.platform).expect_err("it does not stop");
            assert!(matches!(error, TransportError::ResetTimeout { .. }), "{error}");
            assert!(lent >= 2, "a queue and a buffer");
            assert_eq!(guest.machine.allocated(), Allocated { vectors: 0, mappings: 0, dma: lent });
            guest.machine.expect_no_missteps();
            assert!(!guest.machine.balloon(guest.at, |device, _| device.config.bus_master()), "it can write memory");
        }
    }
}

#[test]
fn a_shutdown_during_a_request_releases_everything_and_another_driver_can_start() {
    for (behaviour, ..) in devices() {
        let mut guest = Guest::new(behaviour);
        for _ in 0..3 {
            let mut rng = guest.expect_up();
            assert_eq!(guest.ask(&mut rng, 16).map(|bytes| bytes.len()), Ok(16));
            rng.request(REQUEST_SIZE);
            rng.shutdown(&mut guest.platform).expect("it stops");
            guest.expect_clean();
        }
    }
}

#[test]
fn an_unplugged_device_leaves_nothing_behind() {
    let mut guest = Guest::new(Behaviour::conforming().entropy(SEED));
    let mut rng = guest.expect_up();
    rng.request(16);
    guest.machine.balloon(guest.at, |device, _| device.unplug());
    assert_eq!(rng.poll(&mut [0; 16]), Ok(None), "the device does not respond");
    let _ = rng.shutdown(&mut guest.platform);
    let left = guest.machine.allocated();
    assert_eq!((left.vectors, left.mappings), (0, 0));
    guest.machine.expect_no_missteps();
}
