//! Linux and our kernel in turn, on each host; then what only ours can say of itself.

use std::thread;
use std::time::{Duration, Instant};

use super::figures::{FIGURES, Value, Values};
use super::host::{Guest, Host, MEMORY, measured};
use super::publish;
use super::support::{Event, MIB, Outcome, Vm, ensure};
use super::watch::{self, Sample, Watch};

/// Bytes that are given, and taken back.
const GIVEN: u64 = 1024 * MIB;
/// How long a guest is left alone after it is ready: Linux is still starting then.
const SETTLE: Duration = Duration::from_secs(2);
/// How long allocations are timed while the balloon rests.
const IDLE: Duration = Duration::from_secs(2);
/// Bytes that a program of ours has written to and let go of when the host asks.
const WRITTEN: u64 = 1536 * MIB;
/// A target that no guest can meet: it stops at its floor.
const FLOOR: u64 = 16 * MIB;

/// Where the values of one boot go.
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

    /// Likewise by a name that is put together: one of the table's.
    fn note_named(&mut self, name: &str, value: f64) {
        if let Some(figure) = FIGURES.iter().find(|figure| figure.key == name) {
            self.note(figure.key, value);
        }
    }
}

/// What resident memory did after a request, guest by guest.
pub(crate) type Fall = (Guest, Vec<Sample>);

/// Measures all of it and tells; with `write` in the documents, too.
pub(crate) fn run(write: bool) -> Outcome {
    let runs = super::runs(5)?;
    let mut values = Values::default();
    let (mut falls, mut reports): (Vec<Fall>, Vec<Fall>) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        for host in Host::ALL {
            // In turn, so that whatever else the host is doing meets both.
            for guest in Guest::ALL {
                let mut notes = Notes { values: &mut values, host, guest, run };
                let fall = measured(&guest.on(host)?, |vm| balloon(vm, &mut notes))?;
                // Huge pages make no difference to reporting worth its time: what is discarded are huge pages or more.
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

/// Waits for the driver and gives how long that took.
fn ready(vm: &mut Vm) -> Outcome<Duration> {
    let start = Instant::now();
    vm.wait_for("the driver", |vm| {
        let status = vm.qmp.virtio_status()?["status"]["statuses"].to_string();
        Ok(status.contains("DRIVER_OK").then_some(()))
    })?;
    Ok(start.elapsed())
}

/// What was given in a time, in GiB/s.
fn rate(time: Duration) -> f64 {
    GIVEN as f64 / (1u64 << 30) as f64 / time.as_secs_f64()
}

/// The balloon there and back. Returns what resident memory did on the way there.
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
    // What the host has yet to do with requests that it has said are done, if anything.
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

/// What a guest says of itself.
struct Counts {
    interrupts: f64,
    /// Only ours counts these.
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

    /// Notes what was counted since `before`, for each GiB.
    fn since(&self, before: &Self, way: &str, notes: &mut Notes<'_>) {
        let gib = GIVEN as f64 / (1u64 << 30) as f64;
        notes.note_named(&format!("{way}.interrupts"), (self.interrupts - before.interrupts) / gib);
        if let Some((kicks, before)) = self.kicks.zip(before.kicks) {
            notes.note_named(&format!("{way}.kicks"), (kicks - before) / gib);
        }
    }
}

/// How long allocations take: while the balloon rests, and on its way to the floor and back.
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

/// With free page reporting: what resident memory does from the start on. QEMU may say only late that the driver is ready: it
/// answers nothing while it discards memory.
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
    // That resident memory is that low before QEMU has preallocated it does not count.
    let full = samples.iter().position(|sample| sample.resident >= MEMORY).unwrap_or(0);
    let seconds = watch::seconds_to(&samples[full..], MEMORY / 4).ok_or("the watch has not seen it")?;
    notes.note("reporting", (seconds - ready).max(0.0));
    notes.note("reporting.start", seconds);
    Ok(samples)
}

/// The balloon with free page reporting: how soon the host has its memory. Linux is asked as soon as it is ready, when the
/// host still has all that it preallocated. Ours has reported all of it by then, so that a program writes to it again first.
fn balloon_reporting(vm: &mut Vm, notes: &mut Notes<'_>) -> Outcome {
    ready(vm)?;
    if notes.guest == Guest::Ours {
        vm.event("report")?;
        vm.ask(&format!("mem hold {}M", WRITTEN / MIB), "held")?;
        vm.ask("mem release", "console")?;
    }
    let before = vm.resident()?;
    ensure!(before >= GIVEN, "the host has only {} MiB to have back", before / MIB);
    let (watch, start) = (Watch::begin(vm), Instant::now());
    vm.balloon_to(MEMORY - GIVEN)?;
    notes.note("reporting.inflate", rate(start.elapsed()));
    // What the host has yet to do with requests that it has said are done, if anything.
    thread::sleep(SETTLE);
    let fallen = watch::seconds_to(&watch.end()?, before.saturating_sub(GIVEN / 100 * 95));
    notes.note("reporting.fallen", fallen.ok_or("resident memory has not fallen")?);
    Ok(())
}

/// What `mode=bench` says of the device and of the driver.
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
            // Kicks and interrupts are those of the serving kernel.
            None if name.starts_with("kicks") || name.starts_with("interrupts") => {}
            None => notes.note_named(&name, value),
        }
    }
}
