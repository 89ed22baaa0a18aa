//! Samples the memory that the host holds for a virtual machine.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::support::{Outcome, Vm};

/// Time between two samples.
const PERIOD: Duration = Duration::from_millis(1);
/// Bytes of a host page.
const PAGE: u64 = 4096;

/// Samples QEMU's resident memory in a thread of its own.
pub(crate) struct Watch {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sample>>,
}

/// Resident memory at a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Since the watch began.
    pub(crate) after: Duration,
    /// In bytes.
    pub(crate) resident: u64,
}

impl Watch {
    /// Starts sampling.
    pub(crate) fn begin(vm: &Vm) -> Self {
        let (pid, ended) = (vm.pid(), Arc::new(AtomicBool::new(false)));
        let end = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            let (start, mut samples) = (Instant::now(), Vec::new());
            loop {
                // What the caller saw before it ended the watch must be in the last sample.
                let last = end.load(Ordering::Acquire);
                samples.extend(resident(pid).map(|resident| Sample { after: start.elapsed(), resident }));
                if last {
                    return samples;
                }
                thread::sleep(PERIOD);
            }
        });
        Self { ended, thread }
    }

    /// Ends sampling and returns all samples.
    pub(crate) fn end(self) -> Outcome<Vec<Sample>> {
        self.ended.store(true, Ordering::Release);
        Ok(self.thread.join().map_err(|_| "the sampling thread failed")?)
    }
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let pages = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    Some(pages.split(' ').nth(1)?.parse::<u64>().ok()? * PAGE)
}

/// Seconds until resident memory was at most `bytes`.
pub(crate) fn seconds_to(samples: &[Sample], bytes: u64) -> Option<f64> {
    Some(samples.iter().find(|sample| sample.resident <= bytes)?.after.as_secs_f64())
}

/// Average resident memory, in bytes.
pub(crate) fn average(samples: &[Sample]) -> f64 {
    let weighted = samples.windows(2).map(|pair| {
        let time = (pair[1].after - pair[0].after).as_secs_f64();
        (pair[0].resident as f64 * time, time)
    });
    let (bytes, time) = weighted.fold((0.0, 0.0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
    bytes / time.max(f64::MIN_POSITIVE)
}

/// Seconds that the thread of the guest's CPU has run, by the host's count.
pub(crate) fn cpu_seconds(vm: &mut Vm) -> Outcome<f64> {
    let thread = vm.qmp.cpu_thread()?;
    let text = fs::read_to_string(format!("/proc/{}/task/{thread}/schedstat", vm.pid()))?;
    let nanoseconds = text.split(' ').next().ok_or("an empty schedstat")?;
    Ok(nanoseconds.parse::<u64>()? as f64 / 1e9)
}

/// QEMU's minor page faults: above all, memory that a guest uses anew.
pub(crate) fn faults(vm: &Vm) -> Outcome<f64> {
    let text = fs::read_to_string(format!("/proc/{}/stat", vm.pid()))?;
    // The name, in parentheses, may hold anything; `minflt` is the eighth after it (proc(5)).
    let fields = text.rsplit_once(')').ok_or("a malformed stat")?.1;
    Ok(fields.split_ascii_whitespace().nth(7).ok_or("a short stat")?.parse()?)
}

/// Bytes of QEMU's memory in huge pages.
pub(crate) fn huge(vm: &Vm) -> Outcome<f64> {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", vm.pid()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).ok_or("no AnonHugePages")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}
