//! The hosts and the guests that are compared.

use std::fmt;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::support::{MIB, Outcome, Qemu, Version, Vm, ensure, on};

/// Bytes of RAM.
pub(crate) const MEMORY: u64 = 2048 * MIB;

/// A QEMU version, and the page size behind guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) version: Version,
    /// Transparent huge pages, otherwise 4 KiB pages.
    pub(crate) huge_pages: bool,
}

impl Host {
    pub(crate) const ALL: [Self; 4] = [
        Self { version: Version::V10_0, huge_pages: true },
        Self { version: Version::V10_0, huge_pages: false },
        Self { version: Version::V7_2, huge_pages: true },
        Self { version: Version::V7_2, huge_pages: false },
    ];

    /// Names the host's pages.
    pub(crate) const fn pages(self) -> &'static str {
        if self.huge_pages { "THP" } else { "4 KiB" }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.version.to_string();
        write!(formatter, "{}, {}", version.trim_start_matches("qemu-"), self.pages())
    }
}

/// A guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guest {
    Linux,
    Ours,
}

impl Guest {
    pub(crate) const ALL: [Self; 2] = [Self::Linux, Self::Ours];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Linux => "Linux",
            Self::Ours => "ballonet",
        }
    }

    /// This guest on `host`, with all guest RAM preallocated.
    pub(crate) fn on(self, host: Host) -> Outcome<Qemu> {
        let base = Qemu::new(host.version).memory(MEMORY).preallocated().patience(Duration::from_secs(240));
        let base = if host.huge_pages { base } else { base.without_huge_pages() };
        match self {
            Self::Ours => Ok(base),
            Self::Linux => {
                let (kernel, initramfs) = linux()?;
                let qemu = base.image(kernel.into()).initramfs(initramfs.into());
                Ok(qemu.command_line("console=ttyS0 panic=-1 quiet"))
            }
        }
    }
}

/// Paths of Linux and its initramfs.
fn linux() -> Outcome<(String, String)> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/linux-guest.sh");
    let output = Command::new(script).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{script}: {}", output.status);
    let paths = String::from_utf8(output.stdout)?;
    let (kernel, initramfs) = paths.trim_end().split_once('\n').ok_or("two paths were expected")?;
    Ok((kernel.to_owned(), initramfs.to_owned()))
}

/// Starts a virtual machine and returns the result of `measure`; `None` where this QEMU is not available.
pub(crate) fn measured<T>(qemu: &Qemu, measure: impl FnOnce(&mut Vm) -> Outcome<T>) -> Outcome<Option<T>> {
    let mut result = None;
    let finished = on(qemu, |vm| {
        result = Some(measure(vm)?);
        Ok(())
    });
    finished.map_err(|failed| failed.0)?;
    Ok(result)
}
