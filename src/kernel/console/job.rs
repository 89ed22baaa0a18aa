//! Long commands. Each turn of the main loop runs a bounded piece, so that balloons and keys do not wait; Ctrl-C
//! stops the command.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::console::events::{self, Bytes};
use crate::console::{Record, count};
use crate::machine::{Machine, log as serial};

use crate::kernel::backing;
use crate::kernel::balloons::Balloons;
use crate::kernel::held::Held;
use crate::kernel::shortage::Shortage;

/// Lines written per turn: some 30 ms at 115200 baud.
const LINES: usize = 4;
/// Lines of the log between pauses: they fit a terminal of 24 rows together with the prompt.
const PAGE: u64 = 22;

/// A command in progress.
pub(super) enum Job {
    /// `mem hold`: bytes requested, and bytes allocated so far.
    Hold { wanted: u64, taken: u64 },
    /// `mem verify`: the next block, bytes verified, words that differ.
    Verify { next: usize, bytes: u64, bad: u64 },
    /// `mem release`: bytes held at its start.
    Release { bytes: u64 },
    /// An answer of many lines.
    List(vec::IntoIter<String>),
    /// `log`.
    Log(Pager),
}

/// Prints the log from its beginning to the time of the command.
pub(super) struct Pager {
    next: u64,
    end: u64,
    /// The line before which to pause; `None`: no pauses.
    pause: Option<u64>,
}

/// The outcome of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There is more to do.
    More,
    /// It waits for a key.
    Pause,
    /// It is done.
    Done,
}

/// What jobs work on.
pub(super) struct JobContext<'k> {
    /// The machine.
    pub(super) machine: &'k mut Machine,
    /// Its balloons.
    pub(super) balloons: &'k mut Balloons,
    /// The memory held.
    pub(super) held: &'k mut Held,
}

impl Job {
    /// Prints lines, a few per turn.
    pub(super) fn list(lines: Vec<String>) -> Self {
        Self::List(lines.into_iter())
    }

    /// Prints the log as it is now, with or without pauses.
    pub(super) fn log(pauses: bool) -> Self {
        let end = serial::with_kept(Record::lines);
        Self::Log(Pager { next: 0, end, pause: pauses.then_some(PAGE) })
    }

    /// Runs a piece of the job.
    pub(super) fn step(&mut self, context: &mut JobContext<'_>) -> Step {
        match self {
            Self::Hold { wanted, taken } => {
                let JobContext { machine, balloons, held } = context;
                let left = *wanted - *taken;
                let got = backing::with(machine, balloons, || if left == 0 { 0 } else { held.hold_some(left) });
                *taken = taken.saturating_add(got).min(*wanted);
                if got > 0 && *taken < *wanted {
                    return Step::More;
                }
                let reason = if *taken < *wanted { Some(Reason::Lack(balloons)) } else { None };
                report_held(held, *taken, *wanted, reason);
            }
            Self::Verify { next, bytes, bad } => {
                if let Some((looked, wrong)) = context.held.verify_one(*next) {
                    (*next, *bytes, *bad) = (*next + 1, *bytes + looked, *bad + wrong);
                    return Step::More;
                }
                report_verified(*bytes, *bad, "");
            }
            Self::Release { bytes } => {
                let more = context.held.release_some();
                context.balloons.memory_freed();
                if more {
                    return Step::More;
                }
                serial::line(format_args!("released {} KiB", *bytes >> 10));
            }
            Self::List(lines) => {
                lines.by_ref().take(LINES).for_each(|line| serial::line(format_args!("{line}")));
                if lines.len() > 0 {
                    return Step::More;
                }
            }
            Self::Log(pager) => return pager.step(),
        }
        Step::Done
    }

    /// Continues after a pause.
    pub(super) fn resume(&mut self) {
        if let Self::Log(Pager { next, pause: Some(pause), .. }) = self {
            *pause = *next + PAGE;
        }
    }

