//! Verdicts: the outcome of a check as the host sees it, and the report of a whole run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ballonet_check::{Check, Severity, Tier};

/// The outcome of a check, from harmless to harmful.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// The device meets the requirement, or serves or ignores what a hostile check does.
    Ok,
    /// It refused a hostile check's write, or returned its buffer unused.
    Refused,
    /// It asked for a reset after a hostile check, and recovered.
    NeedsReset,
    /// The check does not apply to this device.
    Skipped,
    /// The tester could not check. This says nothing about the device.
    Trouble,
    /// No outcome arrived, and the VMM did not fail visibly.
    Lost,
    /// The device does not meet the requirement.
    Failed,
    /// After a hostile check some queue no longer worked, and the device did not ask for the reset that helped.
    Stalled,
    /// After a hostile check and a reset the device does not work.
    Wedged,
    /// In a hostile check it wrote where it must not.
    Corrupted,
    /// The guest kernel faulted or panicked in the check.
    Crashed,
    /// The VMM stopped making progress in the check: it spins or is silent.
    Hung,
    /// The VMM ended in the check.
    Died,
    /// A sanitizer reported a defect of the VMM in the check.
    Sanitizer,
}

impl Verdict {
    const ALL: [Self; 14] = [
        Self::Ok,
        Self::Refused,
        Self::NeedsReset,
        Self::Skipped,
        Self::Trouble,
        Self::Lost,
        Self::Failed,
        Self::Stalled,
        Self::Wedged,
        Self::Corrupted,
        Self::Crashed,
        Self::Hung,
        Self::Died,
        Self::Sanitizer,
    ];

    /// The word in every output format.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::NeedsReset => "needs-reset",
            Self::Skipped => "skipped",
            Self::Trouble => "trouble",
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::Stalled => "stalled",
            Self::Wedged => "wedged",
            Self::Corrupted => "corrupted",
            Self::Crashed => "crashed",
            Self::Hung => "hung",
            Self::Died => "died",
            Self::Sanitizer => "sanitizer",
        }
    }

    /// The verdict of a word.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.word() == word)
    }

    /// How much harm was done.
    pub(crate) fn tier(self) -> Tier {
        match self {
            Self::Corrupted | Self::Sanitizer => Tier::Memory,
            Self::Crashed | Self::Hung | Self::Died => Tier::Vmm,
            Self::Wedged => Tier::Device,
            _ => Tier::None,
        }
    }

    /// Whether the device passed.
    pub(crate) fn is_fine(self) -> bool {
        self <= Self::NeedsReset
    }

    /// Whether the VMM or the guest went down. Such a verdict fails the run whatever the check's severity.
    pub(crate) fn is_down(self) -> bool {
        self >= Self::Crashed
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A check and its verdict.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// The check.
    pub(crate) check: &'static Check,
    /// The verdict.
    pub(crate) verdict: Verdict,
    /// What the device or the VMM did, or why the check was skipped.
    pub(crate) detail: Option<String>,
    /// The device's address, if the guest reported one.
    pub(crate) device: Option<String>,
    /// Host time from the check's start to its end.
    pub(crate) took: Duration,
    /// The verdicts of several runs, if they differ: `ok 2 of 3, failed 1 of 3`.
    pub(crate) flaky: Option<String>,
    /// The baseline has this failure.
    pub(crate) known: bool,
}

impl Record {
    /// A record without a detail.
    pub(crate) fn new(check: &'static Check, verdict: Verdict) -> Self {
        Self { check, verdict, detail: None, device: None, took: Duration::ZERO, flaky: None, known: false }
    }

    /// The same with a detail.
    pub(crate) fn with(check: &'static Check, verdict: Verdict, detail: String) -> Self {
        Self { detail: Some(detail), ..Self::new(check, verdict) }
    }

    /// Whether this fails a run in which failures of severity `least` and above count.
    pub(crate) fn fails(&self, least: Severity) -> bool {
        let severity = match self.verdict {
            Verdict::Failed | Verdict::Wedged | Verdict::Corrupted => self.check.severity,
            // To ask for a needed reset is a SHOULD (2.1.2).
            Verdict::Stalled => Severity::Should,
            verdict => return verdict.is_down(),
        };
        rank(severity) >= rank(least)
    }
}

/// How binding a severity is.
pub(crate) const fn rank(severity: Severity) -> u8 {
    match severity {
        Severity::Custom => 0,
        Severity::Should => 1,
        Severity::Must => 2,
    }
}

/// A whole run.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// The VMM, as `--vmm` names it.
    pub(crate) vmm: String,
    /// The profile was never tried by its authors.
    pub(crate) untested: bool,
    /// One for each selected check, in their order.
    pub(crate) records: Vec<Record>,
    /// Starts of the VMM.
    pub(crate) starts: usize,
    /// Time that all of it took.
    pub(crate) took: Duration,
    /// The largest resident memory of the VMM, in bytes.
    pub(crate) peak_rss: u64,
    /// CPU time of the VMM in all starts.
    pub(crate) cpu: Duration,
    /// Failures of this severity and above count.
    pub(crate) least: Severity,
    /// Failures of the baseline that are gone.
    pub(crate) vanished: Vec<String>,
}

/// Exit statuses. See `--help`.
pub(crate) mod status {
    /// Nothing that counts failed.
    pub(crate) const FINE: u8 = 0;
    /// A check failed.
    pub(crate) const FAILED: u8 = 1;
    /// The command line is invalid, or a file cannot be used.
    pub(crate) const USAGE: u8 = 2;
    /// Some check has no verdict.
    pub(crate) const NO_VERDICT: u8 = 3;
    /// The VMM or the guest went down in a check.
    pub(crate) const DOWN: u8 = 4;
    /// A signal ended the run.
    pub(crate) const INTERRUPTED: u8 = 130;
}

