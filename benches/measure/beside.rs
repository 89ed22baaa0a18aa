//! Measures Linux and our kernel in turn on each host, then the figures that only our kernel can give.

use std::thread;
use std::time::{Duration, Instant};

use super::figures::{FIGURES, Value, Values};
use super::host::{Guest, Host, MEMORY, measured};
use super::publish::{self, Fall};
use super::support::{Event, MIB, Outcome, Vm, ensure};
use super::watch::{self, Sample, Watch};

/// Bytes that the balloon takes, and returns.
const GIVEN: u64 = 1024 * MIB;
/// Pause after a guest is ready: Linux is still starting then.
const SETTLE: Duration = Duration::from_secs(2);
/// How long allocations are timed while the balloon is idle.
const IDLE: Duration = Duration::from_secs(2);
/// Bytes that a program of our guest writes and frees before the host's request.
const WRITTEN: u64 = 1536 * MIB;
/// A target that no guest can meet: it stops at its floor.
const FLOOR: u64 = 16 * MIB;

/// Collects the values of one boot.
struct Notes<'a> {
    values: &'a mut Values,
    host: Host,
    guest: Guest,
    run: usize,
}

impl Notes<'_> {
    fn note(&mut self, key: &'static str, value: f64) {
        let Self { host, guest, run, .. } = *self;
        self.values.note(Value { host, guest, run, key, value });
    }

    /// Likewise, for a composed name of the table.
    fn note_named(&mut self, name: &str, value: f64) {
        if let Some(figure) = FIGURES.iter().find(|figure| figure.key == name) {
            self.note(figure.key, value);
        }
    }
}

/// Measures and prints everything; with `write`, also updates the documents.
pub(crate) fn run(write: bool) -> Outcome {
    let runs = super::runs(5)?;
    let mut values = Values::default();
    let (mut falls, mut reports): (Vec<Fall>, Vec<Fall>) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        for host in Host::ALL {
            // In turn, so that other load on the host affects both.
            for guest in Guest::ALL {
                let mut notes = Notes { values: &mut values, host, guest, run };
                let fall = measured(&guest.on(host)?, |vm| balloon(vm, &mut notes))?;
                // Huge pages hardly affect reporting: what the host discards are huge pages or more.
                let reporting = guest.on(host)?.balloon("free-page-reporting=on");
                let report = if host.huge_pages { measured(&reporting, |vm| report(vm, &mut notes))? } else { None };
                measured(&reporting, |vm| balloon_reporting(vm, &mut notes))?;
                if run == 1 && host == Host::ALL[0] {
                    falls.extend(fall.map(|fall| (guest, fall)));
                    reports.extend(report.map(|fall| (guest, fall)));
                }
            }
            let mut notes = Notes { values: &mut values, host, guest: Guest::Ours, run };
            measured(&Guest::Ours.on(host)?.command_line("log=json mode=bench"), |vm| ceiling(vm, &mut notes))?;
        }
    }
    publish::tell(&values, runs, &[falls, reports], write)
}

/// Waits for the driver. Returns how long that took.
fn ready(vm: &mut Vm) -> Outcome<Duration> {
    let start = Instant::now();
    vm.wait_for("the driver", |vm| {
        let status = vm.qmp.virtio_status()?["status"]["statuses"].to_string();
        Ok(status.contains("DRIVER_OK").then_some(()))
    })?;
    Ok(start.elapsed())
}

/// The rate at which `GIVEN` moved in `time`, in GiB/s.
fn rate(time: Duration) -> f64 {
    GIVEN as f64 / (1u64 << 30) as f64 / time.as_secs_f64()
}

/// Inflates and deflates. Returns resident memory while it inflated.
fn balloon(vm: &mut Vm, notes: &mut Notes<'_>) -> Outcome<Vec<Sample>> {
    let huge = watch::huge(vm)?;
    notes.note("ready", ready(vm)?.as_secs_f64());
    notes.note("huge", (huge * 100.0 / MEMORY as f64).min(100.0));
    thread::sleep(SETTLE);

    let (before, counted) = (vm.resident()?, Counts::of(vm, notes.guest)?);
    let (watch, start, ran) = (Watch::begin(vm), Instant::now(), watch::cpu_seconds(vm)?);
    vm.balloon_to(MEMORY - GIVEN)?;
    let inflated = start.elapsed();
    let ran = watch::cpu_seconds(vm)? - ran;
    // The host may still be working on requests that it has already completed.
    thread::sleep(SETTLE);
    let samples = watch.end()?;
    let between = Counts::of(vm, notes.guest)?;
    notes.note("inflate", rate(inflated));
    notes.note("inflate.cpu", ran * 100.0 / inflated.as_secs_f64());
    let fallen = watch::seconds_to(&samples, before.saturating_sub(GIVEN / 100 * 95));
    fallen.into_iter().for_each(|seconds| notes.note("fallen", seconds));
    notes.note("fell", before.saturating_sub(vm.resident()?) as f64 * 100.0 / GIVEN as f64);

    let start = Instant::now();
    vm.balloon_to(MEMORY)?;
    notes.note("deflate", rate(start.elapsed()));
    let after = Counts::of(vm, notes.guest)?;
    between.since(&counted, "inflate", notes);
    after.since(&between, "deflate", notes);
    if notes.guest == Guest::Ours {
        latency(vm, notes)?;
    }
    Ok(samples)
}

