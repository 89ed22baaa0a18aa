//! Reclaims memory for failing allocations, from balloons that are lent meanwhile.

use crate::machine::Machine;
use crate::machine::reclaim::{self, Reclaimed, Source};

use super::balloons::Balloons;

/// The machine and its balloons, while nothing else uses them.
struct Backing<'k> {
    machine: &'k mut Machine,
    balloons: &'k mut Balloons,
}

impl Source for Backing<'_> {
    fn reclaim(&mut self, frames: u64) -> Reclaimed {
        self.balloons.reclaim(self.machine, frames)
    }
}

/// Runs `action`. If an allocation in it would fail, memory is reclaimed from the balloons first.
pub(super) fn with<R>(machine: &mut Machine, balloons: &mut Balloons, action: impl FnOnce() -> R) -> R {
    reclaim::lend(&mut Backing { machine, balloons }, action)
}
