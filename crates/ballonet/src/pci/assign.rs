//! Addresses for BARs that firmware gave none.
//!
//! What firmware set up stays as it is: only BARs without a usable address get one, from what is free in the windows of
//! the host bridge and of the bridges on the way. Closed windows of bridges are opened around what lies behind them.
//! First all of it is planned, then it is written. A BAR that finds no room is named and the others go on.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use derive_more::{Display, Error};

use super::bar::{Bar, BarKind, MemoryWidth};
use super::bridge::{BridgeWindows, Space, close_unused_windows, has_window, open_window};
use super::plan::{Plan, Want, plan};
use super::range::AddressRange;
use super::{Bdf, Command, ConfigSpace, HostWindows, Node, Tree};

/// Why a BAR has no address after all were given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum AssignError {
    /// No window on its way has room for it.
    #[display("no room for {_0}")]
    NoRoom(#[error(not(source))] Bar),
    /// The BAR did not keep what was written to it.
    #[display("{bar} reads {read:#x} after {wrote:#x} was written")]
    NotKept {
        /// The BAR.
        bar: Bar,
        /// The address written.
        wrote: u64,
        /// What it says.
        read: u64,
    },
    /// A bridge did not keep the window that was written to it.
    #[display("bridge {bridge} does not keep the {space} window {window}")]
    WindowNotKept {
        /// The bridge.
        bridge: Bdf,
        /// What kind of window.
        space: Space,
        /// What was written.
        window: AddressRange,
    },
}

/// What was given out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The BARs that have an address now.
    pub placed: Vec<Bar>,
    /// The bridge windows that are open now.
    pub opened: Vec<(Bdf, Space, AddressRange)>,
    /// The BARs that have none, and bridges that broke their word.
    pub errors: Vec<AssignError>,
}

impl Tree {
    /// Gives addresses to all BARs that have none; [`Tree::size_bars`] has run. `host` says what may be given out; BARs
    /// and bridge windows that firmware set up are kept clear of.
    ///
    /// Decoding of the functions is left as it was. Bridges whose windows were opened pass accesses on.
    pub fn assign_addresses<C: ConfigSpace>(&mut self, config: &mut C, host: &HostWindows) -> Assignment {
        let mut assignment = Assignment::default();
        let mut survey = Survey::new(config, self, host);
        if survey.wants.is_empty() {
            return assignment;
        }
        let plans = survey.plan_all(config, self, host, &mut assignment);
        let bridges = survey.windows;
        for error in &assignment.errors {
            if let AssignError::NoRoom(bar) = error {
                self.forget_address(bar);
            }
        }
        for plan in &plans {
            self.open_windows(config, plan, &mut assignment);
        }
        self.start_bridges(config, &bridges, &assignment.opened);
        for plan in &plans {
            self.place_bars(config, plan, &mut assignment);
        }
        assignment
    }

    /// A BAR that found no room has no address, whatever its register says: what stands there made no sense, and may by now
    /// be another's.
    fn forget_address(&mut self, bar: &Bar) {
        if let Some(node) = self.position(bar.function).and_then(|place| self.nodes.get_mut(place)) {
            node.bars.forget_address(bar.index);
        }
    }

    fn open_windows<C: ConfigSpace>(&self, config: &mut C, plan: &Plan, assignment: &mut Assignment) {
        for (&index, &window) in &plan.windows {
            let Some(bridge) = self.nodes.get(index).map(Node::bdf) else { continue };
            let space = plan.space;
            if open_window(config, bridge, space, window) {
                assignment.opened.push((bridge, space, window));
            } else {
                assignment.errors.push(AssignError::WindowNotKept { bridge, space, window });
            }
        }
    }

    /// Whether a bridge above a BAR did not open the window that it was to be reached through.
    fn is_cut_off(&self, bar: &Bar, wanted: Space, errors: &[AssignError]) -> bool {
        self.bridges_above(bar.function).map(Node::bdf).any(|above| {
            let kept = |error: &AssignError| !matches!(error, AssignError::WindowNotKept { bridge, space, .. } if (*bridge, *space) == (above, wanted));
            !errors.iter().all(kept)
        })
    }

    /// Lets bridges pass accesses on through the windows just opened.
    fn start_bridges<C: ConfigSpace>(
        &self,
        config: &mut C,
        before: &BTreeMap<usize, BridgeWindows>,
        opened: &[(Bdf, Space, AddressRange)],
    ) {
        for node in before.keys().filter_map(|index| self.nodes.get(*index)) {
            let bridge = node.bdf();
            let ours = opened.iter().filter(|(of, ..)| *of == bridge);
            let decoding = ours.fold(Command::empty(), |bits, (_, space, _)| bits | space.command());
            if decoding.is_empty() {
                continue;
            }
            close_unused_windows(config, bridge);
            node.function.enable(config, decoding | Command::BUS_MASTER);
        }
    }

    fn place_bars<C: ConfigSpace>(&mut self, config: &mut C, plan: &Plan, assignment: &mut Assignment) {
        for &(want, wrote) in &plan.bars {
            if self.is_cut_off(&want.bar, plan.space, &assignment.errors) {
                assignment.errors.push(AssignError::NoRoom(want.bar));
                self.forget_address(&want.bar);
                continue;
            }
            let Some(node) = self.nodes.get_mut(want.node) else { continue };
            let index = want.bar.index;
            let Some(read) = node.bars.place(config, &node.function, index, wrote) else { continue };
            match node.bars.get(index) {
                Ok(bar) if read == wrote => assignment.placed.push(*bar),
                Ok(&bar) => assignment.errors.push(AssignError::NotKept { bar, wrote, read }),
                Err(_) => {}
            }
        }
    }
}

