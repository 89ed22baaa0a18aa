//! The functions of a machine and the bridges between them and the CPU.

use alloc::vec::Vec;

use super::bridge::BridgeError;
use super::header::BusNumbers;
use super::{Bars, Bdf, Command, ConfigSpace, Function};

/// A function in the tree.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Node {
    /// The function.
    pub function: Function,
    /// Its BARs; not sized before [`Tree::size_bars`].
    pub bars: Bars,
    /// The bridge above it; `None` on a root bus.
    pub upstream: Option<Bdf>,
    /// The buses that it connects, if it is a bridge that the walk entered.
    pub(crate) buses: Option<BusNumbers>,
}

impl Node {
    pub(super) fn new(function: Function, upstream: Option<Bdf>) -> Self {
        Self { function, bars: Bars::not_sized(&function), upstream, buses: None }
    }

    /// The function's address.
    pub const fn bdf(&self) -> Bdf {
        self.function.bdf
    }
}

/// All functions found, ordered by address. A bridge comes before what is behind it.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) errors: Vec<BridgeError>,
}

impl Tree {
    /// All functions, in order of their addresses.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The bridges that the walk could not enter, and why.
    pub fn errors(&self) -> &[BridgeError] {
        &self.errors
    }

    /// The function at `bdf`.
    pub fn get(&self, bdf: Bdf) -> Option<&Node> {
        self.position(bdf).and_then(|index| self.nodes.get(index))
    }

    /// Its index in [`Tree::nodes`].
    pub(super) fn position(&self, bdf: Bdf) -> Option<usize> {
        self.nodes.binary_search_by_key(&bdf, Node::bdf).ok()
    }

    /// The bridges between the function at `bdf` and the CPU, nearest first.
    pub fn bridges_above(&self, bdf: Bdf) -> impl Iterator<Item = &Node> {
        let above = |node: &Node| node.upstream.and_then(|bridge| self.get(bridge));
        core::iter::successors(self.get(bdf).and_then(above), move |bridge| above(bridge))
    }

    /// The functions behind a bridge at any depth, ordered by address.
    pub fn behind(&self, bridge: Bdf) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| self.is_behind(node, bridge))
    }

    fn is_behind(&self, node: &Node, bridge: Bdf) -> bool {
        self.bridges_above(node.bdf()).any(|above| above.bdf() == bridge)
    }

    /// Removes everything behind a bridge and returns it. The bridge keeps its bus numbers and windows.
    pub fn remove_behind(&mut self, bridge: Bdf) -> Vec<Function> {
        let gone: Vec<Function> = self.behind(bridge).map(|node| node.function).collect();
        self.nodes.retain(|node| gone.iter().all(|function| function.bdf != node.bdf()));
        if let Some(BusNumbers { secondary, subordinate, .. }) = self.get(bridge).and_then(|node| node.buses) {
            let behind =
                |place: Bdf| place.segment() == bridge.segment() && (secondary..=subordinate).contains(&place.bus());
            self.errors.retain(|error| !behind(error.place()));
        }
        gone
    }

    /// Sizes the BARs of every function. [`Bars::size`] has a requirement for the caller.
    pub fn size_bars<C: ConfigSpace>(&mut self, config: &mut C) {
        for node in &mut self.nodes {
            node.bars = Bars::size(config, &node.function);
        }
    }

    /// Lets all bridges above the function at `bdf` forward memory and I/O accesses down, and DMA and messages up.
    ///
    /// Firmware may not have enabled that for a device it does not use.
    pub fn open_path<C: ConfigSpace>(&self, config: &mut C, bdf: Bdf) {
        for bridge in self.bridges_above(bdf) {
            bridge.function.enable(config, Command::IO | Command::MEMORY | Command::BUS_MASTER);
        }
    }
}
