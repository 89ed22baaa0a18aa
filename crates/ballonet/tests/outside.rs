//! A driver can be written outside the library: this one follows docs/adding-a-driver.md for an entropy device.

#![forbid(unsafe_code)]
#![allow(clippy::std_instead_of_core, clippy::alloc_instead_of_core, reason = "this program has a standard library")]

use ballonet::pci::Bdf;
use ballonet::platform::{DmaMemory, Platform};
use ballonet::virtio::spec::{DeviceType, Features};
use ballonet::virtio::{
    BringUpError, Chain, DeviceHandle, DeviceOptions, InterruptMode, Parts, QueueIndex, QueueSetup, Quiesced, Running,
    Segment, Setup, UsedLength, Virtqueue,
};
use ballonet_models::{Allocated, Behaviour, Machine, ModelPlatform};

/// Bytes of a request.
const LENGTH: usize = 64;
/// Polls after which no answer will come.
const PATIENCE: u32 = 1000;

/// The queue and its buffer.
struct Lent<P: Platform> {
    queue: Virtqueue<P::Memory, ()>,
    buffer: Option<P::Memory>,
}

impl<P: Platform> Parts<P> for Lent<P> {
    fn release(self, platform: &mut P, proof: &Quiesced) {
        drop(self.queue.release(platform, proof));
        if let Some(buffer) = self.buffer {
            platform.release_dma(buffer);
        }
    }
}

/// The driver.
struct Driver<P: Platform> {
    running: Running<P>,
    lent: Lent<P>,
}

impl<P: Platform> Driver<P> {
    fn probe(platform: &mut P, device: impl Into<DeviceHandle>) -> Result<Self, BringUpError> {
        let implemented = |_, _| Features::VERSION_1.union(Features::EVENT_IDX);
        let options = DeviceOptions::new("outside0");
        let setup = Setup::open(platform, device, options, DeviceType::ENTROPY, implemented, |_, _| {})?;
        // The device type has no configuration (5.4.4), so a read fails.
        assert!(setup.device.transport().read_config::<u32>(0).is_err());
        let make = |platform: &mut P, setup: &mut Setup<P>, lent: &mut Option<Lent<P>>| -> Result<_, BringUpError> {
            let (index, name, used_length) = (QueueIndex::FIRST, Some("requests"), UsedLength::Strict);
            let layout = setup.layout(index, 1)?;
            let options = QueueSetup { index, name, layout, indirect_entries: 0, used_length };
            let queue = setup.add_queue(platform, &options)?;
            lent.insert(Lent { queue, buffer: None }).buffer = Some(platform.allocate_dma(LENGTH, LENGTH)?);
            Ok(())
        };
        let (connected, lent, ()) = setup.connect(platform, None, make)?;
        Ok(Self { running: connected.run(), lent: lent.expect("set-up creates it or fails") })
    }

    fn request(&mut self) {
        let buffer = self.lent.buffer.as_ref().expect("set-up allocates it");
        let segment = Segment { address: buffer.device_address(), length: LENGTH as u32 };
        self.lent.queue.add(Chain::writable(&[segment]), ()).expect("the queue is empty");
        let _ = self.lent.queue.arm(1);
        self.running.publish(&mut self.lent.queue);
    }

    /// The answer, once the device is done.
    fn poll(&mut self) -> Option<Vec<u8>> {
        let interrupts = &self.running.interrupts;
        if interrupts.mode() != InterruptMode::Polling && !interrupts.events().is_pending() {
            return None;
        }
        let pending = interrupts.take();
        assert!(!pending.is_empty() && !pending.config() || interrupts.mode() == InterruptMode::Polling);
        let completion = self.lent.queue.pop().expect("the device follows the rules")?;
        let mut bytes = vec![0; completion.written as usize];
        self.lent.buffer.as_ref().expect("set-up allocates it").read_bytes(0, &mut bytes);
        Some(bytes)
    }
}

#[test]
fn a_driver_outside_the_library_works_and_leaves_nothing_behind() {
    let machine = Machine::new(8);
    let at = Bdf::new(0, 0, 3, 0).expect("a function number");
    machine.plug(at, Behaviour::conforming().entropy(7));
    let mut platform = ModelPlatform::new(&machine);
    assert!(DeviceType::ENTROPY.is_function(0x1af4, 0x1044));
    let mut driver = Driver::probe(&mut platform, machine.handle(at)).unwrap_or_else(|error| panic!("{error}"));
    driver.request();
    let answer = (0..PATIENCE).find_map(|_| {
        machine.sleep();
        driver.poll()
    });
    let given = machine.balloon(at, |device, _| device.behaviour.entropy.as_ref().map(|entropy| entropy.given.clone()));
    assert_eq!(answer.map(|bytes| bytes.len()), Some(LENGTH));
    assert_eq!(given.map(|bytes| bytes.len()), Some(LENGTH));
    driver.running.stop(&mut platform, Some(driver.lent), false).expect("the device resets");
    assert_eq!(machine.allocated(), Allocated::default());
    machine.expect_no_missteps();
}
