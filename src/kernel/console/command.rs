//! A command: its usage, its function, its context and its result.

use ballonet::pci::Tree;

use super::job::{Job, JobContext};
use crate::console::Usage;
use crate::kernel::balloons::Balloons;
use crate::kernel::held::Held;
use crate::kernel::hotplug::Slots;
use crate::kernel::latency::Latency;
use crate::kernel::mmio_devices::MmioFound;
use crate::kernel::work::Work;
use crate::machine::Machine;

/// Writes a line of an answer.
macro_rules! say {
    ($($argument:tt)*) => {
        $crate::machine::log::line(format_args!($($argument)*))
    };
}

pub(super) use say;

/// A command.
#[derive(Clone, Copy)]
pub(super) struct Command {
    /// Its name, its arguments, and what it does.
    pub(super) usage: Usage,
    /// Runs it with these arguments; `None` if it does not accept them.
    pub(super) run: fn(&[&str], &mut Context<'_>) -> Option<Answer>,
}

impl Command {
    pub(super) const fn new(
        name: &'static str,
        arguments: &'static str,
        about: &'static str,
        run: fn(&[&str], &mut Context<'_>) -> Option<Answer>,
    ) -> Self {
        Self { usage: Usage { name, arguments, about }, run }
    }
}

/// The result of a line.
pub(super) enum Answer {
    /// The answer is complete.
    Done,
    /// It is in progress.
    Job(Job),
    /// Print the log: all of it without stopping, or with pauses on a terminal.
    Log { all: bool },
    /// The kernel ends.
    End(Outcome),
}

/// What the main loop must do after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kernel) enum Outcome {
    /// Nothing.
    Done,
    /// Power off.
    PowerOff,
    /// Reboot.
    Reboot,
}

/// What the commands work on.
pub(in crate::kernel) struct Context<'k> {
    /// The machine.
    pub(in crate::kernel) machine: &'k mut Machine,
    /// Its PCI devices.
    pub(in crate::kernel) tree: &'k Tree,
    /// Its virtio-mmio devices.
    pub(in crate::kernel) mmio: &'k [MmioFound],
    /// Its balloons.
    pub(in crate::kernel) balloons: &'k mut Balloons,
    /// Its hot-plug slots.
    pub(in crate::kernel) slots: &'k Slots,
    /// Memory held for `mem verify`.
    pub(in crate::kernel) held: &'k mut Held,
    /// The program that runs.
    pub(in crate::kernel) work: &'k mut Work,
    /// The program that measures latency.
    pub(in crate::kernel) latency: &'k mut Latency,
}

impl Context<'_> {
    /// What jobs work on.
    pub(super) fn for_job(&mut self) -> JobContext<'_> {
        JobContext { machine: self.machine, balloons: self.balloons, held: self.held }
    }
}
