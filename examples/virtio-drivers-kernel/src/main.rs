//! A kernel that has a `Hal` for `virtio-drivers`, in `hal.rs`, and runs a balloon on it.

#![no_std]
#![no_main]

mod hal;

use ballonet::balloon::{self, Balloon, Changes, Next, Options};
use ballonet::platform::Platform;
use ballonet_virtio_drivers::{HalFrames, HalPlatform};
use machine::{nanoseconds, println};

/// The balloon's size limit in frames: half of the memory.
const LIMIT: u32 = 128 << 8;

#[unsafe(no_mangle)]
fn kernel_main() -> ! {
    hal::init(machine::ram());
    let mut platform =
        HalPlatform::<hal::KernelHal, _, _>::new(hal::Ports, HalFrames::<hal::KernelHal>::new(LIMIT), nanoseconds);
    let function = balloon::find(platform.config()).expect("there is no balloon");
    let mut balloon = Balloon::probe(&mut platform, function, Options::new("balloon")).expect("it does not start");
    println!("balloon: {} MiB", balloon.status().actual >> 8);
    loop {
        let progress = balloon.poll(&mut platform).expect("the balloon failed");
        if progress.changes.contains(Changes::SETTLED) {
            println!("balloon: {} MiB, {} pages allocated", balloon.status().actual >> 8, hal::allocated());
        }
        let start = nanoseconds();
        while progress.next == Next::Idle && nanoseconds() - start < 10_000_000 {}
    }
}
