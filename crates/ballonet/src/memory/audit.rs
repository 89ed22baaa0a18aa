//! The allocator's self-check: recomputes all derived records from the states of the frames.
#![forbid(unsafe_code)]

use derive_more::{Display, Error};

use super::Pfn;
use super::frame_set::{FrameSet, REGION_FRAMES, TOUCHED, WHOLE};
use super::frames::Frames;
use super::list::{Lists, Zone};
use super::region::{Family, FrameState};

/// The allocator's records are inconsistent: a bug in the allocator, or overwritten memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Display, Error)]
pub enum Inconsistency {
    /// A region's count of frames in a state is wrong.
    #[display("the region at {at} counts {counted} {state} frames and has {found}")]
    RegionCount {
        /// The region's first frame.
        at: Pfn,
        /// The state.
        state: FrameState,
        /// The recorded count.
        counted: u32,
        /// The true count.
        found: u32,
    },
    /// The count of all frames in a state is wrong.
    #[display("{counted} {state} frames are counted, there are {found}")]
    Total {
        /// The state.
        state: FrameState,
        /// The recorded count.
        counted: u64,
        /// The true count.
        found: u64,
    },
    /// A region is on the wrong list, on none, or wrongly linked.
    #[display("the region at {at} is out of place on the list of order {order} ({family})")]
    Misfiled {
        /// The region's first frame.
        at: Pfn,
        /// The order that the list is for.
        order: u32,
        /// The state of the frames that it counts.
        family: FrameState,
    },
    /// A list has too few or too many regions.
    #[display("{counted} regions are listed for their {family} frames, there are {found}")]
    ListLength {
        /// The state that the lists are for.
        family: FrameState,
        /// Number of listed regions.
        counted: usize,
        /// Number of regions that should be listed.
        found: usize,
    },
    /// The bit for wholly free regions is wrong.
    #[display("the region at {at} has a wrong bit for being wholly free")]
    WhollyFree {
        /// The region's first frame.
        at: Pfn,
    },
    /// A frame that is not used is marked as held.
    #[display("{frame} is marked as held but is {}", state.name())]
    Held {
        /// The frame.
        frame: Pfn,
        /// Its state.
        state: FrameState,
    },
    /// The count of reported regions is wrong.
    #[display("{counted} reported regions are counted, there are {found}")]
    Reported {
        /// The recorded count.
        counted: usize,
        /// The true count.
        found: usize,
    },
}

impl Frames<'_> {
    /// Recounts everything from the frames' states and walks every list. Visits every region: for tests.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn check(&self) -> Result<(), Inconsistency> {
        let mut found = [0; 4];
        for index in 0..self.regions.len() {
            self.check_region(index)?;
            for state in FrameState::ALL {
                found[state as usize] += u64::from(self.regions[index].count(state));
            }
        }
        // Holes are reserved too, so only the other states can be counted.
        for state in [FrameState::Free, FrameState::Used, FrameState::Ballooned] {
            let (counted, found) = (self.totals[state as usize], found[state as usize]);
            if counted != found {
                return Err(Inconsistency::Total { state, counted, found });
            }
        }
        let found = (0..self.regions.len()).filter(|index| self.regions[*index].is_reported()).count();
        if self.reported != found {
            return Err(Inconsistency::Reported { counted: self.reported, found });
        }
        Family::ALL.into_iter().try_for_each(|family| self.check_lists(family))
    }

    fn check_region(&self, index: usize) -> Result<(), Inconsistency> {
        let region = &self.regions[index];
        let at = region.run(0, 1).start();
        for state in FrameState::ALL {
            let (counted, found) = (region.count(state), region.frames(state).count());
            if counted != found {
                return Err(Inconsistency::RegionCount { at, state, counted, found });
            }
        }
        let held = self.held.map_or(FrameSet::EMPTY, |held| held.frames(index));
        if let Some(position) = (held & !region.frames(FrameState::Used)).first() {
            let (frame, state) = (region.run(position, 1).start(), region.state(position));
            return Err(Inconsistency::Held { frame, state });
        }
        let whole = region.frames(FrameState::Free).count() == REGION_FRAMES;
        if self.wholly_free.get(index) == whole { Ok(()) } else { Err(Inconsistency::WhollyFree { at }) }
    }

    /// Each list holds only its own regions, correctly linked, and together they hold all that belong on lists.
    fn check_lists(&self, family: Family) -> Result<(), Inconsistency> {
        let lists = &self.lists[family as usize];
        let mut counted = 0;
        for zone in Zone::HIGHEST_FIRST {
            for order in 0..=TOUCHED {
                counted += self.check_list(lists, family, zone, order)?;
            }
        }
        let listed = |index: &usize| !self.regions[*index].frames(family.state()).is_empty();
        let found = (0..self.regions.len()).filter(listed).count();
        if counted == found {
            Ok(())
        } else {
            Err(Inconsistency::ListLength { family: family.state(), counted, found })
        }
    }

    /// Returns the length of a list.
    fn check_list(&self, lists: &Lists, family: Family, zone: Zone, order: u32) -> Result<usize, Inconsistency> {
        let mut previous = None;
        let mut length = 0;
        // A cycle is detected by `previous`: only one position can match it.
        for index in lists.walk(&self.regions, zone, order) {
            let region = &self.regions[index];
            let place = region.place(family);
            let block = region.frames(family.state()).order();
            let right = [region.order(family), place.order()] == [Some(order); 2] && block == Some(order.min(WHOLE));
            if !right || Zone::of(region.number()) != zone || place.previous.index() != previous {
                let at = region.run(0, 1).start();
                return Err(Inconsistency::Misfiled { at, order, family: family.state() });
            }
            previous = Some(index);
            length += 1;
        }
        let ends = lists.back(zone, order) == previous && lists.occupied(zone, order) == (length > 0);
        if ends {
            return Ok(length);
        }
        Err(Inconsistency::ListLength {
            family: family.state(),
            counted: length,
            found: usize::from(lists.occupied(zone, order)),
        })
    }
}
