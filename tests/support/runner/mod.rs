//! Runs a program's tests in parallel. It takes libtest's options and prints libtest's last line. It also reports how
//! many tests will run, the estimated time, how long each took, and, at once, why one failed.
//!
//! A failure that the machine may have caused ([`doubt`]) is no verdict: the test runs again, alone, after all
//! others. That run decides, and the output says so.

mod arguments;
pub(crate) mod clock;
mod deadline;
mod durations;
mod report;
mod trial;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

pub(crate) use arguments::{Arguments, Suite};
pub(crate) use deadline::Deadline;
pub(crate) use durations::Durations;
use report::Report;
use trial::Verdict;
pub(crate) use trial::{Completion, Failed, Trial, doubt, note, overload};

/// Exit statuses: tests failed; invalid command line.
const FAILED: u8 = 101;
const MISUSED: u8 = 2;

/// The most tests that run again. If more fail, lack of time is not the cause.
const RETRIES: usize = 8;

/// How often to check for tests that take long.
const TICK: Duration = Duration::from_secs(1);

/// Free memory that each test should find, in KiB.
const MEMORY_OF_A_TEST: u64 = 1 << 20;

/// Which tests run, and how.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) arguments: Arguments,
    /// Tests in parallel.
    pub(crate) threads: usize,
    pub(crate) durations: Durations,
    /// Whether any failure on an overloaded machine is in doubt.
    pub(crate) doubts_load: bool,
}

/// The result of a run.
#[derive(Debug, Default)]
pub(crate) struct Conclusion {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) ignored: usize,
    pub(crate) filtered_out: usize,
    /// Tests filtered out because they are not in the short suite.
    pub(crate) left_out: usize,
}

impl Conclusion {
    pub(crate) fn exit_code(&self) -> u8 {
        if self.failed == 0 { 0 } else { FAILED }
    }
}

/// The body of a test program: parses the command line, gets the tests, and runs the selected ones. `program` names
/// the record of durations.
pub(crate) fn main(program: &str, trials: impl FnOnce(&Arguments) -> Vec<Trial>) -> ExitCode {
    let arguments = match Arguments::of_process().and_then(|arguments| patience_of_process().map(|_| arguments)) {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("{program}: {why}; see --help");
            return MISUSED.into();
        }
    };
    if arguments.help {
        print!("{}", arguments::USAGE);
        return ExitCode::SUCCESS;
    }
    let trials = trials(&arguments);
    let durations = Durations::load(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("durations-{program}")));
    let threads = arguments.threads.unwrap_or_else(default_threads);
    let mut plan = Plan { threads, arguments, durations, doubts_load: true };
    let outcome = if plan.arguments.list {
        list(&plan, &trials, &mut io::stdout())
    } else {
        run(&mut plan, trials, io::stdout())
    };
    match outcome {
        Ok(conclusion) => conclusion.exit_code().into(),
        Err(error) => {
            eprintln!("{program}: {error}");
            FAILED.into()
        }
    }
}

/// The factor for every limit, from `BALLONET_PATIENCE`.
pub(crate) fn patience() -> f64 {
    static PATIENCE: OnceLock<f64> = OnceLock::new();
    // A program with a bad value has already reported it and ended.
    *PATIENCE.get_or_init(|| patience_of_process().unwrap_or(1.0))
}

fn patience_of_process() -> Result<f64, String> {
    env::var("BALLONET_PATIENCE").map_or(Ok(1.0), |text| parse_patience(&text))
}

pub(crate) fn parse_patience(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (1.0..=100.0).contains(number));
    number.ok_or_else(|| format!("BALLONET_PATIENCE={text}: a number from 1 to 100 is needed"))
}

/// One per CPU, as far as memory allows.
fn default_threads() -> usize {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(available_memory);
    memory.map_or(cpus, |kib| cpus.min((kib / MEMORY_OF_A_TEST) as usize).max(1))
}