/// How things stand before anything is given out.
pub(super) struct Survey {
    /// The windows of every bridge, by its place in the tree.
    pub(super) windows: BTreeMap<usize, BridgeWindows>,
    /// What BARs already decode: memory, and ports.
    pub(super) memory: Vec<AddressRange>,
    pub(super) ports: Vec<AddressRange>,
    /// The BARs that need an address.
    wants: Vec<Want>,
}

impl Survey {
    fn new<C: ConfigSpace>(config: &C, tree: &Tree, host: &HostWindows) -> Self {
        let bridges = tree.nodes.iter().enumerate().filter(|(_, node)| node.function.is_bridge());
        let mut survey = Self {
            windows: bridges.map(|(index, node)| (index, BridgeWindows::read(config, node.bdf()))).collect(),
            memory: Vec::new(),
            ports: Vec::new(),
            wants: Vec::new(),
        };
        // BARs that are decoded are where they are; the others have to make sense beside them.
        let mut undecoded = Vec::new();
        for (index, node) in tree.nodes.iter().enumerate() {
            let mut bars = node.bars.iter().peekable();
            let command = bars.peek().map_or(Command::empty(), |_| node.function.command(config));
            for &bar in bars {
                match bar.range() {
                    Some(range) if command.contains(decoding(&bar)) => survey.taken(&bar).push(range),
                    _ => undecoded.push(Want { node: index, bar }),
                }
            }
        }
        for want in undecoded {
            match want.bar.range() {
                Some(range) if survey.makes_sense(tree, host, &want, range) => survey.taken(&want.bar).push(range),
                _ => survey.wants.push(want),
            }
        }
        survey
    }

    /// The list of what is decoded in the kind of addresses that `bar` has.
    fn taken(&mut self, bar: &Bar) -> &mut Vec<AddressRange> {
        if bar.is_io() { &mut self.ports } else { &mut self.memory }
    }

    /// Whether a BAR that is not decoded may be decoded where it is: accesses get there, and nobody else is there.
    fn makes_sense(&self, tree: &Tree, host: &HostWindows, want: &Want, range: AddressRange) -> bool {
        let reaches = |window: &AddressRange| window.contains(range);
        let bridge = tree.container(want.node).and_then(|bridge| self.windows.get(&bridge));
        let (reachable, taken) = match (bridge, want.bar.is_io()) {
            (Some(windows), true) => (windows.io.iter().any(reaches), &self.ports),
            (Some(windows), false) => (windows.memory.iter().chain(&windows.prefetchable).any(reaches), &self.memory),
            (None, true) => (host.io.iter().any(reaches), &self.ports),
            (None, false) => (host.memory.iter().chain(&host.memory64).any(reaches), &self.memory),
        };
        reachable && taken.iter().all(|other| !other.overlaps(range))
    }

    /// Plans all three kinds of addresses. What is planned for one kind of memory is taken for the other: firmware may
    /// have opened windows of a bridge that overlap.
    fn plan_all<C: ConfigSpace>(
        &mut self,
        config: &mut C,
        tree: &Tree,
        host: &HostWindows,
        assignment: &mut Assignment,
    ) -> [Plan; 3] {
        let (mut ports, mut low, mut high) = (Vec::new(), Vec::new(), Vec::new());
        for &want in &self.wants {
            match want.bar.kind {
                BarKind::Io => ports.push(want),
                BarKind::Memory { width: MemoryWidth::Below1MiB, .. } => {
                    assignment.errors.push(AssignError::NoRoom(want.bar));
                }
                // A host bridge passes on anything above 4 GiB; other bridges pass on only prefetchable memory there.
                BarKind::Memory { width: MemoryWidth::Bits64, prefetchable }
                    if prefetchable || tree.container(want.node).is_none() =>
                {
                    high.push(want);
                }
                BarKind::Memory { .. } => low.push(want),
            }
        }
        let mut plan = |survey: &Self, space, wants, pool: &[AddressRange]| {
            plan(survey, tree, space, wants, pool, |bridge| has_window(config, bridge, space))
        };
        let io = plan(self, Space::Io, ports, &host.io);
        let high = plan(self, Space::Prefetchable, high, &host.memory64);
        self.memory.extend(high.bars.iter().filter_map(|(want, first)| AddressRange::new(*first, want.size())));
        // What finds no room up there, or a bridge in its way, may go below 4 GiB.
        low.extend(&high.refused);
        let low = plan(self, Space::Memory, low, &host.memory);
        assignment.errors.extend(io.refused.iter().chain(&low.refused).map(|want| AssignError::NoRoom(want.bar)));
        [io, high, low]
    }
}

/// The command bit that turns a BAR on.
const fn decoding(bar: &Bar) -> Command {
    if bar.is_io() { Command::IO } else { Command::MEMORY }
}

impl Tree {
    /// The place of the bridge that a function is behind, by its own place; `None` on a root bus.
    pub(super) fn container(&self, index: usize) -> Option<usize> {
        self.nodes.get(index)?.upstream.and_then(|bridge| self.position(bridge))
    }
}

#[cfg(test)]
mod tests;
