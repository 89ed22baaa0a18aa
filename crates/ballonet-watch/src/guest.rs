//! One guest: its QMP connection, its process and, for a ballonet kernel, its serial line. Every wait is bounded.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::failure::Outcome;
use crate::host::{self, process_memory};
use crate::kernel::Kernel;
use crate::libvirt;
use crate::model::{Figure, Mark, Sample, State};
use crate::monitor::Monitor;
use crate::qmp::QmpError;
use crate::serial::Serial;
use crate::units::mib;

/// How to reach a guest.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    /// Its name for people.
    pub(crate) name: String,
    /// Its QMP socket.
    pub(crate) socket: PathBuf,
    /// PID of QEMU; without it, the process at the other end of the socket.
    pub(crate) pid: Option<u32>,
    /// A socket with its serial line.
    pub(crate) serial: Option<PathBuf>,
}

/// A connected guest.
pub(crate) struct Guest {
    /// Its name for people.
    pub(crate) name: String,
    monitor: Monitor,
    /// PID of QEMU, or why it is not known.
    pub(crate) pid: Result<u32, String>,
    serial: Option<Serial>,
    pub(crate) kernel: Kernel,
    /// The balloon's path in QEMU's object tree, if there is a balloon.
    balloon: Option<String>,
    /// Bytes of RAM, of memory that was plugged in too.
    size: Option<u64>,
    /// The blocks of memory that QEMU maps for it, in bytes; empty if they are not known.
    blocks: Vec<u64>,
    target: Option<u64>,
    /// The interval in seconds at which QEMU polls statistics, if the balloon has them; 0 for never.
    pub(crate) statistics: Option<u64>,
    /// The statistics interval to restore at the end, in seconds.
    restore: Option<u64>,
    migration: String,
    state: State,
    marks: Vec<Mark>,
    start: Instant,
}

impl Guest {
    /// Connects and finds the balloon. `start` is second 0 of the samples.
    pub(crate) fn attach(address: &Address, serial: Option<Serial>, start: Instant) -> Outcome<Self> {
        let monitor = Monitor::connect(&address.socket)?;
        let serial = match (&address.serial, serial) {
            (_, Some(serial)) => Some(serial),
            (Some(path), None) => Some(Serial::connect(path)?),
            (None, None) => None,
        };
        let pid = match address.pid {
            Some(pid) => host::check_qemu(pid).map(|()| Ok(pid))?,
            None => find_process(&monitor, &address.socket),
        };
        let mut guest = Self {
            name: address.name.clone(),
            monitor,
            pid,
            serial,
            kernel: Kernel::default(),
            balloon: None,
            size: None,
            blocks: Vec::new(),
            target: None,
            statistics: None,
            restore: None,
            migration: "none".into(),
            state: State::Unknown,
            marks: Vec::new(),
            start,
        };
        if address.serial.is_some() {
            // A ballonet kernel that has been up for long prints nothing until it is asked.
            guest.type_line("\rstats\rmem");
        }
        guest.discover().map_err(|error| format!("{}: {error}", address.socket.display()))?;
        Ok(guest)
    }

    fn discover(&mut self) -> Result<(), QmpError> {
        self.measure()?;
        self.balloon = self.find_balloon()?;
        if let Some(path) = &self.balloon {
            let interval = json!({ "path": path, "property": "guest-stats-polling-interval" });
            // A balloon without statistics still has a size.
            self.statistics = served(self.monitor.run("qom-get", &interval))?.and_then(|value| value.as_u64());
        }
        Ok(())
    }

    /// Has QEMU poll statistics every second if it does not poll them yet, until [`Guest::leave`].
    pub(crate) fn start_statistics(&mut self) {
        // If this fails, only the statistics are missing.
        if self.statistics == Some(0) && self.poll_statistics(1).is_ok() {
            self.restore = Some(0);
        }
    }

    /// Looks how large the guest's RAM is: memory may have been plugged in.
    fn measure(&mut self) -> Result<(), QmpError> {
        let memory = self.monitor.run("query-memory-size-summary", &json!({}))?;
        let plugged = memory["plugged-memory"].as_u64().unwrap_or_default();
        let size = memory["base-memory"].as_u64().map(|base| base.saturating_add(plugged));
        if size != self.size {
            let answer = served(self.monitor.run("query-memdev", &json!({})))?.unwrap_or_default();
            let blocks = answer.as_array().into_iter().flatten().filter_map(|device| device["size"].as_u64());
            self.blocks = blocks.collect();
            // Others are not the guest's RAM alone, or not all of it.
            if Some(self.blocks.iter().sum()) != size {
                self.blocks = size.filter(|_| plugged == 0).into_iter().collect();
            }
            self.size = size;
            self.kernel.set_ram(size.unwrap_or_default());
        }
        Ok(())
    }

