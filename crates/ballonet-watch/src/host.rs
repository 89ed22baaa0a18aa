//! The host's side, from `/proc`: memory of a QEMU process, memory and memory pressure of the host.

use std::fs;
use std::io;

use crate::failure::Outcome;

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

/// The memory of process `pid`. The sizes of the guest's blocks of RAM find them among its mappings.
///
/// # Errors
/// When the process has ended.
pub(crate) fn process_memory(pid: u32, blocks: &[u64]) -> io::Result<ProcessMemory> {
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
        ram: maps.as_deref().and_then(|text| ram_resident(text, blocks)),
        swapped,
    })
}

fn sum(smaps: &str, name: &str) -> u64 {
    smaps.lines().filter_map(|line| field(line, name)).sum()
}

/// Resident bytes of the mappings that hold blocks of RAM of these sizes: for each the smallest that is large enough,
/// since the kernel may have merged it with a neighbour.
fn ram_resident(smaps: &str, blocks: &[u64]) -> Option<u64> {
    let mut mappings = mappings(smaps);
    let mut blocks = blocks.to_vec();
    blocks.sort_unstable();
    let resident = |size: &u64| {
        // A mapping twice as large is something else.
        let fits = |(_, (mapped, _)): &(usize, &(u64, u64))| (*size..size.saturating_mul(2)).contains(mapped);
        let (place, _) = mappings.iter().enumerate().filter(fits).min_by_key(|(_, (mapped, _))| *mapped)?;
        Some(mappings.swap_remove(place).1)
    };
    blocks
        .iter()
        .map(resident)
        .collect::<Option<Vec<u64>>>()
        .filter(|found| !found.is_empty())
        .map(|found| found.iter().sum())
}

/// Size and resident part of each mapping, in bytes.
fn mappings(smaps: &str) -> Vec<(u64, u64)> {
    let mut mappings = Vec::new();
    let (mut size, mut resident) = (0, 0);
    for line in smaps.lines() {
        if let Some(bytes) = field(line, "Size:") {
            size = bytes;
        } else if let Some(bytes) = field(line, "Rss:") {
            resident = bytes;
        } else if let Some(bytes) = field(line, "Private_Hugetlb:").or_else(|| field(line, "Shared_Hugetlb:")) {
            resident += bytes;
        } else if line.starts_with("VmFlags:") {
            mappings.push((size, resident));
        }
    }
    mappings
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| field(line, name))
}

fn field(line: &str, name: &str) -> Option<u64> {
    line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Whether process `pid` is a QEMU, by its program: its name may be another, by `-name process=` or as of Proxmox' `kvm`.
/// Errors name the PID, and the process if it is no QEMU.
pub(crate) fn check_qemu(pid: u32) -> Outcome {
    let Ok(name) = fs::read_to_string(format!("/proc/{pid}/comm")) else {
        return Err(format!("PID {pid}: no such process").into());
    };
    // The link needs the right to trace the process; the arguments do not.
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let first = arguments.split(|byte| *byte == 0).next().unwrap_or_default();
    let words = [name.clone(), program.display().to_string(), String::from_utf8_lossy(first).into_owned()];
    if words.iter().any(|word| word.rsplit('/').next().is_some_and(|file| file.contains("qemu"))) {
        return Ok(());
    }
    Err(format!("PID {pid}: that is {}, not a QEMU", name.trim_end()).into())
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

/// The QEMU that has this word in its arguments.
pub(crate) fn qemu_with(word: &str) -> Option<u32> {
    let has_word = |pid: &u32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(word)
    };
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(has_word).find(|pid| check_qemu(*pid).is_ok())
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
        assert_eq!(ram_resident(MAPS, &[256 << 20]), Some((65536 + 2048) << 10));
        assert_eq!(ram_resident(MAPS, &[512 << 20]), Some(100_000 << 10));
        assert_eq!(ram_resident(MAPS, &[512 << 20, 256 << 20]), Some((100_000 + 65536 + 2048) << 10));
        assert_eq!(ram_resident(MAPS, &[256 << 20, 256 << 20]), None, "one mapping is not both");
        assert_eq!(ram_resident(MAPS, &[1 << 30]), None, "no mapping is that large");
        assert_eq!(ram_resident(MAPS, &[1 << 20]), None, "no mapping is close to this size");
        assert_eq!(ram_resident(MAPS, &[]), None, "unknown");
    }

    #[test]
    fn this_process_has_memory() {
        let memory = process_memory(std::process::id(), &[]).expect("we are alive");
        assert!(memory.rss > 0 && memory.pss.is_some_and(|pss| pss > 0 && pss <= memory.rss), "{memory:?}");
        // The largest PID is 2^22 (proc(5), pid_max).
        assert!(process_memory(1 << 23, &[]).is_err());
    }

    #[test]
    fn what_is_no_qemu_is_named() {
        assert!(check_qemu(1 << 23).is_err_and(|error| error.to_string() == "PID 8388608: no such process"));
        let own = std::process::id();
        let error = check_qemu(own).unwrap_err().to_string();
        assert!(error.starts_with(&format!("PID {own}: that is ")) && error.ends_with(", not a QEMU"), "{error}");
    }

    #[test]
    fn pressure_is_read() {
        assert_eq!(some_average("some avg10=1.25 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.50\n"), Some(1.25));
        assert_eq!(some_average("nonsense"), None);
    }
}
