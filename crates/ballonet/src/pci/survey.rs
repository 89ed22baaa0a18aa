//! The state of all BARs and windows before anything is assigned, and the BARs that need an address.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::bar::Bar;
use super::bridge::{BridgeWindows, Space};
use super::range::AddressRange;
use super::{Command, ConfigSpace, HostWindows, Tree};

/// A BAR that needs an address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want {
    /// Index of its function in the tree.
    pub(super) node: usize,
    /// The BAR.
    pub(super) bar: Bar,
}

impl Want {
    /// Identifies it: the index of its function, and its BAR index.
    pub(super) fn key(&self) -> Key {
        (self.node, self.bar.index)
    }

    /// The space that it gets. Memory BARs of two functions never share a page, so that each can be mapped
    /// separately.
    pub(super) fn size(&self) -> u64 {
        if self.bar.is_io() { self.bar.size } else { self.bar.size.max(4096) }
    }
}

/// Identifies a BAR that needs an address: the index of its function in the tree, and its BAR index.
pub(super) type Key = (usize, u8);

/// The state before anything is assigned.
pub(super) struct Survey {
    /// The windows of every bridge, by its index in the tree.
    pub(super) windows: BTreeMap<usize, BridgeWindows>,
    /// The addresses that BARs already decode: memory and ports.
    pub(super) memory: Vec<AddressRange>,
    pub(super) ports: Vec<AddressRange>,
    /// The BARs that need an address.
    pub(super) wants: Vec<Want>,
}

impl Survey {
    pub(super) fn new<C: ConfigSpace>(config: &C, tree: &Tree, host: &HostWindows) -> Self {
        let bridges = tree.nodes.iter().enumerate().filter(|(_, node)| node.function.is_bridge());
        let mut survey = Self {
            windows: bridges.map(|(index, node)| (index, BridgeWindows::read(config, node.bdf()))).collect(),
            memory: Vec::new(),
            ports: Vec::new(),
            wants: Vec::new(),
        };
        // BARs that are decoded keep their places; the others must fit beside them.
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

    /// The list of decoded addresses of the kind that `bar` uses.
    fn taken(&mut self, bar: &Bar) -> &mut Vec<AddressRange> {
        if bar.is_io() { &mut self.ports } else { &mut self.memory }
    }

    /// Whether an undecoded BAR can be decoded at its present address: accesses reach it, and nothing else is there.
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

    /// The window that the bridge at an index already had.
    pub(super) fn window(&self, bridge: usize, space: Space) -> Option<AddressRange> {
        self.windows.get(&bridge).and_then(|windows| windows.get(space))
    }
}

/// The command bit that enables decoding of a BAR.
const fn decoding(bar: &Bar) -> Command {
    if bar.is_io() { Command::IO } else { Command::MEMORY }
}

impl Tree {
    /// The index of the bridge above the function at this index; `None` on a root bus.
    pub(super) fn container(&self, index: usize) -> Option<usize> {
        self.nodes.get(index)?.upstream.and_then(|bridge| self.position(bridge))
    }
}
