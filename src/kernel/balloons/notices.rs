//! Lines and events of single moments in a balloon's life.

use alloc::format;
use alloc::vec::Vec;

use crate::boot::feature_names;
use ballonet::balloon::{Balloon, BalloonError, BalloonQueue, Changes, ResetReason, ResetReport};
use ballonet::pci::Bdf;
use log::{error, info, warn};

use crate::console::count;
use crate::console::events::{self, Bytes, Frames};
use crate::machine::{Machine, log as serial};

/// Answers that there is no balloon of this name.
pub(crate) fn unknown_name(name: &str) {
    serial::line(format_args!("there is no balloon `{name}`; `virtio` lists them"));
}

/// The balloon is ready.
pub(super) fn ready(balloon: &Balloon<Machine>) {
    let status = balloon.status();
    let features: Vec<_> = feature_names(status.features).collect();
    let (transport, ring, mode) = (status.transport, status.ring, status.interrupts);
    serial::emit(&events::Ready {
        name: balloon.name(),
        device: &balloon.status().address,
        irq: mode.into(),
        transport: transport.into(),
        ring: ring.into(),
        features: &features,
        target: Bytes::of_frames(status.target),
        actual: Bytes::of_frames(status.actual),
    });
    if serial::is_text() {
        let (name, function, features) = (balloon.name(), balloon.status().address, features.join(" "));
        info!("{name}: balloon at {function} ready: {transport}, {ring} rings, {mode}; {features}");
    }
}

/// The driver has ended; `orphans` of its `actual` frames stay with the host.
pub(super) fn removed(name: &str, function: Bdf, orphans: u64, actual: u64) {
    serial::emit(&events::Removed { name, device: &function, ballooned: Bytes::of_frames(orphans) });
    match orphans {
        0 if actual == 0 => info!("{name}: balloon at {function} was removed"),
        0 => info!("{name}: balloon at {function} is gone; its {} MiB are the guest's again", actual / 256),
        left => info!(
            "{name}: balloon at {function} is gone; its {} MiB stay with the host until the next balloon",
            left / 256
        ),
    }
}

/// The driver has failed.
pub(super) fn gave_up(balloon: &Balloon<Machine>, error: &BalloonError) {
    error!("{}: {error}; the driver gave up, and the device is left alone", balloon.name());
    serial::emit(&events::Failed { name: balloon.name(), error });
}

/// Reports what a poll found.
pub(super) fn changes(balloon: &Balloon<Machine>, changes: Changes) {
    type Notice = fn(&Balloon<Machine>);
    let notices: [(Changes, Notice); 6] = [
        (Changes::RESET, reset),
        (Changes::SILENT, silent),
        (Changes::ANSWERS, answers),
        (Changes::FLUSHED, reported),
        (Changes::HINTED, hinted),
        (Changes::UNHINTED, unhinted),
    ];
    let seen = notices.into_iter().filter(|(change, _)| changes.contains(*change));
    seen.for_each(|(_, notice)| notice(balloon));
}

fn reset(balloon: &Balloon<Machine>) {
    let Some(report) = balloon.status().last_reset else { return };
    serial::emit(&events::Reset {
        name: balloon.name(),
        reason: report.reason.into(),
        inflating: Frames(report.inflating),
        deflating: Frames(report.deflating),
        actual: Bytes::of_frames(balloon.status().actual),
        queue: report.queue.map(BalloonQueue::into),
    });
    if serial::is_text() {
        reset_in_words(balloon.name(), &report);
    }
}

fn reset_in_words(name: &str, report: &ResetReport) {
    if let Some(queue) = report.queue {
        let frames = count(report.inflating + report.deflating, "frame");
        info!("{name}: queue {queue} was reset and works again; {frames} sent once more");
        return;
    }
    let why = match report.reason {
        ResetReason::NeedsReset => "since it had set DEVICE_NEEDS_RESET",
        ResetReason::Asked => "as asked",
        ResetReason::Unanswered => "since it did not return a request of several descriptors",
        other => other.into(),
    };
    let (inflating, deflating) = (count(report.inflating, "frame"), report.deflating);
    info!(
        "{name}: the device was reset, {why}, and works again; {inflating} in flight to the host are free, {deflating} in flight \
         back stay ballooned"
    );
}

/// The device returns no requests: reports those in flight, those returned before, and the usual causes.
fn silent(balloon: &Balloon<Machine>) {
    let (name, status, answers) = (balloon.name(), balloon.status(), balloon.counters().answers());
    let [inflating, deflating, reporting] =
        [status.inflating, status.deflating, status.reporting].map(Bytes::of_frames);
    let message = format!(
        "the device has returned no requests for seconds, though its registers answer. In flight: {} MiB to inflate, {} MiB \
         to deflate, {} MiB reported as free; {answers} requests returned before. The host's target is not known. The usual \
         causes: an IOMMU that blocks the device's access to memory, or a device that is stuck; `reset {name}` at the \
         console restarts it",
        inflating.0 >> 20,
        deflating.0 >> 20,
        reporting.0 >> 20,
    );
    warn!("{name}: {message}");
    serial::emit(&events::Silent { name, inflating, deflating, reporting, answers, message: &message });
}

fn answers(balloon: &Balloon<Machine>) {
    info!("{}: the device returns requests again", balloon.name());
    serial::emit(&events::Answers { name: balloon.name() });
}

fn reported(balloon: &Balloon<Machine>) {
    let bytes = Bytes::of_frames(balloon.counters().reported_frames);
    serial::emit(&events::Reported { name: balloon.name(), bytes });
}

/// A hinting round has ended.
fn hinted(balloon: &Balloon<Machine>) {
    let Some(report) = balloon.status().last_hints else { return };
    let (name, id, bytes) = (balloon.name(), report.id, Bytes::of_frames(report.frames));
    let outcome = report.outcome.into();
    serial::emit(&events::Hinted { name, id, bytes, outcome });
    if serial::is_text() {
        info!("{name}: the host need not copy {} MiB of free memory (round {id:#x}, {outcome})", bytes.0 >> 20);
    }
}

/// The host is done, and hinted memory is free again.
fn unhinted(balloon: &Balloon<Machine>) {
    serial::emit(&events::Unhinted { name: balloon.name() });
    if serial::is_text() {
        info!("{}: the host is done copying", balloon.name());
    }
}

/// The device is reset and stays stopped.
pub(super) fn frozen(balloon: &Balloon<Machine>) {
    let status = balloon.status();
    let (target, actual) = (Bytes::of_frames(status.target), Bytes::of_frames(status.actual));
    serial::emit(&events::Freeze { name: balloon.name(), target, actual });
    if serial::is_text() {
        let name = balloon.name();
        info!("{name}: frozen until `restore`; {} MiB are with the host", actual.0 >> 20);
    }
}

/// A frozen device runs again.
pub(super) fn restored(balloon: &Balloon<Machine>) {
    let status = balloon.status();
    let (target, actual) = (Bytes::of_frames(status.target), Bytes::of_frames(status.actual));
    serial::emit(&events::Restore { name: balloon.name(), target, actual });
    if serial::is_text() {
        info!("{}: restored; {} MiB are with the host", balloon.name(), actual.0 >> 20);
    }
}
