//! The versions of QEMU that the tests run on, and where they are.

use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;

use super::failure::Outcome;
use super::script::{printed, script};

/// A version of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// Its balloon has no MSI-X.
    V7_2,
    /// Its balloon has a configurable number of MSI-X vectors; kicks are served outside the vCPU.
    V10_0,
    /// 10.0 where available, otherwise the system's.
    Newest,
}

impl Version {
    /// The program to start, fetched if necessary; `None` if this system cannot provide this version.
    ///
    /// The result is kept for the whole test program.
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

/// Finds or fetches every version before tests wait for it. Prints messages, since it may take minutes.
pub(crate) fn prepare() {
    for version in [Version::V7_2, Version::V10_0] {
        // Each test that needs this version reports the error.
        let _ = version.launcher();
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
    let mut finder = script("qemu.sh");
    finder.arg(version);
    // The script prints messages while it fetches or installs, which takes minutes.
    Ok(printed(finder, true)?.map(|path| path.trim_end().into()))
}
