//! The guest's serial port: the lines written by the guest, with times, and a way to type.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{ChildStdin, ChildStdout};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::failure::Outcome;
use super::runner::Deadline;

/// A line from the guest, without its line ending.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Time since QEMU was started.
    pub(crate) after: Duration,
    /// What the line says.
    pub(crate) text: String,
}

#[derive(Default)]
struct Record {
    lines: Vec<Line>,
    ended: bool,
}

/// The serial port. A thread reads it all the time, so that the guest never waits for the test.
pub(crate) struct Serial {
    record: Arc<(Mutex<Record>, Condvar)>,
    keyboard: ChildStdin,
    /// Number of lines that the test has taken.
    seen: usize,
}

impl Serial {
    /// Starts reading the guest's output.
    pub(crate) fn new(screen: ChildStdout, keyboard: ChildStdin) -> Self {
        let record = Arc::new((Mutex::new(Record::default()), Condvar::new()));
        let writer = Arc::clone(&record);
        thread::spawn(move || keep(screen, &writer));
        Self { record, keyboard, seen: 0 }
    }

    /// Types a line.
    pub(crate) fn type_line(&mut self, line: &str) -> Outcome {
        self.type_keys(&format!("{line}\r"))
    }

    /// Types keys unchanged.
    pub(crate) fn type_keys(&mut self, keys: &str) -> Outcome {
        self.keyboard.write_all(keys.as_bytes())?;
        Ok(self.keyboard.flush()?)
    }

    /// The next line that the test has not taken; `None` once QEMU has closed the port and no line is left.
    pub(crate) fn next_line(&mut self, deadline: Deadline) -> Outcome<Option<Line>> {
        let (lock, changed) = &*self.record;
        let mut record = locked(lock);
        loop {
            if let Some(line) = record.lines.get(self.seen) {
                self.seen += 1;
                return Ok(Some(line.clone()));
            }
            if record.ended {
                return Ok(None);
            }
            record = changed.wait_timeout(record, deadline.wait()?).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The last `count` lines, taken or not.
    pub(crate) fn tail(&self, count: usize) -> Vec<Line> {
        let record = locked(&self.record.0);
        record.lines[record.lines.len().saturating_sub(count)..].to_vec()
    }

    /// Every line so far, taken or not.
    pub(crate) fn all(&self) -> Vec<Line> {
        self.tail(usize::MAX)
    }
}

fn keep(screen: impl Read, record: &(Mutex<Record>, Condvar)) {
    let start = Instant::now();
    let mut screen = BufReader::new(screen);
    let mut bytes = Vec::new();
    while screen.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
        let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned();
        bytes.clear();
        locked(&record.0).lines.push(Line { after: start.elapsed(), text });
        record.1.notify_all();
    }
    locked(&record.0).ended = true;
    record.1.notify_all();
}

/// Even a reader that panicked has left only whole lines.
fn locked(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}
