//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use ballonet_check::Severity;
use clap::{Parser, ValueEnum};

use crate::device::DeviceType;
use crate::format::Format;

const AFTER: &str = "\
Profiles: qemu. Written from documentation and untested here: cloud-hypervisor, firecracker, crosvm, libkrun, alioth. The profile
for libkrun calls a program `krun-check KERNEL CMDLINE`, which you write. A command is split like a shell does; {kernel} and
{cmdline} must be in it; {memory} (in MiB), {device} and {accel} may be, and the path of a control socket: {qmp} (as QEMU's) or {api}
(as Cloud Hypervisor's), without which checks that need the host are skipped. The guest's serial line is its standard output.

Exit status: 0 nothing that counts failed; 1 a check failed; 2 invalid option or file; 3 a check has no verdict, or the VMM did not
get to the first one; 4 the VMM or the guest went down in a check (died, wedged, crashed, sanitizer); 130 interrupted.

Examples: ballonet-check --vmm qemu
          ballonet-check --vmm './my-vmm --kernel {kernel} --append {cmdline}' --format junit --output check.xml
          ballonet-check --vmm qemu --baseline known.json --isolate -j 4";

/// Tests the virtio device of a VMM: starts it with ballonet's kernel, runs the checks, and names the check in which
/// the VMM dies or hangs
#[derive(Debug, Parser)]
#[command(name = "ballonet-check", version, max_term_width = 100, after_help = AFTER)]
pub(crate) struct Cli {
    /// A profile, or a command with {kernel} and {cmdline}
    #[arg(long, value_name = "PROFILE|COMMAND", required_unless_present = "list")]
    pub(crate) vmm: Option<String>,
    /// The VMM's program, instead of the profile's
    #[arg(long, value_name = "FILE")]
    pub(crate) program: Option<PathBuf>,
    /// A further word for the VMM's command line; may be repeated
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub(crate) vmm_arg: Vec<String>,
    /// The type of device that is tested. Profile qemu attaches one; to another VMM add it by --vmm-arg
    #[arg(long, value_enum, value_name = "TYPE", default_value = "balloon")]
    pub(crate) device_type: DeviceType,
    /// The device of profile qemu, instead of the type's own. A disk is `drive=disk`, a network `netdev=net`
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// Guest memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    pub(crate) memory: u32,
    /// The kernel; without it the file `ballonet` beside this program
    #[arg(long, value_name = "FILE", env = "BALLONET_KERNEL", hide_env_values = true)]
    pub(crate) kernel: Option<PathBuf>,
    /// A further word for the kernel's command line, such as irq=intx; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) kernel_arg: Vec<String>,
    /// Checks, as for the kernel: names, chapters, prefixes with `*`; `-` before what to leave out
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub(crate) checks: Option<String>,
    /// List the checks and end
    #[arg(long)]
    pub(crate) list: bool,
    /// Start the VMM for each check
    #[arg(long)]
    pub(crate) isolate: bool,
    /// Starts at a time with --isolate
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256), requires = "isolate")]
    pub(crate) jobs: u16,
    /// Run everything N times; a check whose verdicts differ is flaky, and its worst verdict counts
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) repeat: u16,
    /// The longest that a check may take
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = parse_seconds)]
    pub(crate) timeout: Duration,
    /// The longest from a start to the first check
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = parse_seconds)]
    pub(crate) boot_timeout: Duration,
    /// The most resident memory of the VMM, in MiB
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_rss: Option<u32>,
    /// The format of the report
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Write the report there, and a table to standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// A report by --format json: its failures are known and do not count
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,
    /// The lowest severity at which failures count
    #[arg(long, value_enum, default_value = "must", value_name = "SEVERITY")]
    pub(crate) fail_on: Least,
    /// No progress bar
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// A severity, for clap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Least {
    /// A MUST of the specification
    Must,
    /// A SHOULD too
    Should,
    /// All checks
    Custom,
}

impl From<Least> for Severity {
    fn from(least: Least) -> Self {
        match least {
            Least::Must => Self::Must,
            Least::Should => Self::Should,
            Least::Custom => Self::Custom,
        }
    }
}

/// Seconds, from a tenth to a day.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of seconds"))?;
    if (0.1..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(format!("`{text}` is not between 0.1 and 86400 seconds"))
    }
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
    fn seconds_are_bounded() {
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["", "x", "-1", "0", "NaN", "inf", "1e9"] {
            assert!(parse_seconds(text).is_err_and(|error| error.contains(&format!("`{text}`"))), "{text}");
        }
    }
}
