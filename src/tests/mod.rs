//! The kernel's own tests: what only a machine can show, one test at a time, on the kernel's machine layer.
//!
//! Command line: `list=on` lists the tests; `test=NAME` runs the test of that name, or all with NAME in their
//! `module::name`; `log=json` makes every outcome an event. The kernel exits with success only if each test ended as
//! its name demands.

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

use core::panic::PanicInfo;

use crate::kernel::devices;
use crate::machine::power::{self, ExitStatus};
use crate::machine::{Entry, fault, recovery};

use suite::{Context, Test};

/// All tests, by module.
const TESTS: [&[Test]; 18] = [
    clock::TESTS,
    cpus::TESTS,
    heap::TESTS,
    hostile::TESTS,
    io_apic::TESTS,
    isolation::TESTS,
    local_apic::TESTS,
    magazines::TESTS,
    memory::TESTS,
    msix::TESTS,
    msr::TESTS,
    paging::TESTS,
    pci::TESTS,
    preservation::TESTS,
    serial::TESTS,
    timer::TESTS,
    traps::TESTS,
    vectors::TESTS,
];

/// Brings the machine up, runs the tests that the command line selects, and exits.
pub fn run(entry: Entry) -> ! {
    let mut machine = entry.bring_up();
    let tree = devices::discover(&mut machine, false);
    recovery::watch();
    let passed = suite::run(&mut Context { machine, tree });
    power::exit(if passed { ExitStatus::Success } else { ExitStatus::Failure })
}

/// Ends the running test with a panic. Outside of tests it ends the kernel.
pub fn panic(info: &PanicInfo<'_>) -> ! {
    recovery::abandon_on_panic(info);
    fault::report_panic(info)
}
