//! Commands for balloons: sizes, counters and devices.

use alloc::vec::Vec;

use crate::boot::feature_names;
use ballonet::balloon::{Balloon, BalloonQueue, BalloonStatus, Counters, Path};
use ballonet::memory::FRAME_SIZE;
use ballonet::virtio::InterruptMode;

use crate::console::count;
use crate::console::events::{self, Frames};
use crate::kernel::balloons::{Action, unknown_name};
use crate::kernel::console::command::{Answer, Context, say};
use crate::machine::{Machine, log as serial};

/// Answers that there is no balloon.
fn no_balloon() {
    say!("there is no virtio balloon");
}

/// `virtio`.
pub(in super::super) fn virtio(arguments: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    let [] = arguments else { return None };
    for driver in context.balloons.drivers() {
        let status = driver.status();
        let (transport, ring, interrupts) = (status.transport, status.ring, status.interrupts);
        say!("{}: balloon at {}, {transport}, {ring} rings, {interrupts}", driver.name(), driver.status().address);
        let features: Vec<_> = feature_names(status.features).collect();
        say!("  features {:#x}: {}", status.features.bits(), features.join(" "));
        for (name, size) in driver.queues() {
            say!("  queue {name}: {}", count(size, "entry"));
        }
        if let Some(error) = status.failed {
            say!("  failed: {error}");
        }
    }
    if context.balloons.is_empty() {
        no_balloon();
    }
    Some(Answer::Done)
}

/// `balloon`.
pub(in super::super) fn balloon(arguments: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    if let [size, ..] = arguments {
        say!(
            "only the host sets the balloon's size: type `balloon {size}` in QEMU's monitor (Ctrl-A C switches to it and back), or use QMP"
        );
        return Some(Answer::Done);
    }
    // The interrupt for a new target may have been lost.
    context.balloons.recheck();
    context.balloons.serve(context.machine);
    context.balloons.drivers().for_each(show);
    if context.balloons.is_empty() {
        no_balloon();
    }
    Some(Answer::Done)
}

fn mib(frames: u64) -> u64 {
    (frames * FRAME_SIZE) >> 20
}

fn show(driver: &Balloon<Machine>) {
    let (name, status) = (driver.name(), driver.status());
    let (actual, target) = (mib(status.actual), mib(status.target));
    if status.silent {
        say!("{name}: {actual} MiB are with the host; its target is not known");
        say!("  the device returns no requests; `reset {name}` restarts it");
    } else {
        let short = if status.short { "; the rest is in use, or kept free for the kernel" } else { "" };
        say!("{name}: {actual} MiB are with the host, which asks for {target} MiB{short}");
    }
    if let Some(error) = status.failed {
        say!("  failed: {error}; `reset {name}` tries again");
    }
    show_state(&status);
}

fn show_state(status: &BalloonStatus) {
    if status.cooling.is_some() {
        say!("  it stays below the target for a while, because memory ran out");
    }
    if status.frozen {
        say!("  frozen until `restore`");
    }
    if status.withheld > 0 {
        say!("  withheld: {}, since the device did not finish its reset", count(status.withheld, "frame"));
    }
    if status.hinted > 0 {
        say!("  {} MiB of free memory are hinted: the host is copying memory, and may skip these", mib(status.hinted));
    }
    if status.inflating + status.deflating > 0 {
        say!("  in flight: {} to the host, {} back", count(status.inflating, "frame"), status.deflating);
    }
}

/// `report`.
pub(in super::super) fn report(arguments: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    let [] = arguments else { return None };
    if context.balloons.report_now() {
        say!("all free memory is being reported to the host");
    } else {
        say!("no balloon takes reports of free memory (`page_reporting`)");
    }
    Some(Answer::Done)
}

/// `reset`.
pub(in super::super) fn reset(names: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    apply(Action::Reset, names, context)
}

