//! Our kernel beside Linux, on the same QEMU, in turn: how soon the balloon is ready, and how fast memory moves.
//!
//! Seen from the host only, whatever the guest: *ready* is `DRIVER_OK` as QEMU has it, *done* is `query-balloon` at its
//! target, and the memory given back is the resident memory of QEMU's process. All guest memory is preallocated, so each
//! page that is given back shows. `scripts/compare.sh` runs this with a release build of the kernel.

// A benchmark is an ordinary program of the host.
#![allow(clippy::std_instead_of_core)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::env;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use support::{MIB, Outcome, Qemu, Version, Vm, ensure, on};

/// Bytes that are given, and taken back.
const GIVEN: u64 = 1024 * MIB;

/// Bytes of RAM.
const MEMORY: u64 = 2048 * MIB;

/// How long a guest is left alone after it is ready: Linux is still starting then.
const SETTLE: Duration = Duration::from_secs(2);

/// What is measured of a guest, in the order of the table.
#[derive(Clone, Copy)]
struct Figure {
    name: &'static str,
    unit: &'static str,
    /// Whether more is better.
    rate: bool,
}

const FIGURES: [Figure; 5] = [
    Figure { name: "start of QEMU to driver ready", unit: "s", rate: false },
    Figure { name: "inflate", unit: "GiB/s", rate: true },
    Figure { name: "request to resident memory fallen by 95 %", unit: "s", rate: false },
    Figure { name: "resident memory fell, of what was given", unit: "%", rate: true },
    Figure { name: "deflate", unit: "GiB/s", rate: true },
];

/// One run's values, one a figure.
type Run = [f64; FIGURES.len()];

fn main() -> ExitCode {
    // `cargo test --benches` only wants to know that this compiles.
    if !env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match compare() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("compare: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn compare() -> Outcome {
    let runs = env::var("RUNS").map_or(Ok(5), |runs| runs.parse::<usize>())?;
    ensure!(runs > 0, "RUNS=0 measures nothing");
    let version = Version::Newest;
    let mut guests = [("Linux", linux(version)?, Vec::new()), ("ballonet", ours(version), Vec::new())];
    for run in 1..=runs {
        // In turn, so that whatever else the host is doing meets both.
        for (name, qemu, results) in &mut guests {
            let result = measure(qemu).map_err(|error| format!("{name}: {error}"))?;
            eprintln!("run {run} of {runs}, {name}: {result:.3?}");
            results.push(result);
        }
    }
    let [(_, _, linux), (_, _, ours)] = &guests;
    table(linux, ours);
    Ok(())
}

fn base(version: Version) -> Qemu {
    Qemu::new(version).memory(MEMORY).preallocated().patience(Duration::from_secs(180))
}

fn ours(version: Version) -> Qemu {
    base(version)
}

fn linux(version: Version) -> Outcome<Qemu> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/linux-guest.sh");
    let output = Command::new(script).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{script}: {}", output.status);
    let paths = String::from_utf8(output.stdout)?;
    let (kernel, initramfs) = paths.trim_end().split_once('\n').ok_or("two paths were expected")?;
    let qemu = base(version).image(kernel.into()).initramfs(initramfs.into());
    Ok(qemu.command_line("console=ttyS0 panic=-1 quiet"))
}

fn measure(qemu: &Qemu) -> Outcome<Run> {
    let mut result = None;
    let finished = on(qemu, |vm| {
        result = Some(one_run(vm)?);
        Ok(())
    });
    finished.map_err(|failed| failed.message().unwrap_or("a run failed").to_owned())?;
    Ok(result.ok_or("this QEMU can't be had here")?)
}

fn one_run(vm: &mut Vm) -> Outcome<Run> {
    let start = Instant::now();
    vm.wait_for("the driver", |vm| {
        let status = vm.qmp.virtio_status()?["status"]["statuses"].to_string();
        Ok(status.contains("DRIVER_OK").then_some(()))
    })?;
    let ready = start.elapsed();
    std::thread::sleep(SETTLE);

    let before = vm.resident()?;
    let start = Instant::now();
    let mut fallen = None;
    vm.qmp.set_target(MEMORY - GIVEN)?;
    let inflated = vm.wait_for("the balloon to inflate", |vm| {
        if fallen.is_none() && before.saturating_sub(vm.resident()?) >= GIVEN / 100 * 95 {
            fallen = Some(start.elapsed());
        }
        Ok((vm.qmp.actual()? == MEMORY - GIVEN).then(|| start.elapsed()))
    })?;
    let fell = before.saturating_sub(vm.resident()?);

    let start = Instant::now();
    vm.balloon_to(MEMORY)?;
    let deflated = start.elapsed();

    let rate = |time: Duration| GIVEN as f64 / (1u64 << 30) as f64 / time.as_secs_f64();
    let fallen = fallen.unwrap_or(inflated).as_secs_f64();
    Ok([ready.as_secs_f64(), rate(inflated), fallen, fell as f64 * 100.0 / GIVEN as f64, rate(deflated)])
}

fn median(runs: &[Run], figure: usize) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(|run| run[figure]).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

fn table(linux: &[Run], ours: &[Run]) {
    println!("| median of {} | Linux | ballonet | better by |", ours.len());
    println!("|---|---|---|---|");
    for (index, figure) in FIGURES.iter().enumerate() {
        let (linux, ours) = (median(linux, index), median(ours, index));
        let factor = if figure.rate { ours / linux } else { linux / ours };
        println!("| {} | {linux:.2} {unit} | {ours:.2} {unit} | {factor:.1}x |", figure.name, unit = figure.unit);
    }
}
