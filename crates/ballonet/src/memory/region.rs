//! The record of one 2 MiB region: two bits of state for each of its 512 frames, the number of frames per state, and
//! its links on the allocator's lists.
//!
//! It takes 168 bytes for 2 MiB, under a 12,000th. Two more bits per frame and one more list would still stay under a
//! third of the 1024 bytes that a bound of 1/2048 allows. Whether it was reported and whether it was used is known
//! only for a region as a whole.
#![forbid(unsafe_code)]

use derive_more::Display;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::frame_set::{FrameSet, REGION_FRAMES, REPORTED, TOUCHED, WHOLE};
use super::{FrameRun, Pfn};

/// Who owns a page frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Display)]
#[display("{}", self.name())]
#[repr(u8)]
pub enum FrameState {
    /// Never allocated: a hole, firmware's memory, or memory in use before the allocator.
    Reserved = 0b00,
    /// Free.
    Free = 0b01,
    /// Allocated in the kernel, possibly by the balloon driver.
    Used = 0b10,
    /// Given to the host.
    Ballooned = 0b11,
}

impl FrameState {
    /// Every state.
    pub(crate) const ALL: [Self; 4] = [Self::Reserved, Self::Free, Self::Used, Self::Ballooned];

    /// Its name, as shown to people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Free => "free",
            Self::Used => "used",
            Self::Ballooned => "ballooned",
        }
    }
}

/// The age, in ticks, of memory that has been free for longer than can be counted.
pub(super) const ANCIENT: u32 = 1 << 31;

/// A list link: the index of a region, or none. Zero is none, so that zeroed records are on no list.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub(super) struct Link(u32);

impl Link {
    pub(super) const NONE: Self = Self(0);

    /// There are at most 2^23 regions, so an index always fits.
    pub(super) fn to(index: usize) -> Self {
        Self(index as u32 + 1)
    }

    pub(super) fn index(self) -> Option<usize> {
        self.0.checked_sub(1).map(|index| index as usize)
    }
}

/// A region's links on one family of lists.
#[derive(Clone, Copy, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Place {
    /// The neighbour towards the front.
    pub(super) previous: Link,
    /// The neighbour towards the back.
    pub(super) next: Link,
    /// One more than the order of the list; 0 if it is on none.
    order: u32,
}

impl Place {
    /// The order of the list that the region is on.
    pub(super) fn order(self) -> Option<u32> {
        self.order.checked_sub(1)
    }

    pub(super) fn set_order(&mut self, order: Option<u32>) {
        self.order = order.map_or(0, |order| order + 1);
    }
}

/// The families of lists: by a region's free frames, or by its ballooned ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    Free = 0,
    Ballooned = 1,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::Free, Self::Ballooned];

    /// The state of the frames that count.
    pub(super) fn state(self) -> FrameState {
        match self {
            Self::Free => FrameState::Free,
            Self::Ballooned => FrameState::Ballooned,
        }
    }
}

/// The record of one 2 MiB region. Plain data: the caller lends memory for it, with any contents.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Region {
    /// The low and the high bit of each frame's state.
    planes: [FrameSet; 2],
    places: [Place; 2],
    /// Its number: address divided by 2 MiB.
    number: u32,
    /// Number of free, used and ballooned frames. The others are reserved.
    counts: [u16; 3],
    /// 1 if it is wholly free and reported, and has not been used since.
    reported: u8,
    /// 1 if it has been used since the host last discarded it, as far as known.
    touched: u8,
    /// The tick in which it became wholly free.
    freed_in: u32,
}

/// The number of the region that holds a frame: its address divided by 2 MiB.
pub(super) fn region_number(frame: Pfn) -> u32 {
    frame.0 / REGION_FRAMES
}

impl Region {
    /// The record of the region with this number, all reserved, on no list.
    pub(super) fn new(number: u32) -> Self {
        Self {
            planes: [FrameSet::EMPTY; 2],
            places: [Place::default(); 2],
            number,
            counts: [0; 3],
            reported: 0,
            touched: 0,
            freed_in: 0,
        }
    }

    /// Frees a wholly reserved region. Same result as [`Region::shift`], which would have to count.
    pub(super) fn free_whole(&mut self) {
        debug_assert_eq!(self.counts, [0; 3], "only what is wholly reserved");
        self.planes[0] = FrameSet::FULL;
        self.counts[FrameState::Free as usize - 1] = REGION_FRAMES as u16;
    }

    /// Its number: address divided by 2 MiB.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// The `count` frames from `position`, which lie in the region.
    pub(super) fn run(&self, position: u32, count: u32) -> FrameRun {
        let start = Pfn(self.number * REGION_FRAMES + position);
        FrameRun::new(start, count).expect("a run within a region is not empty and has frame numbers")
    }

    /// The frames in `state`.
    pub(super) fn frames(&self, state: FrameState) -> FrameSet {
        let [low, high] = self.planes;
        match state {
            FrameState::Reserved => !(low | high),
            FrameState::Free => low & !high,
            FrameState::Used => high & !low,
            FrameState::Ballooned => low & high,
        }
    }

    /// How many frames are in `state`.
    pub(super) fn count(&self, state: FrameState) -> u32 {
        let known = |at: usize| u32::from(self.counts[at]);
        match state {
            FrameState::Reserved => REGION_FRAMES - known(0) - known(1) - known(2),
            other => known(other as usize - 1),
        }
    }

