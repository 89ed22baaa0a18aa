//! The measured figures, their values, and the table.

use std::fmt::Write as _;

use super::chart::short;
use super::host::{Guest, Host};

/// A figure that is measured of each guest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) key: &'static str,
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// Whether more is better, less is, or neither.
    pub(crate) better: Better,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
    Neither,
}

const fn figure(key: &'static str, name: &'static str, unit: &'static str, better: Better) -> Figure {
    Figure { key, name, unit, better }
}

/// In the order of the table.
pub(crate) const FIGURES: [Figure; 29] = {
    use Better::{Less, More, Neither};
    [
        figure("ready", "start of the CPU to driver ready", "s", Less),
        figure("huge", "guest memory in huge pages of the host, when ready", "%", Neither),
        figure("inflate", "inflate", "GiB/s", More),
        figure("fallen", "request to resident memory fallen by 95 %", "s", Less),
        figure("fell", "fall of resident memory, share of what was inflated", "%", More),
        figure("deflate", "deflate", "GiB/s", More),
        figure("inflate.cpu", "inflating: CPU use of the vCPU thread", "%", Neither),
        figure("inflate.interrupts", "interrupts, inflating", "1/GiB", Less),
        figure("deflate.interrupts", "interrupts, deflating", "1/GiB", Less),
        figure("reporting", "with reporting: ready to resident memory under 25 %", "s", Less),
        figure("reporting.start", "with reporting: start of the CPU to resident memory under 25 %", "s", Less),
        figure("reporting.inflate", "with reporting: inflate", "GiB/s", More),
        figure("reporting.fallen", "with reporting: request to resident memory fallen by 95 %", "s", Less),
        figure("inflate.kicks", "kicks, inflating", "1/GiB", Less),
        figure("deflate.kicks", "kicks, deflating", "1/GiB", Less),
        figure("inflate.awake", "inflating: guest CPU awake, by its own clock", "%", Less),
        figure("deflate.awake", "deflating: guest CPU awake, by its own clock", "%", Less),
        figure("ceiling.inflate", "inflate, device ceiling", "GiB/s", Neither),
        figure("driver.inflate", "inflate, driver in the same boot", "GiB/s", More),
        figure("share.inflate", "inflate, share of the ceiling", "%", More),
        figure("ceiling.deflate", "deflate, device ceiling", "GiB/s", Neither),
        figure("driver.deflate", "deflate, driver in the same boot", "GiB/s", More),
        figure("share.deflate", "deflate, share of the ceiling", "%", More),
        figure("idle.p50", "allocation, balloon at rest: median", "µs", Less),
        figure("idle.p999", "allocation, balloon at rest: 99.9th percentile", "µs", Less),
        figure("working.p50", "allocation, to the floor and back: median", "µs", Less),
        figure("working.p99", "allocation, to the floor and back: 99th percentile", "µs", Less),
        figure("working.p999", "allocation, to the floor and back: 99.9th percentile", "µs", Less),
        figure("working.max", "allocation, to the floor and back: longest", "µs", Less),
    ]
};

/// One value of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value {
    pub(crate) host: Host,
    pub(crate) guest: Guest,
    pub(crate) run: usize,
    pub(crate) key: &'static str,
    pub(crate) value: f64,
}

/// All values of all runs.
#[derive(Debug, Default)]
pub(crate) struct Values(Vec<Value>);

impl Values {
    pub(crate) fn note(&mut self, value: Value) {
        eprintln!("run {} on {}, {}: {} {}", value.run, value.host, value.guest.name(), value.key, short(value.value));
        self.0.push(value);
    }

    /// The median, or the mean of the middle two; `None` without values.
    pub(crate) fn median(&self, host: Host, guest: Guest, key: &str) -> Option<f64> {
        let is_it = |value: &&Value| value.host == host && value.guest == guest && value.key == key;
        let mut values: Vec<f64> = self.0.iter().filter(is_it).map(|value| value.value).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[middle - 1], upper) })
    }

    /// All values, one per line.
    pub(crate) fn raw(&self) -> String {
        let mut text = String::from("qemu and host pages\tguest\trun\tfigure\tvalue\n");
        for Value { host, guest, run, key, value } in &self.0 {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{host}\t{}\t{run}\t{key}\t{value}", guest.name());
        }
        text
    }

    /// The table of medians for these hosts and the figures that pass `wanted`. Rows without values are left out.
    pub(crate) fn table(&self, hosts: &[Host], wanted: impl Fn(&Figure) -> bool) -> String {
        let mut table = String::from("| | QEMU, host pages | Linux | ballonet | better by |\n|---|---|---|---|---|\n");
        for figure in FIGURES.iter().filter(|figure| wanted(figure)) {
            for host in hosts {
                let [linux, ours] = Guest::ALL.map(|guest| self.median(*host, guest, figure.key));
                if linux.or(ours).is_none() {
                    continue;
                }
                let told = |value: Option<f64>| {
                    value.map_or("–".into(), |value| format!("{} {}", short(value), figure.unit))
                };
                let factor = linux.zip(ours).and_then(|(linux, ours)| factor(figure.better, linux, ours));
                let _ = writeln!(
                    table,
                    "| {} | {host} | {} | {} | {} |",
                    figure.name,
                    told(linux),
                    told(ours),
                    factor.unwrap_or_default()
                );
            }
        }
        table
    }
}

/// The factor by which our kernel is better.
fn factor(better: Better, linux: f64, ours: f64) -> Option<String> {
    let factor = match better {
        Better::More => ours / linux,
        Better::Less => linux / ours,
        Better::Neither => return None,
    };
    factor.is_finite().then(|| format!("{factor:.1}x"))
}
