//! Plans addresses of one kind. First, devices behind closed bridges are packed into windows, from the leaves up;
//! then windows and BARs are placed in free space, from the root down.
//!
//! Largest alignment first, so that powers of two leave no gaps. If not everything fits, the largest are left out until
//! the rest does.

use alloc::vec::Vec;

use super::bridge::Space;
use super::range::{AddressRange, Pool};
use super::sorted_map::SortedMap;
use super::survey::{Key, Survey, Want};
use super::{Bdf, Node, Tree};
use crate::bus::{OutOfMemory, heap, sort};

/// BARs with their planned addresses.
type Places = Vec<(Want, u64)>;

/// Windows to open, by the bridge's index in the tree.
type Windows = SortedMap<usize, AddressRange>;

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

    /// Of equals: BARs before windows, in their functions' order.
    fn order(&self) -> (bool, Key) {
        match self {
            Self::Bar(want) => (false, want.key()),
            Self::Window { bridge, .. } => (true, (usize::MAX - bridge, 0)),
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
type Buses = SortedMap<Option<usize>, Vec<Item>>;

/// Which wants to leave out.
type Unlucky = Vec<Key>;

/// Plans addresses of kind `space` for `wants`. `host` is what host bridges forward, the preferred first; `has_window`
/// tells whether a bridge with a closed window implements that window.
///
/// # Errors
/// When the heap has no room for the plan.
pub(super) fn plan(
    survey: &Survey,
    tree: &Tree,
    space: Space,
    mut wants: Vec<Want>,
    host: &[AddressRange],
    mut has_window: impl FnMut(Bdf) -> bool,
) -> Result<Plan, OutOfMemory> {
    // Each want is there once.
    let mut refused = heap::vector(wants.len())?;
    // Query each bridge once.
    let mut known = SortedMap::new();
    for bridge in wants.iter().flat_map(|want| closed_bridges(survey, tree, space, want.node)) {
        let bdf = tree.nodes.get(bridge).map(Node::bdf);
        known.or_insert_with(bridge, || bdf.is_some_and(&mut has_window))?;
    }
    let has_window = |bridge| known.get(bridge).is_some_and(|has| *has);
    let fits = |want: &Want| closed_bridges(survey, tree, space, want.node).all(has_window);
    leave_out(&mut wants, &mut refused, |want| !fits(want));
    loop {
        match Layout::new(survey, tree, space, &wants)?.place(host)? {
            Ok((bars, windows)) => return Ok(Plan { space, bars, windows, refused }),
            Err(unlucky) => leave_out(&mut wants, &mut refused, |want| unlucky.binary_search(&want.key()).is_ok()),
        }
    }
}

/// Moves wants to `refused`, which has room for all.
fn leave_out(wants: &mut Vec<Want>, refused: &mut Vec<Want>, is_refused: impl Fn(&Want) -> bool) {
    refused.extend(wants.iter().filter(|want| is_refused(want)));
    wants.retain(|want| !is_refused(want));
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
    fn new(survey: &'s Survey, tree: &'s Tree, space: Space, wants: &'s [Want]) -> Result<Self, OutOfMemory> {
        let mut buses = Buses::new();
        for want in wants {
            heap::append(buses.or_insert_with(tree.container(want.node), Vec::new)?, Item::Bar(*want))?;
        }
        // A bridge comes before what is behind it, so reverse order starts from the leaves.
        for (bridge, _) in survey.windows.iter().rev() {
            let Some(items) = buses.get_mut(Some(bridge)) else { continue };
            sort_items(items);
            if survey.window(bridge, space).is_none() {
                let (size, align) = pack(items, space);
                let window = Item::Window { bridge, size, align };
                heap::append(buses.or_insert_with(tree.container(bridge), Vec::new)?, window)?;
            }
        }
        if let Some(items) = buses.get_mut(None) {
            sort_items(items);
        }
        Ok(Self { survey, tree, space, wants, buses })
    }

    /// Places everything, or returns which of the wants must be left out so that the rest may fit.
    fn place(&self, host: &[AddressRange]) -> Result<Result<(Places, Windows), Unlucky>, OutOfMemory> {
        let (mut bars, mut windows) = (heap::vector(self.wants.len())?, Windows::new());
        // Firmware may have opened a bridge window that nothing above forwards and whose addresses others get.
        let mut given: Vec<AddressRange> = heap::vector(self.wants.len())?;
        // Root buses come first, and each bridge before what is behind it.
        for (bus, items) in self.buses.iter() {
            let mut pool = self.pool(bus, host, &windows)?;
            given.iter().try_for_each(|range| pool.exclude(*range))?;
            for (position, item) in items.iter().enumerate() {
                let Some(range) = pool.take(item.size(), item.align())? else {
                    return self.unlucky(&items[position..], pool.largest()).map(Err);
                };
                match *item {
                    Item::Bar(want) => {
                        bars.push((want, range.first()));
                        given.push(range);
                    }
                    Item::Window { bridge, .. } => *windows.or_insert_with(bridge, || range)? = range,
                }
            }
        }
        Ok(Ok((bars, windows)))
    }

    /// The addresses available on a bus.
    fn pool(&self, bus: Option<usize>, host: &[AddressRange], opened: &Windows) -> Result<Pool, OutOfMemory> {
        let mut pool = match bus {
            Some(bridge) => Pool::new(opened.get(bridge).copied().or_else(|| self.survey.window(bridge, self.space)))?,
            None => Pool::new(host.iter().copied())?,
        };
        let memory = self.space != Space::Io;
        for taken in if memory { &self.survey.memory } else { &self.survey.ports } {
            pool.exclude(*taken)?;
        }
        for (_, windows) in self.survey.windows.iter().filter(|(bridge, _)| self.tree.container(*bridge) == bus) {
            let used = if memory { [windows.memory, windows.prefetchable] } else { [windows.io, None] };
            for window in used.into_iter().flatten() {
                pool.exclude(window)?;
            }
        }
        Ok(pool)
    }

    /// Which wants to leave out when the first of `items` does not fit; the others were to follow on the same bus.
    /// `room` is the largest free piece there.
    ///
    /// There may be thousands, of which hardly any fit, and a pass takes longer the more there are. So each pass leaves
    /// out as many as must go in any case. They are in order.
    fn unlucky(&self, items: &[Item], room: u64) -> Result<Unlucky, OutOfMemory> {
        let mut unlucky = heap::vector(self.wants.len())?;
        match items.first() {
            // If one does not fit, none of the same size does.
            Some(Item::Bar(first)) => {
                let bars = items.iter().filter_map(|item| if let Item::Bar(want) = item { Some(want) } else { None });
                unlucky.extend(bars.filter(|want| want.size() == first.size()).map(Want::key));
            }
            Some(Item::Window { bridge, size, .. }) => {
                self.largest_behind(*bridge, size.saturating_sub(room), &mut unlucky)?;
            }
            None => {}
        }
        sort::by_key(&mut unlucky, |key| *key);
        Ok(unlucky)
    }

    /// The largest wants behind a bridge whose window is too large by `excess`: at least one, and rather too few than
    /// too many. Each counts for twice its size, or for twice the window granularity. They go to `unlucky`, which has
    /// room for all wants.
    fn largest_behind(&self, bridge: usize, excess: u64, unlucky: &mut Unlucky) -> Result<(), OutOfMemory> {
        let above = |want: &Want| closed_bridges(self.survey, self.tree, self.space, want.node).any(|it| it == bridge);
        let mut behind: Vec<(usize, &Want)> = heap::vector(self.wants.len())?;
        behind.extend(self.wants.iter().enumerate().filter(|(_, want)| above(want)));
        // Of equals the last ones first.
        sort::by_key(&mut behind, |(place, want)| core::cmp::Reverse((want.size(), *place)));
        let mut lost = 0_u64;
        let still_too_large = |(_, want): &&(usize, &Want)| {
            let before = lost;
            lost = lost.saturating_add(2 * want.size().max(self.space.window_step()));
            before == 0 || before < excess
        };
        unlucky.extend(behind.iter().take_while(still_too_large).map(|(_, want)| want.key()));
        Ok(())
    }
}

/// Sorts what a bus needs, the largest alignment first. Which of equals comes first does not matter, but is always the
/// same.
fn sort_items(items: &mut [Item]) {
    sort::by_key(items, |item| (core::cmp::Reverse(item.align()), item.order()));
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
