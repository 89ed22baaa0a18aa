//! Why an allocation failed: where the memory is.

use core::fmt;

use ballonet::memory::FRAME_SIZE;

use crate::machine::frames;

/// Displays how little memory is free and where the rest is.
pub(crate) struct Shortage;

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = frames::counts();
        let mib = |frames: u64| (frames * FRAME_SIZE) >> 20;
        let usable = mib(counts.total - counts.reserved);
        write!(f, "too little of {usable} MiB is free: {} MiB are in use", mib(counts.used))?;
        match counts.ballooned {
            0 => Ok(()),
            ballooned => write!(f, ", {} MiB are with the host", mib(ballooned)),
        }
    }
}
