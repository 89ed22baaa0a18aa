//! Lists of regions, linked through their records: by zone and, within a zone, by the largest available block of
//! frames. Filing and finding a region take constant time.
//!
//! A list is a deque: memory written last is in front, memory untouched for longest at the back. Allocations take
//! from the front. For the kernel that is warm memory; for the balloon it is memory that the host really backs, so
//! that inflating it frees host memory. For the same reason there are three lists of whole regions. Used ones come
//! first, wherever they are; then those without known use, since they were never allocated or the host has returned
//! them; and last those reported to the host.
#![forbid(unsafe_code)]

use core::ops::{Index, IndexMut};

use super::frame_set::{REPORTED, TOUCHED, WHOLE};
use super::region::{Family, Link, Region};

/// The lists of whole regions, in the order of allocation.
const WHOLES: [u32; 3] = [TOUCHED, WHOLE, REPORTED];

/// Lists per zone: one per order.
const ORDERS: usize = TOUCHED as usize + 1;

/// A part of the address space, by the reach of devices. Low memory is allocated last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Zone {
    /// Below 16 MiB: 24-bit addresses, and what real mode reaches.
    Isa = 0,
    /// Below 4 GiB: 32-bit addresses.
    Dma32 = 1,
    /// The rest.
    High = 2,
}

impl Zone {
    /// In the order of allocation.
    pub(super) const HIGHEST_FIRST: [Self; 3] = [Self::High, Self::Dma32, Self::Isa];

    /// The number of its first region.
    pub(super) fn first_region(self) -> u32 {
        match self {
            Self::Isa => 0,
            Self::Dma32 => (16 << 20) / (2 << 20),
            Self::High => (4 << 10) / 2,
        }
    }

    /// The zone of the region with this number.
    pub(super) fn of(number: u32) -> Self {
        Self::HIGHEST_FIRST.into_iter().find(|zone| number >= zone.first_region()).unwrap_or(Self::Isa)
    }
}

/// Which end of its list a region goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Front,
    Back,
}

/// The records of all regions. Tests count the accesses.
#[derive(Debug)]
pub(super) struct Regions<'a> {
    records: &'a mut [Region],
    #[cfg(test)]
    pub(super) visits: core::cell::Cell<u64>,
}

impl<'a> Regions<'a> {
    pub(super) fn new(records: &'a mut [Region]) -> Self {
        Self {
            records,
            #[cfg(test)]
            visits: core::cell::Cell::new(0),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }
}

// Indices come from spans and links, never from outside: a wrong one is a bug here.
impl Index<usize> for Regions<'_> {
    type Output = Region;
    fn index(&self, index: usize) -> &Region {
        #[cfg(test)]
        self.visits.set(self.visits.get() + 1);
        &self.records[index]
    }
}

impl IndexMut<usize> for Regions<'_> {
    fn index_mut(&mut self, index: usize) -> &mut Region {
        #[cfg(test)]
        self.visits.set(self.visits.get() + 1);
        &mut self.records[index]
    }
}

#[derive(Clone, Copy, Default, Debug)]
struct Ends {
    front: Link,
    back: Link,
}

/// One family of lists: regions by the order of their largest block of free (or ballooned) frames.
#[derive(Debug)]
pub(super) struct Lists {
    family: Family,
    ends: [[Ends; ORDERS]; 3],
    /// Bit k is set if the list of order k is not empty.
    occupied: [u32; 3],
}

impl Lists {
    pub(super) fn new(family: Family) -> Self {
        Self { family, ends: [[Ends::default(); ORDERS]; 3], occupied: [0; 3] }
    }

    /// Puts the region at `index` on the right list: at this `end`, or at its present place if it is already there.
    /// Returns the order.
    pub(super) fn file(&mut self, regions: &mut Regions<'_>, index: usize, end: End) -> Option<u32> {
        let region = &regions[index];
        let (old, new) = (region.place(self.family).order(), region.order(self.family));
        if old != new {
            let zone = Zone::of(region.number());
            if let Some(old) = old {
                self.unlink(regions, index, zone, old);
            }
            if let Some(new) = new {
                self.link(regions, index, zone, new, end);
            }
            regions[index].place_mut(self.family).set_order(new);
        }
        new
    }

    /// A region of `zone` with a block of `order` or more, of the smallest such order, so that large blocks survive.
    pub(super) fn smallest(&self, zone: Zone, order: u32) -> Option<usize> {
        let order = (order..WHOLE).chain(WHOLES).find(|order| self.occupied(zone, *order))?;
        self.front(zone, order)
    }

    /// A region with the largest block in any of `zones`. Of whole ones, one that the host backs if there is any; of
    /// equals, one in the first-named zone.
    pub(super) fn largest(&self, zones: &[Zone]) -> Option<usize> {
        WHOLES.into_iter().chain((0..WHOLE).rev()).find_map(|order| self.first(zones, order))
    }

