//! Plans addresses of one kind. First, devices behind closed bridges are packed into windows, from the leaves up;
//! then windows and BARs are placed in free space, from the root down.
//!
//! Largest alignment first, so that powers of two leave no gaps. If not everything fits, the largest are left out until
//! the rest does.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::bridge::Space;
use super::range::{AddressRange, Pool};
use super::survey::{Key, Survey, Want};
use super::{Bdf, Node, Tree};

/// BARs with their planned addresses.
type Places = Vec<(Want, u64)>;

/// Windows to open, by the bridge's index in the tree.
type Windows = BTreeMap<usize, AddressRange>;

/// The plan for all addresses of one kind.
#[derive(Debug)]
pub(super) struct Plan {
    /// The kind.
    pub(super) space: Space,
    /// The planned address of each BAR.
    pub(super) bars: Places,
    /// Windows to open, by the bridge's index in the tree.
    pub(super) windows: Windows,
    /// BARs without room.
    pub(super) refused: Vec<Want>,
}

/// Something that needs an address on a bus.
#[derive(Debug, Clone, Copy)]
enum Item {
    Bar(Want),
    /// The window of the bridge at this index, with everything behind it.
    Window {
        bridge: usize,
        size: u64,
        align: u64,
    },
}

impl Item {
    fn size(&self) -> u64 {
        match self {
            Self::Bar(want) => want.size(),
            Self::Window { size, .. } => *size,
        }
    }

    fn align(&self) -> u64 {
        match self {
            Self::Bar(want) => want.size(),
            Self::Window { align, .. } => *align,
        }
    }
}

/// What each bus needs, largest alignment first. A bus is identified by the bridge to it, a root bus by `None`.
type Buses = BTreeMap<Option<usize>, Vec<Item>>;

/// Plans addresses of kind `space` for `wants`. `host` is what host bridges forward, the preferred first; `has_window`
/// tells whether a bridge with a closed window implements that window.
pub(super) fn plan(
    survey: &Survey,
    tree: &Tree,
    space: Space,
    mut wants: Vec<Want>,
    host: &[AddressRange],
    mut has_window: impl FnMut(Bdf) -> bool,
) -> Plan {
    let mut refused = Vec::new();
    // Query each bridge once.
    let mut windowless = BTreeMap::new();
    wants.retain(|want| {
        let fits = closed_bridges(survey, tree, space, want.node).all(|bridge| {
            let bdf = tree.nodes.get(bridge).map(Node::bdf);
            *windowless.entry(bridge).or_insert_with(|| bdf.is_some_and(&mut has_window))
        });
        if !fits {
            refused.push(*want);
        }
        fits
    });
    loop {
        match Layout::new(survey, tree, space, &wants).place(host) {
            Ok((bars, windows)) => return Plan { space, bars, windows, refused },
            Err(unlucky) => {
                let (gone, left): (Vec<_>, Vec<_>) = wants.into_iter().partition(|want| unlucky.contains(&want.key()));
                refused.extend(gone);
                wants = left;
            }
        }
    }
}

/// The bridges above a function whose windows must be opened for it.
fn closed_bridges(survey: &Survey, tree: &Tree, space: Space, node: usize) -> impl Iterator<Item = usize> {
    core::iter::successors(tree.container(node), |bridge| tree.container(*bridge))
        .take_while(move |bridge| survey.window(*bridge, space).is_none())
}

/// Everything that is needed, bus by bus.
struct Layout<'s> {
    survey: &'s Survey,
    tree: &'s Tree,
    space: Space,
    wants: &'s [Want],
    buses: Buses,
}

impl<'s> Layout<'s> {
    fn new(survey: &'s Survey, tree: &'s Tree, space: Space, wants: &'s [Want]) -> Self {
        let mut buses = Buses::new();
        for want in wants {
            buses.entry(tree.container(want.node)).or_default().push(Item::Bar(*want));
        }
        // A bridge comes before what is behind it, so reverse order starts from the leaves.
        for bridge in survey.windows.keys().rev().copied() {
            let Some(items) = buses.get_mut(&Some(bridge)) else { continue };
            sort(items);
            if survey.window(bridge, space).is_none() {
                let (size, align) = pack(items, space);
                buses.entry(tree.container(bridge)).or_default().push(Item::Window { bridge, size, align });
            }
        }
        if let Some(items) = buses.get_mut(&None) {
            sort(items);
        }
        Self { survey, tree, space, wants, buses }
    }

