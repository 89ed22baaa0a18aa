//! One start of the VMM: the requested checks, the outcomes that arrived, and how it ended.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ballonet_check::{Check, HostAction};

use crate::catalog::{needs_slot, request};
use crate::control::Control;
use crate::failure::Outcome;
use crate::process::{News, Usage, Vmm, describe, usage};
use crate::profile::{Template, Values};
use crate::serial::{CheckEvent, Said};
use crate::verdict::{Record, Verdict};

/// Interval at which the process is polled.
const GLANCE: Duration = Duration::from_millis(100);
/// How long a VMM may take to end after the last check, and to end once its serial line is closed.
const END: Duration = Duration::from_secs(3);
/// The most devices that are followed in one start.
const DEVICES: usize = 8;
/// Time over which CPU use is judged.
const WINDOW: Duration = Duration::from_secs(2);

/// Limits on time and memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// From the start to the first check.
    pub(crate) boot: Duration,
    /// A check.
    pub(crate) check: Duration,
    /// Resident memory of the VMM, in bytes.
    pub(crate) rss: Option<u64>,
}

/// What to start.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The VMM's command.
    pub(crate) template: Template,
    /// The values for its placeholders.
    pub(crate) values: Values,
    /// More words for the kernel's command line.
    pub(crate) arguments: Vec<String>,
    /// Bounds.
    pub(crate) limits: Limits,
}

/// How a start ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The kernel said that it was done; if early, why.
    Complete(Option<String>),
    /// The VMM or the guest went down, and how.
    Down(Verdict, String),
    /// A signal to this program.
    Interrupted,
}

/// The results of a start.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// The checks that it was asked for.
    pub(crate) wanted: Vec<&'static Check>,
    /// The device was in a hot-plug slot.
    pub(crate) in_slot: bool,
    /// Checks that ended, in the order in which they did.
    pub(crate) records: Vec<Record>,
    /// The check that has started and not ended.
    pub(crate) running: Option<&'static Check>,
    /// A check has started: the kernel runs and found a device.
    pub(crate) began: bool,
    /// How it ended.
    pub(crate) end: End,
    /// The last lines of the VMM.
    pub(crate) last_words: String,
    /// The most resident memory, and all CPU time.
    pub(crate) usage: Usage,
}

/// Follows one start.
struct Watch<'w> {
    vmm: Vmm,
    /// Its command.
    words: Vec<String>,
    control: Option<Control>,
    /// Why the host did not do what the running check asked for.
    undone: Option<String>,
    limits: Limits,
    progress: &'w dyn Fn(&str),
    attempt: Attempt,
    start: Instant,
    /// The last sign of progress.
    since: Instant,
    /// CPU time and time of earlier polls, to judge the last seconds by.
    looks: Vec<(Instant, Duration)>,
    closed: Option<Instant>,
    ended: Option<Instant>,
    done: Option<Instant>,
    sanitizer: Option<(Option<&'static Check>, String)>,
}

