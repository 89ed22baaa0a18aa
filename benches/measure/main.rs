//! Compares our kernel with Linux, in turn, on the same QEMU; our driver with the device's ceiling; the parameters of
//! free page reporting; the boot time with that of an earlier build; and both guests' accesses outside memory.
//!
//! Both guests are observed from the host only: *ready* is `DRIVER_OK` as QEMU sees it, *done* is `query-balloon` at
//! its target, and the memory given back is the fall of QEMU's resident memory. All guest memory is preallocated, so
//! each page given back shows. `scripts/measure.sh` runs this with a release build of the kernel.

// A benchmark is an ordinary program of the host.
#![allow(clippy::std_instead_of_core)]

#[path = "../chart/mod.rs"]
mod chart;
#[path = "../../tests/support/mod.rs"]
mod support;

mod beside;
mod curves;
mod exits;
mod figures;
mod host;
mod publish;
mod starts;
mod watch;

use std::env;
use std::process::ExitCode;

use support::Outcome;

fn main() -> ExitCode {
    // `cargo test --benches` only checks that this builds.
    if !env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let wants = |name: &str| env::args().any(|argument| argument == name);
    let measure = match () {
        () if wants("reporting") => curves::run,
        () if wants("ready") => starts::run,
        () if wants("exits") => exits::run,
        () => beside::run,
    };
    let outcome = measure(wants("--write"));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("measure: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// How often to repeat each measurement: `RUNS`, or `default`.
fn runs(default: usize) -> Outcome<usize> {
    let runs = env::var("RUNS").map_or(Ok(default), |runs| runs.parse())?;
    support::ensure!(runs > 0, "RUNS=0 measures nothing");
    Ok(runs)
}
