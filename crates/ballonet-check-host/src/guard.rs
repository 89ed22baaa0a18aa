//! Ends the VMM when this program ends in a way in which it cannot do so itself, as by SIGKILL.
//!
//! The guard is this program again, as a process that waits for its standard input to end: the kernel closes that with this
//! program, however it ends.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

/// The name under which this program is a guard; the process group is its argument.
const NAME: &str = "ballonet-check-guard";

/// A running guard. It ends with this value, and does nothing then.
pub(crate) struct Guard(Option<Child>);

impl Guard {
    /// Guards a process group. Without a guard all works, but for what it is for.
    pub(crate) fn over(group: u32) -> Self {
        let start = || {
            let mut command = Command::new(std::env::current_exe().ok()?);
            command.arg0(NAME).arg(group.to_string()).process_group(0);
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
        };
        Self(start())
    }

    /// If this process is a guard, does its work and returns true.
    pub(crate) fn is_this_process() -> bool {
        let mut arguments = std::env::args_os();
        if arguments.next().is_none_or(|name| name != NAME) {
            return false;
        }
        // Nothing comes, only the end.
        let _ = std::io::stdin().read(&mut [0]);
        if let Some(group) = arguments.next().and_then(|group| Pid::from_raw(group.to_str()?.parse().ok()?)) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        true
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
