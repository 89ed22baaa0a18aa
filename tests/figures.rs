//! Tests the code that processes the benchmarks' figures: the benchmarks are programs without tests.

// A test program is an ordinary program of the host.
#![allow(clippy::std_instead_of_core, clippy::unwrap_used)]

#[path = "../benches/chart/mod.rs"]
mod chart;
#[path = "../benches/measure/figures.rs"]
#[allow(dead_code)]
mod figures;
#[path = "../benches/measure/host.rs"]
#[allow(dead_code)]
mod host;
#[path = "support/mod.rs"]
mod support;
#[path = "../benches/measure/watch.rs"]
#[allow(dead_code)]
mod watch;

use std::time::Duration;

use chart::document::{spliced, write_between};
use chart::{Axis, Bars, Corner, Lines, Panel, Series, draw, short};
use figures::{FIGURES, Value, Values};
use host::{Guest, Host};
use watch::{Sample, average, seconds_to};

/// A temporary file of one test; dropping this value removes it.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("ballonet-{}-{name}", std::process::id())))
    }

    fn read(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn numbers_have_about_three_digits() {
    let shown = [0.0, 0.004, 0.123, 3.0, 12.34, 123.4, 9_400.0, 12_345.0, 12e6, 34e9].map(short);
    assert_eq!(shown, ["0", "0.0040", "0.12", "3.00", "12.3", "123", "9400", "12k", "12M", "34G"]);
}

#[test]
fn a_picture_has_every_panel() {
    let axis = |label: &str, log| Axis { label: label.into(), log };
    let series = |name: &str, points| Series { name: name.into(), points };
    let lines = Lines {
        title: "growth".into(),
        names: Corner::LowerRight,
        x: axis("size", true),
        y: axis("time", false),
        series: vec![series("one", vec![(1.0, 5.0), (1000.0, 9.0)]), series("none", Vec::new())],
    };
    let bars = Bars {
        title: "rates".into(),
        unit: "GiB/s".into(),
        series: vec!["slow".into(), "fast".into()],
        groups: vec![("then".into(), vec![Some(1.0), Some(2.0)]), ("now".into(), vec![None, Some(4.0)])],
    };
    let picture = Scratch::new("chart.svg");
    draw(&picture.0, 2, &[Panel::Lines(lines), Panel::Bars(bars)]).unwrap();
    let picture = picture.read();
    for words in ["growth", "size", "time", "rates", "slow", "fast", "then", "now", "4.00"] {
        assert!(picture.contains(words), "{words} is missing in {picture}");
    }
}

#[test]
fn a_chart_of_nothing_is_drawn() {
    let axis = |log| Axis { label: String::new(), log };
    let lines =
        Lines { title: "empty".into(), names: Corner::UpperLeft, x: axis(true), y: axis(false), series: Vec::new() };
    let bars = Bars { title: "none".into(), unit: String::new(), series: Vec::new(), groups: Vec::new() };
    let picture = Scratch::new("empty.svg");
    draw(&picture.0, 1, &[Panel::Lines(lines), Panel::Bars(bars)]).unwrap();
    assert!(picture.read().contains("empty"));
}

#[test]
fn a_part_of_a_document_is_replaced_and_the_rest_stays() {
    let document = "head\n<!-- figures -->\nold\nolder\n<!-- /figures -->\ntail\n";
    let new = spliced(document, "figures", "| new |\n").unwrap();
    assert_eq!(new, "head\n<!-- figures -->\n\n| new |\n\n<!-- /figures -->\ntail\n");
    assert_eq!(spliced(&new, "figures", "| new |").as_ref(), Some(&new), "once more changes nothing");
}

#[test]
fn a_part_that_is_not_there_is_not_written() {
    assert_eq!(spliced("text", "figures", "x"), None);
    assert_eq!(spliced("<!-- figures -->\ntext", "figures", "x"), None);
    assert_eq!(spliced("<!-- /figures -->\n<!-- figures -->\n", "figures", "x"), None);
    let document = Scratch::new("document.md");
    std::fs::write(&document.0, "text").unwrap();
    let error = write_between(&document.0, "figures", "x").unwrap_err();
    assert!(error.to_string().contains("has no part <!-- figures -->"), "{error}");
    assert_eq!(document.read(), "text");
}

/// Values of runs of both guests on the first host.
fn values(key: &'static str, linux: &[f64], ours: &[f64]) -> Values {
    let mut values = Values::default();
    for (guest, runs) in [(Guest::Linux, linux), (Guest::Ours, ours)] {
        for (run, value) in (1..).zip(runs) {
            values.note(Value { host: Host::ALL[0], guest, run, key, value: *value });
        }
    }
    values
}

#[test]
fn a_median_is_of_one_guest_on_one_host() {
    let values = values("inflate", &[3.0, 1.0, 2.0], &[8.0, 2.0, 6.0, 4.0]);
    let median = |host, guest| values.median(host, guest, "inflate");
    assert_eq!(median(Host::ALL[0], Guest::Linux), Some(2.0));
    assert_eq!(median(Host::ALL[0], Guest::Ours), Some(5.0));
    assert_eq!(median(Host::ALL[1], Guest::Ours), None);
    assert_eq!(values.median(Host::ALL[0], Guest::Ours, "deflate"), None);
    assert_eq!(values.raw().lines().count(), 8);
}

#[test]
fn a_table_says_how_many_times_better_ours_is_and_leaves_out_what_was_not_measured() {
    let rows = |key, linux: &[f64], ours: &[f64]| -> Vec<String> {
        let table = values(key, linux, ours).table(&Host::ALL, |figure| figure.key != "fell");
        table.lines().skip(2).map(str::to_owned).collect()
    };
    assert_eq!(rows("inflate", &[0.5], &[2.0]), ["| inflate | 10.0, THP | 0.50 GiB/s | 2.00 GiB/s | 4.0x |"]);
    assert_eq!(
        rows("ready", &[6.0], &[0.5]),
        ["| start of the CPU to driver ready | 10.0, THP | 6.00 s | 0.50 s | 12.0x |"]
    );
    let [awake] = rows("inflate.awake", &[], &[12.5]).try_into().unwrap();
    assert!(awake.ends_with("| – | 12.5 % |  |"), "{awake}");
    assert!(rows("fell", &[1.0], &[1.0]).is_empty(), "not wanted");
}

#[test]
fn figures_have_names_of_their_own() {
    let mut keys: Vec<_> = FIGURES.iter().map(|figure| figure.key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), FIGURES.len());
}

#[test]
fn resident_memory_is_averaged_over_time_and_its_fall_is_found() {
    let sample = |ms, resident| Sample { after: Duration::from_millis(ms), resident };
    let samples = [sample(0, 100), sample(300, 20), sample(400, 0)];
    assert!((average(&samples) - 80.0).abs() < 1e-9, "{}", average(&samples));
    assert_eq!(seconds_to(&samples, 20), Some(0.3));
    assert_eq!(seconds_to(&samples[..1], 99), None);
    assert!(average(&[]).abs() < 1e-9);
}
