//! A running virtual machine: its serial port, its QMP connection and its process.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{env, fs, process};

use serde_json::{Value, json};

use super::event::Event;
use super::failure::{Failure, Outcome, ensure};
use super::qemu::Qemu;
use super::qmp::Qmp;
use super::runner::{Completion, Deadline, Failed};
use super::serial::Serial;
use super::trace::Trace;

/// Polling interval for conditions that cannot wake a wait.
const GLANCE: Duration = Duration::from_millis(2);

/// Lines of the serial port that a failure shows.
const SHOWN: usize = 60;

/// A virtual machine. Dropping this value ends it.
pub(crate) struct Vm {
    pub(crate) serial: Serial,
    pub(crate) qmp: Qmp,
    /// Bytes of RAM.
    pub(crate) memory: u64,
    /// The guest's RAM, if it is shared.
    ram: Option<File>,
    deadline: Deadline,
    /// Whether the first line may be the end of one that began before a migration.
    torn: bool,
    process: Process,
    /// Its sockets and files.
    folder: Folder,
}

/// Runs a test on a virtual machine. Without this version of QEMU the test is ignored; a failure is reported with
/// evidence.
pub(crate) fn on(qemu: &Qemu, test: impl FnOnce(&mut Vm) -> Outcome) -> Result<Completion, Failed> {
    let Some(launcher) = qemu.version.launcher()? else {
        return Ok(Completion::ignored_with(format!("{} is not available here", qemu.version)));
    };
    let mut vm = Vm::start(&launcher, qemu)?;
    match vm.go(qemu).and_then(|()| test(&mut vm)).and_then(|()| vm.expect_declared_events()) {
        Ok(()) => Ok(Completion::Completed),
        Err(failure) => Err(vm.explain(&failure).into()),
    }
}

impl Vm {
    fn start(launcher: &Path, qemu: &Qemu) -> Outcome<Self> {
        let deadline = Deadline::after(qemu.patience);
        let folder = Folder::new()?;
        let socket = folder.0.join("qmp");
        // QEMU connects to the test, so nothing needs to be retried.
        let listener = UnixListener::bind(&socket)?;
        let mut process = Process::start(launcher, qemu, &socket)?;
        let taken = |_| "the serial port is taken";
        let screen = process.child.stdout.take().ok_or(()).map_err(taken)?;
        let keyboard = process.child.stdin.take().ok_or(()).map_err(taken)?;
        let serial = Serial::new(screen, keyboard);
        let qmp = process.accept(&listener, deadline).and_then(|stream| Qmp::greet(stream, deadline));
        // QEMU has made the file by now.
        let ram = OpenOptions::new().read(true).write(true).open(Qemu::memory_file(&socket)).ok();
        match qmp {
            Ok(qmp) => Ok(Self { serial, qmp, memory: qemu.memory, ram, deadline, torn: false, process, folder }),
            Err(failure) => Err(process.explain(&failure, &serial).into()),
        }
    }

    /// Starts another virtual machine beside this one.
    pub(crate) fn beside(&self, qemu: &Qemu) -> Outcome<Self> {
        let launcher = qemu.version.launcher()?.ok_or("this version of QEMU is gone")?;
        let mut vm = Self::start(&launcher, qemu)?;
        vm.go(qemu)?;
        Ok(vm)
    }

    /// Starts a machine with the same configuration that waits for this guest's migration. Returns it and its
    /// address.
    pub(crate) fn destination(&self, qemu: &Qemu) -> Outcome<(Self, String)> {
        let launcher = qemu.version.launcher()?.ok_or("this version of QEMU is gone")?;
        let mut vm = Self::start(&launcher, &qemu.clone().incoming())?;
        vm.torn = true;
        let address = format!("unix:{}", vm.folder.0.join("migration").display());
        vm.qmp.run_any("migrate-incoming", &json!({ "uri": address }))?;
        Ok((vm, address))
    }

    /// Lets the guest's CPUs run. They were stopped until here, so that the test misses nothing.
    fn go(&mut self, qemu: &Qemu) -> Outcome {
        if let Some(bytes) = qemu.early_target {
            self.qmp.set_target(bytes)?;
        }
        match self.qmp.cont() {
            // A short run can end before QEMU has answered.
            Err(_) if self.end().is_ok() => Ok(()),
            outcome => outcome,
        }
    }