/// `reset-queue`.
pub(in super::super) fn reset_queue(arguments: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    let (queue, names) = match arguments {
        ["inflate", names @ ..] => (BalloonQueue::Inflate, names),
        ["deflate", names @ ..] => (BalloonQueue::Deflate, names),
        // Not the statistics queue: QEMU keeps its buffer across the reset, and afterwards answers each new one at
        // once, forever.
        _ => return None,
    };
    apply(Action::ResetQueue(queue), names, context)
}

/// `freeze`.
pub(in super::super) fn freeze(names: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    apply(Action::Freeze, names, context)
}

/// `restore`.
pub(in super::super) fn restore(names: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    apply(Action::Restore, names, context)
}

/// Applies an action to the named balloons, or to all if none is named.
fn apply(action: Action, names: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    let Context { balloons, machine, .. } = context;
    if names.is_empty() && balloons.apply(action, None, machine) == 0 {
        no_balloon();
    }
    for name in names {
        if balloons.apply(action, Some(name), machine) == 0 {
            unknown_name(name);
        }
    }
    Some(Answer::Done)
}

/// `stats`.
pub(in super::super) fn stats(arguments: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    let [] = arguments else { return None };
    context.balloons.drivers().for_each(show_counters);
    let dropped = serial::with_serial(|serial| serial.dropped());
    say!("serial line: {} dropped", count(dropped, "byte"));
    Some(Answer::Done)
}

fn show_counters(driver: &Balloon<Machine>) {
    let counters = driver.counters();
    let interrupts = counters.config_interrupts + counters.vring_interrupts;
    serial::emit(&events::Stats {
        name: driver.name(),
        kicks: counters.kicks,
        interrupts,
        inflated: Frames(counters.inflate_frames),
        deflated: Frames(counters.deflate_frames),
        reported: Frames(counters.reported_frames),
        reports: counters.reports,
    });
    say!(
        "{}: {}, {}, {}, {} for nothing",
        driver.name(),
        count(counters.kicks, "kick"),
        count(interrupts, "interrupt"),
        count(counters.polls, "poll"),
        counters.spurious
    );
    let strategy = driver.status().strategy;
    let (path, chains): (&str, &str) = (strategy.path.map_or("direct", Path::into), strategy.chains.into());
    say!("  requests of {} frame numbers, chains {chains}, {path}", strategy.request);
    if let Some(rates) = strategy.rates {
        say!("  measured: report-first {} MiB/s, direct {} MiB/s", rates.report_first, rates.direct);
    }
    show_frames(&counters);
    show_device(&counters);
    if driver.status().interrupts == InterruptMode::Line {
        say!("  not from this device: {} on the line", count(counters.stray_interrupts, "interrupt"));
    }
}

/// The frames that moved, and why.
fn show_frames(counters: &Counters) {
    let moved = |what: &str, frames: u64, requests: u64| {
        say!("  {what} {} in {}", count(frames, "frame"), count(requests, "request"));
    };
    moved("inflated", counters.inflate_frames, counters.inflate_requests);
    moved("deflated", counters.deflate_frames, counters.deflate_requests);
    if counters.reports > 0 {
        say!("  reported {} in {}", count(counters.reported_frames, "free frame"), count(counters.reports, "report"));
    }
    if counters.reclaims > 0 {
        let (frames, reclaims) = (count(counters.reclaimed_frames, "frame"), count(counters.reclaims, "allocation"));
        say!("  reclaimed {frames} for {reclaims}, {} of which got too few", counters.failed_reclaims);
    }
    if counters.hint_rounds > 0 {
        let (frames, rounds) = (count(counters.hinted_frames, "free frame"), count(counters.hint_rounds, "round"));
        say!("  hinted {frames} in {rounds}, and took {} back early", counters.relinquished_frames);
    }
}

/// Counts of device register operations.
fn show_device(counters: &Counters) {
    let times = |number: u64| count(number, "time");
    say!("  device reset {}, single queues {}", times(counters.resets), times(counters.queue_resets));
    say!(
        "  target read {}, size written {}, statistics sent {}",
        times(counters.target_reads),
        times(counters.actual_writes),
        times(counters.statistics)
    );
}
