//! A progress bar, on a terminal only.

use std::io::{IsTerminal as _, stderr};

use indicatif::{ProgressBar, ProgressStyle};

use crate::verdict::Record;

/// Shows how far a run is.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A bar for `total` verdicts, if standard error is a terminal and `wanted`.
    pub(crate) fn new(total: usize, wanted: bool) -> Self {
        if !wanted || !stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new(total as u64);
        let style = ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {pos}/{len} {msg}");
        Self(style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style)))
    }

    /// A check begins.
    pub(crate) fn check(&self, name: &str) {
        self.0.set_message(name.to_owned());
        self.0.inc(1);
    }

    /// These verdicts stand.
    pub(crate) fn verdicts<'r>(&self, records: impl Iterator<Item = &'r Record>) {
        let mut count = 0;
        for record in records {
            count += 1;
            if record.verdict.is_down() {
                self.0.set_message(format!("{} {}", record.check.name, record.verdict));
            }
        }
        self.0.set_position(count);
    }

    /// A verdict of an isolated run.
    pub(crate) fn verdict(&self, record: &Record) {
        self.0.set_message(format!("{} {}", record.check.name, record.verdict));
    }

    /// Another run of the same checks begins.
    pub(crate) fn restart(&self, number: usize, total: usize) {
        self.0.set_position(0);
        if total > 1 {
            self.0.set_prefix(format!("{number}/{total}"));
        }
    }

    /// Removes the bar.
    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}
