//! `ballonet-watch` against real QEMUs (7.2 and 10.0) with a ballonet and a Linux guest. The tests drive it in a
//! pseudo-terminal, read its picture, and compare each figure with QMP and `/proc`.
//!
//! A QEMU version or guest that is not available here is skipped, with the reason on standard error. Every wait has a
//! generous limit; no test asserts a time.

// A test program is an ordinary program of the host.
#![allow(clippy::std_instead_of_core)]

mod demos;
mod errors;
mod machine;
mod picture;
mod plain;
mod several;
mod steering;
mod terminal;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Any error ends a test.
type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// The limit of every wait.
const PATIENCE: Duration = Duration::from_secs(90);
/// Polling interval.
const GLANCE: Duration = Duration::from_millis(50);
/// Bytes in a MiB.
const MIB: u64 = 1 << 20;

/// The program under test.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ballonet-watch"));
    command.env("LC_ALL", "C.UTF-8").env_remove("NO_COLOR").env("TERM", "xterm-256color");
    command
}

/// A file of the project.
fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Polls `look` until it gives an answer; `what` names the wait in an error.
fn until<T>(what: &str, mut look: impl FnMut() -> Outcome<Option<T>>) -> Outcome<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = look()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return Err(format!("waited {} s for {what}", PATIENCE.as_secs()).into());
        }
        thread::sleep(GLANCE);
    }
}
