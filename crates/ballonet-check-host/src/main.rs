//! `ballonet-check`: tests the virtio device of a VMM, for the CI of VMM projects.
//!
//! `profile` makes the VMM's command, `process` runs it and reads its outputs (`serial`), `guard` ends it with this program,
//! `control` does to it what checks ask the host for, `slot` lets that unplug the device, `attempt` follows one start, and
//! `suite` starts again after each culprit. `verdict` is the result, `baseline` compares it, and `format` writes it.

#![forbid(unsafe_code)]
// An ordinary program of the host.
#![allow(clippy::std_instead_of_core, clippy::alloc_instead_of_core)]

mod attempt;
mod baseline;
mod catalog;
mod cli;
mod control;
mod device;
mod failure;
mod format;
mod guard;
mod process;
mod profile;
mod progress;
mod serial;
mod slot;
mod suite;
mod verdict;

use std::fs;
use std::io::{Write as _, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ballonet_check::Check;
use clap::Parser as _;

use attempt::{Limits, Target};
use baseline::Baseline;
use cli::Cli;
use failure::{Context as _, Failure, Outcome};
use format::Format;
use guard::Guard;
use profile::{Template, Values};
use progress::Progress;
use suite::{Suite, Totals};
use verdict::{Record, Report, merge, status};

/// Why there is no report, and the exit status for that.
struct Refusal(u8, Failure);

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self(status::USAGE, failure)
    }
}

fn main() -> ExitCode {
    if Guard::is_this_process() {
        return ExitCode::SUCCESS;
    }
    match run(&Cli::parse()) {
        Ok(status) => ExitCode::from(status),
        Err(Refusal(status, failure)) => {
            eprintln!("ballonet-check: {failure}");
            ExitCode::from(status)
        }
    }
}

fn run(cli: &Cli) -> Result<u8, Refusal> {
    let checks = catalog::select(cli.checks.as_deref())?;
    if cli.list {
        print(&list(&checks))?;
        return Ok(status::FINE);
    }
    let target = target(cli)?;
    let baseline = cli.baseline.as_deref().map(Baseline::read).transpose()?;
    if let Some(path) = &cli.output {
        // A bad path shows before minutes are spent.
        fs::write(path, "").of(format_args!("--output {}", path.display()))?;
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).of("signals")?;
    }
    if !target.template.tested {
        eprintln!("ballonet-check: the profile {} is untested here: written from documentation", target.template.name);
    }
    let start = Instant::now();
    let (records, totals) =
        gather(cli, &target, &checks, &interrupted).map_err(|failure| Refusal(status::NO_VERDICT, failure))?;
    let mut report = Report {
        vmm: target.template.name.clone(),
        untested: !target.template.tested,
        records,
        starts: totals.starts,
        took: start.elapsed(),
        peak_rss: totals.peak_rss,
        cpu: totals.cpu,
        least: cli.fail_on.into(),
        vanished: Vec::new(),
    };
    if let Some(baseline) = &baseline {
        baseline.apply(&mut report);
    }
    publish(cli, &report)?;
    Ok(if interrupted.load(Ordering::Relaxed) { status::INTERRUPTED } else { report.status() })
}

/// Runs the checks as often as requested.
fn gather(
    cli: &Cli,
    target: &Target,
    checks: &[&'static Check],
    interrupted: &AtomicBool,
) -> Outcome<(Vec<Record>, Totals)> {
    let progress = Progress::new(checks.len(), !cli.quiet);
    let suite = Suite::new(target, interrupted, &progress)?;
    let mut runs = Vec::new();
    for number in 1..=usize::from(cli.repeat) {
        progress.restart(number, usize::from(cli.repeat));
        runs.push(if cli.isolate { suite.isolated(checks, usize::from(cli.jobs)) } else { suite.together(checks) }?);
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
    }
    progress.end();
    Ok((merge(runs), suite.totals()))
}

fn publish(cli: &Cli, report: &Report) -> Outcome {
    let text = format::write(report, cli.format)?;
    let Some(path) = &cli.output else { return print(&text) };
    fs::write(path, text).of(format_args!("--output {}", path.display()))?;
    print(&format::write(report, Format::Table)?)
}

/// Prints to standard output, whose reader may have gone.
fn print(text: &str) -> Outcome {
    match stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.of("standard output"),
    }
}

fn list(checks: &[&'static Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let line = |check: &&Check| {
        let chapter = catalog::chapter(check);
        format!("{:<width$}  {:<6}  {:<10}  {chapter:<12}  {}\n", check.name, check.severity, check.section, check.asks)
    };
    checks.iter().map(line).collect()
}

fn target(cli: &Cli) -> Outcome<Target> {
    let vmm = cli.vmm.as_deref().unwrap_or_default();
    let behind = if vmm == "qemu" { cli.device_type.qemu_words() } else { &[] };
    let more: Vec<String> = behind.iter().copied().map(String::from).chain(cli.vmm_arg.iter().cloned()).collect();
    let template = Template::new(vmm, cli.program.as_deref(), &more)?;
    let mut arguments = vec![format!("device={}", cli.device_type.word())];
    for word in &cli.kernel_arg {
        let key = word.split_once('=').map_or("", |(key, _)| key);
        if key.is_empty() || word.contains(char::is_whitespace) {
            return Err(format!("--kernel-arg `{word}`: not KEY=VALUE").into());
        }
        arguments.push(word.clone());
        if ["mode", "log", "checks", "host"].contains(&key) {
            return Err(format!("--kernel-arg `{word}`: this program sets `{key}` itself").into());
        }
    }
    let device = cli.device.clone().unwrap_or_else(|| cli.device_type.qemu_device().to_owned());
    let values = Values { kernel: kernel(cli.kernel.as_deref())?, memory: cli.memory, device };
    let limits =
        Limits { boot: cli.boot_timeout, check: cli.timeout, rss: cli.max_rss.map(|mib| u64::from(mib) << 20) };
    Ok(Target { template, values, arguments, limits })
}

/// The kernel's file, which is an ELF file.
fn kernel(named: Option<&Path>) -> Outcome<PathBuf> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => {
            let program = std::env::current_exe().of("this program")?;
            let beside = program.with_file_name("ballonet");
            if !beside.is_file() {
                return Err(format!("{}: not there; name the kernel by --kernel", beside.display()).into());
            }
            beside
        }
    };
    let path = fs::canonicalize(&path).of(format_args!("--kernel {}", path.display()))?;
    let mut head = [0; 4];
    let read = fs::File::open(&path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut head));
    match read {
        Ok(()) if head == *b"\x7fELF" => Ok(path),
        Ok(()) => Err(format!("--kernel {}: not an ELF file", path.display()).into()),
        Err(error) => Err(format!("--kernel {}: {error}", path.display()).into()),
    }
}
