//! Assigns addresses to BARs that firmware left unassigned.
//!
//! Firmware's setup stays unchanged: only BARs without a usable address get one, from free space in the windows of
//! the host bridge and of the bridges above. Closed bridge windows are opened around the devices behind them.
//! Everything is planned first, then written. A BAR without room is reported, and the others proceed.

use alloc::vec::Vec;

use derive_more::{Display, Error};

use super::bar::{Bar, BarKind, MemoryWidth};
use super::bridge::{BridgeWindows, Space, close_unused_windows, has_window, open_window};
use super::plan::{Plan, plan};
use super::range::AddressRange;
use super::sorted_map::SortedMap;
use super::survey::Survey;
use super::{Bdf, Command, ConfigSpace, HostWindows, Node, Tree};
use crate::bus::{OutOfMemory, heap};

/// Why a BAR has no address after the assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum AssignError {
    /// No window above it has room for it.
    #[display("no room for {_0}")]
    NoRoom(#[error(not(source))] Bar),
    /// The BAR did not keep the value written.
    #[display("{bar} reads {read:#x} after {wrote:#x} was written")]
    NotKept {
        /// The BAR.
        bar: Bar,
        /// The address written.
        wrote: u64,
        /// The value read back.
        read: u64,
    },
    /// A bridge did not keep the window written to it.
    #[display("bridge {bridge} does not keep the {space} window {window}")]
    WindowNotKept {
        /// The bridge.
        bridge: Bdf,
        /// The kind of window.
        space: Space,
        /// The window written.
        window: AddressRange,
    },
}

/// The result of an assignment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The BARs that got an address.
    pub placed: Vec<Bar>,
    /// The bridge windows that were opened.
    pub opened: Vec<(Bdf, Space, AddressRange)>,
    /// BARs without an address, and bridges that did not keep a window.
    pub errors: Vec<AssignError>,
}

impl Assignment {
    /// Makes room for everything that can come of `plans`, so that nothing fails once registers are written.
    fn make_room(&mut self, plans: &[Plan]) -> Result<(), OutOfMemory> {
        let bars = plans.iter().map(|plan| plan.bars.len()).sum::<usize>();
        let windows = plans.iter().map(|plan| plan.windows.iter().count()).sum::<usize>();
        heap::reserve(&mut self.placed, bars)?;
        heap::reserve(&mut self.opened, windows)?;
        heap::reserve(&mut self.errors, bars + windows)
    }
}

impl Tree {
    /// Assigns addresses to all BARs without one; call [`Tree::size_bars`] first. `host` gives the available
    /// addresses; BARs and bridge windows set up by firmware are avoided.
    ///
    /// The functions' decode enables do not change. Bridges whose windows were opened forward accesses.
    ///
    /// # Errors
    /// When the heap has no room for the plan. Nothing has been written then.
    pub fn assign_addresses<C: ConfigSpace>(
        &mut self,
        config: &mut C,
        host: &HostWindows,
    ) -> Result<Assignment, OutOfMemory> {
        let mut assignment = Assignment::default();
        let mut survey = Survey::new(config, self, host)?;
        if survey.wants.is_empty() {
            return Ok(assignment);
        }
        let plans = survey.plan_all(config, self, host, &mut assignment)?;
        assignment.make_room(&plans)?;
        let bridges = survey.windows;
        for error in &assignment.errors {
            if let AssignError::NoRoom(bar) = error {
                self.clear_address(config, bar);
            }
        }
        for plan in &plans {
            self.open_windows(config, plan, &mut assignment);
        }
        self.start_bridges(config, &bridges, &assignment.opened);
        for plan in &plans {
            self.place_bars(config, plan, &mut assignment);
        }
        Ok(assignment)
    }

