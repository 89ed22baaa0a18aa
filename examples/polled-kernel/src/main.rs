//! A kernel without interrupts that runs a balloon. `glue.rs` has everything that the balloon needs.

#![no_std]
#![no_main]

mod glue;

use ballonet::balloon::{self, Balloon, Changes, Next, Options};
use ballonet::raw::{PortConfig, RawPlatform};
use machine::{command_line, heap_used, nanoseconds, println};

/// Pause between polls when nothing is in flight: 10 ms.
const PAUSE: u64 = 10_000_000;

#[unsafe(no_mangle)]
fn kernel_main() -> ! {
    // SAFETY: QEMU has these ports, and nothing else here uses them.
    let config = unsafe { PortConfig::new() };
    let mut platform = RawPlatform::new(glue::Glue::new(machine::ram()), config);
    let function = balloon::find(&mut platform.config).expect("the heap is large enough").expect("there is no balloon");
    let options = if command_line().contains("small") { Options::small("balloon") } else { Options::new("balloon") };
    let (heap, pages) = (heap_used(), platform.kernel.0.counts().used);
    let mut balloon = Balloon::probe(&mut platform, function, options).expect("it does not start");
    println!("probe: heap {}, pages {}", heap_used() - heap, platform.kernel.0.counts().used - pages);
    println!("balloon: {} MiB, heap {}", balloon.status().actual >> 8, heap_used());
    loop {
        let progress = balloon.poll(&mut platform).expect("the balloon failed");
        if progress.changes.contains(Changes::SETTLED) {
            println!("balloon: {} MiB, heap {}", balloon.status().actual >> 8, heap_used());
        }
        if progress.next == Next::Idle {
            let start = nanoseconds();
            while nanoseconds() - start < PAUSE {
                core::hint::spin_loop();
            }
        }
    }
}