    /// Checks all events, also those that the test did not take, against their declarations. A line that is not a
    /// JSON object is text, or was cut by a reset or a migration.
    fn expect_declared_events(&self) -> Outcome {
        let whole = |text: &str| text.starts_with("{\"event\"") && serde_json::from_str::<Value>(text).is_ok();
        self.serial
            .all()
            .iter()
            .filter(|line| whole(&line.text))
            .try_for_each(|line| Event::parse(&line.text).map(drop))
    }

    /// The next event of this name. Skips other events, except those that report a bug.
    pub(crate) fn event(&mut self, name: &str) -> Outcome<Event> {
        self.event_where(name, |event| event.name() == name)
    }

    /// The next event that `wanted` accepts; `what` names it in a failure.
    pub(crate) fn event_where(&mut self, what: &str, wanted: impl Fn(&Event) -> bool) -> Outcome<Event> {
        loop {
            let line = self.serial.next_line(self.deadline).map_err(|error| format!("no `{what}` event: {error}"))?;
            let line = line.ok_or_else(|| format!("no `{what}` event: QEMU has ended"))?;
            let event = match Event::parse(&line.text) {
                Err(_) if std::mem::take(&mut self.torn) => continue,
                event => event?,
            };
            self.torn = false;
            if wanted(&event) {
                return Ok(event);
            }
            ensure!(!event.is_fatal(), "waiting for a `{what}` event: {event}");
        }
    }

    /// The next line that holds `words`, for a kernel that writes text.
    pub(crate) fn line_with(&mut self, words: &str) -> Outcome<String> {
        loop {
            let line =
                self.serial.next_line(self.deadline).map_err(|error| format!("no line with {words:?}: {error}"))?;
            let line = line.ok_or_else(|| format!("no line with {words:?}: QEMU has ended"))?;
            if line.text.contains(words) {
                return Ok(line.text);
            }
        }
    }

    /// Types a command and returns the next event of this name.
    pub(crate) fn ask(&mut self, command: &str, name: &str) -> Outcome<Event> {
        self.serial.type_line(command)?;
        self.event(name).map_err(|error| format!("after {command:?}: {error}").into())
    }

    /// Polls until there is an answer; `what` names the wait in a failure.
    pub(crate) fn wait_for<T>(
        &mut self,
        what: &str,
        mut ask: impl FnMut(&mut Self) -> Outcome<Option<T>>,
    ) -> Outcome<T> {
        loop {
            if let Some(answer) = ask(self)? {
                return Ok(answer);
            }
            self.deadline.wait().map_err(|error| format!("{error}, waiting for {what}"))?;
            ensure!(self.process.status()?.is_none(), "QEMU has ended, waiting for {what}");
            thread::sleep(GLANCE);
        }
    }

    /// Sets the balloon's target and waits until `query-balloon` has exactly that.
    pub(crate) fn balloon_to(&mut self, bytes: u64) -> Outcome {
        self.qmp.set_target(bytes)?;
        let mut last = 0;
        self.wait_for("query-balloon to reach the target", |vm| {
            last = vm.qmp.actual()?;
            Ok((last == bytes).then_some(()))
        })
        .map_err(|error| format!("{error}: {last} of {bytes} bytes").into())
    }

    /// The guest's accesses outside memory so far; the machine must be traced.
    pub(crate) fn trace(&self) -> Outcome<Trace> {
        Trace::read(&Qemu::trace_file(&self.folder.0.join("qmp")))
    }

    /// Reads 16 bits of the guest's shared RAM at a physical address.
    pub(crate) fn read_memory(&self, address: u64) -> Outcome<u16> {
        let mut bytes = [0; 2];
        self.ram.as_ref().ok_or("the guest's RAM is not shared")?.read_exact_at(&mut bytes, address)?;
        Ok(u16::from_le_bytes(bytes))
    }