    /// Stops it early and reports how far it got.
    pub(super) fn stop(self, context: &mut JobContext<'_>) {
        match self {
            Self::Hold { wanted, taken } => report_held(context.held, taken, wanted, Some(Reason::Stopped)),
            Self::Verify { bytes, bad, .. } => report_verified(bytes, bad, ", then stopped by Ctrl-C"),
            Self::Release { .. } => {
                serial::line(format_args!("stopped by Ctrl-C: {} KiB are still held", context.held.bytes() >> 10));
            }
            Self::List(lines) => {
                let left = count(lines.len(), "more line");
                serial::line(format_args!("stopped by Ctrl-C: {left} not shown"));
            }
            Self::Log(_) => {}
        }
    }

    /// Its progress.
    pub(super) fn progress(&self, held: u64) -> impl fmt::Display {
        Progress(self, held)
    }
}

impl Pager {
    fn step(&mut self) -> Step {
        let mut lines = Vec::with_capacity(LINES);
        let until = self.pause.map_or(self.end, |pause| pause.min(self.end));
        serial::with_kept(|kept| {
            kept.for_each(self.next, |number, _, text| {
                if number >= until || lines.len() == LINES {
                    return false;
                }
                lines.push((number, String::from(text)));
                true
            });
        });
        for (number, line) in &lines {
            serial::passing(format_args!("{line}"));
            self.next = number + 1;
        }
        if lines.is_empty() {
            // The remaining lines were lost meanwhile.
            self.next = until;
        }
        match () {
            () if self.next >= self.end => Step::Done,
            () if self.next >= until => Step::Pause,
            () => Step::More,
        }
    }
}

/// A job's progress, and the bytes held.
struct Progress<'j>(&'j Job, u64);

impl fmt::Display for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        match self.0 {
            Job::Hold { wanted, taken } => write!(f, "holding {} of {} MiB", mib(*taken), mib(*wanted))?,
            Job::Verify { bytes, .. } => write!(f, "verifying {} of {} MiB", mib(*bytes), mib(self.1))?,
            Job::Release { bytes } => {
                write!(f, "released {} of {} MiB", mib(*bytes - self.1.min(*bytes)), mib(*bytes))?;
            }
            Job::List(lines) => write!(f, "{}", count(lines.len(), "more line"))?,
            Job::Log(Pager { next, end, .. }) => {
                return write!(f, "-- {next} of {end} lines: Space continues, q ends --");
            }
        }
        f.write_str("; Ctrl-C stops")
    }
}

/// Why less memory is held than requested.
enum Reason<'b> {
    /// Ctrl-C was typed.
    Stopped,
    /// No frame is free.
    Lack(&'b Balloons),
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Lack(balloons) = self else { return f.write_str("stopped by Ctrl-C") };
        write!(f, "{Shortage}")?;
        match balloons.refusal() {
            Some(error) => write!(f, " ({error})"),
            None => Ok(()),
        }
    }
}

/// Reports how much memory is held, and why it is less than requested.
fn report_held(held: &Held, taken: u64, wanted: u64, reason: Option<Reason<'_>>) {
    let bytes = held.bytes();
    serial::emit(&events::Held {
        bytes: Bytes(bytes),
        reason: reason.as_ref().map(|reason| reason as &dyn fmt::Display),
    });
    if !serial::is_text() {
        return;
    }
    match reason {
        None => serial::line(format_args!("{} KiB are held", bytes >> 10)),
        Some(reason) => {
            let (taken, wanted) = (taken >> 10, wanted >> 10);
            serial::line(format_args!(
                "{} KiB are held; of {wanted} KiB requested only {taken} KiB were added: {reason}",
                bytes >> 10
            ));
        }
    }
}

fn report_verified(bytes: u64, bad: u64, stopped: &str) {
    serial::emit(&events::Verify { ok: bad == 0, bytes: Bytes(bytes), bad });
    if serial::is_text() {
        match (bad, bytes / 8) {
            (0, words) => serial::line(format_args!("all {words} words are as written{stopped}")),
            (bad, words) => serial::line(format_args!("{bad} of {words} words are NOT as written{stopped}")),
        }
    }
}
