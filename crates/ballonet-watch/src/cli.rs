//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::units::{parse_interval, parse_size};

/// Shows guests' memory and balloons on the host, live: by QMP and /proc, for any QEMU.
#[derive(Debug, Parser)]
#[command(name = "ballonet-watch", version, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a ballonet guest through run.sh and watch it; quitting ends it
    Run(Run),
    /// Watch running QEMUs through their QMP sockets; quitting leaves them running
    Attach(Attach),
    /// Draw a record as SVG or PNG
    Plot(Plot),
    /// Show the use of a balloon in 30 s: the same program in a guest with reporting and in one without
    Demo(Demo),
    /// Keep several guests within a budget of host memory, by their balloons
    Policy(Policy),
}

/// Starts a guest and watches it.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The kernel, and how to start it.
    #[command(flatten)]
    pub(crate) launch: Launch,
    /// How to watch.
    #[command(flatten)]
    pub(crate) watch: Watch,
    /// Arguments of the kernel, such as work=sawtooth:128M
    #[arg(last = true, value_name = "KERNEL-ARGUMENTS")]
    pub(crate) arguments: Vec<String>,
}

/// The kernel to start. run.sh takes MEMORY, CPUS, BALLOON, QEMU and others from the environment.
#[derive(Debug, Clone, Args)]
pub(crate) struct Launch {
    /// The kernel to start, instead of building the project's
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// Build the kernel in release mode
    #[arg(long, conflicts_with = "kernel")]
    pub(crate) release: bool,
    /// Folder of ballonet's sources, which has run.sh
    #[arg(long, value_name = "FOLDER", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))]
    pub(crate) root: PathBuf,
}

/// Watches running guests.
#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// QMP sockets, or folders of them, such as /var/lib/libvirt/qemu
    #[arg(required = true, value_name = "SOCKET")]
    pub(crate) sockets: Vec<PathBuf>,
    /// PID of QEMU, if another process made the socket; once per socket, in order
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Vec<u32>,
    /// A socket with the serial line of a ballonet that runs with log=json; once per socket, in order
    #[arg(long, value_name = "SOCKET")]
    pub(crate) serial: Vec<PathBuf>,
    /// How to watch.
    #[command(flatten)]
    pub(crate) watch: Watch,
}

/// How to watch.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Time between samples: 1, 0.5, 250ms
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_interval)]
    pub(crate) interval: Duration,
    /// Print one sample of each guest and end
    #[arg(long)]
    pub(crate) once: bool,
    /// Print lines even on a terminal
    #[arg(long)]
    pub(crate) plain: bool,
    /// End after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = parse_interval)]
    pub(crate) duration: Option<Duration>,
    /// Where samples go besides the picture.
    #[command(flatten)]
    pub(crate) outputs: Outputs,
    /// Serve the newest sample to Prometheus, at /metrics of an address such as 127.0.0.1:9209
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
}

/// Files to write.
#[derive(Debug, Clone, Args)]
pub(crate) struct Outputs {
    /// Record every sample: CSV, or JSON lines if the name ends in .jsonl; - is standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Draw all samples as SVG at the end
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// The same as PNG
    #[arg(long, value_name = "FILE")]
    pub(crate) png: Option<PathBuf>,
}

impl Outputs {
    /// Whether the record goes to standard output, which then has nothing else.
    pub(crate) fn records_to_output(&self) -> bool {
        self.record.as_deref().is_some_and(|path| path.to_str() == Some("-"))
    }
}

/// Draw a record.
#[derive(Debug, Args)]
pub(crate) struct Plot {
    /// A record: CSV or JSON lines
    pub(crate) record: PathBuf,
    /// Draw it as SVG; the file is beside the record unless --svg or --png names it
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Draw it as PNG
    #[arg(long, value_name = "FILE")]
    pub(crate) png: Option<PathBuf>,
}

/// Shows the use of a balloon.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// The kernel, and how to start it.
    #[command(flatten)]
    pub(crate) launch: Launch,
    /// Files to write.
    #[command(flatten)]
    pub(crate) outputs: Outputs,
    /// Show four guests in a memory budget instead, with the policy and without
    #[arg(long)]
    pub(crate) density: bool,
    /// How long to run once the guests are up
    #[arg(long, value_name = "SECONDS", value_parser = parse_interval)]
    pub(crate) duration: Option<Duration>,
}

/// Keeps guests within a budget.
#[derive(Debug, Args)]
pub(crate) struct Policy {
    /// QMP sockets, or folders of them
    #[arg(required = true, value_name = "SOCKET")]
    pub(crate) sockets: Vec<PathBuf>,
    /// PID of QEMU, once per socket, in order
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Vec<u32>,
    /// Host memory for all guests together: 512M, 4G
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) budget: u64,
    /// The least that a guest keeps
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = parse_size)]
    pub(crate) floor: u64,
    /// The most that a guest gets; by default all of its RAM
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) ceiling: Option<u64>,
    /// Floor and ceiling of one guest, instead of the general ones
    #[arg(long, value_name = "NAME=FLOOR:CEILING", value_parser = parse_bounds)]
    pub(crate) guest: Vec<(String, u64, u64)>,
    /// The smallest change of a target
    #[arg(long, value_name = "SIZE", default_value = "4M", value_parser = parse_size)]
    pub(crate) hysteresis: u64,
    /// Host memory to leave to others: the budget shrinks when less than this is available
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_size)]
    pub(crate) reserve: u64,
    /// Print decisions without applying them
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Time between decisions: 1, 0.5, 250ms
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_interval)]
    pub(crate) interval: Duration,
    /// End after this many seconds; targets stay as they are
    #[arg(long, value_name = "SECONDS", value_parser = parse_interval)]
    pub(crate) duration: Option<Duration>,
    /// Files to write.
    #[command(flatten)]
    pub(crate) outputs: Outputs,
}

fn parse_bounds(text: &str) -> Result<(String, u64, u64), String> {
    let parts = text.split_once('=').and_then(|(name, bounds)| Some((name, bounds.split_once(':')?)));
    let (name, (floor, ceiling)) = parts.ok_or_else(|| format!("`{text}` is not NAME=FLOOR:CEILING"))?;
    let (floor, ceiling) = (parse_size(floor)?, parse_size(ceiling)?);
    if floor > ceiling {
        return Err(format!("`{text}`: the floor is above the ceiling"));
    }
    Ok((name.to_owned(), floor, ceiling))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bounds_are_of_one_guest() {
        assert_eq!(parse_bounds("web=64M:1G"), Ok(("web".into(), 64 << 20, 1 << 30)));
        for text in ["web", "web=64M", "web=1G:64M", "web=:"] {
            assert!(parse_bounds(text).is_err_and(|error| error.contains('`')), "{text}");
        }
    }
}
