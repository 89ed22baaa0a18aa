//! Our kernel beside Linux, on the same QEMU, in turn; how near it comes to what the device can do; what the parameters of
//! free page reporting do; and how long a start takes beside that of an earlier build;
//! and what both guests access that is not memory.
//!
//! What both guests do is seen from the host only: *ready* is `DRIVER_OK` as QEMU has it, *done* is `query-balloon` at its
//! target, and the memory given back is the resident memory of QEMU's process. All guest memory is preallocated, so each
//! page that is given back shows. `scripts/measure.sh` runs this with a release build of the kernel.

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
    // `cargo test --benches` only wants to know that this compiles.
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

/// How often each measurement is made: `RUNS`, or else so often.
fn runs(default: usize) -> Outcome<usize> {
    let runs = env::var("RUNS").map_or(Ok(default), |runs| runs.parse())?;
    support::ensure!(runs > 0, "RUNS=0 measures nothing");
    Ok(runs)
}
