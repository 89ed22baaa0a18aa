//! `ballonet-watch` against real QEMUs: 7.2 and 10.0, a ballonet and a Linux guest. It is driven in a pseudo-terminal, its picture
//! is read, and each figure is compared with what QMP and `/proc` say.
//!
//! A version of QEMU or a guest that is not available here is skipped, with the reason on standard error. Every wait has a bound
//! far above what it needs; none is part of what a test asserts.

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

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// Time between two looks.
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

/// Looks again and again until there is an answer; `what` names the wait.
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