impl Report {
    /// How often each verdict was given, from harmless to harmful.
    pub(crate) fn counts(&self) -> BTreeMap<Verdict, usize> {
        let mut counts = BTreeMap::new();
        for record in &self.records {
            *counts.entry(record.verdict).or_default() += 1;
        }
        counts
    }

    /// The records that fail the run: neither known nor below the severity that counts.
    pub(crate) fn failures(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| record.fails(self.least) && !record.known)
    }

    /// The program's exit status.
    pub(crate) fn status(&self) -> u8 {
        if self.failures().any(|record| record.verdict.is_down()) {
            status::DOWN
        } else if self.records.iter().any(|record| record.verdict == Verdict::Lost) {
            status::NO_VERDICT
        } else if self.failures().next().is_some() {
            status::FAILED
        } else {
            status::FINE
        }
    }
}

/// One report of several runs of the same checks: the worst verdict of each, marked if the runs differ.
pub(crate) fn merge(runs: Vec<Vec<Record>>) -> Vec<Record> {
    let total = runs.len();
    let mut columns: Vec<Vec<Record>> = Vec::new();
    for run in runs {
        for (place, record) in run.into_iter().enumerate() {
            match columns.get_mut(place) {
                Some(column) => column.push(record),
                None => columns.push(vec![record]),
            }
        }
    }
    columns.into_iter().filter_map(|column| worst(column, total)).collect()
}

fn worst(column: Vec<Record>, total: usize) -> Option<Record> {
    let mut counts: BTreeMap<Verdict, usize> = BTreeMap::new();
    for record in &column {
        *counts.entry(record.verdict).or_default() += 1;
    }
    let words: Vec<String> = counts.iter().map(|(verdict, count)| format!("{verdict} {count} of {total}")).collect();
    let mut record = column.into_iter().max_by_key(|record| record.verdict)?;
    record.flaky = (counts.len() > 1).then(|| words.join(", "));
    Some(record)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ballonet_check::checks;

    /// A report of these verdicts, on the first checks of MUSTs.
    pub(crate) fn report(verdicts: &[Verdict]) -> Report {
        let musts = checks().filter(|check| check.severity == Severity::Must);
        let records = musts.zip(verdicts).map(|(check, verdict)| Record::new(check, *verdict)).collect();
        Report {
            vmm: "qemu".into(),
            untested: false,
            records,
            starts: 1,
            took: Duration::from_secs(1),
            peak_rss: 0,
            cpu: Duration::ZERO,
            least: Severity::Must,
            vanished: Vec::new(),
        }
    }

    #[test]
    fn the_worst_verdict_decides_the_status() {
        use Verdict::{Corrupted, Crashed, Died, Failed, Hung, Lost, NeedsReset, Ok, Refused, Sanitizer, Skipped};
        use Verdict::{Stalled, Trouble, Wedged};
        for (verdicts, status) in [
            (&[Ok, Skipped, Trouble][..], status::FINE),
            (&[Ok, Failed], status::FAILED),
            (&[Failed, Lost], status::NO_VERDICT),
            (&[Failed, Lost, Died], status::DOWN),
            (&[Refused, NeedsReset, Stalled], status::FINE),
            (&[Wedged], status::FAILED),
            (&[Corrupted], status::FAILED),
            (&[Hung], status::DOWN),
            (&[Crashed], status::DOWN),
            (&[Sanitizer], status::DOWN),
            (&[], status::FINE),
        ] {
            assert_eq!(report(verdicts).status(), status, "{verdicts:?}");
        }
    }

    #[test]
    fn severity_decides_what_counts() {
        let should = checks().find(|check| check.severity == Severity::Should).expect("one is a SHOULD");
        let record = Record::new(should, Verdict::Failed);
        assert!(!record.fails(Severity::Must) && record.fails(Severity::Should) && record.fails(Severity::Custom));
        assert!(Record::new(should, Verdict::Died).fails(Severity::Must));
        let must = checks().find(|check| check.severity == Severity::Must).expect("one is a MUST");
        let stalled = Record::new(must, Verdict::Stalled);
        assert!(!stalled.fails(Severity::Must) && stalled.fails(Severity::Should));
    }

    #[test]
    fn known_failures_do_not_count() {
        let mut known = report(&[Verdict::Died, Verdict::Failed]);
        known.records.iter_mut().for_each(|record| record.known = true);
        assert_eq!(known.status(), status::FINE);
    }

    #[test]
    fn runs_that_differ_are_flaky() {
        let run = |verdict| report(&[Verdict::Ok, verdict]).records;
        let merged = merge(vec![run(Verdict::Ok), run(Verdict::Failed), run(Verdict::Ok)]);
        assert_eq!((merged[0].verdict, merged[0].flaky.as_deref()), (Verdict::Ok, None));
        assert_eq!(
            (merged[1].verdict, merged[1].flaky.as_deref()),
            (Verdict::Failed, Some("ok 2 of 3, failed 1 of 3"))
        );
    }

    #[test]
    fn words_read_back() {
        for verdict in Verdict::ALL {
            assert_eq!(Verdict::from_word(verdict.word()), Some(verdict));
        }
        assert_eq!(Verdict::from_word("fine"), None);
    }
}