    /// Places everything, or returns which of the wants must be left out so that the rest may fit.
    fn place(&self, host: &[AddressRange]) -> Result<(Places, Windows), BTreeSet<Key>> {
        let (mut bars, mut windows) = (Places::new(), Windows::new());
        // Firmware may have opened a bridge window that nothing above forwards and whose addresses others get.
        let mut given: Vec<AddressRange> = Vec::new();
        // Root buses come first, and each bridge before what is behind it.
        for (&bus, items) in &self.buses {
            let mut pool = self.pool(bus, host, &windows);
            given.iter().for_each(|range| pool.exclude(*range));
            for (position, item) in items.iter().enumerate() {
                let range = pool.take(item.size(), item.align());
                let range = range.ok_or_else(|| self.unlucky(&items[position..], pool.largest()))?;
                match *item {
                    Item::Bar(want) => {
                        bars.push((want, range.first()));
                        given.push(range);
                    }
                    Item::Window { bridge, .. } => {
                        windows.insert(bridge, range);
                    }
                }
            }
        }
        Ok((bars, windows))
    }

    /// The addresses available on a bus.
    fn pool(&self, bus: Option<usize>, host: &[AddressRange], opened: &Windows) -> Pool {
        let mut pool = match bus {
            Some(bridge) => Pool::new(opened.get(&bridge).copied().or_else(|| self.survey.window(bridge, self.space))),
            None => Pool::new(host.iter().copied()),
        };
        let memory = self.space != Space::Io;
        for taken in if memory { &self.survey.memory } else { &self.survey.ports } {
            pool.exclude(*taken);
        }
        for (_, windows) in self.survey.windows.iter().filter(|(bridge, _)| self.tree.container(**bridge) == bus) {
            let used = if memory { [windows.memory, windows.prefetchable] } else { [windows.io, None] };
            for window in used.into_iter().flatten() {
                pool.exclude(window);
            }
        }
        pool
    }

    /// Which wants to leave out when the first of `items` does not fit; the others were to follow on the same bus.
    /// `room` is the largest free piece there.
    ///
    /// There may be thousands, of which hardly any fit, and a pass takes longer the more there are. So each pass leaves
    /// out as many as must go in any case.
    fn unlucky(&self, items: &[Item], room: u64) -> BTreeSet<Key> {
        match items.first() {
            // If one does not fit, none of the same size does.
            Some(Item::Bar(first)) => {
                let bars = items.iter().filter_map(|item| if let Item::Bar(want) = item { Some(want) } else { None });
                bars.filter(|want| want.size() == first.size()).map(Want::key).collect()
            }
            Some(Item::Window { bridge, size, .. }) => self.largest_behind(*bridge, size.saturating_sub(room)),
            None => BTreeSet::new(),
        }
    }

    /// The largest wants behind a bridge whose window is too large by `excess`: at least one, and rather too few than
    /// too many. Each counts for twice its size, or for twice the window granularity.
    fn largest_behind(&self, bridge: usize, excess: u64) -> BTreeSet<Key> {
        let above = |want: &Want| closed_bridges(self.survey, self.tree, self.space, want.node).any(|it| it == bridge);
        let mut behind: Vec<&Want> = self.wants.iter().rev().filter(|want| above(want)).collect();
        behind.sort_by_key(|want| core::cmp::Reverse(want.size()));
        let mut lost = 0_u64;
        let still_too_large = |want: &&&Want| {
            let before = lost;
            lost = lost.saturating_add(2 * want.size().max(self.space.window_step()));
            before == 0 || before < excess
        };
        behind.iter().take_while(still_too_large).map(|want| want.key()).collect()
    }
}

fn sort(items: &mut [Item]) {
    items.sort_by_key(|item| core::cmp::Reverse(item.align()));
}

/// Size and alignment of a window for all `items`, as a multiple of the granularity. Saturates at a size that fits
/// nowhere.
fn pack(items: &[Item], space: Space) -> (u64, u64) {
    let step = space.window_step();
    let align = items.iter().map(Item::align).fold(step, u64::max);
    let end = items.iter().try_fold(0_u64, |end, item| {
        end.checked_next_multiple_of(item.align()).and_then(|start| start.checked_add(item.size()))
    });
    let size = end.and_then(|end| end.checked_next_multiple_of(step));
    (size.unwrap_or(u64::MAX), align)
}
