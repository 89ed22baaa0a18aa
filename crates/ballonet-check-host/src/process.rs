//! A VMM that runs: its process group, its outputs as events, and what `/proc` says of it.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::failure::Outcome;
use crate::guard::Guard;
use crate::serial::{Lines, Said, parse, shorten};

/// Events that may queue up. A VMM that sends more has to wait.
const WAITING: usize = 256;
/// Lines of each output that are kept for a report.
const TAIL: usize = 12;
/// Time for the other reader to catch up.
const GRACE: Duration = Duration::from_millis(10);
/// Bytes of a kept line.
const TAIL_LINE: usize = 400;

/// What comes from a VMM.
#[derive(Debug)]
pub(crate) enum News {
    /// The guest says something.
    Said(Said),
    /// The serial line is closed.
    Closed,
    /// A sanitizer reports.
    Sanitizer(String),
}

/// The last lines of an output.
type Tail = Arc<Mutex<VecDeque<String>>>;

/// A running VMM. It ends with this value, and so does every process that it started in its group.
pub(crate) struct Vmm {
    child: Child,
    guard: Option<Guard>,
    news: Receiver<News>,
    stdout: Tail,
    stderr: Tail,
}

/// What a process group has used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// CPU time so far.
    pub(crate) cpu: Duration,
    /// Resident memory in bytes.
    pub(crate) rss: u64,
    /// A process is stopped by a signal.
    pub(crate) stopped: bool,
}

impl Vmm {
    /// Starts this command.
    pub(crate) fn start(words: &[String]) -> Outcome<Self> {
        let (program, arguments) = words.split_first().ok_or("--vmm: an empty command")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().map_err(|error| format!("cannot start `{program}`: {error}"))?;
        let guard = Some(Guard::over(child.id()));
        let (sender, news) = sync_channel(WAITING);
        let (stdout, stderr) = (Tail::default(), Tail::default());
        if let Some(output) = child.stdout.take() {
            let (tail, sender) = (Arc::clone(&stdout), sender.clone());
            thread::spawn(move || listen(output, &tail, &sender));
        }
        if let Some(errors) = child.stderr.take() {
            let tail = Arc::clone(&stderr);
            thread::spawn(move || watch_errors(errors, &tail, &sender));
        }
        Ok(Self { child, guard, news, stdout, stderr })
    }

    /// The next event, if one comes within `patience`.
    pub(crate) fn next(&self, patience: Duration) -> Option<News> {
        self.news.recv_timeout(patience).ok()
    }

    /// The status, once the VMM has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Process id, which is that of the group too.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The last lines of standard error, or else of the serial line, for a report.
    pub(crate) fn last_words(&self) -> String {
        let errors = lines(&self.stderr);
        let said = if errors.is_empty() { lines(&self.stdout) } else { errors };
        said.join("\n")
    }

    /// The last line of standard error.
    pub(crate) fn last_error(&self) -> Option<String> {
        lines(&self.stderr).pop()
    }

    /// Ends the whole group.
    pub(crate) fn kill(&mut self) {
        // Before the group's number is free for others.
        self.guard = None;
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How a process ended, in words.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) if code > 128 && signal_name(code - 128).is_some() => {
            format!("exit status {code} (128 + {}, as a shell reports it)", signal_name(code - 128).unwrap_or_default())
        }
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!(
            "killed by signal {signal}{}",
            signal_name(signal).map(|name| format!(" ({name})")).unwrap_or_default()
        ),
        _ => "ended".into(),
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    let names = [
        (1, "SIGHUP"),
        (2, "SIGINT"),
        (3, "SIGQUIT"),
        (4, "SIGILL"),
        (5, "SIGTRAP"),
        (6, "SIGABRT"),
        (7, "SIGBUS"),
        (8, "SIGFPE"),
        (9, "SIGKILL"),
        (11, "SIGSEGV"),
        (13, "SIGPIPE"),
        (15, "SIGTERM"),
        (31, "SIGSYS"),
    ];
    names.into_iter().find(|(number, _)| *number == signal).map(|(_, name)| name)
}

/// What the processes of a group use; those that have ended no longer count.
pub(crate) fn usage(group: u32) -> Usage {
    let mut total = Usage::default();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(|digit: char| digit.is_ascii_digit()) {
            continue;
        }
        let Ok(text) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((state, usage)) = parse_stat(&text, group) else { continue };
        total.stopped |= state == "T" || state == "t";
        total.cpu += usage.cpu;
        total.rss += usage.rss;
    }
    total
}

