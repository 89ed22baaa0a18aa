//! The effect of each parameter of free page reporting on a guest whose program allocates and frees memory, over and
//! over.
//!
//! One parameter varies at a time; the others keep their defaults. The benefit is the memory that the host has on
//! average. The costs are reports per second, page faults of the guest, and allocation latency.

use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::chart::{self, Axis, Corner, Lines, Panel, Series, short};
use super::host::{Guest, Host, measured};
use super::publish::{document, scratch};
use super::support::{MIB, Outcome, Vm};
use super::watch::{self, Watch};

/// Bytes of RAM: small, so that the program makes a difference.
const MEMORY: u64 = 1024 * MIB;
/// What the program allocates and frees.
const USED: &str = "512M";
/// How long the program holds memory, and how long it then does without.
const KEPT: Duration = Duration::from_millis(250);
const WITHOUT: Duration = Duration::from_millis(500);
/// How long a setting is observed.
const LOOK: Duration = Duration::from_secs(8);

/// A parameter, its unit, and its values, each with its position on the x axis.
type Parameter = (&'static str, &'static str, &'static [(&'static str, f64)]);

const PARAMETERS: [Parameter; 3] = [
    (
        "report-age",
        "ms",
        &[("1", 1.0), ("50", 50.0), ("125", 125.0), ("250", 250.0), ("500", 500.0), ("1000", 1000.0), ("4000", 4000.0)],
    ),
    (
        "report-threshold",
        "MiB",
        &[("2M", 2.0), ("8M", 8.0), ("32M", 32.0), ("128M", 128.0), ("512M", 512.0), ("1G", 1024.0)],
    ),
    (
        "report-budget",
        "MiB/s",
        &[("16M", 16.0), ("64M", 64.0), ("256M", 256.0), ("1G", 1024.0), ("4G", 4096.0), ("16G", 16384.0)],
    ),
];

/// The measured figures.
const MEASURED: [&str; 4] = ["resident, MiB", "reported, MiB/s", "page faults, 1/s", "allocation 99.9 %, µs"];

/// The result of one setting, in the order of [`MEASURED`].
type Point = [f64; MEASURED.len()];

/// Measures and prints every setting; with `write`, also updates the documents.
pub(crate) fn run(write: bool) -> Outcome {
    let runs = super::runs(1)?;
    let mut table = format!("| | | {} |\n|---|---|{}\n", MEASURED.join(" | "), "---|".repeat(MEASURED.len()));
    let mut panels = Vec::new();
    for (parameter, unit, values) in PARAMETERS {
        let mut points: Vec<(f64, Point)> = Vec::new();
        for (value, place) in values {
            let mut all = Vec::new();
            for _ in 0..runs {
                all.extend(setting(&format!("{parameter}={value}"))?);
            }
            let point = median(&all).ok_or("this QEMU is not available here")?;
            eprintln!("{parameter}={value}: {point:.2?}");
            let told: Vec<_> = point.iter().map(|value| short(*value)).collect();
            writeln!(table, "| `{parameter}` | {value} | {} |", told.join(" | "))?;
            points.push((*place, point));
        }
        panels.extend(drawn(parameter, unit, &points));
    }
    println!("{table}");
    let picture = if write { document("docs/reporting.svg") } else { scratch("reporting.svg") };
    chart::draw(&picture, 3, &panels)?;
    if write {
        chart::document::write_between(&document("docs/reporting.md"), "reporting", &table)?;
    }
    fs::write(scratch("reporting.md"), table)?;
    eprintln!("the picture is {}", picture.display());
    Ok(())
}

/// Charts of memory on the host and reports, of page faults, and of the guest's allocation latency.
fn drawn(parameter: &str, unit: &str, points: &[(f64, Point)]) -> [Panel; 3] {
    let chart = |title: &str, y: &str, which: &[usize]| {
        let series = which.iter().map(|which| Series {
            name: MEASURED[*which].into(),
            points: points.iter().map(|(place, point)| (*place, point[*which])).collect(),
        });
        Panel::Lines(Lines {
            title: format!("{parameter}: {title}"),
            names: Corner::UpperRight,
            x: Axis { label: format!("{parameter}, {unit}"), log: true },
            y: Axis { label: y.into(), log: false },
            series: series.collect(),
        })
    };
    [
        chart("memory", "MiB, MiB/s", &[0, 1]),
        chart("page faults", "1/s", &[2]),
        chart("99.9 % of allocations take up to", "µs", &[3]),
    ]
}

fn median(all: &[Point]) -> Option<Point> {
    let mut point = *all.first()?;
    for (place, middle) in point.iter_mut().enumerate() {
        let mut values: Vec<f64> = all.iter().map(|point| point[place]).collect();
        values.sort_by(f64::total_cmp);
        *middle = values[values.len() / 2];
    }
    Some(point)
}

/// Boots a guest with this option on its command line and measures it.
fn setting(option: &str) -> Outcome<Option<Point>> {
    let qemu = Guest::Ours.on(Host::ALL[0])?.memory(MEMORY).balloon("free-page-reporting=on");
    measured(&qemu.command_line(&format!("log=json {option}")), look)
}

/// Measures while a program allocates and frees memory.
fn look(vm: &mut Vm) -> Outcome<Point> {
    vm.event("report")?;
    vm.ask("latency start", "console")?;
    let (reported, faults) = (vm.ask("stats", "stats")?.number("reported")?, watch::faults(vm)?);
    let (watch, start) = (Watch::begin(vm), Instant::now());
    while start.elapsed() < LOOK {
        vm.ask(&format!("mem hold {USED}"), "held")?;
        thread::sleep(KEPT);
        vm.ask("mem release", "console")?;
        thread::sleep(WITHOUT);
    }
    let seconds = start.elapsed().as_secs_f64();
    let resident = watch::average(&watch.end()?) / MIB as f64;
    let faults = (watch::faults(vm)? - faults) / seconds;
    let reported = vm.ask("stats", "stats")?.number("reported")? - reported;
    let reported = reported * 4096.0 / MIB as f64 / seconds;
    let latency = vm.ask("latency stop", "latency")?.number("p999")? / 1000.0;
    Ok([resident, reported, faults, latency])
}