    /// A BAR without room gets address 0, so that a driver which sizes it anew sees that it has none: the address that
    /// its register held was unusable, and may now belong to another BAR.
    fn clear_address<C: ConfigSpace>(&mut self, config: &mut C, bar: &Bar) {
        let node = self.position(bar.function).and_then(|place| self.nodes.get_mut(place));
        if let Some(node) = node.filter(|_| bar.address != 0) {
            node.bars.clear(config, &node.function, bar.index);
        }
    }

    fn open_windows<C: ConfigSpace>(&self, config: &mut C, plan: &Plan, assignment: &mut Assignment) {
        for (index, &window) in plan.windows.iter() {
            let Some(bridge) = self.nodes.get(index).map(Node::bdf) else { continue };
            let space = plan.space;
            if open_window(config, bridge, space, window) {
                assignment.opened.push((bridge, space, window));
            } else {
                assignment.errors.push(AssignError::WindowNotKept { bridge, space, window });
            }
        }
    }

    /// Whether a bridge above a BAR failed to open the window that the BAR needs.
    fn is_cut_off(&self, bar: &Bar, wanted: Space, errors: &[AssignError]) -> bool {
        self.bridges_above(bar.function).map(Node::bdf).any(|above| {
            let kept = |error: &AssignError| !matches!(error, AssignError::WindowNotKept { bridge, space, .. } if (*bridge, *space) == (above, wanted));
            !errors.iter().all(kept)
        })
    }

    /// Makes bridges forward accesses through the windows just opened.
    fn start_bridges<C: ConfigSpace>(
        &self,
        config: &mut C,
        before: &SortedMap<usize, BridgeWindows>,
        opened: &[(Bdf, Space, AddressRange)],
    ) {
        for node in before.iter().filter_map(|(index, _)| self.nodes.get(index)) {
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
                self.clear_address(config, &want.bar);
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

impl Survey {
    /// Plans all three kinds of addresses. Addresses planned for one kind of memory are taken for the other: firmware
    /// may have opened overlapping windows of a bridge.
    fn plan_all<C: ConfigSpace>(
        &mut self,
        config: &mut C,
        tree: &Tree,
        host: &HostWindows,
        assignment: &mut Assignment,
    ) -> Result<[Plan; 3], OutOfMemory> {
        let (mut ports, mut low, mut high) = (Vec::new(), Vec::new(), Vec::new());
        for &want in &self.wants {
            match want.bar.kind {
                BarKind::Io => heap::append(&mut ports, want)?,
                BarKind::Memory { width: MemoryWidth::Below1MiB, .. } => {
                    heap::append(&mut assignment.errors, AssignError::NoRoom(want.bar))?;
                }
                // A host bridge forwards anything above 4 GiB; other bridges forward only prefetchable memory there.
                BarKind::Memory { width: MemoryWidth::Bits64, prefetchable }
                    if prefetchable || tree.container(want.node).is_none() =>
                {
                    heap::append(&mut high, want)?;
                }
                BarKind::Memory { .. } => heap::append(&mut low, want)?,
            }
        }
        let mut plan = |survey: &Self, space, wants, pool: &[AddressRange]| {
            plan(survey, tree, space, wants, pool, |bridge| has_window(config, bridge, space))
        };
        let io = plan(self, Space::Io, ports, &host.io)?;
        let high = plan(self, Space::Prefetchable, high, &host.memory64)?;
        heap::reserve(&mut self.memory, high.bars.len())?;
        self.memory.extend(high.bars.iter().filter_map(|(want, first)| AddressRange::new(*first, want.size())));
        // A BAR that finds no room there, or that a bridge blocks, may go below 4 GiB.
        heap::reserve(&mut low, high.refused.len())?;
        low.extend(&high.refused);
        let low = plan(self, Space::Memory, low, &host.memory)?;
        heap::reserve(&mut assignment.errors, io.refused.len() + low.refused.len())?;
        assignment.errors.extend(io.refused.iter().chain(&low.refused).map(|want| AssignError::NoRoom(want.bar)));
        Ok([io, high, low])
    }
}

#[cfg(test)]
mod tests;
