//! The output of a run of tests.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::arguments::{Arguments, SUITE};
use super::trial::{Completion, Failed, Verdict};
use super::{Conclusion, clock};

/// When a slow test is first mentioned, and how often after that.
const LONG: Duration = Duration::from_secs(60);

/// The weight of the initial estimate, in tests.
const EVIDENCE: f64 = 4.0;

/// Writes the lines.
pub(crate) struct Report<W: Write> {
    out: W,
    quiet: bool,
    show_output: bool,
    threads: usize,
    start: Instant,
    /// The expected time of each test on an idle machine.
    expected: Vec<Duration>,
    /// Expected and actual time of the finished tests, in seconds.
    over: (f64, f64),
    done: usize,
    total: usize,
    /// Whether this is the second run of failed tests.
    is_again: bool,
    /// When each slow test was last mentioned.
    spoken: BTreeMap<String, Duration>,
    failures: Vec<(String, String)>,
    /// Tests that passed the second time, with their first failures.
    proved_alone: Vec<String>,
    reasons: BTreeMap<String, usize>,
}

impl<W: Write> Report<W> {
    pub(crate) fn new(out: W, arguments: &Arguments, threads: usize, expected: Vec<Duration>) -> Self {
        Self {
            out,
            quiet: arguments.quiet,
            show_output: arguments.show_output,
            threads: threads.max(1),
            start: Instant::now(),
            total: expected.len(),
            expected,
            over: (0.0, 0.0),
            done: 0,
            is_again: false,
            spoken: BTreeMap::new(),
            failures: Vec::new(),
            proved_alone: Vec::new(),
            reasons: BTreeMap::new(),
        }
    }

    /// The first line: what will run, and for how long.
    pub(crate) fn begin(&mut self, count: usize, left_out: usize) -> io::Result<()> {
        let tests = if count == 1 { "test" } else { "tests" };
        write!(self.out, "\nrunning {count} {tests}")?;
        if left_out > 0 {
            write!(self.out, " of the short suite")?;
        }
        let threads = self.threads.min(count.max(1));
        writeln!(self.out, ", {threads} at a time, for about {}", rough(self.remaining()))?;
        self.out.flush()
    }

    /// Estimates the remaining time from the finished tests.
    fn remaining(&self) -> Duration {
        let all: f64 = self.expected.iter().map(Duration::as_secs_f64).sum();
        let (expected, taken) = self.over;
        // The ratio of actual to expected time; initially from the machine's speed.
        let prior = EVIDENCE * (all / self.total.max(1) as f64);
        let factor = if prior > 0.0 { (prior * clock::pace() + taken) / (prior + expected) } else { 1.0 };
        Duration::from_secs_f64((all - expected).max(0.0) * factor / self.threads as f64)
    }

    /// `[ 12/412  1:40 of ~5:20]`
    fn place(&self) -> String {
        let width = self.total.to_string().len();
        let elapsed = self.start.elapsed();
        let (done, total, now) = (self.done, self.total, minutes(elapsed));
        if self.is_again {
            return format!("[again {done:>width$}/{total}  {now}]");
        }
        format!("[{done:>width$}/{total}  {now} of ~{}]", minutes(elapsed + self.remaining()))
    }

    fn over(&mut self, index: usize, verdict: &Verdict) {
        self.done += 1;
        if let (false, Some(expected)) = (self.is_again, self.expected.get(index)) {
            self.over.0 += expected.as_secs_f64();
            self.over.1 += verdict.took.as_secs_f64();
        }
    }

