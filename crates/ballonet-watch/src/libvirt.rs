//! QEMU through libvirt, by `virsh qemu-monitor-command`: libvirt's daemon holds the only connection that a domain's monitor
//! socket, `domain-ID-NAME/monitor.sock`, has.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::qmp::{QmpError, answer_of};

/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Polling interval.
const GLANCE: Duration = Duration::from_millis(5);
/// Where the sockets of the system's daemon are; others are of a user's session.
const SYSTEM: &str = "/var/lib/libvirt/";

/// A running domain.
pub(crate) struct Domain {
    id: u32,
    uri: &'static str,
    silent: bool,
}

impl Domain {
    /// The domain whose monitor socket this is, if libvirt's daemon runs and knows it.
    pub(crate) fn running(socket: &Path) -> Option<Self> {
        let (id, _) = of_folder(folder_of(socket)?)?;
        let uri = if socket.starts_with(SYSTEM) { "qemu:///system" } else { "qemu:///session" };
        let domain = Self { id, uri, silent: false };
        let output = domain.virsh(&["domname", &id.to_string()]).ok()?;
        output.status.success().then_some(domain)
    }

    /// Whether the last command had no answer in time.
    pub(crate) const fn is_silent(&self) -> bool {
        self.silent
    }

    /// Runs a command of QMP.
    pub(crate) fn run(&mut self, name: &str, arguments: &Value) -> Result<Value, QmpError> {
        let command = json!({ "execute": name, "arguments": arguments }).to_string();
        let answer = self.virsh(&["qemu-monitor-command", &self.id.to_string(), &command]);
        self.silent = matches!(answer, Err(QmpError::Silent));
        let output = answer?;
        if output.status.success() {
            let answer = serde_json::from_slice(&output.stdout);
            return answer_of(answer.map_err(|_| QmpError::Broken("virsh printed no JSON".into()))?);
        }
        let why = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ");
        let ended = ["failed to get domain", "domain is not running", "Domain not found"]
            .iter()
            .any(|words| why.contains(words));
        Err(if ended { QmpError::Ended } else { QmpError::Broken(why) })
    }

    /// Runs `virsh`, and ends it if it takes too long.
    fn virsh(&self, arguments: &[&str]) -> Result<Output, QmpError> {
        let broken = |error: std::io::Error| QmpError::Broken(format!("virsh: {error}"));
        let mut command = Command::new("virsh");
        // `virsh` would start a session's daemon, which outlives it.
        command.args(["-q", "-c", self.uri]).args(arguments).env("LIBVIRT_AUTOSTART", "0").env("LC_ALL", "C");
        let streams = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = streams.spawn().map_err(broken)?;
        let deadline = Instant::now() + PATIENCE;
        // The answers are shorter than a pipe holds.
        while child.try_wait().map_err(broken)?.is_none() {
            if Instant::now() > deadline {
                child.kill().and_then(|()| child.wait()).map_err(broken)?;
                return Err(QmpError::Silent);
            }
            thread::sleep(GLANCE);
        }
        child.wait_with_output().map_err(broken)
    }
}

/// The name of the folder that a socket is in.
fn folder_of(socket: &Path) -> Option<&str> {
    socket.parent()?.file_name()?.to_str()
}

/// ID and name of the domain whose folder is `domain-ID-NAME`; libvirt cuts long names short.
pub(crate) fn of_folder(folder: &str) -> Option<(u32, &str)> {
    let (id, name) = folder.strip_prefix("domain-")?.split_once('-')?;
    Some((id.parse().ok()?, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_names_the_domain() {
        assert_eq!(of_folder("domain-3-my-guest"), Some((3, "my-guest")));
        for folder in ["qmp", "domain-3", "domain-x-guest"] {
            assert_eq!(of_folder(folder), None, "{folder}");
        }
        assert_eq!(folder_of(Path::new("/run/domain-3-a/monitor.sock")), Some("domain-3-a"));
    }

    #[test]
    fn a_socket_that_libvirt_does_not_know_is_not_its_domain() {
        assert!(Domain::running(Path::new("/run/qmp/a.sock")).is_none());
        // Without a daemon or a `virsh`, or without this domain.
        assert!(Domain::running(Path::new("/nowhere/domain-2000000000-a/monitor.sock")).is_none());
    }
}