    fn find_balloon(&mut self) -> Result<Option<String>, QmpError> {
        for folder in ["/machine/peripheral", "/machine/peripheral-anon"] {
            let devices = self.monitor.run("qom-list", &json!({ "path": folder }))?;
            let is_balloon =
                |device: &&Value| device["type"].as_str().is_some_and(|kind| kind.contains("virtio-balloon"));
            let name =
                devices.as_array().into_iter().flatten().find(is_balloon).and_then(|found| found["name"].as_str());
            if let Some(name) = name {
                return Ok(Some(format!("{folder}/{name}")));
            }
        }
        Ok(None)
    }

    /// Makes `start` second 0 of what follows.
    pub(crate) fn restart_clock(&mut self, start: Instant) {
        self.start = start;
        self.marks.clear();
    }

    /// Seconds since second 0.
    fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// The guest's state at the last sample.
    pub(crate) const fn state(&self) -> &State {
        &self.state
    }

    /// Bytes of RAM.
    pub(crate) const fn size(&self) -> Option<u64> {
        self.size
    }

    /// Why figures are missing, if some are.
    pub(crate) fn note(&self) -> Option<String> {
        match (&self.pid, &self.balloon) {
            (Err(why), _) => Some(why.clone()),
            (_, None) => Some("this guest has no virtio-balloon device".into()),
            _ => None,
        }
    }

    /// Events since the last call.
    pub(crate) fn take_marks(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.marks)
    }

    /// Sets the balloon's target: the bytes left to the guest.
    pub(crate) fn set_target(&mut self, bytes: u64) -> Result<(), QmpError> {
        self.monitor.run("balloon", &json!({ "value": bytes }))?;
        self.target = Some(bytes);
        self.kernel.set_target(bytes);
        self.marks.push(Mark::new(self.now(), "target", format!("target {} MiB", mib(bytes))));
        Ok(())
    }

    /// Has QEMU poll the guest's statistics every `seconds`; 0 turns that off.
    pub(crate) fn poll_statistics(&mut self, seconds: u64) -> Result<(), QmpError> {
        let Some(path) = &self.balloon else { return Err(QmpError::Refused("there is no balloon".into())) };
        let arguments = json!({ "path": path, "property": "guest-stats-polling-interval", "value": seconds });
        self.monitor.run("qom-set", &arguments)?;
        self.statistics = Some(seconds);
        Ok(())
    }

    /// Types a line at the guest's console, if its serial line is connected.
    pub(crate) fn type_line(&mut self, line: &str) {
        if let Some(serial) = &mut self.serial {
            serial.type_line(line);
        }
    }

    /// Waits for a line on the serial line and takes it; false if none came.
    pub(crate) fn listen(&mut self, patience: Duration) -> bool {
        let Some(line) = self.serial.as_ref().and_then(|serial| serial.wait(patience)) else { return false };
        self.hear(&line);
        true
    }

    /// Asks a ballonet kernel for its figures and waits for them, so that the next sample has them.
    pub(crate) fn refresh(&mut self, patience: Duration) {
        let (before, deadline) = (self.kernel.answers(), Instant::now() + patience);
        self.type_line("stats\rmem");
        while self.kernel.answers() == before && self.listen(deadline.saturating_duration_since(Instant::now())) {}
    }

    fn hear(&mut self, line: &str) {
        if let Some((kind, text)) = self.kernel.take(line) {
            self.marks.push(Mark::new(self.now(), kind, text));
        }
    }

    /// All figures now. If QEMU does not answer, `/proc` still gives some.
    pub(crate) fn sample(&mut self) -> Sample {
        while let Some(line) = self.serial.as_ref().and_then(Serial::next) {
            self.hear(&line);
        }
        let mut sample = Sample::new(self.now());
        sample.set(Figure::Target, self.target);
        self.ask_qemu(&mut sample);
        sample.set(Figure::Size, self.size);
        self.look_at_process(&mut sample);
        self.kernel.fill(&mut sample);
        if self.kernel.speaks() {
            // The next sample has the answers.
            self.type_line("stats\rmem");
        }
        sample
    }

    fn look_at_process(&mut self, sample: &mut Sample) {
        let Ok(pid) = self.pid else { return };
        match process_memory(pid, &self.blocks) {
            Ok(memory) => {
                sample.set(Figure::Rss, Some(memory.rss));
                sample.set(Figure::Pss, memory.pss);
                sample.set(Figure::Ram, memory.ram);
                sample.set(Figure::Swapped, Some(memory.swapped));
            }
            Err(_) => self.end(&format!("QEMU, PID {pid}, has ended")),
        }
    }

    fn end(&mut self, why: &str) {
        if !matches!(self.state, State::Ended(_)) {
            self.state = State::Ended(why.into());
            self.marks.push(Mark::new(self.now(), "ended", why));
        }
    }

    fn ask_qemu(&mut self, sample: &mut Sample) {
        if matches!(self.state, State::Ended(_)) {
            return;
        }
        let answer = self.query(sample);
        self.take_events();
        match answer {
            Ok(state) => self.state = State::Runs(state),
            Err(QmpError::Silent) => {
                if self.state != State::Silent {
                    self.marks.push(Mark::new(self.now(), "silent", "QEMU does not answer"));
                }
                self.state = State::Silent;
            }
            Err(QmpError::Refused(why)) => self.state = State::Runs(why),
            Err(error @ (QmpError::Ended | QmpError::Broken(_))) => self.end(&error.to_string()),
        }
    }

    fn query(&mut self, sample: &mut Sample) -> Result<String, QmpError> {
        let status = self.monitor.run("query-status", &json!({}))?;
        self.measure()?;
        if let Some(path) = self.balloon.clone() {
            if let Some(answer) = served(self.monitor.run("query-balloon", &json!({})))? {
                sample.set(Figure::Actual, answer["actual"].as_u64());
            }
            let statistics = json!({ "path": path, "property": "guest-stats" });
            if let Some(answer) = served(self.monitor.run("qom-get", &statistics))? {
                take_statistics(&answer["stats"], sample);
                // 0 means never.
                sample.set(Figure::StatTime, answer["last-update"].as_u64().filter(|seconds| *seconds > 0));
            }
        }
        if let Some(answer) = served(self.monitor.run("query-migrate", &json!({})))? {
            let status = answer["status"].as_str().unwrap_or("none").to_owned();
            if status != self.migration {
                self.marks.push(Mark::new(sample.at, "migration", format!("migration: {status}")));
                self.migration = status;
            }
        }
        Ok(status["status"].as_str().unwrap_or("unknown").to_owned())
    }

    fn take_events(&mut self) {
        for event in self.monitor.take_events() {
            let name = event["event"].as_str().unwrap_or_default();
            let kind = match name {
                "RESET" => "reset",
                "STOP" | "RESUME" | "SUSPEND" | "WAKEUP" => "state",
                "SHUTDOWN" | "POWERDOWN" => "shutdown",
                "GUEST_PANICKED" | "GUEST_CRASHLOADED" => "panic",
                _ => continue,
            };
            self.marks.push(Mark::new(self.now(), kind, name.to_ascii_lowercase().replace('_', " ")));
        }
    }

    /// Ends QEMU: for a guest that this program started.
    pub(crate) fn quit(&mut self) {
        // A QEMU that does not answer is killed.
        let _ = self.monitor.run("quit", &json!({}));
    }

    /// Restores the statistics interval; the guest runs on.
    pub(crate) fn leave(&mut self) {
        if let Some(seconds) = self.restore.take().filter(|_| !self.monitor.is_silent() && !self.has_ended()) {
            // If this fails, polling goes on, which does no harm.
            let _ = self.poll_statistics(seconds);
        }
    }

    /// Whether QEMU has ended.
    pub(crate) const fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended(_))
    }
}