    /// The front of the first list of this order in one of `zones` that is not empty.
    pub(super) fn first(&self, zones: &[Zone], order: u32) -> Option<usize> {
        zones.iter().find_map(|zone| self.front(*zone, order))
    }

    /// The order of the largest block.
    pub(super) fn largest_order(&self) -> Option<u32> {
        self.occupied.iter().filter_map(|orders| orders.checked_ilog2()).max().map(|order| order.min(WHOLE))
    }

    /// The first region of a list.
    pub(super) fn front(&self, zone: Zone, order: u32) -> Option<usize> {
        self.ends(zone, order).front.index()
    }

    /// The regions of a list, front to back.
    pub(super) fn walk<'r>(
        &self,
        regions: &'r Regions<'_>,
        zone: Zone,
        order: u32,
    ) -> impl Iterator<Item = usize> + use<'r> {
        let family = self.family;
        core::iter::successors(self.front(zone, order), move |index| regions[*index].place(family).next.index())
    }

    /// The last region of a list.
    pub(super) fn back(&self, zone: Zone, order: u32) -> Option<usize> {
        self.ends(zone, order).back.index()
    }

    /// Whether a list's bit agrees with the list.
    pub(super) fn occupied(&self, zone: Zone, order: u32) -> bool {
        self.occupied[zone as usize] >> order & 1 == 1
    }

    fn ends(&self, zone: Zone, order: u32) -> &Ends {
        &self.ends[zone as usize][order as usize]
    }

    fn link(&mut self, regions: &mut Regions<'_>, index: usize, zone: Zone, order: u32, end: End) {
        let family = self.family;
        let ends = &mut self.ends[zone as usize][order as usize];
        let (previous, next) = match end {
            End::Front => (Link::NONE, ends.front),
            End::Back => (ends.back, Link::NONE),
        };
        let place = regions[index].place_mut(family);
        (place.previous, place.next) = (previous, next);
        match previous.index() {
            Some(before) => regions[before].place_mut(family).next = Link::to(index),
            None => ends.front = Link::to(index),
        }
        match next.index() {
            Some(after) => regions[after].place_mut(family).previous = Link::to(index),
            None => ends.back = Link::to(index),
        }
        self.occupied[zone as usize] |= 1 << order;
    }

    fn unlink(&mut self, regions: &mut Regions<'_>, index: usize, zone: Zone, order: u32) {
        let family = self.family;
        let ends = &mut self.ends[zone as usize][order as usize];
        let place = regions[index].place_mut(family);
        let (previous, next) = (place.previous, place.next);
        (place.previous, place.next) = (Link::NONE, Link::NONE);
        match previous.index() {
            Some(before) => regions[before].place_mut(family).next = next,
            None => ends.front = next,
        }
        match next.index() {
            Some(after) => regions[after].place_mut(family).previous = previous,
            None => ends.back = previous,
        }
        if ends.front == Link::NONE {
            self.occupied[zone as usize] &= !(1 << order);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::frame_set::FrameSet;
    use crate::memory::region::FrameState;

    fn give(regions: &mut Regions<'_>, index: usize, first: u32, count: u32) {
        regions[index].shift(FrameSet::range(first, count), FrameState::Reserved, FrameState::Free);
    }

    #[test]
    fn zones_begin_at_0_16_mib_and_4_gib() {
        assert_eq!([0, 7, 8, 2047, 2048].map(Zone::of), [Zone::Isa, Zone::Isa, Zone::Dma32, Zone::Dma32, Zone::High]);
    }

    #[test]
    fn regions_come_from_the_smallest_fitting_list_front_first() {
        let mut records: Vec<_> = (8..14).map(Region::new).collect();
        let mut regions = Regions::new(&mut records);
        let mut lists = Lists::new(Family::Free);
        for (index, count) in [(0, 512), (1, 4), (2, 4), (3, 4), (4, 256)] {
            give(&mut regions, index, 0, count);
            lists.file(&mut regions, index, if index == 3 { End::Back } else { End::Front });
        }
        assert_eq!(lists.walk(&regions, Zone::Dma32, 2).collect::<Vec<_>>(), [2, 1, 3]);
        assert_eq!([0, 2, 3, 9].map(|order| lists.smallest(Zone::Dma32, order)), [Some(2), Some(2), Some(4), Some(0)]);
        assert_eq!(lists.smallest(Zone::High, 0), None);
        assert_eq!(lists.largest(&Zone::HIGHEST_FIRST), Some(0));

        // From the middle of one list to another.
        give(&mut regions, 1, 4, 4);
        assert_eq!(lists.file(&mut regions, 1, End::Front), Some(3));
        assert_eq!(lists.walk(&regions, Zone::Dma32, 2).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(lists.smallest(Zone::Dma32, 3), Some(1));
    }
}
