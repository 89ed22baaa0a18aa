//! A kernel that has `virtio-drivers`' `Hal`, in `hal.rs`, and runs a balloon by it: from configuration space up, or
//! with `transport` on its command line, over a `PciTransport` that `virtio-drivers` has made.

#![no_std]
#![no_main]

mod hal;

use ballonet::balloon::{self, Balloon, BalloonPlatform, Changes, Next, Options};
use ballonet::platform::Platform;
use ballonet::virtio::DeviceHandle;
use ballonet_virtio_drivers::{HalFrames, HalPlatform, TransportPlatform};
use hal::KernelHal;
use machine::{command_line, nanoseconds, println};
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::pci::bus::{Command, PciRoot};
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};

/// The balloon's size limit in frames: half of the memory.
const LIMIT: u32 = 128 << 8;

#[unsafe(no_mangle)]
fn kernel_main() -> ! {
    hal::init(machine::ram());
    let frames = HalFrames::<KernelHal>::new(LIMIT);
    if command_line().contains("transport") {
        let platform = TransportPlatform::<KernelHal, _, _>::new(transport(), frames, nanoseconds);
        let device = platform.device();
        run(platform, device)
    }
    let mut platform = HalPlatform::<KernelHal, _, _>::new(hal::Ports, frames, nanoseconds);
    let function = balloon::find(platform.config()).expect("the heap is large enough").expect("there is no balloon");
    run(platform, function.into())
}

/// The balloon, as `virtio-drivers` finds it.
fn transport() -> PciTransport {
    let mut root = PciRoot::new(hal::Ports);
    // It takes QEMU's, which is transitional, for the second of these.
    let balloons = [DeviceType::MemoryBallooning, DeviceType::MemoryBalloon];
    let is_one = |device| balloons.contains(&device);
    let found = root.enumerate_bus(0).find(|(_, info)| virtio_device_type(info).is_some_and(is_one));
    let (place, _) = found.expect("there is no balloon");
    root.set_command(place, Command::MEMORY_SPACE | Command::BUS_MASTER);
    PciTransport::new::<KernelHal, _>(&mut root, place).expect("it has no modern interface")
}

fn run(mut platform: impl BalloonPlatform, device: DeviceHandle) -> ! {
    let mut balloon = Balloon::probe(&mut platform, device, Options::new("balloon")).expect("it does not start");
    println!("balloon: {} MiB, {}", balloon.status().actual >> 8, balloon.status().transport);
    loop {
        let progress = balloon.poll(&mut platform).expect("the balloon failed");
        if progress.changes.contains(Changes::SETTLED) {
            println!("balloon: {} MiB, {} pages allocated", balloon.status().actual >> 8, hal::allocated());
        }
        let start = nanoseconds();
        while progress.next == Next::Idle && nanoseconds() - start < 10_000_000 {}
    }
}