/// State and usage in a line of `/proc/PID/stat`, if the process is of this group (proc(5)).
fn parse_stat(text: &str, group: u32) -> Option<(&str, Usage)> {
    // The name before it may have spaces and parentheses.
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Field 3 of the manual page is the first here.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    if number(5)? != u64::from(group) {
        return None;
    }
    let ticks = number(14)?.checked_add(number(15)?)?;
    let cpu = Duration::from_millis(ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1));
    let rss = number(24)?.saturating_mul(rustix::param::page_size() as u64);
    Some((fields.first()?, Usage { cpu, rss, stopped: false }))
}

fn read(mut source: impl Read, tail: &Tail, mut take: impl FnMut(&[u8]) -> bool) {
    let mut lines = Lines::default();
    let mut bytes = [0; 16 * 1024];
    let mut goes_on = true;
    while goes_on {
        let count = match source.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        lines.push(&bytes[..count], |line| {
            keep(tail, line);
            goes_on &= take(line);
        });
    }
}

fn lines(tail: &Tail) -> Vec<String> {
    tail.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

fn keep(tail: &Tail, line: &[u8]) {
    let text = String::from_utf8_lossy(&line[..line.len().min(TAIL_LINE)]);
    let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
    if tail.len() == TAIL {
        tail.pop_front();
    }
    tail.push_back(shorten(text.trim_end(), TAIL_LINE));
}

/// Reads the serial line until it is closed or the receiver is gone.
fn listen(output: impl Read, tail: &Tail, news: &SyncSender<News>) {
    let mut wanted = true;
    read(output, tail, |line| {
        if let Some(said) = parse(line) {
            wanted = news.send(News::Said(said)).is_ok();
        }
        wanted
    });
    let _ = news.send(News::Closed);
}

/// Reads standard error, for sanitizers.
fn watch_errors(errors: impl Read, tail: &Tail, news: &SyncSender<News>) {
    read(errors, tail, |line| {
        let text = String::from_utf8_lossy(&line[..line.len().min(TAIL_LINE)]);
        if !is_sanitizer(&text) {
            return true;
        }
        // The two outputs are read separately, and the start of the check concerned may not have been read yet.
        thread::sleep(GRACE);
        news.send(News::Sanitizer(shorten(text.trim(), TAIL_LINE))).is_ok()
    });
}

/// Whether a line is the first of a report by a sanitizer of LLVM or GCC.
fn is_sanitizer(line: &str) -> bool {
    let named =
        ["AddressSanitizer", "ThreadSanitizer", "MemorySanitizer", "LeakSanitizer", "UndefinedBehaviorSanitizer"];
    let headed = line.contains("ERROR: ") || line.contains("WARNING: ");
    headed && named.iter().any(|name| line.contains(name)) || line.contains(": runtime error: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sanitizers_are_known_by_their_first_line() {
        for line in [
            "==7==ERROR: AddressSanitizer: heap-use-after-free on address 0x1",
            "WARNING: ThreadSanitizer: data race (pid=7)",
            "hw/virtio.c:10:3: runtime error: shift exponent 64 is too large",
        ] {
            assert!(is_sanitizer(line), "{line}");
        }
        assert!(!is_sanitizer("SUMMARY: AddressSanitizer: heap-use-after-free"), "once a report");
        assert!(!is_sanitizer("qemu: warning: no such thing"));
    }

    #[test]
    fn a_status_names_its_signal() {
        assert_eq!(describe(ExitStatus::from_raw(9)), "killed by signal 9 (SIGKILL)");
        assert_eq!(describe(ExitStatus::from_raw(3 << 8)), "exit status 3");
        assert!(describe(ExitStatus::from_raw(139 << 8)).contains("SIGSEGV"));
    }

    #[test]
    fn stat_is_read_whatever_the_name() {
        let line = "7 (a ) b) T 1 42 42 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 9 1000 3 0";
        let (state, usage) = parse_stat(line, 42).expect("it is of the group");
        assert_eq!((state, usage.cpu), ("T", Duration::from_millis(200_000 / rustix::param::clock_ticks_per_second())));
        assert_eq!(usage.rss, 3 * rustix::param::page_size() as u64);
        assert!(parse_stat(line, 43).is_none() && parse_stat("", 42).is_none());
    }

    #[test]
    fn a_group_that_is_gone_uses_nothing() {
        let usage = usage(u32::MAX);
        assert!(!usage.stopped && usage.rss == 0);
    }
}
