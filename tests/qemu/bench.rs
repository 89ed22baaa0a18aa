//! `mode=bench`: the kernel measures a request from kick to interrupt, and the rate at which memory moves, then ends.

use ballonet::virtio::RingFormat;
use ballonet_check::bench::Case;

use crate::support::{Outcome, Qemu, Trial, Version, Vm, ensure};
use crate::trial;

/// The figures of each case.
const FIGURES: [&str; 6] = [
    "add_kick.min",
    "add_kick.median",
    "interrupt_pop.min",
    "interrupt_pop.median",
    "round_trip.min",
    "round_trip.median",
];

pub(crate) fn trials() -> Vec<Trial> {
    let bench = |version| Qemu::new(version).command_line("log=json mode=bench");
    let with_reports = |version, balloon: &str| bench(version).balloon(&format!("{balloon},free-page-reporting=on"));
    let all = |_: &Case| true;
    let any_order = |case: &Case| !case.in_order;
    let split = |case: &Case| case.ring == RingFormat::Split && !case.in_order;
    let packed_flags = |case: &Case| case.ring == RingFormat::Packed && !case.event_idx && !case.in_order;
    let declined = "log=json mode=bench ring=packed features=-event_idx";
    vec![
        trial(
            "bench::qemu-10.0::everything",
            bench(Version::V10_0).balloon("vectors=6,packed=on,in_order=on"),
            measured(all),
        ),
        trial("bench::qemu-7.2::everything", bench(Version::V7_2).balloon("packed=on"), measured(any_order)),
        trial(
            "bench::qemu-10.0::legacy",
            bench(Version::V10_0).balloon("vectors=2,disable-modern=on"),
            measured(split),
        ),
        trial(
            "bench::qemu-10.0::declined",
            bench(Version::V10_0).balloon("vectors=0,packed=on").command_line(declined),
            measured(packed_flags),
        ),
        trial("bench::qemu-10.0::with_reports", with_reports(Version::V10_0, "vectors=6"), measured_with_reports),
        trial("bench::qemu-7.2::with_reports", with_reports(Version::V7_2, "packed=off"), measured_with_reports),
        trial("bench::counted_instructions", bench(Version::V10_0).balloon("vectors=6").counting(), counted),
        trial("bench::no_balloon_is_a_failure", bench(Version::Newest).without_balloon(), |vm| ended(vm, 35)),
    ]
}

/// Every expected case has every figure, above 0, and there are no other cases.
fn measured(wanted: fn(&Case) -> bool) -> impl Fn(&mut Vm) -> Outcome + Send + Sync {
    move |vm| figures(vm, wanted, false).map(drop)
}

/// The same with free page reporting, which may be faster than inflating.
fn measured_with_reports(vm: &mut Vm) -> Outcome {
    figures(vm, |case| case.ring == RingFormat::Split && !case.in_order, true).map(drop)
}

/// Takes the figures in order.
fn figures(vm: &mut Vm, wanted: fn(&Case) -> bool, reporting: bool) -> Outcome<Vec<u64>> {
    let clock = vm.event("bench")?;
    ensure!(clock.text("name")? == "tsc" && clock.text("unit")? == "Hz" && clock.count("value")? > 0, "{clock}");
    let mut values = Vec::new();
    for case in Case::ALL.iter().filter(|case| wanted(case)) {
        for figure in FIGURES {
            let value = next(vm, &format!("{case}.{figure}"), "cycles")?;
            ensure!(value > 0.0, "{case}.{figure} is {value}");
            values.push(value as u64);
        }
    }
    moved(vm, reporting)?;
    let last = vm.event_where("exit event", |event| matches!(event.name(), "bench" | "exit"))?;
    ensure!(last.name() == "exit", "one figure too many: {last}");
    ended(vm, 33)?;
    Ok(values)
}

/// The rates in both directions: each kind of pre-filled ring, the driver, and its share of the best rate. At the end
/// the balloon is empty.
fn moved(vm: &mut Vm, reporting: bool) -> Outcome {
    next(vm, "throughput.size", "MiB")?;
    for way in ["inflate", "deflate"] {
        let mut figure = |name: &str, unit: &str| next(vm, &format!("{name}.{way}"), unit);
        let mut prepared = vec![figure("ceiling.direct", "GiB/s")?, figure("ceiling.indirect", "GiB/s")?];
        if reporting {
            prepared.push(figure("ceiling.reported", "GiB/s")?);
        }
        let ceiling = figure("ceiling", "GiB/s")?;
        let driver = figure("driver", "GiB/s")?;
        let best = prepared.iter().copied().fold(0.0, f64::max);
        ensure!(ceiling >= best, "{way}: the best of {prepared:?} should be {ceiling}, or the driver's best");
        ensure!(ceiling > 0.0 && driver > 0.0, "{way}: {driver} of {ceiling} GiB/s");
        let share = figure("share", "%")?;
        ensure!((share - driver * 100.0 / ceiling).abs() < 1.0, "{way}: {driver} of {ceiling} is given as {share} %");
        ensure!(share <= 100.0, "{way}: the driver exceeds the ceiling of {ceiling} GiB/s: {share} %");
        ensure!(figure("awake", "%")? <= 100.0, "{way}: awake for longer than it took");
        ensure!(figure("kicks", "1/GiB")? > 0.0, "{way}: the device was never kicked");
        figure("interrupts", "1/GiB")?;
    }
    let away = next(vm, "throughput.away", "frames")?;
    ensure!(away == 0.0, "{away} frames are with the host");
    Ok(())
}

/// The value of the next figure, which must have this name and unit.
fn next(vm: &mut Vm, name: &str, unit: &str) -> Outcome<f64> {
    let event = vm.event_where(name, |event| matches!(event.name(), "bench" | "exit"))?;
    ensure!(event.text("name").is_ok_and(|told| told == name), "{name} should come next: {event}");
    ensure!(event.text("unit")? == unit, "{event}");
    event.number("value")
}

fn ended(vm: &mut Vm, status: i32) -> Outcome {
    let code = vm.end()?.code();
    ensure!(code == Some(status), "QEMU's status should be {status}: {code:?}");
    Ok(())
}

/// When the clock counts instructions, figures do not vary: minimum and median of the driver's own work hardly
/// differ.
fn counted(vm: &mut Vm) -> Outcome {
    let values = figures(vm, |case| case.ring == RingFormat::Split && !case.in_order, false)?;
    for leg in values.chunks_exact(FIGURES.len()) {
        for (least, median) in [(leg[0], leg[1]), (leg[2], leg[3])] {
            ensure!(median - least <= least / 10, "least {least}, median {median} instructions: {values:?}");
        }
    }
    Ok(())
}
