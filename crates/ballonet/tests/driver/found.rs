//! Devices that were not found by the library: by another walk through PCI, and by a line of text. The tests of
//! `ballonet-virtio-drivers` drive a device through a transport that is not the library's.

use ballonet::balloon::{self, Balloon, Changes, Next, Options};
use ballonet::pci::{Bdf, ConfigSpace};
use ballonet::platform::Platform;
use ballonet::virtio::{DeviceHandle, InterruptMode, MmioDevice};
use ballonet_models::{Allocated, Behaviour, HostSide, Machine, ModelPlatform};

/// Drives the device: inflates, deflates, and leaves nothing behind.
#[track_caller]
fn drive(machine: &Machine, at: Bdf, device: impl Into<DeviceHandle>, mode: InterruptMode) {
    let mut platform = ModelPlatform::new(machine);
    let mut balloon = Balloon::probe(&mut platform, device, Options::default()).expect("a balloon");
    assert_eq!(balloon.status().interrupts, mode);
    for target in [1000, 300, 0] {
        machine.balloon(at, |device, bus| device.set_target(target, bus));
        let mut quiet = 0;
        while quiet < 3 {
            let progress = balloon.poll(&mut platform).expect("it runs");
            let busy = progress.next == Next::Now || progress.changes != Changes::empty();
            quiet = if machine.sleep() || busy { 0 } else { quiet + 1 };
        }
        assert_eq!(machine.bus(|bus| bus.ram.count_host(HostSide::Ballooned)), u64::from(target));
    }
    assert_eq!(balloon.shutdown(&mut platform), 0);
    machine.expect_no_missteps();
    assert_eq!(machine.allocated(), Allocated::default());
}

#[test]
fn a_function_of_another_walk_is_known_by_its_ids() {
    let (machine, at) = Machine::with_balloon(16, Behaviour::conforming());
    let rng = Bdf::new(0, 0, 3, 0).expect("a function number");
    machine.plug(rng, Behaviour::conforming().entropy(1));
    let mut platform = ModelPlatform::new(&machine);
    let config = platform.config();
    let ids = |function: Bdf| (config.read16(function, 0), config.read16(function, 2));
    let bus = || (0..32).filter_map(|device| Bdf::new(0, 0, device, 0));
    let found: Vec<_> = bus().filter(|function| ids(*function) != (0xffff, 0xffff)).collect();
    assert_eq!(found, [rng, at], "the walk finds both");
    let matching = |function: &Bdf| balloon::matches(ids(*function).0, ids(*function).1);
    let balloons: Vec<_> = found.into_iter().filter(matching).collect();
    assert_eq!(balloons, [at]);
    drive(&machine, at, balloons[0], InterruptMode::PerQueue);
}

/// As Linux takes it: `SIZE@ADDRESS:IRQ`.
fn parse(line: &str) -> Option<MmioDevice> {
    let (size, place) = line.strip_prefix("virtio_mmio.device=")?.split_once('@')?;
    let (address, _irq) = place.split_once(':')?;
    let address = u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
    Some(MmioDevice::new(address, size.parse().ok()?, None))
}

#[test]
fn a_device_of_the_command_line_is_driven_without_an_interrupt() {
    for behaviour in [Behaviour::conforming().on_mmio(), Behaviour::conforming().on_legacy_mmio()] {
        let (machine, at) = Machine::with_balloon(16, behaviour);
        let DeviceHandle::Mmio(known) = machine.handle(at) else { panic!("it is on MMIO") };
        let line = format!("virtio_mmio.device={}@{:#x}:12", known.window.length, known.window.address);
        drive(&machine, at, parse(&line).expect("a device"), InterruptMode::Polling);
    }
}
