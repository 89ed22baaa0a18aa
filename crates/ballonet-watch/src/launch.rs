//! Starts guests: a ballonet kernel in QEMU, by the project's `run.sh`, which takes options from the environment.

use std::env;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::{Context as _, Failure, Outcome};
use crate::guest::{Address, Guest};
use crate::serial::Serial;

/// The longest time until QEMU's QMP socket appears: `run.sh` first queries QEMU several times.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest time that QEMU may take to end.
const END: Duration = Duration::from_secs(5);
/// Polling interval.
const GLANCE: Duration = Duration::from_millis(20);

/// The kernel, and the `run.sh` that starts it.
#[derive(Debug, Clone)]
pub(crate) struct Launcher {
    script: PathBuf,
    kernel: PathBuf,
}

/// A running QEMU that this program started. Dropping this value ends it.
pub(crate) struct Launched {
    child: Child,
    folder: PathBuf,
}

impl Launcher {
    /// Uses `run.sh` in `root` with `kernel`; without one, builds the project's kernel first.
    pub(crate) fn prepare(root: &Path, kernel: Option<&Path>, release: bool) -> Outcome<Self> {
        let script = root.join("run.sh");
        if !script.is_file() {
            return Err(
                format!("{}: not there; --root names the folder of ballonet's sources", script.display()).into()
            );
        }
        let kernel = match kernel {
            Some(kernel) => fs::canonicalize(kernel).of(format_args!("--kernel {}", kernel.display()))?,
            None => build(root, release)?,
        };
        Ok(Self { script, kernel })
    }

    /// Starts a guest with these kernel arguments and `run.sh` options, and connects to it.
    pub(crate) fn start(
        &self,
        name: &str,
        options: &[(&str, &str)],
        arguments: &[String],
        start: Instant,
    ) -> Outcome<(Launched, Guest)> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("ballonet-watch-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).of(folder.display())?;
        let socket = folder.join("qmp");
        let mut command = Command::new(&self.script);
        command.envs(options.iter().copied()).arg("--qmp").arg(&socket).arg(&self.kernel).arg("log=json");
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().of(self.script.display())?;
        let (screen, keyboard) = (child.stdout.take(), child.stdin.take());
        let mut launched = Launched { child, folder };
        let serial = screen.zip(keyboard).map(|(screen, keyboard)| Serial::new(screen, keyboard));
        launched.wait_for(&socket)?;
        let address = Address { name: name.into(), socket, pid: None, serial: None };
        let mut guest = Guest::attach(&address, serial, start)?;
        guest.start_statistics();
        Ok((launched, guest))
    }
}

impl Launched {
    fn wait_for(&mut self, socket: &Path) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        while !socket.exists() {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.complaint(&format!("QEMU did not start: run.sh ended with {status}")));
            }
            if Instant::now() > deadline {
                return Err(format!("QEMU made no QMP socket within {} s", PATIENCE.as_secs()).into());
            }
            thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// The last output of `run.sh` and QEMU.
    fn complaint(&mut self, what: &str) -> Failure {
        let mut text = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            let _ = stderr.read_to_string(&mut text);
        }
        format!("{what}\n{}", text.trim_end()).into()
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        // `run.sh` passes SIGTERM on to QEMU. Usually QEMU has already ended by QMP.
        let deadline = Instant::now() + END;
        let mut told = false;
        while matches!(self.child.try_wait(), Ok(None)) {
            if !told && Instant::now() + END / 2 > deadline {
                told = true;
                if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                }
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            thread::sleep(GLANCE);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Builds the kernel, with cargo's progress on the terminal, and returns its path.
fn build(root: &Path, release: bool) -> Outcome<PathBuf> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args(["build", "--package", "ballonet-kernel", "--bin", "ballonet"]);
    if release {
        cargo.arg("--release");
    }
    // Under `cargo run`, cargo has set this for another package.
    cargo.env_remove("CARGO_MANIFEST_DIR").stdin(Stdio::null()).stdout(Stdio::null());
    let status = cargo.status().of("cargo build (--kernel names a kernel that is already built)")?;
    if !status.success() {
        return Err(format!("building the kernel failed: cargo ended with {status}").into());
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder));
    Ok(target.join(if release { "release" } else { "debug" }).join("ballonet"))
}
