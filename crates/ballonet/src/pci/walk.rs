//! The bus walk: finds every function on every bus, through every bridge.
//!
//! Firmware's bus numbers are kept; bridges without numbers get them, depth first. The numbers in a bridge are device
//! data: a bridge with invalid numbers is reported and not entered. Each bus is visited once, and a segment has 256, so
//! the walk ends whatever numbers the bridges hold.

use alloc::vec::Vec;

use super::bridge::BridgeError;
use super::bus::{BusRange, BusSet};
use super::header::BusNumbers;
use super::tree::{Node, Tree};
use super::{Bdf, ConfigSpace, Express, Function};
use crate::bus::{OutOfMemory, heap, sort};

/// The most functions in a tree. Responses are device data, and each function takes kernel memory.
const MOST_FUNCTIONS: usize = 4096;

impl Tree {
    /// Walks all `ranges`, each with a root bus.
    ///
    /// Firmware tables may give one range to several host bridges. The walk searches for their root buses only if the
    /// first root bus has more than one host bridge, because that takes 32 reads per bus.
    ///
    /// # Errors
    /// When the heap has no room for all functions. Bridges may have got numbers by then, which another walk keeps.
    pub fn walk<C: ConfigSpace>(config: &mut C, ranges: &[BusRange]) -> Result<Self, OutOfMemory> {
        let mut tree = Self::default();
        for (index, range) in ranges.iter().enumerate() {
            // A bus that tables list twice is visited once.
            let mut visited = BusSet::default();
            for earlier in ranges.iter().take(index).filter(|earlier| earlier.segment() == range.segment()) {
                visited.insert(earlier.first(), earlier.last());
            }
            if range.is_reachable(config) && !visited.contains(range.first()) {
                Walk { config, range: *range, visited, tree: &mut tree }.run()?;
            }
        }
        sort::by_key(&mut tree.nodes, Node::bdf);
        Ok(tree)
    }
}

impl Tree {
    /// Walks the buses behind a bridge again after devices were added, and sizes the new BARs. The previous content
    /// is dropped first. Returns the number of functions.
    ///
    /// The bridge keeps its bus numbers; bridges behind it get numbers from its range.
    ///
    /// # Errors
    /// When the tree has no such bridge, the walk did not enter it, or the heap has no room for what is behind it; the
    /// tree has nothing behind it then.
    pub fn rescan<C: ConfigSpace>(&mut self, config: &mut C, bridge: Bdf) -> Result<usize, BridgeError> {
        let not_walked = BridgeError::NotWalked { bridge };
        let node = self.get(bridge).ok_or(not_walked)?;
        let (function, numbers) = (node.function, node.buses.ok_or(not_walked)?);
        let (segment, first, last) = (bridge.segment(), numbers.secondary, numbers.subordinate);
        let range = BusRange::new(segment, first, last).ok_or(not_walked)?;
        self.remove_behind(bridge);
        let mut found = Self::default();
        let mut walk = Walk { config, range, visited: BusSet::default(), tree: &mut found };
        let walked = walk.scan(first, last, Some(&function)).and_then(|level| walk.descend(level));
        walked.map_err(|missing| BridgeError::Memory { bridge, missing })?;
        sort::by_key(&mut found.nodes, Node::bdf);
        found.size_bars(config);
        let count = found.nodes.len();
        self.append(found).map_err(|missing| BridgeError::Memory { bridge, missing })?;
        Ok(count)
    }

    /// Adds all of `other`, or nothing.
    fn append(&mut self, mut other: Self) -> Result<(), OutOfMemory> {
        heap::reserve(&mut self.nodes, other.nodes.len())?;
        heap::reserve(&mut self.errors, other.errors.len())?;
        self.nodes.append(&mut other.nodes);
        self.errors.append(&mut other.errors);
        sort::by_key(&mut self.nodes, Node::bdf);
        Ok(())
    }
}

/// A walk through one range.
struct Walk<'w, C> {
    config: &'w mut C,
    range: BusRange,
    visited: BusSet,
    tree: &'w mut Tree,
}

