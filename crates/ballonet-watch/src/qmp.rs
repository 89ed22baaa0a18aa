//! QEMU's machine protocol (QMP): one connection, one command at a time, every wait bounded.
//!
//! Every command has an ID, so that a late answer is not taken for the next command's.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::{Value, json};

use crate::failure::Outcome;

/// The longest wait for QEMU's greeting.
const GREETING: Duration = Duration::from_secs(3);
/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same for a QEMU that was silent: only a check whether it answers again.
const GLANCE: Duration = Duration::from_millis(20);
/// The longest message accepted; QEMU's are a few KiB.
const LONGEST: usize = 16 << 20;
/// Events kept until the caller takes them.
const KEPT: usize = 1000;

/// Why a command had no answer.
#[derive(Debug)]
pub(crate) enum QmpError {
    /// QEMU closed the connection.
    Ended,
    /// No answer came in time.
    Silent,
    /// QEMU refused the command, in its words.
    Refused(String),
    /// The connection failed, or the data is not QMP.
    Broken(String),
}

impl fmt::Display for QmpError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => formatter.write_str("QEMU closed the connection"),
            Self::Silent => write!(formatter, "QEMU did not answer within {} s", PATIENCE.as_secs()),
            Self::Refused(why) => write!(formatter, "QEMU refuses: {why}"),
            Self::Broken(why) => write!(formatter, "the QMP connection failed: {why}"),
        }
    }
}

impl std::error::Error for QmpError {}

/// A connection after the greeting.
pub(crate) struct Qmp {
    stream: UnixStream,
    received: Vec<u8>,
    events: VecDeque<Value>,
    last_id: u64,
    /// The last command had no answer in time.
    silent: bool,
}

impl Qmp {
    /// Connects, and negotiates capabilities. Errors name the socket.
    pub(crate) fn connect(path: &Path) -> Outcome<Self> {
        let stream = open(path)?;
        let mut qmp = Self { stream, received: Vec::new(), events: VecDeque::new(), last_id: 0, silent: false };
        let named = |error: QmpError| format!("{}: {}", path.display(), greeting_error(&error));
        let greeting = qmp.message(Instant::now() + GREETING).map_err(named)?;
        if !greeting["QMP"].is_object() {
            return Err(format!("{}: not a QMP socket; it sent {greeting}", path.display()).into());
        }
        qmp.run("qmp_capabilities", &json!({})).map_err(named)?;
        Ok(qmp)
    }

    /// PID of the other end, by the host's kernel: the process that made the socket.
    pub(crate) fn peer(&self) -> Option<u32> {
        let credentials = rustix::net::sockopt::socket_peercred(&self.stream).ok()?;
        u32::try_from(credentials.pid.as_raw_nonzero().get()).ok()
    }

    /// Whether the last command had no answer in time.
    pub(crate) const fn is_silent(&self) -> bool {
        self.silent
    }

    /// Runs a command. After a silence, it waits for QEMU only briefly until QEMU answers again.
    pub(crate) fn run(&mut self, name: &str, arguments: &Value) -> Result<Value, QmpError> {
        if self.silent {
            // The earlier command is still pending: its answer must come first.
            self.answer(self.last_id, GLANCE)?;
        }
        self.last_id += 1;
        let id = self.last_id;
        let command = json!({ "execute": name, "arguments": arguments, "id": id });
        self.stream.set_write_timeout(Some(PATIENCE)).map_err(broken)?;
        writeln!(self.stream, "{command}").map_err(broken)?;
        self.answer(id, PATIENCE)
    }

    /// The events since the last call.
    pub(crate) fn take_events(&mut self) -> Vec<Value> {
        self.events.drain(..).collect()
    }

    fn answer(&mut self, id: u64, patience: Duration) -> Result<Value, QmpError> {
        let deadline = Instant::now() + patience;
        loop {
            let answer = self.message(deadline);
            self.silent = matches!(answer, Err(QmpError::Silent));
            let message = answer?;
            if message["event"].is_string() {
                self.events.push_back(message);
                if self.events.len() > KEPT {
                    self.events.pop_front();
                }
                continue;
            }
            if message["id"] != json!(id) {
                continue;
            }
            return answer_of(message);
        }
    }

    /// The next line that QEMU sends.
    fn message(&mut self, deadline: Instant) -> Result<Value, QmpError> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return serde_json::from_slice(&line)
                    .map_err(|_| QmpError::Broken(format!("not JSON: {:?}", String::from_utf8_lossy(&line))));
            }
            if self.received.len() > LONGEST {
                return Err(QmpError::Broken(format!("a message of more than {LONGEST} bytes")));
            }
            self.receive(deadline)?;
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<(), QmpError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(QmpError::Silent);
        }
        self.stream.set_read_timeout(Some(left)).map_err(broken)?;
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(QmpError::Ended),
            Ok(count) => {
                self.received.extend_from_slice(&bytes[..count]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(QmpError::Silent),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(broken(error)),
        }
    }
}

/// The result in an answer.
pub(crate) fn answer_of(mut answer: Value) -> Result<Value, QmpError> {
    match answer.get("error") {
        Some(error) => Err(QmpError::Refused(error["desc"].as_str().unwrap_or("no reason").to_owned())),
        None => Ok(answer["return"].take()),
    }
}

fn broken(error: impl Into<io::Error>) -> QmpError {
    let error = error.into();
    match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => QmpError::Ended,
        ErrorKind::WouldBlock | ErrorKind::TimedOut => QmpError::Silent,
        _ => QmpError::Broken(error.to_string()),
    }
}

fn greeting_error(error: &QmpError) -> String {
    match error {
        QmpError::Silent => format!(
            "no QMP greeting within {} s: QEMU serves one client at a time, and another (libvirt?) may hold this socket; or \
             QEMU hangs, or this is not a QMP socket",
            GREETING.as_secs()
        ),
        other => other.to_string(),
    }
}

/// Connects without waiting: the backlog of a hanging QEMU may be full.
fn open(path: &Path) -> Outcome<UnixStream> {
    let shown = path.display();
    let address = SocketAddrUnix::new(path).map_err(|error| format!("{shown}: not a socket's path: {error}"))?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &address).map_err(|error| match error {
        rustix::io::Errno::NOENT => format!("{shown}: no such socket"),
        rustix::io::Errno::CONNREFUSED => {
            format!("{shown}: nothing listens there: QEMU has ended, or it is not a socket")
        }
        rustix::io::Errno::ACCESS => format!("{shown}: permission denied; try as QEMU's user or as root"),
        rustix::io::Errno::AGAIN => {
            format!("{shown}: other clients are waiting and QEMU accepts none: it hangs")
        }
        error => format!("{shown}: {error}"),
    })?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}
