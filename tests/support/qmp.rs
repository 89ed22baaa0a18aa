//! QEMU from the host's side: the machine protocol QMP, and the balloon as the host sees it.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

use serde_json::{Map, Value, json};

use super::failure::{Failure, Outcome, ensure};
use super::picture::Picture;
use super::runner::Deadline;

/// The balloon's path in QEMU's object tree; [`super::Qemu`] gives the device this id.
const BALLOON: &str = "/machine/peripheral/balloon0";

/// A QMP connection: one line of JSON per command and per answer, with events in between.
pub(crate) struct Qmp {
    socket: BufReader<UnixStream>,
    deadline: Deadline,
}

/// Statistics that the guest has reported.
#[derive(Debug, Clone)]
pub(crate) struct Statistics {
    /// When QEMU received them, in seconds since 1970; 0 for never.
    pub(crate) last_update: u64,
    values: Map<String, Value>,
}

/// QEMU's names of the statistics, in the order of tags 0 to 7 (virtio 1.4, 5.5.6.3).
pub(crate) const TAGS: [&str; 8] = [
    "stat-swap-in",
    "stat-swap-out",
    "stat-major-faults",
    "stat-minor-faults",
    "stat-free-memory",
    "stat-total-memory",
    "stat-available-memory",
    "stat-disk-caches",
];

/// The same for Linux's tags 10 to 15; QEMU 7.2 knows none of them.
pub(crate) const OOM_TAGS: [&str; 6] = [
    "stat-oom-kills",
    "stat-alloc-stalls",
    "stat-async-scans",
    "stat-direct-scans",
    "stat-async-reclaims",
    "stat-direct-reclaims",
];

impl Statistics {
    /// A statistic; `None` if the guest has not reported it.
    pub(crate) fn get(&self, name: &str) -> Option<u64> {
        // QEMU gives all ones for a missing statistic, as -1 or as 2^64 - 1.
        self.values.get(name)?.as_u64().filter(|value| *value != u64::MAX)
    }

    /// A statistic that must be there, in bytes or as a count.
    pub(crate) fn need(&self, name: &str) -> Outcome<u64> {
        Ok(self.get(name).ok_or_else(|| format!("the guest has not reported {name}: {:?}", self.values))?)
    }
}