/// The guest's own counters.
struct Counts {
    interrupts: f64,
    /// Only our kernel counts kicks.
    kicks: Option<f64>,
}

impl Counts {
    fn of(vm: &mut Vm, guest: Guest) -> Outcome<Self> {
        match guest {
            Guest::Linux => {
                vm.serial.type_line("")?;
                let line = vm.line_with("interrupts ")?;
                let interrupts = line.rsplit(' ').next().ok_or("no number of interrupts")?.parse()?;
                Ok(Self { interrupts, kicks: None })
            }
            Guest::Ours => {
                let stats = vm.ask("stats", "stats")?;
                Ok(Self { interrupts: stats.number("interrupts")?, kicks: Some(stats.number("kicks")?) })
            }
        }
    }

    /// Notes the increase since `before`, per GiB.
    fn since(&self, before: &Self, way: &str, notes: &mut Notes<'_>) {
        let gib = GIVEN as f64 / (1u64 << 30) as f64;
        notes.note_named(&format!("{way}.interrupts"), (self.interrupts - before.interrupts) / gib);
        if let Some((kicks, before)) = self.kicks.zip(before.kicks) {
            notes.note_named(&format!("{way}.kicks"), (kicks - before) / gib);
        }
    }
}

/// Allocation latency: with an idle balloon, and while it goes to the floor and back.
fn latency(vm: &mut Vm, notes: &mut Notes<'_>) -> Outcome {
    vm.ask("latency start", "console")?;
    thread::sleep(IDLE);
    let idle = vm.ask("latency stop", "latency")?;
    vm.ask("latency start", "console")?;
    vm.qmp.set_target(FLOOR)?;
    vm.event("short")?;
    vm.balloon_to(MEMORY)?;
    let working = vm.ask("latency stop", "latency")?;
    for (when, told) in [("idle", idle), ("working", working)] {
        ensure!(told.count("failed")? == 0, "allocations failed: {told}");
        for share in ["p50", "p99", "p999", "max"] {
            notes.note_named(&format!("{when}.{share}"), told.number(share)? / 1000.0);
        }
    }
    Ok(())
}

/// Resident memory from the start on, with free page reporting. QEMU may announce the driver late: it answers nothing
/// while it discards memory.
fn report(vm: &mut Vm, notes: &mut Notes<'_>) -> Outcome<Vec<Sample>> {
    let watch = Watch::begin(vm);
    let outcome = ready(vm).and_then(|ready| {
        vm.wait_for("resident memory to fall under 25 %", |vm| {
            let resident = watch::resident(vm.pid()).ok_or("QEMU's memory can't be seen")?;
            Ok((resident <= MEMORY / 4).then_some(()))
        })?;
        Ok(ready.as_secs_f64())
    });
    let samples = watch.end()?;
    let ready = outcome?;
    // Resident memory is also low before QEMU has preallocated it; that does not count.
    let full = samples.iter().position(|sample| sample.resident >= MEMORY).unwrap_or(0);
    let seconds = watch::seconds_to(&samples[full..], MEMORY / 4).ok_or("resident memory stayed above 25 %")?;
    notes.note("reporting", (seconds - ready).max(0.0));
    notes.note("reporting.start", seconds);
    Ok(samples)
}

/// Inflates with free page reporting and measures how soon the host gets the memory. Linux is asked once it is ready,
/// while the host still holds all preallocated memory. Our kernel has reported all of it by then, so a program first
/// writes to it again.
fn balloon_reporting(vm: &mut Vm, notes: &mut Notes<'_>) -> Outcome {
    ready(vm)?;
    if notes.guest == Guest::Ours {
        vm.event("report")?;
        vm.ask(&format!("mem hold {}M", WRITTEN / MIB), "held")?;
        vm.ask("mem release", "console")?;
    }
    let before = vm.resident()?;
    ensure!(before >= GIVEN, "the host can get back only {} MiB", before / MIB);
    let (watch, start) = (Watch::begin(vm), Instant::now());
    vm.balloon_to(MEMORY - GIVEN)?;
    notes.note("reporting.inflate", rate(start.elapsed()));
    // The host may still be working on requests that it has already completed.
    thread::sleep(SETTLE);
    let fallen = watch::seconds_to(&watch.end()?, before.saturating_sub(GIVEN / 100 * 95));
    notes.note("reporting.fallen", fallen.ok_or("resident memory has not fallen")?);
    Ok(())
}

/// The figures of `mode=bench` about device and driver.
fn ceiling(vm: &mut Vm, notes: &mut Notes<'_>) -> Outcome {
    let is_it = |event: &Event| matches!(event.name(), "bench" | "exit");
    loop {
        let event = vm.event_where("figure or exit", is_it)?;
        if event.name() == "exit" {
            ensure!(event.count("status")? == 33, "`mode=bench` failed: {event}");
            return Ok(());
        }
        let (name, value) = (event.text("name")?.to_owned(), event.number("value")?);
        match name.strip_prefix("awake.") {
            Some(way) => notes.note_named(&format!("{way}.awake"), value),
            // Kicks and interrupts come from the serving kernel.
            None if name.starts_with("kicks") || name.starts_with("interrupts") => {}
            None => notes.note_named(&name, value),
        }
    }
}
