//! The versions of QEMU that the tests run on, and where they are.

use std::fmt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::failure::Outcome;

/// A version of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// Its balloon has no MSI-X.
    V7_2,
    /// Its balloon has as many MSI-X vectors as it is told; kicks are served outside the vCPU.
    V10_0,
    /// 10.0 where it is to be had, else whatever this system has.
    Newest,
}

/// What `scripts/qemu.sh` exits with when a version can't be had on this system.
const UNAVAILABLE: i32 = 3;

impl Version {
    /// The program to start, fetched if need be; `None` when this version can't be had on this system.
    ///
    /// The answer is looked up once for the whole test program.
    pub(crate) fn launcher(self) -> Outcome<Option<PathBuf>> {
        static V7_2: OnceLock<Result<Option<PathBuf>, String>> = OnceLock::new();
        static V10_0: OnceLock<Result<Option<PathBuf>, String>> = OnceLock::new();
        static SYSTEM: OnceLock<Result<Option<PathBuf>, String>> = OnceLock::new();
        let found = match self {
            Self::V7_2 => V7_2.get_or_init(|| find("7.2")).clone(),
            Self::V10_0 => V10_0.get_or_init(|| find("10.0")).clone(),
            Self::Newest => match Self::V10_0.launcher()? {
                Some(launcher) => Ok(Some(launcher)),
                None => SYSTEM.get_or_init(|| find("system")).clone(),
            },
        };
        Ok(found?)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V7_2 => "qemu-7.2",
            Self::V10_0 => "qemu-10.0",
            Self::Newest => "qemu",
        })
    }
}

fn find(version: &str) -> Result<Option<PathBuf>, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/qemu.sh");
    let output = Command::new(script)
        .arg(version)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{script} does not run: {error}"))?;
    match output.status.code() {
        Some(0) => Ok(Some(String::from_utf8_lossy(&output.stdout).trim_end().into())),
        Some(UNAVAILABLE) => Ok(None),
        _ => Err(format!("{script} {version}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr))),
    }
}
