//! The CPUs: their registry, per-CPU state, and jobs.
//!
//! The rest of the machine imports from the files; this list is for the layers above.

pub(crate) mod cpu;
pub(crate) mod idle;
pub(crate) mod job;
pub(crate) mod registry;
mod slot;
pub(crate) mod start;
pub(crate) mod trampoline;

pub(crate) use cpu::Cpu;
pub(crate) use job::run;
pub(crate) use registry::{all, count, get};
#[cfg(feature = "test-image")]
pub(crate) use {
    cpu::SleepState,
    job::JobError,
    registry::{boot, wake},
};