/// A bus on the path from the root to the current position.
struct Level {
    bus: u8,
    /// The highest number usable on and behind this bus.
    limit: u8,
    /// The bridge to it, if its highest number must be updated at the end.
    numbered_by_us: Option<Bdf>,
    /// Numbers in use on and behind this bus.
    claimed: BusSet,
    /// Bridges still to be entered, the next one last. Those with numbers come first, so that the others avoid those
    /// numbers.
    bridges: Vec<Function>,
    host_bridges: usize,
}

impl<C: ConfigSpace> Walk<'_, C> {
    fn run(mut self) -> Result<(), OutOfMemory> {
        self.roots()?.into_iter().try_for_each(|root| self.descend(root))
    }

    /// The scanned root buses.
    fn roots(&mut self) -> Result<Vec<Level>, OutOfMemory> {
        let (first, last) = (self.range.first(), self.range.last());
        let mut roots = heap::vector(1)?;
        let root = self.scan(first, last, None)?;
        let (several, mut behind) = (root.host_bridges > 1, self.claims(&root));
        roots.push(root);
        for bus in first..=last {
            let known = behind.contains(bus) || self.visited.contains(bus);
            // Empty buses stay unvisited: bridges may get their numbers.
            if several && !known && (0..32).any(|device| self.probe(bus, device, 0).is_some()) {
                let root = self.scan(bus, last, None)?;
                behind.merge(self.claims(&root));
                heap::append(&mut roots, root)?;
            }
        }
        // A root's numbers end before the next root.
        let mut limit = last;
        for root in roots.iter_mut().rev() {
            root.limit = limit;
            limit = root.bus.saturating_sub(1);
        }
        Ok(roots)
    }

    /// The numbers that the bridges on a bus forward, according to firmware.
    fn claims(&self, level: &Level) -> BusSet {
        let mut claims = BusSet::default();
        for bridge in &level.bridges {
            let numbers = BusNumbers::read(self.config, bridge.bdf);
            if numbers.secondary > level.bus && numbers.subordinate >= numbers.secondary {
                claims.insert(numbers.secondary, numbers.subordinate);
            }
        }
        claims
    }

    /// Walks everything behind `root`, depth first.
    fn descend(&mut self, root: Level) -> Result<(), OutOfMemory> {
        let mut path = heap::vector(1)?;
        path.push(root);
        while let Some(level) = path.last_mut() {
            match level.bridges.pop() {
                Some(bridge) => match self.enter(level, &bridge) {
                    Ok(behind) => heap::append(&mut path, behind)?,
                    Err(BridgeError::Memory { missing, .. }) => return Err(missing),
                    Err(error) => heap::append(&mut self.tree.errors, error)?,
                },
                None => {
                    let done = path.pop();
                    if let (Some(done), Some(above)) = (done, path.last_mut()) {
                        self.leave(&done, above);
                    }
                }
            }
        }
        Ok(())
    }

    /// Scans the bus behind `bridge`, which first gets a number if it has none.
    fn enter(&mut self, level: &mut Level, bridge: &Function) -> Result<Level, BridgeError> {
        let bdf = bridge.bdf;
        let found = BusNumbers::read(self.config, bdf);
        let unnumbered = found.secondary == 0;
        let numbers = if unnumbered {
            let gap = level.claimed.longest_gap(level.bus, level.limit);
            let (secondary, subordinate) = gap.ok_or(BridgeError::NoBusNumber { bridge: bdf })?;
            // The whole free range, until the number of buses behind it is known.
            BusNumbers { primary: level.bus, secondary, subordinate }
        } else {
            level.check(found).ok_or(BridgeError::BadBusNumbers { bridge: bdf, numbers: found })?;
            level.claimed.insert(found.secondary, found.subordinate);
            found
        };
        if self.visited.contains(numbers.secondary) {
            return Err(BridgeError::BadBusNumbers { bridge: bdf, numbers });
        }
        if unnumbered {
            numbers.write(self.config, bdf);
        }
        self.record(bdf, numbers);
        let behind = self.scan(numbers.secondary, numbers.subordinate, Some(bridge));
        let mut behind = behind.map_err(|missing| BridgeError::Memory { bridge: bdf, missing })?;
        behind.numbered_by_us = unnumbered.then_some(bdf);
        Ok(behind)
    }

    /// Finishes a bus after everything behind it has been walked.
    fn leave(&mut self, done: &Level, above: &mut Level) {
        if let Some(bridge) = done.numbered_by_us {
            let subordinate = done.claimed.highest().unwrap_or(done.bus);
            let numbers = BusNumbers { primary: above.bus, secondary: done.bus, subordinate };
            numbers.write(self.config, bridge);
            self.record(bridge, numbers);
            above.claimed.insert(done.bus, subordinate);
        }
    }

    /// Records a bridge's bus numbers.
    fn record(&mut self, bridge: Bdf, numbers: BusNumbers) {
        if let Some(node) = self.tree.nodes.iter_mut().find(|node| node.bdf() == bridge) {
            node.buses = Some(numbers);
        }
    }

    /// Finds all functions on a bus.
    fn scan(&mut self, bus: u8, limit: u8, bridge: Option<&Function>) -> Result<Level, OutOfMemory> {
        self.visited.insert(bus, bus);
        let start = self.tree.nodes.len();
        let upstream = bridge.map(|function| function.bdf);
        for device in 0..bridge.map_or(32, |bridge| devices_behind(self.config, bridge)) {
            let Some(first) = self.probe(bus, device, 0) else { continue };
            if self.tree.nodes.len() + 8 > MOST_FUNCTIONS {
                self.refuse(first.bdf)?;
                break;
            }
            heap::append(&mut self.tree.nodes, Node::new(first, upstream))?;
            for number in if first.multifunction { 1..8 } else { 1..1 } {
                if let Some(other) = self.probe(bus, device, number) {
                    heap::append(&mut self.tree.nodes, Node::new(other, upstream))?;
                }
            }
        }
        let mut level = Level {
            bus,
            limit,
            numbered_by_us: None,
            claimed: BusSet::default(),
            bridges: Vec::new(),
            host_bridges: 0,
        };
        level.claimed.insert(bus, bus);
        for Node { function, .. } in self.tree.nodes.iter().skip(start) {
            level.host_bridges += usize::from(function.class.is_host_bridge());
            if function.is_bridge() {
                heap::append(&mut level.bridges, *function)?;
            }
        }
        sort::by_key(&mut level.bridges, |bridge| {
            let unnumbered = BusNumbers::read(self.config, bridge.bdf).secondary == 0;
            core::cmp::Reverse((unnumbered, bridge.bdf))
        });
        Ok(level)
    }

    /// Reports once that there are too many functions.
    fn refuse(&mut self, from: Bdf) -> Result<(), OutOfMemory> {
        let most = MOST_FUNCTIONS;
        if self.tree.errors.iter().any(|error| matches!(error, BridgeError::TooManyFunctions { .. })) {
            return Ok(());
        }
        heap::append(&mut self.tree.errors, BridgeError::TooManyFunctions { from, most })
    }

    fn probe(&self, bus: u8, device: u8, function: u8) -> Option<Function> {
        Bdf::new(self.range.segment(), bus, device, function).and_then(|bdf| Function::probe(self.config, bdf))
    }
}

impl Level {
    /// Whether a bridge on this bus may have these numbers: above this bus, inside its range, and unused.
    fn check(&self, numbers: BusNumbers) -> Option<()> {
        let BusNumbers { secondary, subordinate, .. } = numbers;
        let sane = secondary > self.bus && secondary <= subordinate && subordinate <= self.limit;
        (sane && !self.claimed.overlaps(secondary, subordinate)).then_some(())
    }
}

/// The possible number of devices on the bus behind `bridge`: one at the end of a PCI Express link, otherwise 32.
fn devices_behind<C: ConfigSpace>(config: &C, bridge: &Function) -> u8 {
    match Express::find(config, bridge) {
        Ok(Some(express)) if express.port_type().is_downstream() => 1,
        _ => 32,
    }
}

#[cfg(test)]
mod tests;
