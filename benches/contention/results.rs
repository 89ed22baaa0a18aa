//! The results as a table and a picture: throughput by criterion's medians, how often a lock was contended, and for
//! how long.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::chart::{self, Bars, Failure, Panel, document, short};
use super::design::Design;
use super::estimates::median;
use super::lock::Tally;
use super::{OPERATIONS, Operation, THREADS};

/// How often locks were taken in each case, kept beside criterion's estimates.
#[derive(Debug, Default)]
pub(crate) struct Tallies(Map<String, Value>);

impl Tallies {
    const FILE: &str = "tallies.json";

    fn key(operation: Operation, design: Design, threads: usize) -> String {
        format!("{}/{}/{threads}", operation.name, design.name())
    }

    /// Adds the counts of the locks. `busy` is the sum of the threads' running times.
    pub(crate) fn add(&mut self, operation: Operation, design: Design, threads: usize, tally: Tally, busy: Duration) {
        let key = Self::key(operation, design, threads);
        let [waiting, busy] = [tally.waiting, busy].map(|time| time.as_secs_f64());
        let told = json!({ "taken": tally.taken, "waited": tally.waited, "waiting": waiting, "busy": busy });
        self.0.insert(key, told);
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), Failure> {
        Ok(fs::write(folder.join(Self::FILE), serde_json::to_string_pretty(&self.0)?)?)
    }

    pub(crate) fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(Self::FILE);
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(serde_json::from_str(&text)?))
    }

    /// Contended acquisitions, in parts per thousand.
    fn found_taken(&self, operation: Operation, design: Design, threads: usize) -> Result<f64, Failure> {
        Ok(1000.0 * self.ratio(operation, design, threads, ["waited", "taken"])?)
    }

    /// Share of the threads' time spent waiting for locks, in percent.
    fn waiting(&self, operation: Operation, design: Design, threads: usize) -> Result<f64, Failure> {
        Ok(100.0 * self.ratio(operation, design, threads, ["waiting", "busy"])?)
    }

    fn ratio(&self, operation: Operation, design: Design, threads: usize, of: [&str; 2]) -> Result<f64, Failure> {
        let key = Self::key(operation, design, threads);
        let tally = self.0.get(&key).ok_or_else(|| format!("{key} was not measured"))?;
        let value = |name: &str| tally[name].as_f64().ok_or_else(|| format!("{key}: {name} is missing"));
        Ok(value(of[0])? / value(of[1])?.max(f64::MIN_POSITIVE))
    }
}

/// Millions of runs per second that all threads together allocate and free.
fn throughput(folder: &Path, operation: Operation, design: Design, threads: usize) -> Result<f64, Failure> {
    let nanoseconds = median(folder, operation.name, design.name(), &threads.to_string())?;
    Ok((threads * operation.pairs()) as f64 * 1e3 / nanoseconds)
}

/// Throughput and contention as a table.
pub(crate) fn table(folder: &Path, tallies: &Tallies) -> Result<String, Failure> {
    let threads: Vec<_> =
        THREADS.iter().map(|threads| format!("{threads} threads").replace("1 threads", "1 thread")).collect();
    let mut table = format!("| | | | {} |\n|---|---|---|{}", threads.join(" | "), "---|".repeat(threads.len()));
    for operation in OPERATIONS {
        for design in Design::ALL {
            write!(table, "\n| {} | {} | allocated and freed, M/s |", operation.name, design.name())?;
            for threads in THREADS {
                write!(table, " {} |", short(throughput(folder, operation, design, threads)?))?;
            }
        }
        for design in Design::ALL {
            write!(table, "\n| {} | {} | time spent waiting |", operation.name, design.name())?;
            for threads in THREADS {
                write!(table, " {} % |", short(tallies.waiting(operation, design, threads)?))?;
            }
        }
        for design in Design::ALL {
            write!(table, "\n| {} | {} | lock found taken |", operation.name, design.name())?;
            for threads in THREADS {
                write!(table, " {} ‰ |", short(tallies.found_taken(operation, design, threads)?))?;
            }
        }
    }
    Ok(table)
}

/// Writes the documents.
pub(crate) fn publish(folder: &Path, tallies: &Tallies, table: &str, root: &Path) -> Result<(), Failure> {
    document::write_between(&root.join("docs/contention.md"), "contention", table)?;
    let mut panels = Vec::new();
    for operation in OPERATIONS {
        let bars = |title: String, unit: &str, value: &dyn Fn(Design, usize) -> Result<f64, Failure>| {
            let group = |threads: usize| -> Result<_, Failure> {
                let values: Result<_, Failure> =
                    Design::ALL.into_iter().map(|design| value(design, threads).map(Some)).collect();
                Ok((threads.to_string(), values?))
            };
            let groups: Result<_, Failure> = THREADS.into_iter().map(group).collect();
            let series = Design::ALL.map(|design| design.name().to_owned()).to_vec();
            Ok::<_, Failure>(Panel::Bars(Bars { title, unit: unit.into(), series, groups: groups? }))
        };
        panels.push(bars(format!("{} allocated and freed, by threads", operation.name), "M/s", &|design, threads| {
            throughput(folder, operation, design, threads)
        })?);
        panels.push(bars(format!("{}: time spent waiting, by threads", operation.name), "%", &|design, threads| {
            tallies.waiting(operation, design, threads)
        })?);
    }
    chart::draw(&root.join("docs/contention.svg"), 2, &panels)
}
