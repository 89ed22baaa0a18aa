//! The last duration of each test, to estimate a run. Nothing else depends on this record.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// The estimate for a test that has not run yet.
const UNKNOWN: Duration = Duration::from_millis(2_500);

/// The durations of a program's tests, on the tests' clock.
#[derive(Debug, Default)]
pub(crate) struct Durations {
    file: Option<PathBuf>,
    known: BTreeMap<String, Duration>,
}

impl Durations {
    /// Reads the durations from a file, if it exists.
    pub(crate) fn load(file: PathBuf) -> Self {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let known = text.lines().filter_map(|line| {
            let (milliseconds, name) = line.split_once(' ')?;
            Some((name.to_owned(), Duration::from_millis(milliseconds.parse().ok()?)))
        });
        Self { known: known.collect(), file: Some(file) }
    }

    pub(crate) fn expected(&self, name: &str) -> Duration {
        self.known.get(name).copied().unwrap_or(UNKNOWN)
    }

    pub(crate) fn record(&mut self, name: &str, duration: Duration) {
        self.known.insert(name.to_owned(), duration);
    }

    /// Writes them to their file. If that fails, only the next run's estimate is worse.
    pub(crate) fn save(&self) {
        let lines: String =
            self.known.iter().map(|(name, duration)| format!("{} {name}\n", duration.as_millis())).collect();
        if let Some(file) = &self.file {
            let _ = fs::write(file, lines);
        }
    }
}
