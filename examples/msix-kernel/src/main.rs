//! A kernel with MSI-X that runs a balloon and sleeps in between. `glue.rs` has everything that the balloon needs.

#![no_std]
#![no_main]

extern crate alloc;

mod glue;

use ballonet::balloon::{self, Balloon, Changes, Next, Options};
use ballonet::raw::{PortConfig, RawPlatform};
use ballonet::virtio::InterruptMode;
use machine::{interrupts, nanoseconds, println};

/// Pause between polls where the device has no MSI-X: 10 ms.
const PAUSE: u64 = 10_000_000;

#[unsafe(no_mangle)]
fn kernel_main() -> ! {
    interrupts::enable();
    // SAFETY: QEMU has these ports, and nothing else here uses them.
    let config = unsafe { PortConfig::new() };
    let mut platform = RawPlatform::new(glue::Glue::new(machine::ram()), config);
    let function = balloon::find(&mut platform.config).expect("the heap is large enough").expect("there is no balloon");
    let mut balloon = Balloon::probe(&mut platform, function, Options::new("balloon")).expect("it does not start");
    println!("balloon: {} MiB, {}", balloon.status().actual >> 8, balloon.status().interrupts);
    loop {
        let progress = balloon.poll(&mut platform).expect("the balloon failed");
        if progress.changes.contains(Changes::SETTLED) {
            let interrupts = balloon.counters().config_interrupts + balloon.counters().vring_interrupts;
            println!("balloon: {} MiB after {interrupts} interrupts", balloon.status().actual >> 8);
        }
        if progress.next != Next::Now {
            let is_polled = balloon.status().interrupts == InterruptMode::Polling;
            match balloon.deadline(&mut platform).or(is_polled.then(|| nanoseconds() + PAUSE)) {
                None => interrupts::sleep_unless(|| balloon.is_pending()),
                // This machine has no timer that could wake it.
                Some(deadline) => while nanoseconds() < deadline && !balloon.is_pending() {},
            }
        }
    }
}