    /// The state of the frame at `position`.
    pub(super) fn state(&self, position: u32) -> FrameState {
        let bit = |plane: FrameSet| usize::from(plane.contains(position));
        FrameState::ALL[bit(self.planes[0]) | bit(self.planes[1]) << 1]
    }

    /// Moves `frames`, all in state `from`, to state `to`. Returns their number. If any free frames come or go, the
    /// region no longer counts as reported.
    pub(super) fn shift(&mut self, frames: FrameSet, from: FrameState, to: FrameState) -> u32 {
        debug_assert!((frames & !self.frames(from)).is_empty(), "only frames that are {from}");
        for (bit, plane) in self.planes.iter_mut().enumerate() {
            *plane = if to as u8 >> bit & 1 == 1 { *plane | frames } else { *plane & !frames };
        }
        let moved = frames.count();
        if [from, to].contains(&FrameState::Free) && moved > 0 {
            self.reported = 0;
        }
        if let Some(count) = self.counter(from) {
            *count -= moved as u16;
        }
        if let Some(count) = self.counter(to) {
            *count += moved as u16;
        }
        if self.count(FrameState::Ballooned) == REGION_FRAMES {
            self.touched = 0;
        }
        moved
    }

    /// Whether it is wholly free and reported.
    pub(super) fn is_reported(&self) -> bool {
        self.reported != 0
    }

    /// Records that the wholly free region was reported to the host.
    pub(super) fn set_reported(&mut self) {
        debug_assert_eq!(self.count(FrameState::Free), REGION_FRAMES, "only what is wholly free is reported");
        (self.reported, self.touched) = (1, 0);
    }

    /// Records that frames of it were allocated and will be written: the host backs it from now on.
    pub(super) fn set_touched(&mut self) {
        self.touched = 1;
    }

    /// The tick in which it became wholly free. Undefined while it is not.
    pub(super) fn freed_in(&self) -> u32 {
        self.freed_in
    }

    /// Records the tick in which it became wholly free.
    pub(super) fn set_freed_in(&mut self, tick: u32) {
        self.freed_in = tick;
    }

    /// The order of its largest aligned block of frames in the state of `family`. For wholly free regions:
    /// [`REPORTED`] if it was reported, [`TOUCHED`] if it was used before.
    pub(super) fn order(&self, family: Family) -> Option<u32> {
        match self.count(family.state()) {
            0 => None,
            REGION_FRAMES if family == Family::Free && self.is_reported() => Some(REPORTED),
            REGION_FRAMES if family == Family::Free && self.touched != 0 => Some(TOUCHED),
            REGION_FRAMES => Some(WHOLE),
            _ => self.frames(family.state()).order(),
        }
    }

    /// Its links on the lists of `family`.
    pub(super) fn place(&self, family: Family) -> &Place {
        &self.places[family as usize]
    }

    /// Its links on the lists of `family`, mutable.
    pub(super) fn place_mut(&mut self, family: Family) -> &mut Place {
        &mut self.places[family as usize]
    }

    fn counter(&mut self, state: FrameState) -> Option<&mut u16> {
        (state as usize).checked_sub(1).map(|at| &mut self.counts[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_leaves_room_for_two_more_bits_a_frame_under_the_bound() {
        assert_eq!(size_of::<Region>(), 168);
        let with_reported_and_touched = size_of::<Region>() + 2 * size_of::<FrameSet>() + size_of::<Place>();
        assert!(with_reported_and_touched * 2048 <= 2 << 20);
    }

    #[test]
    fn zeroed_memory_is_a_region_wholly_reserved() {
        let region = Region::read_from_bytes(&[0; size_of::<Region>()]).unwrap();
        assert_eq!(region.count(FrameState::Reserved), REGION_FRAMES);
        assert_eq!(region.place(Family::Free).order(), None);
        assert_eq!(region.frames(FrameState::Reserved).count(), REGION_FRAMES);
    }

    #[test]
    fn a_whole_region_is_freed_as_a_shift_would() {
        let (mut shifted, mut whole) = (Region::new(7), Region::new(7));
        shifted.shift(FrameSet::range(0, REGION_FRAMES), FrameState::Reserved, FrameState::Free);
        whole.free_whole();
        assert_eq!(whole.as_bytes(), shifted.as_bytes());
    }

    #[test]
    fn a_shift_moves_the_frames_and_the_counts_and_nothing_else() {
        let mut region = Region::new(7);
        assert_eq!(region.shift(FrameSet::range(10, 100), FrameState::Reserved, FrameState::Free), 100);
        assert_eq!(region.shift(FrameSet::range(20, 10), FrameState::Free, FrameState::Used), 10);
        assert_eq!(region.shift(FrameSet::range(25, 5), FrameState::Used, FrameState::Ballooned), 5);
        assert_eq!(FrameState::ALL.map(|state| region.count(state)), [412, 90, 5, 5]);
        assert_eq!(FrameState::ALL.map(|state| region.frames(state).count()), [412, 90, 5, 5]);
        assert_eq!([9, 10, 20, 25].map(|at| region.state(at)), FrameState::ALL);
        assert_eq!(region.run(10, 2).start(), Pfn(7 * 512 + 10));
    }
}
