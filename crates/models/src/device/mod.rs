//! A virtio-pci balloon, or an entropy device: config space, BARs and the device behind them. Driven by register
//! accesses and by time.

mod access;
mod common;
mod config_space;
mod hints;
mod interrupts;
mod misbehave;
mod mmio;
mod msix;
mod pages;
mod requests;

pub use hints::Hints;
pub use pages::take_reported;

use crate::Bug;
use crate::behaviour::{Behaviour, Harm, next_random};
use crate::device::common::CommonConfig;
use crate::device::config_space::ConfigModel;
use crate::device::interrupts::Interrupts;
use crate::device::requests::number_queues;
use crate::queue::{Purpose, Request};
use crate::world::Bus;

/// A statistic as it arrived.
pub(crate) type Statistic = (u16, u64);

/// The device.
#[derive(Debug)]
pub struct Balloon {
    pub behaviour: Behaviour,
    pub config: ConfigModel,
    pub common: CommonConfig,
    pub(crate) interrupts: Interrupts,
    num_pages: u32,
    actual: u32,
    poison: Option<u32>,
    /// Free page hinting: the host's command, and the driver's answers.
    pub hints: Hints,
    accesses: u64,
    reads: u64,
    config_reads: u64,
    pub(crate) completions: u64,
    /// Completions before the last reset.
    pub(crate) completions_before: u64,
    pub(crate) last_used: Option<u32>,
    pub(crate) next_spurious: u64,
    pub(crate) next_move: u64,
    /// The statistics buffer that the device holds, and the statistics of each buffer so far.
    pub(crate) statistics: Option<Request>,
    /// Buffers that wait for something to fill them, by queue.
    pub(crate) held: Vec<(u16, Request)>,
    pub reports: Vec<Vec<Statistic>>,
    /// PFNs in the largest request that came.
    pub largest_request: usize,
    /// Most requests taken off a queue at a time.
    pub largest_batch: usize,
    /// Until when it is busy, in nanoseconds.
    pub(crate) busy: u64,
    /// Discards that the host has made of inflated frames.
    pub discards: u64,
    /// Frames reported as free so far.
    pub reported: u64,
    /// Requests that came in a table.
    pub tables: u64,
    /// Requests that were too long to be served in full.
    pub skipped: u64,
    pub needless_kicks: u64,
    /// What a hostile driver has done to it.
    pub(crate) harmed: Option<Harm>,
}

impl Balloon {
    /// A device with its BARs assigned from these addresses up.
    pub(crate) fn new(behaviour: Behaviour, memory: u32, ports: u32) -> Self {
        let queues = number_queues(&behaviour);
        Self {
            config: ConfigModel::new(&behaviour, memory, ports),
            common: CommonConfig::new(&behaviour, queues),
            interrupts: Interrupts::new(&behaviour),
            num_pages: 0,
            actual: 0,
            poison: None,
            hints: Hints::default(),
            accesses: 0,
            reads: 0,
            config_reads: 0,
            completions: 0,
            completions_before: 0,
            last_used: None,
            next_spurious: behaviour.spurious.unwrap_or(0),
            next_move: 0,
            statistics: None,
            held: Vec::new(),
            reports: Vec::new(),
            largest_request: 0,
            largest_batch: 0,
            busy: 0,
            discards: 0,
            reported: 0,
            tables: 0,
            skipped: 0,
            needless_kicks: 0,
            harmed: None,
            behaviour,
        }
    }

    // What the host does.

    /// The host wants a balloon of `pages`.
    pub fn set_target(&mut self, pages: u32, bus: &mut Bus) {
        self.num_pages = pages;
        if !self.behaviour.has(Bug::GenerationStays) {
            self.common.generation = self.common.generation.wrapping_add(1);
        }
        if !self.behaviour.has(Bug::TargetsAreSilent) {
            self.raise_config(bus);
        }
    }

    /// A host that keeps changing its mind sets its next target, which may be the same.
    pub(crate) fn move_target(&mut self, bus: &mut Bus) {
        let Some((longest, random)) = &mut self.behaviour.moves else { return };
        if bus.now < self.next_move {
            return;
        }
        let chosen = next_random(random);
        self.next_move = bus.now + 1 + (chosen >> 32) % *longest;
        self.set_target((chosen % 4) as u32 * 1000, bus);
    }

    /// The host sets a target, and the interrupt for it is lost.
    pub fn set_target_silently(&mut self, pages: u32) {
        self.num_pages = pages;
        self.common.generation = self.common.generation.wrapping_add(1);
    }

    /// The host gives a command on hints.
    pub fn command_hints(&mut self, command: u32, bus: &mut Bus) {
        self.hints.give(command);
        self.common.generation = self.common.generation.wrapping_add(1);
        self.raise_config(bus);
    }

    pub fn target(&self) -> u32 {
        self.num_pages
    }

    /// The size that the driver reports.
    pub fn actual(&self) -> u32 {
        self.actual
    }

    /// The host asks for fresh statistics: the device returns the buffer. `false` if it has none.
    pub fn request_statistics(&mut self, bus: &mut Bus) -> bool {
        if self.behaviour.has(Bug::StatisticsAreKept) {
            return false;
        }
        let Some(request) = self.statistics.take() else { return false };
        let index = self.queue_of(Purpose::Statistics).expect("a request came from it");
        self.complete(index, &[request], bus);
        true
    }

    /// Stalls all completions from now on, or ends the stall.
    pub fn stall_from_now(&mut self, stalled: bool) {
        self.behaviour.stalls_after = stalled.then_some(self.completions);
    }

    pub fn raise_needs_reset(&mut self, bus: &mut Bus) {
        self.common.need_reset();
        self.raise_config(bus);
    }

    /// Takes the device off the bus: all ones from now on.
    pub fn unplug(&mut self) {
        self.behaviour.removed_after = Some(0);
    }

    /// Accesses to its registers, including configuration space.
    pub fn accesses(&self) -> u64 {
        self.accesses
    }

    /// Takes the device off the bus after this many more register accesses.
    pub fn remove_after(&mut self, accesses: u64) {
        self.behaviour.removed_after = Some(self.accesses + accesses);
    }

    /// Requests that were completed, or lied about.
    pub fn completions_so_far(&self) -> u64 {
        self.completions
    }

    /// Asserts the interrupt line permanently, as an undriven function on a shared line can.
    pub fn pull_line_for_ever(&mut self) {
        self.interrupts.pull();
    }

    /// Checks that no buffer waits for a missing kick while idle.
    pub fn check_idle(&mut self, bus: &mut Bus) {
        if self.gone() || !self.common.live() {
            return;
        }
        for queue in self.common.queues.iter().filter(|q| q.kicked.is_none()) {
            let waiting = queue.waiting(bus);
            if waiting == 0 {
                continue;
            }
            bus.misstep("SPLIT-ASUP-04", format!("queue {}: {waiting} buffers wait for a kick", queue.index));
        }
        if !self.stalled() {
            self.hints.check_idle(bus);
        }
    }

    pub fn gone(&self) -> bool {
        self.behaviour.removed_after.is_some_and(|after| self.accesses >= after)
    }
}
