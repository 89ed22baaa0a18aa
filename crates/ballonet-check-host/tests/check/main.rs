//! `ballonet-check` against VMMs: scripts that print what a guest would, die, flood, go silent or close the serial
//! line; and QEMU 7.2 and 10.0, killed and stopped in mid-check.
//!
//! A QEMU that is not available here is skipped, with the reason on standard error.

// A test program is an ordinary program of the host.
#![allow(clippy::std_instead_of_core)]

mod control;
mod errors;
mod fake;
mod hot_plug;
mod qemu;
mod release;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Any error ends a test.
type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// The program under test.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ballonet-check"));
    command.stdin(Stdio::null()).env_remove("BALLONET_KERNEL");
    command
}

/// A file of the project.
fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// A folder of this test, removed with this value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Outcome<Self> {
        let path = std::env::temp_dir().join(format!("ballonet-check-test-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The exit status and the JSON report that the program printed.
fn report(output: &Output) -> Outcome<(i32, Value)> {
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}{errors}"))?;
    Ok((output.status.code().ok_or("killed")?, value))
}

/// The verdict of a check, and its detail.
fn verdict<'v>(report: &'v Value, name: &str) -> Outcome<(&'v str, &'v str)> {
    let checks = report["checks"].as_array().ok_or("no checks")?;
    let check = checks.iter().find(|check| check["name"] == name).ok_or_else(|| format!("no {name}"))?;
    Ok((check["verdict"].as_str().ok_or("no verdict")?, check["detail"].as_str().unwrap_or_default()))
}

/// How many checks have this verdict.
fn count(report: &Value, verdict: &str) -> u64 {
    report["counts"][verdict].as_u64().unwrap_or_default()
}
