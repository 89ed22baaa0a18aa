//! Boot time: of this kernel and of an earlier build in turn, and with far more memory.

use std::env;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use super::chart;
use super::host::{MEMORY, measured};
use super::publish::document;
use super::support::{MIB, Outcome, Qemu, Version, Vm};

/// Bytes of RAM of the large machine: 1 TiB.
const VAST: u64 = 1024 * 1024 * MIB;

/// The measured times, in milliseconds.
const MEASURED: [&str; 4] = [
    "kernel's entry to ready, by its own clock (whole milliseconds)",
    "first line of the log to ready",
    "start of the CPU to ready",
    "start of QEMU to ready",
];

/// The times of one start, in the order of [`MEASURED`].
type Start = [f64; MEASURED.len()];

/// Measures and prints everything; with `write`, also updates the documents.
pub(crate) fn run(write: bool) -> Outcome {
    let runs = super::runs(21)?;
    let before = env::var_os("BALLONET_BEFORE").map(PathBuf::from);
    let mut table = String::from(
        "| | QEMU | before, 2 GiB | ballonet, 2 GiB | now / before | ballonet, 1 TiB |\n|---|---|---|---|---|---|\n",
    );
    for version in [Version::V10_0, Version::V7_2] {
        let now = Qemu::new(version).memory(MEMORY);
        let machines = [
            before.clone().map(|kernel| now.clone().image(kernel)),
            Some(now),
            // So much memory needs more physical address bits than QEMU's CPU has by default.
            Some(Qemu::new(version).memory(VAST).sparse().cpu("max,phys-bits=42")),
        ];
        let starts = in_turn(version, &machines, runs)?;
        for (row, name) in MEASURED.iter().enumerate() {
            let medians = starts.each_ref().map(|starts| median(starts.iter().map(|start| start[row])));
            let told = medians.map(|median| median.map_or("–".into(), |median| format!("{median:.1} ms")));
            let by = medians[0].zip(medians[1]).map_or("–".into(), |(before, now)| format!("{:.3}", now / before));
            let version = version.to_string();
            let version = version.trim_start_matches("qemu-");
            writeln!(table, "| {name} | {version} | {} | {} | {by} | {} |", told[0], told[1], told[2])?;
        }
    }
    let table = format!("Medians of {runs} starts of each.\n\n{table}");
    println!("{table}");
    if write {
        chart::document::write_between(&document("docs/measurements.md"), "starts", &table)?;
    }
    Ok(())
}

/// Starts each available machine `runs` times.
fn in_turn(version: Version, machines: &[Option<Qemu>; 3], runs: usize) -> Outcome<[Vec<Start>; 3]> {
    let mut starts = [const { Vec::new() }; 3];
    for run in 1..=runs {
        // In turn, and each round in reverse order, so that other load on the host affects all.
        let mut order = [0, 1, 2];
        if run % 2 == 0 {
            order.reverse();
        }
        for place in order {
            let Some(machine) = &machines[place] else { continue };
            if let Some(start) = measured(machine, start)? {
                eprintln!("{version}, run {run}, machine {place}: {start:.2?}");
                starts[place].push(start);
            }
        }
    }
    Ok(starts)
}

/// Times one start; its CPU was just let run.
fn start(vm: &mut Vm) -> Outcome<Start> {
    let begun = Instant::now();
    let ready = vm.event("ready")?;
    let waited = begun.elapsed();
    let lines = vm.serial.all();
    let after = |words: &str| {
        let line = lines.iter().find(|line| line.text.contains(words));
        line.map(|line| line.after.as_secs_f64() * 1000.0).ok_or_else(|| format!("no line with {words:?}"))
    };
    let (first, last) = (after("starts, loaded by")?, after(r#""event":"ready""#)?);
    Ok([ready.number("ms")?, last - first, waited.as_secs_f64() * 1000.0, last])
}

/// The median, or the upper of the middle two; `None` without values.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
