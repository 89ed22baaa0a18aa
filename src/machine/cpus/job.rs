//! What a CPU is given to do.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use derive_more::{Display, Error};

use super::{Cpu, get, wake};
use crate::machine::idle_unless;
use crate::machine::lock::Lock;

/// Something for a CPU to do, once, with interrupts on. It comes to an end: nothing else runs there meanwhile.
///
/// It has a stack of 32 KiB. A long one asks for the time now and then ([`clock::nanoseconds`](crate::machine::clock::nanoseconds)),
/// which is a sign of life: without any, interrupts of that CPU are held back after the first thousand.
///
/// Memory that it lacks is not had back from balloons, as it is for the boot CPU's programs: its allocations fail then.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// Why a CPU does not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub(crate) enum JobError {
    /// It does not run.
    #[display("CPU {_0} does not run")]
    NoCpu(#[error(not(source))] u32),
    /// It runs the main loop.
    #[display("CPU {_0} runs the main loop and takes no jobs")]
    Boot(#[error(not(source))] u32),
    /// It has a job.
    #[display("CPU {_0} has a job already")]
    Busy(#[error(not(source))] u32),
}

/// Where a CPU finds its job.
pub(super) struct Slot {
    job: Lock<Option<Job>>,
    is_taken: AtomicBool,
    done: AtomicU64,
}

impl Slot {
    pub(super) const fn new() -> Self {
        Self { job: Lock::new(None), is_taken: AtomicBool::new(false), done: AtomicU64::new(0) }
    }
}

/// Has the CPU with this number run `job`.
///
/// # Errors
/// When it does not run, runs the main loop, or has not finished the job before.
pub(crate) fn run(number: u32, job: Job) -> Result<(), JobError> {
    let cpu = get(number).ok_or(JobError::NoCpu(number))?;
    if cpu.is_boot() {
        return Err(JobError::Boot(number));
    }
    if cpu.job.is_taken.swap(true, Ordering::Acquire) {
        return Err(JobError::Busy(number));
    }
    cpu.job.job.with(|slot| *slot = Some(job));
    wake(cpu);
    Ok(())
}

impl Cpu {
    /// Whether it has a job to do.
    pub(crate) fn is_busy(&self) -> bool {
        self.job.is_taken.load(Ordering::Acquire)
    }

    /// How many jobs it has done.
    pub(crate) fn jobs(&self) -> u64 {
        self.job.done.load(Ordering::Relaxed)
    }

    /// Does jobs for ever, and sleeps when there is none. Interrupts are on.
    pub(super) fn serve_jobs(&self) -> ! {
        loop {
            if let Some(job) = self.job.job.with(Option::take) {
                job();
                self.job.done.fetch_add(1, Ordering::Relaxed);
                self.job.is_taken.store(false, Ordering::Release);
            } else {
                idle_unless(|| self.job.job.with(|job| job.is_some()));
            }
        }
    }
}