    /// Writes 16 bits to the guest's shared RAM at a physical address.
    pub(crate) fn write_memory(&self, address: u64, value: u16) -> Outcome {
        let ram = self.ram.as_ref().ok_or("the guest's RAM is not shared")?;
        Ok(ram.write_all_at(&value.to_le_bytes(), address)?)
    }

    /// QEMU's resident memory in bytes.
    pub(crate) fn resident(&self) -> Outcome<u64> {
        self.kilobytes("VmRSS:")
    }

    /// Bytes of the host's huge pages that this QEMU has.
    pub(crate) fn huge_pages(&self) -> Outcome<u64> {
        self.kilobytes("HugetlbPages:")
    }

    /// A value from the host's account of QEMU's memory, in bytes.
    fn kilobytes(&self, name: &str) -> Outcome<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no {name}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// PID of QEMU.
    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Waits until QEMU ends by itself. Returns its exit status.
    pub(crate) fn end(&mut self) -> Outcome<ExitStatus> {
        loop {
            if let Some(status) = self.process.status()? {
                return Ok(status);
            }
            self.deadline.wait().map_err(|error| format!("{error}, waiting for QEMU to end"))?;
            thread::sleep(GLANCE);
        }
    }

    /// The report of a failure on this machine.
    pub(crate) fn explain(&mut self, failure: &Failure) -> String {
        self.process.explain(failure, &self.serial)
    }
}

/// Turns transparent huge pages off for this process and its descendants.
fn disable_huge_pages() -> io::Result<()> {
    // SAFETY: this call changes an attribute of the process, not memory.
    match unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// QEMU's process.
struct Process {
    child: Child,
    command: String,
    complaints: Option<JoinHandle<String>>,
}

impl Process {
    fn start(launcher: &Path, qemu: &Qemu, qmp: &Path) -> Outcome<Self> {
        // With `setpriv`, the host's kernel ends QEMU with the test's thread, even after a signal; otherwise only
        // `drop` does.
        let guard = Path::new("/usr/bin/setpriv");
        let mut command = Command::new(if guard.exists() { guard } else { launcher });
        if guard.exists() {
            command.args(["--pdeathsig", "KILL", "--"]).arg(launcher);
        }
        command.args(qemu.arguments(qmp));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if !qemu.huge_pages {
            // SAFETY: the function makes one system call, which is async-signal-safe.
            unsafe { command.pre_exec(disable_huge_pages) };
        }
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", launcher.display()))?;
        let complaints = child.stderr.take().map(|mut stderr| {
            thread::spawn(move || {
                let mut text = Vec::new();
                let _ = stderr.read_to_end(&mut text);
                String::from_utf8_lossy(&text).into_owned()
            })
        });
        Ok(Self { child, command: format!("{command:?}"), complaints })
    }

    /// Waits for QEMU's connection. Fails if QEMU ends first.
    fn accept(&mut self, listener: &UnixListener, deadline: Deadline) -> Outcome<UnixStream> {
        listener.set_nonblocking(true)?;
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(status) = self.status()? {
                return Err(format!("QEMU did not start: {status}").into());
            }
            deadline.wait().map_err(|error| format!("{error}, waiting for QEMU's QMP connection"))?;
            thread::sleep(GLANCE);
        }
    }

    fn status(&mut self) -> Outcome<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Ends QEMU and reports everything that may explain the failure.
    fn explain(&mut self, failure: &Failure, serial: &Serial) -> String {
        let ended = self.status().ok().flatten();
        self.stop();
        let mut report = format!("{failure}\n\nQEMU: {}\n", self.command);
        if let Some(status) = ended {
            let _ = writeln!(report, "QEMU had ended: {status}");
        }
        let complaints = self.complaints.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        if !complaints.is_empty() {
            let _ = writeln!(report, "QEMU said: {}", complaints.trim_end());
        }
        let lines = serial.tail(SHOWN);
        let _ = writeln!(report, "Serial port, last {} lines:", lines.len());
        for line in lines {
            let _ = writeln!(report, "{:8.3} {}", line.after.as_secs_f64(), line.text);
        }
        report
    }

    fn stop(&mut self) {
        // Both fail only if the process has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A folder for one virtual machine. Dropping this value removes it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Outcome<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("ballonet-{}-{number}", process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
