//! The host's side of a check: performs the actions that a check requests, over the VMM's control socket.
//!
//! Afterwards it sets the balloon's target that the check gave, which tells the guest that the action is done.

mod api;
mod qmp;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ballonet_check::HostAction;

use crate::failure::{Context as _, Outcome};
use crate::slot::Card;

use api::Api;
use qmp::Qmp;

/// The longest wait for the socket of a running VMM, for that of a newly started VMM, and for an answer.
const THERE: Duration = Duration::from_secs(1);
const STARTED: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(10);
/// The longest time that a VMM may take to write or read its state.
const TRANSFER: Duration = Duration::from_secs(60);
/// Polling interval.
const GLANCE: Duration = Duration::from_millis(10);

/// The protocol of a VMM's control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// QEMU's machine protocol.
    Qmp,
    /// Cloud Hypervisor's HTTP interface.
    Api,
}

impl Protocol {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::Qmp, Self::Api];

    /// The placeholder for the socket's path in a command.
    pub(crate) const fn place(self) -> &'static str {
        match self {
            Self::Qmp => "{qmp}",
            Self::Api => "{api}",
        }
    }

    /// Whether it supports an action. Hot-plug also needs a card.
    const fn supports(self, action: HostAction) -> bool {
        match self {
            Self::Qmp => true,
            Self::Api => matches!(action, HostAction::Target | HostAction::Pause | HostAction::Restore),
        }
    }
}

/// The socket of a start.
pub(crate) fn socket(folder: &Path) -> PathBuf {
    folder.join("control")
}

/// A VMM's control socket.
pub(crate) struct Control {
    protocol: Protocol,
    folder: PathBuf,
    /// What can be unplugged.
    card: Option<Card>,
    qmp: Option<Qmp>,
    /// How long to wait for the socket.
    patience: Duration,
    /// The VMM is polling statistics.
    polls: bool,
}

impl Control {
    /// The control socket of a VMM that keeps its files in `folder`. Nothing connects before it is needed.
    pub(crate) fn new(protocol: Protocol, folder: &Path, card: Option<Card>) -> Self {
        Self { protocol, folder: folder.to_owned(), card, qmp: None, patience: THERE, polls: false }
    }

    /// The actions that it performs.
    pub(crate) fn actions(&self) -> impl Iterator<Item = HostAction> {
        let has_card =
            |action: HostAction| self.card.is_some() || !matches!(action, HostAction::Unplug | HostAction::Plug);
        HostAction::ALL.iter().copied().filter(move |action| self.protocol.supports(*action) && has_card(*action))
    }

    /// Performs an action, except `restore`, and sets the target.
    pub(crate) fn act(&mut self, action: HostAction, target: Option<u64>) -> Outcome {
        match (action, self.protocol) {
            (HostAction::Target, _) => {}
            (HostAction::Statistics, Protocol::Qmp) => {
                self.polls = true;
                self.qmp()?.poll_statistics(1)?;
            }
            (HostAction::Pause, Protocol::Qmp) => {
                self.qmp()?.stop()?;
                self.qmp()?.resume()?;
            }
            (HostAction::Pause, Protocol::Api) => {
                self.api().put("vm.pause", None)?;
                self.api().put("vm.resume", None)?;
            }
            (HostAction::Unplug | HostAction::Plug, Protocol::Qmp) => {
                let card = self.card.clone().ok_or("the device is in no slot")?;
                let qmp = self.qmp()?;
                return if action == HostAction::Unplug { qmp.unplug(&card.id) } else { qmp.plug(&card) };
            }
            (HostAction::Statistics | HostAction::Unplug | HostAction::Plug, Protocol::Api)
            | (HostAction::Restore, _) => {
                return Err(format!("no way to `{}` by this socket", action.word()).into());
            }
        }
        self.set_target(target)
    }

