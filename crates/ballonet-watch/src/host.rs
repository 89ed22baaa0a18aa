//! The host's side, from `/proc`: memory of a QEMU process, memory and memory pressure of the host.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::failure::{Context as _, Outcome};

/// A process's memory, in bytes (proc(5)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ProcessMemory {
    /// Resident, huge pages of hugetlbfs included, which `VmRSS` leaves out.
    pub(crate) rss: u64,
    /// Proportional set size: each shared page counts by its share. Needs the right to trace the process.
    pub(crate) pss: Option<u64>,
    /// Resident part of the guest's RAM alone, without QEMU's own memory.
    pub(crate) ram: Option<u64>,
    /// Swapped out.
    pub(crate) swapped: u64,
}

/// The memory of process `pid`. `ram_size` finds the guest's RAM among its mappings.
///
/// # Errors
/// When the process has ended.
pub(crate) fn process_memory(pid: u32, ram_size: Option<u64>) -> io::Result<ProcessMemory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let ended = || io::Error::new(io::ErrorKind::NotFound, format!("process {pid} has ended"));
    let resident = kilobytes(&status, "VmRSS:").ok_or_else(ended)?;
    let hugetlb = kilobytes(&status, "HugetlbPages:").unwrap_or_default();
    let swapped = kilobytes(&status, "VmSwap:").unwrap_or_default();
    // `smaps` needs more rights than `status`: without them some figures are missing.
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).ok();
    let totals = maps.as_deref().map(|text| (sum(text, "Rss:"), sum(text, "Pss:")));
    Ok(ProcessMemory {
        // `smaps` is counted page by page; `status` may lag by some pages per thread.
        rss: totals.map_or(resident, |(rss, _)| rss) + hugetlb,
        pss: totals.map(|(_, pss)| pss + hugetlb),
        ram: maps.as_deref().zip(ram_size).and_then(|(text, size)| ram_resident(text, size)),
        swapped,
    })
}

fn sum(smaps: &str, name: &str) -> u64 {
    smaps.lines().filter_map(|line| field(line, name)).sum()
}

/// Resident bytes of the mapping that holds `size` bytes of RAM: the smallest that is large enough, since the kernel
/// may have merged it with a neighbour.
fn ram_resident(smaps: &str, size: u64) -> Option<u64> {
    let mut best: Option<(u64, u64)> = None;
    let mut current = 0;
    let mut resident = 0;
    for line in smaps.lines() {
        if let Some(bytes) = field(line, "Size:") {
            current = bytes;
        } else if let Some(bytes) = field(line, "Rss:") {
            resident = bytes;
        } else if let Some(bytes) = field(line, "Private_Hugetlb:").or_else(|| field(line, "Shared_Hugetlb:")) {
            resident += bytes;
        } else if line.starts_with("VmFlags:") && current >= size && best.is_none_or(|(least, _)| current < least) {
            best = Some((current, resident));
        }
    }
    // A mapping twice as large is something else.
    best.filter(|(mapped, _)| *mapped < size.saturating_mul(2)).map(|(_, resident)| resident)
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| field(line, name))
}

fn field(line: &str, name: &str) -> Option<u64> {
    line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// A process's name, of at most 15 bytes.
pub(crate) fn process_name(pid: u32) -> Outcome<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).of(format_args!("PID {pid}: no such process"))?;
    Ok(name.trim_end().to_owned())
}

/// Memory and pressure of the host.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct HostState {
    /// Memory available without swapping (`MemAvailable`), in bytes.
    pub(crate) available: Option<u64>,
    /// Percentage of the last 10 s in which some task waited for memory (PSI, `some avg10`); `None` without PSI.
    pub(crate) pressure: Option<f64>,
}

impl HostState {
    /// Reads both.
    pub(crate) fn read() -> Self {
        let information = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let pressure = fs::read_to_string("/proc/pressure/memory").ok();
        Self {
            available: kilobytes(&information, "MemAvailable:"),
            pressure: pressure.as_deref().and_then(some_average),
        }
    }
}

/// `avg10` of the line `some avg10=0.00 avg60=…`.
fn some_average(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    line.split(' ').find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

/// Where libvirt keeps the PID of the domain whose monitor socket is in a folder `domain-N-NAME`.
pub(crate) fn libvirt_pid_file(folder: &str) -> Option<PathBuf> {
    let (_, name) = folder.strip_prefix("domain-")?.split_once('-')?;
    Some(PathBuf::from(format!("/run/libvirt/qemu/{name}.pid")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
7f0000000000-7f0020000000 rw-p 00000000 00:00 0
Size:             524288 kB
Rss:              100000 kB
Private_Hugetlb:       0 kB
VmFlags: rd wr
7f0030000000-7f0040000000 rw-p 00000000 00:00 0
Size:             262148 kB
Rss:               65536 kB
Shared_Hugetlb:        0 kB
Private_Hugetlb:    2048 kB
VmFlags: rd wr
7f0050000000-7f0050001000 rw-p 00000000 00:00 0
Size:                  4 kB
Rss:                   4 kB
VmFlags: rd wr
";

    #[test]
    fn the_guests_ram_is_the_smallest_mapping_that_holds_it() {
        assert_eq!(ram_resident(MAPS, 256 << 20), Some((65536 + 2048) << 10));
        assert_eq!(ram_resident(MAPS, 512 << 20), Some(100_000 << 10));
        assert_eq!(ram_resident(MAPS, 1 << 30), None, "no mapping is that large");
        assert_eq!(ram_resident(MAPS, 1 << 20), None, "no mapping is close to this size");
    }

    #[test]
    fn this_process_has_memory() {
        let memory = process_memory(std::process::id(), None).expect("we are alive");
        assert!(memory.rss > 0 && memory.pss.is_some_and(|pss| pss > 0 && pss <= memory.rss), "{memory:?}");
        // The largest PID is 2^22 (proc(5), pid_max).
        assert!(process_memory(1 << 23, None).is_err());
        assert!(process_name(1 << 23).is_err_and(|error| error.to_string().contains("PID 8388608")));
    }

    #[test]
    fn pressure_is_read() {
        assert_eq!(some_average("some avg10=1.25 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.50\n"), Some(1.25));
        assert_eq!(some_average("nonsense"), None);
    }

    #[test]
    fn libvirts_folder_names_the_domain() {
        let path = libvirt_pid_file("domain-3-my-guest").expect("a domain");
        assert_eq!(path.to_str(), Some("/run/libvirt/qemu/my-guest.pid"));
        assert_eq!(libvirt_pid_file("qmp"), None);
    }
}
