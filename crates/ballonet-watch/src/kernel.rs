//! Events of a ballonet kernel on its serial line with `log=json`: one JSON object per line.

use serde_json::Value;

use crate::model::{Figure, Sample};
use crate::units::mib;

/// Bytes of a page frame.
const FRAME: u64 = 4096;

/// The newest state that the kernel has reported.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    /// An event has arrived: this is a ballonet kernel that logs JSON.
    speaks: bool,
    /// Bytes of the guest's RAM. The kernel counts what its balloon holds; the host counts what is left.
    ram: u64,
    target: Option<u64>,
    used: Option<u64>,
    free: Option<u64>,
    reported: Option<u64>,
    hinted: Option<u64>,
    kicks: Option<u64>,
    interrupts: Option<u64>,
    holds: u64,
    refused: u64,
    reclaims: u64,
    answers: u64,
    ready: bool,
}

/// An event worth showing: its kind and a short text.
pub(crate) type Notice = (&'static str, String);

impl Kernel {
    /// Records how much RAM it has, in bytes.
    pub(crate) const fn set_ram(&mut self, bytes: u64) {
        self.ram = bytes;
    }

    /// Whether the kernel has sent any event.
    pub(crate) const fn speaks(&self) -> bool {
        self.speaks
    }

    /// Whether the console takes commands: the balloon is ready, or there is none.
    pub(crate) const fn is_ready(&self) -> bool {
        self.ready
    }

    /// Number of answers to the command `mem`.
    pub(crate) const fn answers(&self) -> u64 {
        self.answers
    }

    /// How often `mem hold` has ended, in success or failure.
    pub(crate) const fn holds(&self) -> u64 {
        self.holds
    }

    /// How often the balloon gave memory back because an allocation would have failed.
    pub(crate) const fn reclaims(&self) -> u64 {
        self.reclaims
    }

    /// Number of failed allocations of `mem hold` or of a program.
    pub(crate) const fn refused(&self) -> u64 {
        self.refused
    }

    /// Records a target that the host has set; the kernel will report it later.
    pub(crate) const fn set_target(&mut self, bytes: u64) {
        self.target = Some(bytes);
    }

    /// Takes a line. Lines that are no events are ignored.
    pub(crate) fn take(&mut self, line: &str) -> Option<Notice> {
        // A reset may cut a line short; the next boot's first event then follows on the same line.
        let start = line.rfind("{\"event\"")?;
        let event: Value = serde_json::from_str(line[start..].trim_end()).ok()?;
        self.speaks = true;
        let count = |field: &str| event[field].as_u64();
        match event["event"].as_str()? {
            "memory" => {
                self.answers += 1;
                self.used = count("used").map(|frames| frames * FRAME);
                self.free = count("free").map(|frames| frames * FRAME);
                None
            }
            "stats" => {
                (self.kicks, self.interrupts) = (count("kicks"), count("interrupts"));
                // The kernel has no event for each report. The first answer is the state so far.
                let total = count("reported")? * FRAME;
                self.report(self.reported.unwrap_or(total), total)
            }
            "held" => {
                self.holds += 1;
                let reason = event["reason"].as_str()?;
                self.refused += 1;
                Some(("refused", format!("no memory: {reason}")))
            }
            "work" => self.work(&event),
            "ready" | "balloon" => {
                self.ready = true;
                self.balloon(&event)
            }
            "report" => self.report(self.reported.unwrap_or_default(), count("bytes")?),
            "hint" => {
                self.hinted = count("bytes");
                Some(("hint", format!("{} MiB hinted as free", mib(self.hinted?))))
            }
            "unhint" => {
                self.hinted = Some(0);
                None
            }
            "oom-reclaim" => {
                self.reclaims = count("reclaims").unwrap_or(self.reclaims);
                Some(("reclaim", reclaim(&event, self.ram)))
            }
            "no-device" => {
                self.ready = true;
                None
            }
            other => other_notice(other, &event),
        }
    }

    /// The total of reported bytes grows.
    fn report(&mut self, before: u64, total: u64) -> Option<Notice> {
        self.reported = Some(total);
        let more = mib(total.saturating_sub(before));
        (more > 0).then(|| ("report", format!("{more} MiB reported as free")))
    }

    fn balloon(&mut self, event: &Value) -> Option<Notice> {
        let held = |field: &str| event[field].as_u64();
        let target = self.ram.saturating_sub(held("target")?);
        let changed = match self.target.replace(target) {
            Some(before) => before != target,
            // A target that the balloon has not reached yet is new.
            None => held("target") != held("actual"),
        };
        changed.then(|| ("target", format!("target {} MiB", mib(target))))
    }

    fn work(&mut self, event: &Value) -> Option<Notice> {
        let failures = event["failures"].as_u64().unwrap_or_default();
        self.refused = self.refused.max(failures);
        let (kind, phase) = (event["kind"].as_str()?, event["phase"].as_str()?);
        let notable = matches!(phase, "ended" | "done");
        notable.then(|| ("work", format!("program {kind} is {phase}")))
    }

    /// Adds the kernel's figures to a sample.
    pub(crate) fn fill(&self, sample: &mut Sample) {
        for (figure, value) in [
            (Figure::Used, self.used),
            (Figure::Free, self.free),
            (Figure::Reported, self.reported),
            (Figure::Hinted, self.hinted),
            (Figure::Kicks, self.kicks),
            (Figure::Interrupts, self.interrupts),
        ] {
            sample.set(figure, value);
        }
        if self.speaks {
            sample.set(Figure::Target, self.target);
        }
    }
}

fn reclaim(event: &Value, ram: u64) -> String {
    let actual = ram.saturating_sub(event["actual"].as_u64().unwrap_or_default());
    match event["error"].as_str() {
        Some(error) => format!("out of memory: {error}"),
        None => format!("memory ran out: the balloon leaves {} MiB", mib(actual)),
    }
}

fn other_notice(name: &str, event: &Value) -> Option<Notice> {
    let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
    match name {
        "reset" => Some(("reset", format!("{}: {}", text("name"), text("reason")))),
        "freeze" => Some(("reset", format!("{} is frozen", text("name")))),
        "restore" => Some(("reset", format!("{} is restored", text("name")))),
        "failed" => Some(("failed", text("error"))),
        "short" => Some(("short", text("message"))),
        "silent" => Some(("failed", "the device does not complete requests".into())),
        "answers" => Some(("reset", "the device responds again".into())),
        "removed" => Some(("reset", format!("{} is unplugged", text("name")))),
        "panic" | "fault" => Some(("panic", format!("the kernel ended by a {name}: {}", text("message")))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_become_bytes() {
        let mut kernel = Kernel::default();
        assert_eq!(kernel.take(r#"{"event":"memory","ms":1.0,"total":10,"free":3,"used":5,"ballooned":2}"#), None);
        assert_eq!(kernel.take(r#"{"event":"stats","ms":1.0,"kicks":7,"interrupts":8,"reported":2}"#), None);
        let mut sample = Sample::new(0.0);
        kernel.fill(&mut sample);
        let figures = [Figure::Used, Figure::Free, Figure::Reported, Figure::Kicks, Figure::Interrupts];
        assert_eq!(figures.map(|figure| sample.get(figure)), [5 * FRAME, 3 * FRAME, 2 * FRAME, 7, 8].map(Some));
        assert!(kernel.speaks());
    }

    #[test]
    fn reports_are_events_by_the_growth_of_their_total() {
        let mut kernel = Kernel::default();
        let mut take = |reported: u64| {
            kernel.take(&format!(r#"{{"event":"stats","ms":1.0,"kicks":7,"interrupts":8,"reported":{reported}}}"#))
        };
        let frames = |mib: u64| mib * (1 << 20) / FRAME;
        assert_eq!(take(frames(100)), None, "the state so far");
        assert_eq!(take(frames(112)), Some(("report", "12 MiB reported as free".into())));
        assert_eq!(take(frames(112)), None);
        assert_eq!(take(0), None, "the guest was reset");
    }

    #[test]
    fn a_target_is_an_event_when_it_changes() {
        let mut kernel = Kernel { ram: 256 << 20, ..Kernel::default() };
        let line = |target: u64| format!(r#"{{"event":"balloon","ms":1.0,"target":{target},"actual":67108864}}"#);
        assert_eq!(kernel.take(&line(64 << 20)), None, "the first event is the initial state");
        assert_eq!(kernel.take(&line(64 << 20)), None);
        assert_eq!(kernel.take(&line(32 << 20)), Some(("target", "target 224 MiB".into())));
        let mut late = Kernel { ram: 256 << 20, ..Kernel::default() };
        assert_eq!(late.take(&line(32 << 20)), Some(("target", "target 224 MiB".into())), "the balloon is on its way");
    }

    #[test]
    fn a_hold_that_ends_early_is_refused_memory() {
        let mut kernel = Kernel::default();
        assert_eq!(kernel.take(r#"{"event":"held","ms":1.0,"bytes":1024}"#), None);
        assert_eq!((kernel.holds(), kernel.refused()), (1, 0));
        let notice = kernel.take(r#"{"event":"held","ms":1.0,"bytes":1024,"reason":"too little"}"#);
        assert_eq!(notice.map(|(kind, _)| kind), Some("refused"));
        assert_eq!((kernel.holds(), kernel.refused()), (2, 1));
    }

    #[test]
    fn lines_that_are_no_events_are_left_alone() {
        let mut kernel = Kernel::default();
        for line in ["", "Linux version 6.1", "{\"event\":", "{}", "[1]", "{\"event\":\"memory\"", "\u{fffd}"] {
            assert_eq!(kernel.take(line), None, "{line}");
        }
        assert!(!kernel.speaks());
        let torn = r#"{"event":"lo{"event":"report","ms":0.1,"name":"virtio0","bytes":2097152}"#;
        assert_eq!(kernel.take(torn), Some(("report", "2 MiB reported as free".into())));
    }
}