    /// Stops the virtual machine and saves its state. Resumes it if that fails.
    pub(crate) fn save(&mut self) -> Outcome {
        let state = self.state();
        match self.protocol {
            Protocol::Qmp => self.qmp()?.save(&state)?,
            Protocol::Api => {
                // A state from an earlier check.
                let _ = std::fs::remove_dir_all(&state);
                std::fs::create_dir_all(&state).of(state.display())?;
                let url = format!("file://{}", state.display());
                self.api().put("vm.pause", None)?;
                let saved = self.api().put("vm.snapshot", Some(&serde_json::json!({ "destination_url": url })));
                if saved.is_err() {
                    self.api().put("vm.resume", None)?;
                }
                saved?;
            }
        }
        // The next VMM creates it again.
        (self.qmp, self.patience) = (None, STARTED);
        let socket = socket(&self.folder);
        std::fs::remove_file(&socket).of(socket.display())
    }

    /// The command of a VMM that continues from the saved state, derived from `words`, the command of the first one.
    pub(crate) fn successor(&self, words: &[String]) -> Vec<String> {
        let state = self.state().display().to_string();
        match self.protocol {
            Protocol::Qmp => [words, &["-incoming".into(), qmp::incoming(&state)]].concat(),
            Protocol::Api => {
                let program = words.first().cloned().unwrap_or_default();
                let socket = socket(&self.folder).display().to_string();
                let source = format!("source_url=file://{state}");
                vec![program, "--api-socket".into(), socket, "--restore".into(), source]
            }
        }
    }

    /// Makes that VMM continue, and sets the target.
    pub(crate) fn go_on(&mut self, target: Option<u64>) -> Outcome {
        match self.protocol {
            Protocol::Qmp => {
                self.qmp()?.await_state()?;
                self.qmp()?.resume()?;
            }
            Protocol::Api => self.api().put("vm.resume", None)?,
        }
        self.set_target(target)
    }

    /// A check has ended: undoes what would disturb the next.
    pub(crate) fn rest(&mut self) -> Outcome {
        if core::mem::take(&mut self.polls) { self.qmp()?.poll_statistics(0) } else { Ok(()) }
    }

    fn set_target(&mut self, bytes: Option<u64>) -> Outcome {
        let bytes = bytes.ok_or("the request has no target")?;
        match self.protocol {
            Protocol::Qmp => self.qmp()?.set_target(bytes),
            Protocol::Api => self.api().put("vm.resize", Some(&serde_json::json!({ "desired_balloon": bytes }))),
        }
    }

    fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    fn api(&self) -> Api {
        Api::new(socket(&self.folder), self.patience)
    }

    fn qmp(&mut self) -> Outcome<&mut Qmp> {
        if self.qmp.is_none() {
            self.qmp = Some(Qmp::greet(connect(&socket(&self.folder), self.patience)?)?);
        }
        Ok(self.qmp.as_mut().unwrap_or_else(|| unreachable!("it is there")))
    }
}

/// Connects to a socket that a starting VMM may not have created yet.
fn connect(path: &Path, patience: Duration) -> Outcome<UnixStream> {
    let start = Instant::now();
    let stream = loop {
        match UnixStream::connect(path) {
            Err(_) if start.elapsed() < patience => thread::sleep(GLANCE),
            outcome => break outcome.of(format_args!("control socket {}", path.display()))?,
        }
    };
    stream.set_read_timeout(Some(ANSWER)).of("control socket")?;
    stream.set_write_timeout(Some(ANSWER)).of("control socket")?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_card_can_be_unplugged_and_only_by_qmp() {
        let words = |protocol, card: Option<Card>| -> Vec<_> {
            Control::new(protocol, Path::new("/nowhere"), card).actions().map(HostAction::word).collect()
        };
        let card = Card::new("virtio-rng-pci");
        assert_eq!(words(Protocol::Qmp, None), ["target", "statistics", "pause", "restore"]);
        assert_eq!(words(Protocol::Qmp, card.clone()).len(), HostAction::ALL.len());
        assert_eq!(words(Protocol::Api, card), ["target", "pause", "restore"]);
    }
}
