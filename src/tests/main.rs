//! The ballonet kernel: bring the machine up, then safe code only.
#![no_std]
#![no_main]

#[path = "../kernel/symbols.rs"]
mod symbols;

use ballonet::machine::power::{self, ExitStatus};
use ballonet::machine::{Entry, fault};

ballonet::entry_point!(main);

fn main(entry: Entry) -> ! {
    let _machine = entry.bring_up();
    log::info!("up");
    power::exit(ExitStatus::Success)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    fault::report_panic(info)
}
