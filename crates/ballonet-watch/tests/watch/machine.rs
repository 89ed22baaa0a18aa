//! Virtual machines to watch. The tests query QMP and `/proc` independently of the program.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{MIB, Outcome, PATIENCE, project, until};

/// RAM of each machine.
pub(crate) const RAM: u64 = 256 * MIB;

/// The guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ballonet,
    Linux,
}

/// A virtual machine. Dropping this value ends it.
pub(crate) struct Machine {
    child: Child,
    folder: PathBuf,
    /// A second QMP connection, for the test.
    pub(crate) qmp: Qmp,
    balloon: String,
}

/// A path to QEMU or to what it boots, or why it is not available here.
type Found<T> = Result<T, String>;

fn printed(mut command: Command) -> Found<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

fn qemu(version: &str) -> Found<String> {
    static FOUND: [OnceLock<Found<String>>; 2] = [const { OnceLock::new() }; 2];
    let find = || {
        let mut finder = Command::new(project("scripts/qemu.sh"));
        finder.arg(version);
        printed(finder)
    };
    FOUND[usize::from(version == "10.0")].get_or_init(find).clone()
}

/// The kernel, built by cargo unless `BALLONET_KERNEL` names one.
pub(crate) fn kernel() -> Found<PathBuf> {
    static FOUND: OnceLock<Found<PathBuf>> = OnceLock::new();
    let build = || {
        if let Some(kernel) = std::env::var_os("BALLONET_KERNEL") {
            return Ok(kernel.into());
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(project("")).args(["build", "--package", "ballonet-kernel", "--bin", "ballonet"]);
        cargo.args(["--message-format", "json"]);
        let messages = printed(cargo)?;
        let made = |line: &str| serde_json::from_str::<Value>(line).ok()?["executable"].as_str().map(PathBuf::from);
        messages.lines().find_map(made).ok_or_else(|| "cargo built no kernel".into())
    };
    FOUND.get_or_init(build).clone()
}

fn linux() -> Found<(String, String)> {
    static FOUND: OnceLock<Found<(String, String)>> = OnceLock::new();
    let find = || {
        let paths = printed(Command::new(project("scripts/linux-guest.sh")))?;
        let (kernel, initramfs) = paths.split_once('\n').ok_or("linux-guest.sh printed no two paths")?;
        Ok((kernel.to_owned(), initramfs.to_owned()))
    };
    FOUND.get_or_init(find).clone()
}

impl Machine {
    /// Starts a machine; if that is not available here, says why on standard error. `balloon` holds properties of the
    /// device.
    pub(crate) fn start(version: &str, kind: Kind, balloon: &str) -> Outcome<Option<Self>> {
        Self::with(version, kind, balloon, &[])
    }

    /// The same with more options of QEMU; they override others.
    pub(crate) fn with(version: &str, kind: Kind, balloon: &str, options: &[&str]) -> Outcome<Option<Self>> {
        let boot = match kind {
            Kind::Ballonet => kernel().map(|kernel| {
                vec!["-kernel".into(), kernel.display().to_string(), "-append".into(), "log=json".into()]
            }),
            Kind::Linux => linux().map(|(kernel, initramfs)| {
                let line = "console=ttyS0 panic=-1 quiet".to_owned();
                vec!["-kernel".into(), kernel, "-initrd".into(), initramfs, "-append".into(), line]
            }),
        };
        let found = qemu(version).and_then(|qemu| Ok((qemu, boot?)));
        match found {
            Ok((qemu, boot)) => Self::spawn(&qemu, &boot, balloon, options).map(Some),
            Err(why) => {
                eprintln!("skipped: QEMU {version} with {kind:?}: {why}");
                Ok(None)
            }
        }
    }

    fn spawn(qemu: &str, boot: &[String], balloon: &str, options: &[&str]) -> Outcome<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("watch-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let socket = |name: &str| format!("unix:{},server=on,wait=off", folder.join(name).display());
        // With `setpriv`, the host's kernel ends QEMU with the test's thread; otherwise only `drop` does.
        let guard = Path::new("/usr/bin/setpriv");
        let mut command = Command::new(if guard.exists() { guard } else { Path::new(qemu) });
        if guard.exists() {
            command.args(["--pdeathsig", "KILL", "--", qemu]);
        }
        command.args(["-accel", "tcg", "-machine", "q35", "-cpu", "max", "-m", &format!("{}M", RAM / MIB)]);
        command.args(["-display", "none", "-nic", "none", "-monitor", "none", "-serial", &socket("serial")]);
        // QEMU serves one client per socket: two are for the program, one for the test.
        command.args(["-qmp", &socket("guest.qmp"), "-qmp", &socket("other.qmp"), "-qmp", &socket("test")]);
        let comma = if balloon.is_empty() { "" } else { "," };
        command.args(["-device", &format!("virtio-balloon-pci,id=balloon0{comma}{balloon}")]).args(boot).args(options);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let own = folder.join("test");
        let connection = until("QEMU's QMP socket", || Ok(UnixStream::connect(&own).ok()))?;
        let qmp = Qmp::greet(connection)?;
        Ok(Self { child, folder, qmp, balloon: "/machine/peripheral/balloon0".into() })
    }

    /// The socket for the program.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("guest.qmp")
    }

    /// Another socket for the program.
    pub(crate) fn other_socket(&self) -> PathBuf {
        self.folder.join("other.qmp")
    }

    /// The folder with this machine's sockets.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The socket with the serial line.
    pub(crate) fn serial(&self) -> PathBuf {
        self.folder.join("serial")
    }

    /// PID of QEMU.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Bytes that the balloon leaves the guest.
    pub(crate) fn actual(&mut self) -> Outcome<u64> {
        let answer = self.qmp.run("query-balloon", &json!({}))?;
        answer["actual"].as_u64().ok_or_else(|| format!("query-balloon: {answer}").into())
    }

    /// A property of the balloon.
    pub(crate) fn property(&mut self, name: &str) -> Outcome<Value> {
        let path = self.balloon.clone();
        self.qmp.run("qom-get", &json!({ "path": path, "property": name }))
    }

    /// Waits until the guest's driver is up, that is, until it sends statistics.
    pub(crate) fn wait_for_driver(&mut self) -> Outcome {
        let path = self.balloon.clone();
        let set = |seconds: u64| json!({ "path": path, "property": "guest-stats-polling-interval", "value": seconds });
        self.qmp.run("qom-set", &set(1))?;
        until("the guest's statistics", || {
            let answer = self.property("guest-stats")?;
            Ok(answer["last-update"].as_u64().filter(|seconds| *seconds > 0))
        })?;
        self.qmp.run("qom-set", &set(0))?;
        self.settle()
    }

    /// Waits until QEMU's memory, which grows after a boot, is constant for a second.
    fn settle(&self) -> Outcome {
        let (mut since, mut last) = (Instant::now(), 0_u64);
        until("QEMU's memory to stand still", || {
            let [rss, ..] = self.memory()?;
            if rss.abs_diff(last) > MIB {
                (since, last) = (Instant::now(), rss);
            }
            Ok((since.elapsed() > Duration::from_secs(1)).then_some(()))
        })
    }

    /// Sends a signal to QEMU.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) -> Outcome {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid())?).ok_or("no PID")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// RSS and PSS of the process and RSS of its RAM's mapping, in bytes, by `/proc`.
    pub(crate) fn memory(&self) -> Outcome<[u64; 3]> {
        self.memory_of(RAM)
    }

    /// The same where the RAM's mappings have this size.
    pub(crate) fn memory_of(&self, size: u64) -> Outcome<[u64; 3]> {
        let pid = self.pid();
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let of = |text: &str, name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0 kB");
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() * 1024
        };
        let maps = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
        let ram = maps.split("VmFlags:").filter(|part| of(part, "Size:") == size).map(|part| of(part, "Rss:"));
        Ok([of(&rollup, "Rss:"), of(&rollup, "Pss:"), ram.sum()])
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only if the process has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The test's QMP connection.
pub(crate) struct Qmp(BufReader<UnixStream>);

impl Qmp {
    fn greet(stream: UnixStream) -> Outcome<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        let mut qmp = Self(BufReader::new(stream));
        qmp.0.read_line(&mut String::new())?;
        qmp.run("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command.
    pub(crate) fn run(&mut self, name: &str, arguments: &Value) -> Outcome<Value> {
        writeln!(self.0.get_mut(), "{}", json!({ "execute": name, "arguments": arguments }))?;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err("QEMU has ended".into());
            }
            let mut message: Value = serde_json::from_str(&line)?;
            if let Some(answer) = message.get_mut("return") {
                return Ok(answer.take());
            }
            if message["error"].is_object() {
                return Err(format!("{name}: {message}").into());
            }
        }
    }
}
