//! Jobs of the other CPUs.

use derive_more::{Display, Error};

use crate::machine::smp::cpu::Cpu;
use crate::machine::smp::idle::idle_unless;
use crate::machine::smp::registry::{get, wake};
use crate::machine::smp::slot::{Job, Occupied};

/// Why a CPU does not take a job.
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

/// Makes the CPU with this number run `job`.
///
/// # Errors
/// When it does not run, runs the main loop, or has not finished its previous job.
pub(crate) fn run(number: u32, job: Job) -> Result<(), JobError> {
    let cpu = get(number).ok_or(JobError::NoCpu(number))?;
    if cpu.is_boot() {
        return Err(JobError::Boot(number));
    }
    cpu.job.give(job).map_err(|Occupied| JobError::Busy(number))?;
    wake(cpu);
    Ok(())
}

impl Cpu {
    /// Whether it has a job.
    pub(crate) fn is_busy(&self) -> bool {
        self.job.is_occupied()
    }

    /// How many jobs it has finished.
    pub(crate) fn jobs(&self) -> u64 {
        self.job.done()
    }

    /// Runs jobs forever, and sleeps when there is none. Interrupts are on.
    pub(crate) fn serve_jobs(&self) -> ! {
        loop {
            if let Some(job) = self.job.take() {
                job();
                self.job.finish();
            } else {
                idle_unless(|| self.job.is_waiting());
            }
        }
    }
}