    /// The line of a finished test, and why it failed if it did.
    pub(crate) fn verdict(&mut self, index: usize, name: &str, verdict: &Verdict) -> io::Result<()> {
        self.over(index, verdict);
        let place = self.place();
        let took = verdict.took.as_secs_f64();
        match &verdict.result {
            Ok(completion) => {
                let outcome = match completion {
                    Completion::Completed => "ok".to_owned(),
                    Completion::Ignored(reason) => {
                        *self.reasons.entry(reason.clone()).or_default() += 1;
                        format!("ignored, {reason}")
                    }
                };
                if !self.quiet {
                    writeln!(self.out, "{place} test {name} ... {outcome} ({took:.1} s)")?;
                }
                if self.show_output && !verdict.notes.is_empty() {
                    write!(self.out, "{}", verdict.notes)?;
                }
            }
            Err(failed) => {
                let mut details = failed.0.trim_end().to_owned();
                if !verdict.notes.is_empty() {
                    details += &format!("\nIts notes:\n{}", verdict.notes.trim_end());
                }
                let again = if self.is_again { ", and alone too" } else { "" };
                writeln!(self.out, "{place} test {name} ... FAILED{again} ({took:.1} s)\n{details}\n")?;
                self.failures.push((name.to_owned(), details));
            }
        }
        self.out.flush()
    }

    /// The line of a failure that is no verdict yet.
    pub(crate) fn doubted(&mut self, index: usize, name: &str, verdict: &Verdict) -> io::Result<()> {
        self.over(index, verdict);
        let place = self.place();
        let doubt = verdict.doubt.as_deref().unwrap_or("no reason given");
        let took = verdict.took.as_secs_f64();
        writeln!(self.out, "{place} test {name} ... not proved: {doubt}; will be tried again, alone ({took:.1} s)")?;
        self.out.flush()
    }

    /// Begins the second run.
    pub(crate) fn retries(&mut self, count: usize) -> io::Result<()> {
        writeln!(self.out, "\ntrying {count} again, alone")?;
        self.is_again = true;
        self.done = 0;
        self.total = count;
        // The time of a test that runs alone is not known.
        self.expected.clear();
        self.out.flush()
    }

    /// Notes a test that passed after it had failed with `first`.
    pub(crate) fn proved_alone(&mut self, name: &str, first: &Failed) {
        self.proved_alone.push(format!("{name} (first: {})", first.0.lines().next().unwrap_or_default()));
    }

    /// Mentions slow tests.
    pub(crate) fn still_running<'a>(&mut self, tests: impl Iterator<Item = (&'a str, Duration)>) -> io::Result<()> {
        for (name, since) in tests {
            let spoken = self.spoken.entry(name.to_owned()).or_default();
            if since >= *spoken + LONG {
                *spoken += LONG;
                let seconds = spoken.as_secs();
                let place = self.place();
                writeln!(self.out, "{place} test {name} has been running for over {seconds} s")?;
            }
        }
        self.out.flush()
    }

    /// Prints the failures again, notes on the other tests, and libtest's last line.
    pub(crate) fn end(&mut self, conclusion: &Conclusion) -> io::Result<()> {
        if !self.failures.is_empty() {
            writeln!(self.out, "\nfailures:\n")?;
            for (name, details) in &self.failures {
                writeln!(self.out, "---- {name} ----\n{details}\n")?;
            }
            writeln!(self.out, "failures:")?;
            for (name, _) in &self.failures {
                writeln!(self.out, "    {name}")?;
            }
        }
        writeln!(self.out)?;
        for test in &self.proved_alone {
            writeln!(self.out, "passed when tried again, alone: {test}")?;
        }
        for (reason, count) in &self.reasons {
            writeln!(self.out, "ignored: {count}, {reason}")?;
        }
        if conclusion.left_out > 0 {
            let count = conclusion.left_out;
            writeln!(self.out, "not in the short suite: {count}; everything runs by `{SUITE}=all cargo test`")?;
        }
        writeln!(
            self.out,
            "test result: {}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
            if conclusion.failed == 0 { "ok" } else { "FAILED" },
            conclusion.passed,
            conclusion.failed,
            conclusion.ignored,
            conclusion.filtered_out,
            self.start.elapsed().as_secs_f64(),
        )?;
        self.out.flush()
    }
}

/// `1:40`, and `1:02:03` from an hour on.
pub(crate) fn minutes(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// `40 seconds`, `5 minutes`.
fn rough(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..100 => format!("{} seconds", seconds.max(1).next_multiple_of(if seconds < 10 { 1 } else { 10 })),
        seconds => format!("{} minutes", (seconds + 30) / 60),
    }
}
