//! Publishes the results: the table on standard output, all values and the picture in target/, both also in the
//! documents.

use std::fs;
use std::path::{Path, PathBuf};

use super::chart::{self, Axis, Bars, Corner, Lines, Panel, Series};
use super::figures::{FIGURES, Values};
use super::host::{Guest, Host};
use super::support::{MIB, Outcome};
use super::watch::Sample;

/// The figures in the charts.
const DRAWN: [&str; 8] =
    ["inflate", "deflate", "fallen", "ready", "inflate.interrupts", "inflate.cpu", "share.inflate", "share.deflate"];

/// The figures in the README.
const CHOSEN: [&str; 5] = ["ready", "inflate", "fallen", "deflate", "share.inflate"];

/// A path for pictures and values that do not go into the documents.
pub(crate) fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// A file of the project.
pub(crate) fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Resident memory after a request, for each guest.
pub(crate) type Fall = (Guest, Vec<Sample>);

/// Prints the figures and draws how resident memory fell.
pub(crate) fn tell(values: &Values, runs: usize, falls: &[Vec<Fall>; 2], write: bool) -> Outcome {
    let runs = if runs == 1 { "One run.".to_owned() } else { format!("Medians of {runs} runs.") };
    let head = format!("{runs} {}", load());
    let table = format!("{head}\n\n{}", values.table(&Host::ALL, |_| true));
    println!("{table}");
    fs::write(scratch("measurements.tsv"), values.raw())?;
    let picture = if write { document("docs/measurements.svg") } else { scratch("measurements.svg") };
    draw(values, falls, &picture)?;
    if write {
        fs::write(document("docs/measurements.tsv"), values.raw())?;
        chart::document::write_between(&document("docs/measurements.md"), "measurements", &table)?;
        let newest = format!("{head}\n\n{}", values.table(&Host::ALL[..1], |figure| CHOSEN.contains(&figure.key)));
        chart::document::write_between(&document("README.md"), "measurements", &newest)?;
    }
    eprintln!("the picture is {}", picture.display());
    Ok(())
}

/// The host's load average of the last quarter of an hour, virtual machines included.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = text.split(' ').nth(2).unwrap_or("unknown");
    format!("The host's load average was {load} on {cores} cores (the measurement alone makes 1 to 2).")
}

fn draw(values: &Values, falls: &[Vec<Fall>; 2], picture: &Path) -> Outcome {
    let mut panels = vec![
        fall("1 GiB asked for (QEMU 10.0, THP)", "s since the request", &falls[0]),
        fall("free page reporting (QEMU 10.0, THP)", "s since the start of the CPU", &falls[1]),
    ];
    for figure in FIGURES.iter().filter(|figure| DRAWN.contains(&figure.key)) {
        let group = |host: &Host| {
            let values = Guest::ALL.map(|guest| values.median(*host, guest, figure.key));
            (host.to_string(), values.to_vec())
        };
        panels.push(Panel::Bars(Bars {
            title: figure.name.into(),
            unit: figure.unit.into(),
            series: Guest::ALL.map(|guest| guest.name().to_owned()).to_vec(),
            groups: Host::ALL.iter().map(group).collect(),
        }));
    }
    chart::draw(picture, 2, &panels)
}

/// A chart of resident memory over time.
fn fall(title: &str, x: &str, falls: &[Fall]) -> Panel {
    let series = falls.iter().map(|(guest, samples)| {
        // A line needs no more points than pixels.
        let every = samples.len().div_ceil(400).max(1);
        let points = samples.iter().step_by(every);
        let place = |sample: &super::watch::Sample| (sample.after.as_secs_f64(), (sample.resident / MIB) as f64);
        Series { name: guest.name().into(), points: points.map(place).collect() }
    });
    Panel::Lines(Lines {
        title: title.into(),
        names: Corner::UpperRight,
        x: Axis { label: x.into(), log: false },
        y: Axis { label: "resident memory, MiB".into(), log: false },
        series: series.collect(),
    })
}
