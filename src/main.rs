//! The ballonet kernel: bring the machine up, then safe code only.
#![no_std]
#![no_main]

#[path = "kernel/devices.rs"]
mod devices;
#[path = "kernel/held.rs"]
mod held;
#[path = "kernel/symbols.rs"]
mod symbols;

extern crate alloc;

use ballonet::machine::power::{self, ExitStatus};
use ballonet::machine::{Entry, fault};

ballonet::entry_point!(main);

fn main(entry: Entry) -> ! {
    let mut machine = entry.bring_up();
    devices::discover(&mut machine, true);
    log::info!("up");
    power::exit(ExitStatus::Success)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    fault::report_panic(info)
}