/// A command's answer; `None` where QEMU refuses the command.
fn served(answer: Result<Value, QmpError>) -> Result<Option<Value>, QmpError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(QmpError::Refused(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn take_statistics(statistics: &Value, sample: &mut Sample) {
    for (figure, name) in [
        (Figure::StatFree, "stat-free-memory"),
        (Figure::StatTotal, "stat-total-memory"),
        (Figure::StatAvailable, "stat-available-memory"),
        (Figure::StatCaches, "stat-disk-caches"),
        (Figure::StatSwapIn, "stat-swap-in"),
        (Figure::StatSwapOut, "stat-swap-out"),
        (Figure::StatMajorFaults, "stat-major-faults"),
        (Figure::StatMinorFaults, "stat-minor-faults"),
    ] {
        // QEMU gives all ones for a statistic that the guest did not send.
        sample.set(figure, statistics[name].as_u64().filter(|value| *value != u64::MAX));
    }
}

/// PID of QEMU: the process that made the socket, if that is a QEMU. Libvirt makes sockets for its QEMUs, each of which has
/// the socket's folder in its arguments.
fn find_process(monitor: &Monitor, socket: &Path) -> Result<u32, String> {
    let maker = match monitor.peer().map(|pid| (pid, host::check_qemu(pid))) {
        Some((pid, Ok(()))) => return Ok(pid),
        Some((_, Err(other))) => format!("the socket was made by {other}"),
        None => "QEMU's process is not visible from here".into(),
    };
    let folder = std::fs::canonicalize(socket.parent().unwrap_or(socket)).unwrap_or_default();
    let is_domain = libvirt::of_folder(&folder.file_name().unwrap_or_default().to_string_lossy()).is_some();
    let found = if is_domain { host::qemu_with(&format!("{}/", folder.display())) } else { None };
    found.ok_or_else(|| format!("{maker}; name QEMU's by --pid"))
}
