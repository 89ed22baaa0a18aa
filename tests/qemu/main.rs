//! The kernel in QEMU, controlled and observed from the host: by QMP, the serial port, and the memory of QEMU's
//! process.
//!
//! Each case is a test of its own: `cargo test --test qemu -- microvm` runs those with `microvm` in their names.

// A test program is an ordinary program of the host.
#![allow(clippy::std_instead_of_core)]

#[path = "../support/mod.rs"]
mod support;

mod bench;
mod check;
mod commands;
mod console;
mod cpus;
mod devices;
mod dimms;
mod engine;
mod exits;
mod hardware;
mod hotplug;
mod image;
mod input;
mod layouts;
mod life;
mod matrix;
mod migration;
mod mmio;
mod oom;
mod poison;
mod power;
mod reach;
mod recovery;
mod registers;
mod reporting;
mod rings;
mod screen;
mod silence;
mod soak;
mod suite;
mod terabyte;
mod vmms;
mod work;

use std::process::ExitCode;

use support::runner::{self, Arguments};
use support::{Outcome, Qemu, Trial, Vm, on};

fn main() -> ExitCode {
    runner::main("qemu", trials)
}

fn trials(arguments: &Arguments) -> Vec<Trial> {
    if !arguments.list {
        support::version::prepare();
    }
    let some = [
        matrix::trials(),
        mmio::trials(),
        layouts::trials(),
        life::trials(),
        vmms::trials(),
        migration::trials(),
        poison::trials(),
        commands::trials(),
        console::trials(),
        engine::trials(),
        exits::trials(),
        cpus::trials(),
        dimms::trials(),
        power::trials(),
        reach::trials(),
        recovery::trials(),
        registers::trials(),
        reporting::trials(),
        oom::trials(),
        work::trials(),
        silence::trials(),
        soak::trials(),
        terabyte::trials(),
        rings::trials(),
        bench::trials(),
        hardware::trials(),
        hotplug::trials(),
        image::trials(),
        input::trials(),
        screen::trials(),
        check::trials(),
        devices::trials(),
    ];
    let mut trials: Vec<_> = some.into_iter().flatten().collect();
    // Listed only on request: there are too many.
    if arguments.ignored || arguments.include_ignored {
        trials.extend(matrix::full());
        trials.extend(mmio::full());
    }
    suite::choose(trials)
}

/// A test on a virtual machine of its own.
fn trial(name: impl Into<String>, qemu: Qemu, test: impl Fn(&mut Vm) -> Outcome + Send + Sync + 'static) -> Trial {
    Trial::ignorable_test(name, move || on(&qemu, &test))
}
