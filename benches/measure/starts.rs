//! How long a start takes: of this kernel and of an earlier build of it, in turn, and where there is far more memory.

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

/// What is measured of a start, in milliseconds.
const MEASURED: [&str; 4] = [
    "kernel's entry to ready, by its own clock (whole milliseconds)",
    "first line of the log to ready",
    "start of the CPU to ready",
    "start of QEMU to ready",
];

/// What came of one start, in the order of [`MEASURED`].
type Start = [f64; MEASURED.len()];

/// Measures all of it and tells; with `write` in the documents, too.
pub(crate) fn run(write: bool) -> Outcome {
    let runs = super::runs(21)?;
    let before = env::var_os("BALLONET_BEFORE").map(PathBuf::from);
    let mut table = String::from(
        "| | QEMU | before, 2 GiB | ballonet, 2 GiB | now by before | ballonet, 1 TiB |\n|---|---|---|---|---|---|\n",
    );
    for version in [Version::V10_0, Version::V7_2] {
        let now = Qemu::new(version).memory(MEMORY);
        let machines = [
            before.clone().map(|kernel| now.clone().image(kernel)),
            Some(now),
            // The addresses of so much memory need more bits than QEMU's CPU has by itself.
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

/// The starts of each machine that there is.
fn in_turn(version: Version, machines: &[Option<Qemu>; 3], runs: usize) -> Outcome<[Vec<Start>; 3]> {
    let mut starts = [const { Vec::new() }; 3];
    for run in 1..=runs {
        // In turn, and each round the other way round, so that whatever else the host is doing meets all.
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

/// One start, whose CPU has just been let run.
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

/// The value in the middle, or the upper one of the two there; `None` if there are none.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
