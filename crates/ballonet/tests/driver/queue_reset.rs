//! Resets and re-enables one queue of a running device while the others continue (virtio 1.4, 2.6.1).

use ballonet::memory::{FrameRun, PageFrames};
use ballonet::pci::{Bdf, MsixVector};
use ballonet::platform::{DmaMemory, Platform};
use ballonet::virtio::spec::{DeviceType, Features};
use ballonet::virtio::{
    BringUpError, Chain, DeviceOptions, InterruptMode, Parts, QueueIndex, QueueOptions, QueueSetup, Quiesced,
    RingLayout, Running, Segment, Setup, TransportError, TransportKind, UsedLength, Virtqueue,
};

use ballonet_models::{Behaviour, HostSide, Machine, ModelPlatform, feature};

type Dma = <ModelPlatform as Platform>::Memory;
type Vring = Virtqueue<Dma, FrameRun>;

/// Queues of a balloon without statistics, by number.
const NAMES: [&str; 2] = ["inflate", "deflate"];

fn index(number: u16) -> QueueIndex {
    QueueIndex::new(number).expect("a small number")
}

/// A balloon operated step by step.
struct Rig {
    machine: Machine,
    platform: ModelPlatform,
    at: Bdf,
    running: Running<ModelPlatform>,
    features: Features,
    lent: Lent,
}

/// Memory shared with the device: two queues, and the frame number of the request in flight.
struct Lent {
    queues: Vec<Vring>,
    buffer: Dma,
}

impl Parts<ModelPlatform> for Lent {
    fn release(self, platform: &mut ModelPlatform, proof: &Quiesced) {
        for queue in self.queues {
            for run in queue.release(platform, proof) {
                platform.frames.release(run);
            }
        }
        platform.release_dma(self.buffer);
    }
}

impl Rig {
    fn new(behaviour: Behaviour, mode: InterruptMode) -> Self {
        let (machine, at) = Machine::with_balloon(64, behaviour);
        let mut platform = ModelPlatform::new(&machine);
        let implemented = Features::VERSION_1 | Features::EVENT_IDX | Features::RING_PACKED | Features::RING_RESET;
        let mut options = DeviceOptions::new("virtio0");
        options.interrupts = Some(mode);
        let balloon = DeviceType::BALLOON;
        let setup = Setup::open(&mut platform, at, options, balloon, |_, _| implemented, |_, _| {}).expect("a balloon");
        let features = setup.device.features();
        let lent = Lent { queues: Vec::new(), buffer: platform.allocate_dma(4, 4).expect("memory") };
        let make = |platform: &mut ModelPlatform, setup: &mut Setup<_>, lent: &mut Lent| -> Result<(), BringUpError> {
            for (index, name) in (0..).map_while(QueueIndex::new).zip(NAMES) {
                let (layout, used_length) = (setup.layout(index, 64)?, UsedLength::Strict);
                let wanted = QueueSetup { index, name: Some(name), layout, indirect_entries: 0, used_length };
                lent.queues.push(setup.add_queue(platform, &wanted)?);
            }
            Ok(())
        };
        let (connected, lent, ()) = setup.connect(&mut platform, lent, make).expect("queues and interrupts");
        Self { machine, platform, at, running: connected.run(), features, lent }
    }

    /// Sends a frame to the host, or requests it back.
    fn send(&mut self, queue: usize, run: FrameRun) {
        self.lent.buffer.store32(0, run.pfns().next().expect("a frame").0);
        let segment = Segment { address: self.lent.buffer.device_address(), length: 4 };
        self.lent.queues[queue].add(Chain::readable(&[segment]), run).expect("room");
        assert!(self.lent.queues[queue].arm(1));
        self.running.publish(&mut self.lent.queues[queue]);
    }

    /// Waits for the interrupt of a completion and pops it.
    fn receive(&mut self, queue: usize) -> FrameRun {
        for _ in 0..100 {
            let pending = self.running.interrupts.take();
            if pending.queue(index(queue as u16))
                && let Some(done) = self.lent.queues[queue].pop().expect("a device that keeps to the rules")
            {
                return done.token;
            }
            self.machine.sleep();
        }
        panic!("no interrupt announces a completion");
    }

    fn inflate(&mut self) -> FrameRun {
        let run = self.platform.frames.take_free(1).expect("a frame");
        self.send(0, run);
        assert_eq!(self.receive(0), run);
        self.platform.frames.confirm_ballooned(run);
        run
    }

    fn deflate(&mut self) {
        let run = self.platform.frames.take_ballooned(1).expect("a frame");
        self.send(1, run);
        assert_eq!(self.receive(1), run);
        self.platform.frames.release(run);
    }