/// Starts the VMM with `wanted`, or as many of them as fit into one start, and follows it to its end. `progress` is
/// called with the name of each check that begins. An error means that the VMM cannot be started at all.
pub(crate) fn run(
    target: &Target,
    wanted: &[&'static Check],
    folder: &Path,
    interrupted: &AtomicBool,
    progress: &dyn Fn(&str),
) -> Outcome<Attempt> {
    let wanted = alike(target, wanted);
    let (request, count) = request(&wanted);
    let wanted = &wanted[..count];
    let card = target.template.card(&target.values).filter(|_| wanted.iter().any(|check| needs_slot(check)));
    let mut cmdline = format!("mode=check log=json checks={request}");
    for argument in &target.arguments {
        cmdline = cmdline + " " + argument;
    }
    let control = target.template.protocol().map(|protocol| Control::new(protocol, folder, card.clone()));
    if let Some(control) = &control {
        let actions: Vec<_> = control.actions().map(HostAction::word).collect();
        cmdline = cmdline + " host=" + &actions.join(",");
    }
    let words = match &card {
        Some(card) => target.template.fill_slot(card, &target.values, &cmdline, folder)?,
        None => target.template.fill(&target.values, &cmdline, folder)?,
    };
    let now = Instant::now();
    let mut watch = Watch {
        vmm: Vmm::start(&words)?,
        words,
        control,
        undone: None,
        limits: target.limits,
        progress,
        attempt: Attempt {
            wanted: wanted.to_vec(),
            in_slot: card.is_some(),
            records: Vec::new(),
            running: None,
            began: false,
            end: End::Complete(None),
            last_words: String::new(),
            usage: Usage::default(),
        },
        start: now,
        since: now,
        looks: Vec::new(),
        closed: None,
        ended: None,
        done: None,
        sanitizer: None,
    };
    watch.attempt.end = loop {
        if interrupted.load(Ordering::Relaxed) {
            break End::Interrupted;
        }
        if let Some(end) = watch.step() {
            break end;
        }
    };
    Ok(watch.finish())
}

/// Those of the checks that can have one start with the first: some need the device in a slot, and the others do not get one.
fn alike(target: &Target, checks: &[&'static Check]) -> Vec<&'static Check> {
    let has_slot = target.template.card(&target.values).is_some();
    let first = checks.first().is_some_and(|check| needs_slot(check));
    checks.iter().copied().filter(|check| !has_slot || needs_slot(check) == first).collect()
}

impl Watch<'_> {
    /// Takes the next event, or polls the process. Returns the end, if this is it.
    fn step(&mut self) -> Option<End> {
        match self.vmm.next(GLANCE) {
            Some(News::Said(said)) => {
                if let Some(end) = self.hear(said) {
                    return Some(end);
                }
            }
            Some(News::Closed) => self.closed = self.closed.or(Some(Instant::now())),
            Some(News::Sanitizer(report)) => {
                self.sanitizer.get_or_insert((self.attempt.running.or(self.last()), report));
            }
            None => {
                // Without readers the channel is closed and does not wait.
                if self.closed.is_some() {
                    std::thread::sleep(GLANCE / 10);
                }
            }
        }
        self.look()
    }

    fn hear(&mut self, said: Said) -> Option<End> {
        match said {
            Said::Started { name } => {
                self.attempt.began = true;
                if let Some(check) = self.pending(&name) {
                    (self.progress)(check.name);
                    self.attempt.running = Some(check);
                    self.begin();
                }
            }
            Said::Ended(event) => self.end_check(event),
            Said::Host { action, target } => self.serve(&action, target),
            Said::Summary { ended } => {
                self.done = Some(Instant::now());
                self.attempt.end = End::Complete(ended);
            }
            Said::Crashed(how) => return Some(End::Down(Verdict::Crashed, how)),
            Said::Lost(_) | Said::Alive => {}
        }
        None
    }

    /// The wanted check of this name. One that has ended counts once more only for another device, of which there are
    /// few: a flood of events neither fills memory nor passes for progress.
    fn pending(&self, name: &str) -> Option<&'static Check> {
        let ended = self.attempt.records.iter().filter(|record| record.check.name == name).count();
        self.attempt.wanted.iter().copied().find(|check| check.name == name && ended < DEVICES)
    }

    /// Does what a check asks the host for. Meanwhile its time stands still.
    fn serve(&mut self, action: &str, target: Option<u64>) {
        if let Err(failure) = self.act(action, target) {
            self.undone = Some(format!("the host could not `{action}`: {failure}"));
        }
        self.begin();
    }

    fn act(&mut self, word: &str, target: Option<u64>) -> Outcome {
        let action = HostAction::from_word(word).ok_or("this program knows no such action")?;
        let control = self.control.as_mut().ok_or("the VMM has no control socket")?;
        if action != HostAction::Restore {
            return control.act(action, target);
        }
        control.save()?;
        self.vmm.kill();
        self.vmm = Vmm::start(&control.successor(&self.words))?;
        control.go_on(target)
    }

    /// Undoes what would disturb the next check.
    fn rest(&mut self) {
        self.undone = None;
        if let Some(control) = &mut self.control {
            // Checks bear a host that goes on, and the next request tells what is wrong with the socket.
            let _ = control.rest();
        }
    }

    fn begin(&mut self) {
        self.since = Instant::now();
        self.looks.clear();
    }

    fn end_check(&mut self, event: CheckEvent) {
        let Some(check) = self.pending(&event.name) else { return };
        // A hostile check has more verdicts. Only the guest's own are believed: those about the VMM are given here.
        let word = event.verdict.as_deref().and_then(Verdict::from_word);
        let said = |from, to| word.filter(|verdict| (from..=to).contains(verdict)).unwrap_or(from);
        let (verdict, detail) = match event {
            // The check waited for the host in vain, which it cannot know. One of hot-plug says it itself, and a failure of it
            // stands: a device that does not go when it must is not plugged in either.
            CheckEvent { ok: false, .. } if self.undone.is_some() && !needs_slot(check) => {
                (Verdict::Trouble, self.undone.take())
            }
            CheckEvent { trouble: Some(reason), .. } => (Verdict::Trouble, self.undone.take().or(Some(reason))),
            CheckEvent { skipped: Some(reason), .. } => (Verdict::Skipped, Some(reason)),
            CheckEvent { ok: true, .. } => (said(Verdict::Ok, Verdict::NeedsReset), None),
            CheckEvent { detail, .. } => (said(Verdict::Failed, Verdict::Corrupted), detail),
        };
        let took = self.since.elapsed();
        self.attempt.records.push(Record { detail, device: event.device, took, ..Record::new(check, verdict) });
        self.attempt.running = None;
        self.attempt.began = true;
        self.rest();
        self.begin();
    }

    fn last(&self) -> Option<&'static Check> {
        self.attempt.records.last().map(|record| record.check)
    }

    /// Whether the process still runs and makes progress.
    fn look(&mut self) -> Option<End> {
        let now = Instant::now();
        let status = self.vmm.ended();
        if let Some(status) = status {
            // Its last output may still be in the pipe, and a child of it may hold the pipe open.
            let ended = *self.ended.get_or_insert(now);
            if self.closed.is_none() && now.duration_since(ended) < END {
                return None;
            }
            return Some(if self.done.is_some() {
                self.attempt.end.clone()
            } else {
                End::Down(Verdict::Died, format!("the VMM ended: {}", describe(status)))
            });
        }
        if self.looks.last().is_none_or(|(then, _)| now.duration_since(*then) >= GLANCE)
            && let Some(end) = self.measure(now)
        {
            return Some(end);
        }
        if self.done.is_some_and(|then| now.duration_since(then) >= END) {
            return Some(self.attempt.end.clone());
        }
        if self.done.is_none() && self.closed.is_some_and(|then| now.duration_since(then) >= END) {
            return Some(End::Down(Verdict::Hung, "the VMM closed the serial line and keeps running".into()));
        }
        let limit = if self.attempt.began { self.limits.check } else { self.limits.boot };
        let late = self.done.is_none() && now.duration_since(self.since) >= limit;
        // An endless stream of events is no progress either.
        let total = self.limits.boot + self.limits.check * u32::try_from(self.attempt.wanted.len()).unwrap_or(u32::MAX);
        if self.done.is_none() && now.duration_since(self.start) >= total {
            return Some(End::Down(Verdict::Hung, format!("the checks did not end in {:.0} s", total.as_secs_f64())));
        }
        late.then(|| End::Down(Verdict::Hung, format!("no progress in {:.1} s: {}", limit.as_secs_f64(), self.state())))
    }

    fn measure(&mut self, now: Instant) -> Option<End> {
        let used = usage(self.vmm.id());
        self.attempt.usage.rss = self.attempt.usage.rss.max(used.rss);
        self.attempt.usage.cpu = self.attempt.usage.cpu.max(used.cpu);
        self.attempt.usage.stopped = used.stopped;
        self.looks.push((now, used.cpu));
        // One poll from before the window is kept.
        while self.looks.get(1).is_some_and(|(then, _)| now.duration_since(*then) >= WINDOW) {
            self.looks.remove(0);
        }
        let most = self.limits.rss.filter(|most| used.rss > *most)?;
        let mib = |bytes: u64| bytes >> 20;
        Some(End::Down(
            Verdict::Hung,
            format!("the VMM uses {} MiB of memory; the limit is {} MiB", mib(used.rss), mib(most)),
        ))
    }

    /// What the VMM does instead of making progress.
    fn state(&self) -> String {
        if self.attempt.usage.stopped {
            return "the VMM is stopped by a signal".into();
        }
        let (Some(first), Some(last)) = (self.looks.first(), self.looks.last()) else {
            return "the VMM was not seen".into();
        };
        let wall = last.0.duration_since(first.0);
        let cpu = last.1.saturating_sub(first.1);
        let spins = cpu.as_secs_f64() > wall.as_secs_f64() / 2.0;
        let word = if spins { "spins" } else { "is idle" };
        format!("the VMM {word} ({:.1} s of CPU time in the last {:.1} s)", cpu.as_secs_f64(), wall.as_secs_f64())
    }

    fn finish(mut self) -> Attempt {
        self.vmm.kill();
        // Events that were under way when the end was seen; after the kill both pipes close soon.
        let deadline = Instant::now() + END;
        while let Some(news) = self.vmm.next(GLANCE) {
            // A process that left the group may hold the pipes, and flood them.
            if Instant::now() > deadline {
                break;
            }
            match news {
                News::Said(Said::Ended(event)) => self.end_check(event),
                News::Said(Said::Started { name }) => {
                    self.attempt.running = self.pending(&name).or(self.attempt.running);
                }
                News::Sanitizer(report) => {
                    self.sanitizer.get_or_insert((self.attempt.running.or(self.last()), report));
                }
                _ => {}
            }
        }
        if let (End::Down(_, how), Some(undone)) = (&mut self.attempt.end, self.undone.take()) {
            *how = format!("{how}; {undone}");
        }
        let mut words = self.vmm.last_words();
        if let (End::Down(Verdict::Died, how), Some(error)) = (&mut self.attempt.end, self.vmm.last_error()) {
            // Often a failed assertion.
            *how = format!("{how}: {error}");
            words.truncate(words.trim_end_matches(&error).trim_end().len());
        }
        self.attempt.last_words = words;
        if let Some((check, report)) = self.sanitizer.take() {
            self.convict(check, report);
        }
        self.attempt
    }

    /// A sanitizer's report outweighs everything else about a check, even that the VMM died.
    fn convict(&mut self, check: Option<&'static Check>, report: String) {
        let unfinished = self.attempt.running.map(|check| check.name) == check.map(|check| check.name);
        match (
            &mut self.attempt.end,
            self.attempt.records.iter_mut().rfind(|record| Some(record.check.name) == check.map(|check| check.name)),
        ) {
            (End::Down(verdict, how), _) if unfinished => {
                *how = format!("{report}; {how}");
                *verdict = Verdict::Sanitizer;
            }
            (_, Some(record)) => (record.verdict, record.detail) = (Verdict::Sanitizer, Some(report)),
            (end, None) => *end = End::Down(Verdict::Sanitizer, report),
        }
    }
}