/// In KiB, from the text of `/proc/meminfo`.
pub(crate) fn available_memory(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Prints the names of the tests that the arguments choose.
pub(crate) fn list(plan: &Plan, trials: &[Trial], out: &mut dyn Write) -> io::Result<Conclusion> {
    for trial in trials.iter().filter(|trial| is_chosen(plan, trial)) {
        writeln!(out, "{}: test", trial.name)?;
    }
    Ok(Conclusion::default())
}

fn is_chosen(plan: &Plan, trial: &Trial) -> bool {
    plan.arguments.choose(&trial.name) && (trial.is_ignored || !plan.arguments.ignored)
}

/// Runs the selected tests, and reports on `out`.
pub(crate) fn run(plan: &mut Plan, trials: Vec<Trial>, out: impl Write) -> io::Result<Conclusion> {
    let mut conclusion = Conclusion::default();
    let all = trials.len();
    let (wanted, ignored): (Vec<_>, Vec<_>) = trials
        .into_iter()
        .filter(|trial| is_chosen(plan, trial))
        .partition(|trial| !trial.is_ignored || plan.arguments.ignored || plan.arguments.include_ignored);
    let chosen = wanted.len();
    let short = plan.arguments.is_short();
    let wanted: Vec<_> = wanted.into_iter().filter(|trial| !short || trial.is_short).collect();
    conclusion.left_out = chosen - wanted.len();
    conclusion.ignored = ignored.len();
    conclusion.filtered_out = all - wanted.len() - ignored.len();

    let expected = wanted.iter().map(|trial| plan.durations.expected(&trial.name)).collect();
    let mut report = Report::new(out, &plan.arguments, plan.threads, expected);
    report.begin(wanted.len(), conclusion.left_out)?;
    let mut first: BTreeMap<usize, Verdict> = BTreeMap::new();
    let doubts_load = plan.doubts_load;
    batch(&wanted.iter().collect::<Vec<_>>(), plan, &mut report, &mut |report, index, name, mut verdict| {
        if verdict.doubt.is_none() && doubts_load {
            verdict.doubt = overload(verdict.took, verdict.took_idle);
        }
        if verdict.result.is_err() && verdict.doubt.is_some() && first.len() < RETRIES {
            report.doubted(index, name, &verdict)?;
            first.insert(index, verdict);
            return Ok(());
        }
        count(report, &mut conclusion, index, name, &verdict)
    })?;
    if !first.is_empty() {
        report.retries(first.len())?;
        let (again, failures): (Vec<_>, Vec<_>) =
            first.iter().map(|(index, verdict)| (&wanted[*index], &verdict.result)).unzip();
        plan.threads = 1;
        batch(&again, plan, &mut report, &mut |report, index, name, verdict| {
            if let (Ok(_), Err(failed)) = (&verdict.result, failures[index]) {
                report.proved_alone(name, failed);
            }
            count(report, &mut conclusion, index, name, &verdict)
        })?;
    }
    plan.durations.save();
    report.end(&conclusion)?;
    Ok(conclusion)
}

fn count(
    report: &mut Report<impl Write>,
    conclusion: &mut Conclusion,
    index: usize,
    name: &str,
    verdict: &Verdict,
) -> io::Result<()> {
    match &verdict.result {
        Ok(Completion::Completed) => conclusion.passed += 1,
        Ok(Completion::Ignored(_)) => conclusion.ignored += 1,
        Err(_) => conclusion.failed += 1,
    }
    report.verdict(index, name, verdict)
}

enum Message {
    Started(usize),
    Ended(usize, Verdict),
}

/// Receives the verdict on a test, with the test's index and name.
type Judge<'a, W> = dyn FnMut(&mut Report<W>, usize, &str, Verdict) -> io::Result<()> + 'a;

/// Runs tests in their order, as many in parallel as planned, and passes each verdict to `judge` as it arrives.
fn batch<W: Write>(
    trials: &[&Trial],
    plan: &mut Plan,
    report: &mut Report<W>,
    judge: &mut Judge<'_, W>,
) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel();
    let next = AtomicUsize::new(0);
    let no_capture = plan.arguments.no_capture;
    thread::scope(|scope| {
        for _ in 0..plan.threads.min(trials.len()) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(trial) = trials.get(index) else { break };
                    // The receiver is gone if the report could not be written.
                    if sender.send(Message::Started(index)).is_err() {
                        break;
                    }
                    let _ = sender.send(Message::Ended(index, trial.run(no_capture)));
                }
            });
        }
        drop(sender);
        let mut running: BTreeMap<usize, Instant> = BTreeMap::new();
        loop {
            match receiver.recv_timeout(TICK) {
                Ok(Message::Started(index)) => drop(running.insert(index, Instant::now())),
                Ok(Message::Ended(index, verdict)) => {
                    running.remove(&index);
                    let name = &trials[index].name;
                    if verdict.result.is_ok() {
                        plan.durations.record(name, verdict.took_idle);
                    }
                    judge(report, index, name, verdict)?;
                }
                Err(RecvTimeoutError::Timeout) => {
                    let slow = running.iter().map(|(index, since)| (trials[*index].name.as_str(), since.elapsed()));
                    report.still_running(slow)?;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    })
}
