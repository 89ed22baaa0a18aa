//! What the kernel gives up for an allocation that would fail: what its balloons hold.

use crate::machine::Machine;
use crate::machine::reclaim::{self, Relieved, Source};

use super::balloons::Balloons;

/// The machine and its balloons, for as long as nobody else needs them.
struct Backing<'k> {
    machine: &'k mut Machine,
    balloons: &'k mut Balloons,
}

impl Source for Backing<'_> {
    fn relieve(&mut self, frames: u64) -> Relieved {
        self.balloons.relieve(self.machine, frames)
    }
}

/// Runs `action`, in which allocations that would fail have memory back from the balloons first.
pub(super) fn with<R>(machine: &mut Machine, balloons: &mut Balloons, action: impl FnOnce() -> R) -> R {
    reclaim::lend(&mut Backing { machine, balloons }, action)
}