    /// Resets a queue, releases its memory, and replaces it with one of another size. Returns the requests in flight.
    fn reset(&mut self, queue: usize, size: u16) -> Result<Vec<FrameRun>, TransportError> {
        let again = index(queue as u16);
        let proof = self.running.device.reset_queue(again, &self.platform)?;
        let fresh = vring(&mut self.platform, self.features, queue as u16, size);
        let old = core::mem::replace(&mut self.lent.queues[queue], fresh);
        let dropped = old.release(&mut self.platform, &proof).collect();
        let (size, addresses) = (self.lent.queues[queue].size(), self.lent.queues[queue].addresses());
        let doorbell = self.running.doorbell(again);
        self.running.enable_queue_again(proof, size, addresses)?;
        assert_eq!(doorbell, self.running.doorbell(again), "the doorbell of a queue stays where it is");
        Ok(dropped)
    }

    /// Shuts everything down and panics if anything is left behind.
    fn finish(mut self) {
        self.running.stop(&mut self.platform, self.lent, false).expect("a reset");
        self.machine.expect_no_missteps();
        assert_eq!(self.machine.allocated(), ballonet_models::Allocated::default());
        self.platform.frames.expect_whole();
    }
}

fn vring(platform: &mut ModelPlatform, features: Features, number: u16, size: u16) -> Vring {
    let layout = RingLayout::for_device(TransportKind::Modern, features, size, size).expect("a size");
    let options = QueueOptions { event_idx: true, ..QueueOptions::default() };
    Virtqueue::allocate(platform, index(number), layout, options).expect("memory")
}

/// Devices with split and packed rings whose queues can be reset.
fn resettable() -> [Behaviour; 2] {
    let conforming = Behaviour::conforming();
    let split = conforming.clone().with_features(conforming.features & !feature::STATS_VQ | feature::RING_RESET);
    [split.clone(), split.packed()]
}

const MODES: [InterruptMode; 3] = [InterruptMode::PerQueue, InterruptMode::Shared, InterruptMode::Line];

#[test]
fn a_queue_and_its_peers_keep_working_across_many_resets() {
    for behaviour in resettable() {
        for mode in MODES {
            let mut rig = Rig::new(behaviour.clone(), mode);
            for round in 0..20_u16 {
                rig.inflate();
                // All sizes, also larger than before.
                let size = [64, 1, 16, 2, 64, 32][usize::from(round % 6)];
                assert_eq!(rig.reset(usize::from(round % 2), size).unwrap(), []);
                rig.inflate();
                rig.deflate();
            }
            let ballooned = rig.machine.bus(|bus| bus.ram.count_host(HostSide::Ballooned));
            assert_eq!(ballooned, 20);
            rig.finish();
        }
    }
}

#[test]
fn requests_in_flight_return_and_late_interrupts_are_harmless() {
    for behaviour in resettable() {
        let mut rig = Rig::new(Behaviour { stalls_after: Some(0), ..behaviour }, InterruptMode::PerQueue);
        let run = rig.platform.frames.take_free(1).expect("a frame");
        rig.send(0, run);
        rig.machine.pass(1_000_000);
        assert_eq!(rig.reset(0, 64).unwrap(), [run]);
        rig.platform.frames.release(run);
        rig.machine.balloon(rig.at, |balloon, _| balloon.stall_from_now(false));
        rig.inflate();
        rig.deflate();
        rig.finish();
    }
}

#[test]
fn a_queue_that_does_not_finish_its_reset_keeps_its_memory() {
    for behaviour in resettable() {
        let mut rig = Rig::new(Behaviour { queue_reset_time: u64::MAX, ..behaviour }, InterruptMode::PerQueue);
        let error = rig.reset(0, 64).unwrap_err();
        assert!(matches!(error, TransportError::QueueResetTimeout { reset: 1, enabled: 1, .. }), "{error}");
        rig.finish();
    }
}

#[test]
fn a_queue_reset_fails_if_the_device_is_removed_meanwhile() {
    let [split, _] = resettable();
    let mut rig = Rig::new(Behaviour { queue_reset_time: u64::MAX, ..split }, InterruptMode::PerQueue);
    rig.machine.balloon(rig.at, |balloon, _| balloon.remove_after(20));
    assert!(matches!(rig.reset(0, 64), Err(TransportError::Gone(_))));
}

#[test]
fn the_model_detects_a_queue_set_up_too_soon_or_without_its_vector() {
    for (slow, vector, clause) in [(false, None, "QRST-03"), (true, MsixVector::new(1), "PCI-COMMON-07")] {
        let [split, _] = resettable();
        let mut rig = Rig::new(split, InterruptMode::PerQueue);
        let proof = rig.running.device.reset_queue(index(0), &rig.platform).unwrap();
        let fresh = vring(&mut rig.platform, rig.features, 0, 64);
        let addresses = fresh.addresses();
        if slow {
            // Undo a reset that was already seen complete.
            rig.machine.balloon(rig.at, |balloon, _| balloon.common.queues[0].resetting = Some(u64::MAX));
        }
        let _ = rig.running.device.enable_queue_again(proof, vector, 64, addresses);
        assert_eq!(rig.machine.missteps()[0].clause, clause);
    }
}