impl Qmp {
    /// Negotiates with QEMU on a new connection. No command waits beyond the deadline.
    pub(crate) fn greet(socket: UnixStream, deadline: Deadline) -> Outcome<Self> {
        let mut qmp = Self { socket: BufReader::new(socket), deadline };
        let greeting = qmp.message()?;
        ensure!(greeting["QMP"].is_object(), "this is no QMP: {greeting}");
        qmp.run_any("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command.
    pub(crate) fn run_any(&mut self, name: &str, arguments: &Value) -> Outcome<Value> {
        let command = json!({ "execute": name, "arguments": arguments });
        let answer = writeln!(self.socket.get_mut(), "{command}").map_err(Failure::from).and_then(|()| self.answer());
        answer.map_err(|error| format!("QMP {name} {arguments}: {error}").into())
    }

    /// The answer to the last command. Events before it are dropped.
    fn answer(&mut self) -> Outcome<Value> {
        loop {
            let mut message = self.message()?;
            if let Some(error) = message.get("error") {
                return Err(error["desc"].as_str().map_or_else(|| error.to_string(), str::to_owned).into());
            }
            if let Some(answer) = message.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }

    /// The next line that QEMU sends.
    fn message(&mut self) -> Outcome<Value> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            self.socket.get_ref().set_read_timeout(Some(self.deadline.wait()?))?;
            match self.socket.read_until(b'\n', &mut line) {
                Ok(0) => return Err("QEMU has ended".into()),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(serde_json::from_slice(&line)?)
    }

    /// Sets the balloon's target: the guest keeps `bytes`.
    pub(crate) fn set_target(&mut self, bytes: u64) -> Outcome {
        self.run_any("balloon", &json!({ "value": bytes })).map(drop)
    }

    /// The guest's memory in bytes, by the balloon size that the guest reported.
    pub(crate) fn actual(&mut self) -> Outcome<u64> {
        let answer = self.run_any("query-balloon", &json!({}))?;
        Ok(answer["actual"].as_u64().ok_or_else(|| format!("query-balloon: {answer}"))?)
    }

    /// Makes QEMU poll statistics every `seconds`; 0 stops that.
    pub(crate) fn poll_statistics(&mut self, seconds: u64) -> Outcome {
        let arguments = json!({ "path": BALLOON, "property": "guest-stats-polling-interval", "value": seconds });
        self.run_any("qom-set", &arguments).map(drop)
    }

    /// The statistics that the guest reported last.
    pub(crate) fn statistics(&mut self) -> Outcome<Statistics> {
        let answer = self.run_any("qom-get", &json!({ "path": BALLOON, "property": "guest-stats" }))?;
        let values = answer["stats"].as_object().ok_or_else(|| format!("guest-stats: {answer}"))?;
        let last_update = answer["last-update"].as_u64().unwrap_or_default();
        Ok(Statistics { last_update, values: values.clone() })
    }

    /// The device status and negotiated features, in QEMU's words.
    pub(crate) fn virtio_status(&mut self) -> Outcome<Value> {
        let path = self.virtio_path()?;
        self.run_any("x-query-virtio-status", &json!({ "path": path }))
    }

    fn virtio_path(&mut self) -> Outcome<Value> {
        let devices = self.run_any("x-query-virtio", &json!({}))?;
        let path = devices.as_array().into_iter().flatten().find(|device| device["name"] == "virtio-balloon");
        Ok(path.ok_or("QEMU knows no balloon")?["path"].clone())
    }

    /// The host's thread ID of the guest's first CPU.
    pub(crate) fn cpu_thread(&mut self) -> Outcome<u64> {
        let answer = self.run_any("query-cpus-fast", &json!({}))?;
        Ok(answer[0]["thread-id"].as_u64().ok_or_else(|| format!("query-cpus-fast: {answer}"))?)
    }

    /// The addresses of a queue of the balloon, and QEMU's indices.
    pub(crate) fn virtio_queue(&mut self, queue: u16) -> Outcome<Value> {
        let path = self.virtio_path()?;
        self.run_any("x-query-virtio-queue-status", &json!({ "path": path, "queue": queue }))
    }

    /// Migrates the guest to the machine that waits at `address`. [`Qmp::migration`] gives the progress.
    pub(crate) fn migrate(&mut self, address: &str) -> Outcome {
        self.run_any("migrate", &json!({ "uri": address })).map(drop)
    }

    /// Limits the migration's bandwidth, in bytes per second.
    pub(crate) fn limit_migration(&mut self, bytes: u64) -> Outcome {
        self.run_any("migrate-set-parameters", &json!({ "max-bandwidth": bytes })).map(drop)
    }

    /// The state of a migration: its status, and QEMU's figures.
    pub(crate) fn migration(&mut self) -> Outcome<(String, Value)> {
        let answer = self.run_any("query-migrate", &json!({}))?;
        Ok((answer["status"].as_str().unwrap_or("none").to_owned(), answer))
    }

    /// Cancels a migration.
    pub(crate) fn cancel_migration(&mut self) -> Outcome {
        self.run_any("migrate_cancel", &json!({})).map(drop)
    }

    /// Stops the guest's CPUs.
    pub(crate) fn stop(&mut self) -> Outcome {
        self.run_any("stop", &json!({})).map(drop)
    }

    /// Adds a device: `properties` are `driver`, `id`, `bus` and so on.
    pub(crate) fn device_add(&mut self, properties: &Value) -> Outcome {
        self.run_any("device_add", properties).map(drop)
    }

    /// Requests the removal of a device. QEMU removes it once the guest has released it.
    pub(crate) fn device_del(&mut self, id: &str) -> Outcome {
        self.run_any("device_del", &json!({ "id": id })).map(drop)
    }

    /// Whether a device with this ID exists.
    pub(crate) fn has_device(&mut self, id: &str) -> Outcome<bool> {
        let devices = self.run_any("qom-list", &json!({ "path": "/machine/peripheral" }))?;
        Ok(devices.as_array().into_iter().flatten().any(|device| device["name"] == id))
    }

    /// Lets the guest's CPUs run.
    pub(crate) fn cont(&mut self) -> Outcome {
        self.run_any("cont", &json!({})).map(drop)
    }

    /// Presses the power button.
    pub(crate) fn system_powerdown(&mut self) -> Outcome {
        self.run_any("system_powerdown", &json!({})).map(drop)
    }

    /// Sends every CPU an NMI.
    pub(crate) fn inject_nmi(&mut self) -> Outcome {
        self.run_any("inject-nmi", &json!({})).map(drop)
    }

    /// Runs a command of the human monitor, and returns its answer.
    pub(crate) fn monitor(&mut self, line: &str) -> Outcome<String> {
        let answer = self.run_any("human-monitor-command", &json!({ "command-line": line }))?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    /// Resets the machine, as its reset button does.
    pub(crate) fn system_reset(&mut self) -> Outcome {
        self.run_any("system_reset", &json!({})).map(drop)
    }

    /// A picture of the guest's screen.
    pub(crate) fn screen(&mut self) -> Outcome<Picture> {
        let file = self.file_of("screendump", |path| json!({ "filename": path }))?;
        Picture::parse(&file)
    }

    /// Reads the guest's physical memory, as its CPU would.
    pub(crate) fn physical_memory(&mut self, address: u64, bytes: usize) -> Outcome<Vec<u8>> {
        self.file_of("pmemsave", |path| json!({ "val": address, "size": bytes, "filename": path }))
    }

    /// Runs a command that makes QEMU write a file, and returns that file.
    fn file_of(&mut self, command: &str, arguments: impl FnOnce(&str) -> Value) -> Outcome<Vec<u8>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("ballonet-{}-{command}-{number}", process::id()));
        let outcome = self.run_any(command, &arguments(&path.to_string_lossy()));
        let file = fs::read(&path);
        let _ = fs::remove_file(&path);
        outcome?;
        Ok(file?)
    }

    /// Presses keys of the guest's keyboard in order, by QEMU's names: `a`, `ret`, `shift-1`.
    pub(crate) fn press(&mut self, keys: &[&str]) -> Outcome {
        for key in keys {
            let codes: Vec<_> = key.split('-').map(|key| json!({ "type": "qcode", "data": key })).collect();
            self.run_any("send-key", &json!({ "keys": codes, "hold-time": 20 }))?;
        }
        Ok(())
    }
}
