//! QMP, QEMU's machine protocol: a line of JSON for each command and each answer, with events in between.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use super::{ANSWER, GLANCE, TRANSFER};
use crate::failure::Outcome;
use crate::slot::Card;

/// The longest line that is read, in bytes.
const LINE_MAX: u64 = 1 << 20;
/// Where QEMU keeps devices, with and without an id.
const DEVICES: [&str; 2] = ["/machine/peripheral", "/machine/peripheral-anon"];

/// The value of `-incoming` for a saved state.
pub(super) fn incoming(state: &str) -> String {
    format!("exec:cat {}", shell_words::quote(state))
}

/// A connection.
pub(super) struct Qmp {
    socket: BufReader<UnixStream>,
    /// The id of the device that was to be unplugged and is not gone yet.
    leaving: Option<String>,
}

impl Qmp {
    /// Negotiates on a new connection.
    pub(super) fn greet(socket: UnixStream) -> Outcome<Self> {
        let mut qmp = Self { socket: BufReader::new(socket), leaving: None };
        let greeting = qmp.message().map_err(|error| format!("QMP greeting: {error}"))?;
        if !greeting["QMP"].is_object() {
            return Err(format!("QMP: the socket greets with {greeting}").into());
        }
        qmp.run("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command. An error names it, with its arguments.
    fn run(&mut self, name: &str, arguments: &Value) -> Outcome<Value> {
        self.exchange(name, arguments).map_err(|error| format!("QMP {name} {arguments}: {error}").into())
    }

    fn exchange(&mut self, name: &str, arguments: &Value) -> Outcome<Value> {
        writeln!(self.socket.get_mut(), "{}", json!({ "execute": name, "arguments": arguments }))?;
        loop {
            let mut message = self.message()?;
            if let Some(error) = message.get("error") {
                return Err(error["desc"].as_str().unwrap_or("an error without a description").into());
            }
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
            // An event.
        }
    }

    fn message(&mut self) -> Outcome<Value> {
        let mut line = Vec::new();
        self.socket.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err("QEMU closed the socket".into());
        }
        let message: Value = serde_json::from_slice(&line)?;
        if message["event"] == "DEVICE_DELETED" {
            self.leaving.take_if(|id| message["data"]["device"] == id.as_str());
        }
        Ok(message)
    }

    /// Asks the guest to let go of a device.
    pub(super) fn unplug(&mut self, id: &str) -> Outcome {
        self.leaving = Some(id.to_owned());
        self.run("device_del", &json!({ "id": id })).map(drop)
    }

    /// Plugs a device in once the one before it is gone. It is named as on the command line, for which QMP has no words.
    pub(super) fn plug(&mut self, card: &Card) -> Outcome {
        let start = Instant::now();
        while self.leaving.is_some() {
            // An endless stream of other events is no answer either.
            let message = if start.elapsed() < ANSWER { self.message() } else { Err("it sends other events".into()) };
            message.map_err(|error| format!("no DEVICE_DELETED of `{}` from QMP: {error}", card.id))?;
        }
        let line = format!("device_add {}", card.device);
        let said = self.run("human-monitor-command", &json!({ "command-line": line }))?;
        match said.as_str().map(str::trim) {
            Some("") => Ok(()),
            _ => Err(format!("QMP human-monitor-command `{line}`: {said}").into()),
        }
    }

    /// Stops the virtual machine.
    pub(super) fn stop(&mut self) -> Outcome {
        self.run("stop", &json!({})).map(drop)
    }

    /// Resumes it.
    pub(super) fn resume(&mut self) -> Outcome {
        self.run("cont", &json!({})).map(drop)
    }

    /// Sets the balloon's size. QEMU takes the size that is left to the guest.
    pub(super) fn set_target(&mut self, bytes: u64) -> Outcome {
        let memory = self.run("query-memory-size-summary", &json!({}))?;
        let base = memory["base-memory"].as_u64().ok_or("QMP query-memory-size-summary: it has no base-memory")?;
        self.run("balloon", &json!({ "value": base.saturating_sub(bytes) })).map(drop)
    }

    /// Makes QEMU poll statistics now and at this interval in seconds; 0 for never.
    pub(super) fn poll_statistics(&mut self, seconds: u64) -> Outcome {
        let path = self.balloon()?;
        let property = json!({ "path": path, "property": "guest-stats-polling-interval", "value": seconds });
        self.run("qom-set", &property).map(drop)
    }

    /// The balloon's path.
    fn balloon(&mut self) -> Outcome<String> {
        for parent in DEVICES {
            let children = self.run("qom-list", &json!({ "path": parent }))?;
            let is_balloon =
                |child: &&Value| child["type"].as_str().is_some_and(|name| name.contains("<virtio-balloon"));
            let balloon = children.as_array().into_iter().flatten().find(is_balloon);
            if let Some(name) = balloon.and_then(|child| child["name"].as_str()) {
                return Ok(format!("{parent}/{name}"));
            }
        }
        Err("QMP qom-list: QEMU has no balloon".into())
    }

    /// Stops the virtual machine and writes its state into a file. Resumes it if that fails.
    pub(super) fn save(&mut self, state: &Path) -> Outcome {
        self.stop()?;
        let saved = self.write_state(state);
        if saved.is_err() {
            self.resume()?;
        }
        saved
    }

    fn write_state(&mut self, state: &Path) -> Outcome {
        let uri = format!("exec:cat > {}", shell_words::quote(&state.display().to_string()));
        self.run("migrate", &json!({ "uri": uri }))?;
        let start = Instant::now();
        loop {
            let migration = self.run("query-migrate", &json!({}))?;
            match migration["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => return Err(format!("QMP migrate to a file: {migration}").into()),
                _ if start.elapsed() > TRANSFER => {
                    return Err(format!("QMP migrate to a file: not done after {} s", TRANSFER.as_secs()).into());
                }
                _ => thread::sleep(GLANCE),
            }
        }
    }

    /// Waits until QEMU has read the saved state.
    pub(super) fn await_state(&mut self) -> Outcome {
        let start = Instant::now();
        while self.run("query-status", &json!({}))?["status"] == "inmigrate" {
            if start.elapsed() > TRANSFER {
                return Err(format!("QMP query-status: still inmigrate after {} s", TRANSFER.as_secs()).into());
            }
            thread::sleep(GLANCE);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection to a QEMU that says these lines, whatever it hears.
    fn connect(lines: &str) -> Outcome<Qmp> {
        let (ours, mut theirs) = UnixStream::pair()?;
        theirs.write_all(lines.as_bytes())?;
        // It goes on to read, so that commands find the socket open.
        thread::spawn(move || std::io::copy(&mut theirs.try_clone()?, &mut std::io::sink()));
        Qmp::greet(ours)
    }

    const GREETING: &str = "{\"QMP\":{}}\n{\"return\":{}}\n";

    #[test]
    fn an_error_names_the_command_and_what_qemu_says() {
        let event = "{\"event\":\"STOP\"}\n";
        let refusal = "{\"error\":{\"class\":\"GenericError\",\"desc\":\"no balloon\"}}\n";
        let mut qmp =
            connect(&format!("{GREETING}{event}{{\"return\":{{\"base-memory\":8192}}}}\n{refusal}")).expect("QMP");
        let error = qmp.set_target(4096).expect_err("it refuses").to_string();
        assert_eq!(error, "QMP balloon {\"value\":4096}: no balloon");
    }

    /// The device must be gone first; what QEMU's monitor then says is an error.
    #[test]
    fn a_card_is_plugged_in_once_the_one_before_is_gone() {
        let card = Card::new("virtio-rng-pci,id=a").expect("a card");
        let gone = "{\"event\":\"DEVICE_DELETED\",\"data\":{\"device\":\"a\",\"path\":\"/machine/a\"}}\n";
        let done = "{\"return\":{}}\n";
        let well = "{\"return\":\"\"}\n";
        let replug = |qmp: &mut Qmp| {
            qmp.unplug("a").expect("it takes the request");
            qmp.plug(&card).map_err(|error| error.to_string())
        };
        // The second time no event comes.
        let mut qmp = connect(&format!("{GREETING}{done}{gone}{well}{done}nonsense\n")).expect("QMP");
        assert_eq!(replug(&mut qmp), Ok(()));
        let error = replug(&mut qmp).expect_err("it is not gone");
        assert!(error.starts_with("no DEVICE_DELETED of `a`"), "{error}");
        let refusal = "{\"return\":\"Error: no such bus\\r\\n\"}\n";
        let error =
            replug(&mut connect(&format!("{GREETING}{done}{gone}{refusal}")).expect("QMP")).expect_err("refused");
        assert!(error.contains("device_add virtio-rng-pci,id=a,bus=") && error.contains("no such bus"), "{error}");
    }

    #[test]
    fn other_protocols_are_named() {
        for (lines, words) in [("HTTP/1.1 400\n", "greeting"), ("{\"hello\":1}\n", "greets with {\"hello\":1}")] {
            let error = connect(lines).err().expect("this is no QMP").to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
