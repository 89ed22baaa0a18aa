//! The kernel's own tests: what only a machine can show, run one by one on the machine layer that the kernel runs on.
//!
//! Command line: `list=on` lists the tests; `test=NAME` runs that one, or all with it in `module::name`; `log=json`
//! makes every outcome an event for programs. The kernel exits with success only if each test ended as its name says.
#![no_std]
#![no_main]

extern crate alloc;

#[path = "../kernel/devices.rs"]
mod devices;
#[path = "../symbols.rs"]
mod symbols;

mod report;
mod suite;
mod support;

mod clock;
mod cpus;
mod heap;
mod hostile;
mod io_apic;
mod isolation;
mod local_apic;
mod magazines;
mod memory;
mod msix;
mod msr;
mod paging;
mod pci;
mod preservation;
mod serial;
mod timer;
mod traps;
mod vectors;

use ballonet_kernel::machine::power::{self, ExitStatus};
use ballonet_kernel::machine::{Entry, fault, recovery};

use suite::Context;

ballonet_kernel::entry_point!(main);

fn main(entry: Entry) -> ! {
    let mut machine = entry.bring_up();
    let tree = devices::discover(&mut machine, false);
    recovery::watch(&symbols::HEAP);
    let passed = suite::run(&mut Context { machine, tree });
    power::exit(if passed { ExitStatus::Success } else { ExitStatus::Failure })
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    recovery::abandon_on_panic(info);
    fault::report_panic(info)
}
