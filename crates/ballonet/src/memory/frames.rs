//! The page-frame allocator: who owns each frame, and how ownership changes.
//!
//! It manages every frame of usable memory below 16 TiB and keeps its records in memory that the caller lends. It
//! guarantees that a frame is in exactly one state, that no run is allocated twice, and that a refused operation
//! changes nothing. Runs of up to 512 frames come from one 2 MiB region; allocating and freeing them costs the same
//! in 16 MiB and in 16 TiB. Operations that cost more say so.
#![forbid(unsafe_code)]

use core::ops::Range;

use super::atomic::AtomicU64;
use super::bitmap::Bitmap;
use super::error::{FrameError, Operation};
use super::frame_set::{FrameSet, REGION_FRAMES, REPORTED, TOUCHED, WHOLE};
use super::held::{HeldFrames, REGION_WORDS};
use super::list::{End, Lists, Regions};
use super::range::{FRAME_NUMBERS, Ranges, lend, union, usable_frames};
use super::region::{ANCIENT, Family, FrameState, Link, Region};
use super::span::{Span, find, parts, spans};
use super::storage::{Footprint, Storage, StorageError};
use super::{FrameRun, Pfn, PhysRange};

/// The page frames of a machine.
#[derive(Debug)]
pub struct Frames<'a> {
    pub(super) regions: Regions<'a>,
    pub(super) spans: &'a [Span],
    pub(super) wholly_free: Bitmap<'a>,
    pub(super) lists: [Lists; 2],
    /// Number of frames in each state; among the reserved ones only usable memory counts.
    pub(super) totals: [u64; 4],
    /// The region from which the balloon last took frames, by family: it is finished before another is started.
    pub(super) opened: [Link; 2],
    pub(super) floor: u64,
    /// Number of wholly free regions that were reported to the host.
    pub(super) reported: usize,
    /// Counts the ticks by which free memory ages.
    pub(super) tick: u32,
    pub(super) history: History,
    /// Which used frames are held; `None` without magazines, when all are.
    pub(super) held: Option<HeldFrames<'a>>,
    beyond: u64,
    scattered: u64,
}

/// Events since the start. Each call counts once, whatever its number of frames.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct History {
    /// Allocations that succeeded.
    pub allocations: u64,
    /// Allocations that failed.
    pub failures: u64,
    /// Runs freed.
    pub frees: u64,
    /// Operations refused because a frame was in the wrong state: bugs of their callers.
    pub refusals: u64,
}

/// Number of frames by state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Managed frames: those that the memory map calls usable, except the two kinds left out below.
    pub total: u64,
    /// Free frames.
    pub free: u64,
    /// Allocated frames, the balloon driver's included.
    pub used: u64,
    /// Frames given to the host.
    pub ballooned: u64,
    /// Managed frames that are never allocated.
    pub reserved: u64,
    /// Usable frames at or above 16 TiB, which are not managed.
    pub beyond: u64,
    /// Usable frames in 2 MiB regions with too few to be worth a record, which are not managed.
    pub scattered: u64,
    /// Wholly free 2 MiB regions.
    pub free_regions: u64,
    /// Those of them that were reported to the host.
    pub reported_regions: u64,
    /// Frames in the largest free block aligned to its size, up to a region.
    pub largest_free_block: u32,
    /// Events since the start.
    pub history: History,
}

impl<'a> Frames<'a> {
    /// Manages the `usable` ranges of a memory map without the `reserved` ones, both in any order. A partly usable
    /// frame is left out; a partly reserved frame is reserved.
    ///
    /// The records are kept in `storage`, which must have at least [`Footprint::bytes`] for the same `usable` ranges;
    /// its contents do not matter. Its own memory must be in the reserved ranges, as must the kernel, and frame 0 if
    /// a null pointer could reach it. Visits every region.
    ///
    /// # Errors
    /// When the storage is too small or misaligned.
    pub fn new<U, R>(storage: &'a mut [u8], usable: U, reserved: R) -> Result<Self, StorageError>
    where
        U: IntoIterator<Item = PhysRange, IntoIter: Clone>,
        R: IntoIterator<Item = PhysRange, IntoIter: Clone>,
    {
        Self::over(storage, &lend(usable), &lend(reserved))
    }

    fn over(storage: &'a mut [u8], usable: Ranges<'_>, reserved: Ranges<'_>) -> Result<Self, StorageError> {
        let footprint = Footprint::over(usable);
        let storage = Storage::new(storage, &footprint)?;
        for (slot, span) in storage.spans.iter_mut().zip(spans(usable)) {
            *slot = span;
            for index in span.indices() {
                storage.regions[index] = Region::new(span.number_at(index));
            }
        }
        let mut frames = Self {
            regions: Regions::new(storage.regions),
            spans: storage.spans,
            wholly_free: Bitmap::new(storage.wholly_free),
            lists: Family::ALL.map(Lists::new),
            totals: [0; 4],
            opened: [Link::NONE; 2],
            floor: 0,
            reported: 0,
            tick: 0,
            history: History::default(),
            held: None,
            beyond: footprint.beyond,
            scattered: 0,
        };
        frames.admit(usable, reserved);
        Ok(frames)
    }

    /// Frees usable memory that is not reserved, then puts every region on its list, the highest in front.
    fn admit(&mut self, usable: Ranges<'_>, reserved: Ranges<'_>) {
        let all: u64 = usable_frames(usable).map(|range| range.end - range.start).sum();
        for part in usable_frames(usable).flat_map(|range| parts(self.spans, range)) {
            let region = &mut self.regions[part.index];
            // Nearly all regions of a large machine are whole: a TiB has half a million.
            let freed = if part.count == REGION_FRAMES {
                region.free_whole();
                part.count
            } else {
                region.shift(part.frames(), FrameState::Reserved, FrameState::Free)
            };
            self.totals[FrameState::Free as usize] += u64::from(freed);
        }
        self.scattered = all - self.totals[FrameState::Free as usize];
        for part in union(reserved).flat_map(|range| parts(self.spans, managed(range))) {
            let region = &mut self.regions[part.index];
            let taken = region.frames(FrameState::Free) & part.frames();
            let taken = u64::from(region.shift(taken, FrameState::Free, FrameState::Reserved));
            self.totals[FrameState::Free as usize] -= taken;
            self.totals[FrameState::Reserved as usize] += taken;
        }
        for index in 0..self.regions.len() {
            self.file(index, Family::Free, End::Front);
        }
    }

    /// How many words [`CpuCaches::new`](super::CpuCaches::new) needs.
    pub fn held_words(&self) -> usize {
        self.regions.len() * REGION_WORDS
    }

    /// Starts to record in `words` which frames are held.
    ///
    /// # Errors
    /// When there are too few words.
    pub(super) fn track(&mut self, words: &'a [AtomicU64]) -> Result<HeldFrames<'a>, StorageError> {
        if words.len() < self.held_words() {
            let bytes = |words: usize| words * size_of::<AtomicU64>();
            let (needed, given) = (bytes(self.held_words()), bytes(words.len()));
            return Err(StorageError { needed, align: align_of::<AtomicU64>(), given, address: words.as_ptr().addr() });
        }
        let held = HeldFrames::new(self.spans, &words[..self.held_words()]);
        for index in 0..self.regions.len() {
            held.reset(index, self.regions[index].frames(FrameState::Used));
        }
        self.held = Some(held);
        Ok(held)
    }

    /// Frees allocated frames; used -> free.
    ///
    /// # Errors
    /// When a frame of `run` is not used: already free, never allocated, ballooned, or not memory. Then nothing is
    /// freed, with one exception: if another CPU frees one of the frames at the same moment without the allocator's
    /// lock, that frame is freed and the others stay used.
    pub fn free(&mut self, run: FrameRun) -> Result<(), FrameError> {
        self.shift_run(Operation::Free, run, FrameState::Used, FrameState::Free, End::Front)?;
        self.history.frees += 1;
        Ok(())
    }

    /// The state of `frame`; `None` if its 2 MiB region has no memory, or too little to be managed. A hole within a
    /// managed region is reserved. A frame in a magazine is free.
    pub fn state(&self, frame: Pfn) -> Option<FrameState> {
        let index = find(self.spans, frame)?;
        Some(self.state_at(index, frame.0 % REGION_FRAMES))
    }

    fn state_at(&self, index: usize, position: u32) -> FrameState {
        match self.regions[index].state(position) {
            FrameState::Used if !self.frames_in(index, FrameState::Used).contains(position) => FrameState::Free,
            state => state,
        }
    }

    /// The frames of a region in `state`; those in magazines count as free.
    fn frames_in(&self, index: usize, state: FrameState) -> FrameSet {
        let region = &self.regions[index];
        match (state, self.held) {
            (FrameState::Used, Some(held)) => region.frames(state) & held.frames(index),
            (FrameState::Free, Some(held)) => {
                region.frames(state) | region.frames(FrameState::Used) & !held.frames(index)
            }
            _ => region.frames(state),
        }
    }

    /// Number of frames by state. Frames in magazines count as used.
    pub fn counts(&self) -> Counts {
        let [reserved, free, used, ballooned] = self.totals;
        Counts {
            total: self.totals.iter().sum(),
            free,
            used,
            ballooned,
            reserved,
            beyond: self.beyond,
            scattered: self.scattered,
            free_regions: self.wholly_free.count() as u64,
            reported_regions: self.reported as u64,
            largest_free_block: self.lists[Family::Free as usize].largest_order().map_or(0, |order| 1 << order),
            history: self.history,
        }
    }

    /// All memory in address order, as runs of frames in the same state. Visits every region: for display and tests.
    pub fn runs(&self) -> impl Iterator<Item = (FrameRun, FrameState)> {
        let mut pieces = self.pieces().peekable();
        core::iter::from_fn(move || {
            let (mut run, state) = pieces.next()?;
            while let Some((longer, _)) = pieces.peek().and_then(|(next, other)| {
                let adjacent = u64::from(run.start().0) + u64::from(run.count()) == u64::from(next.start().0);
                let count = run.count().checked_add(next.count()).filter(|_| adjacent && *other == state)?;
                Some((FrameRun::new(run.start(), count)?, state))
            }) {
                run = longer;
                pieces.next();
            }
            Some((run, state))
        })
    }

    /// As [`Frames::runs`], but with runs cut at region boundaries.
    fn pieces(&self) -> impl Iterator<Item = (FrameRun, FrameState)> {
        (0..self.regions.len()).flat_map(move |index| {
            let region = &self.regions[index];
            let mut position = 0;
            core::iter::from_fn(move || {
                if position >= REGION_FRAMES {
                    return None;
                }
                let state = self.state_at(index, position);
                let run = region.run(position, self.frames_in(index, state).run_at(position).max(1));
                position += run.count();
                Some((run, state))
            })
        })
    }

    /// Moves a whole run from one state to another, or refuses and changes nothing.
    pub(super) fn shift_run(
        &mut self,
        operation: Operation,
        run: FrameRun,
        from: FrameState,
        to: FrameState,
        end: End,
    ) -> Result<(), FrameError> {
        let claimed = self
            .verify(run, from)
            .and_then(|()| if from == FrameState::Used { self.clear_allocated(run) } else { Ok(()) });
        if let Err(frame) = claimed {
            return Err(self.refuse(operation, run, frame));
        }
        let spans = self.spans;
        for part in parts(spans, numbers(run)) {
            self.shift(part.index, part.frames(), from, to, end);
        }
        Ok(())
    }

    /// Counts a refusal: `frame` is the first of `run` in the wrong state.
    pub(super) fn refuse(&mut self, operation: Operation, run: FrameRun, frame: Pfn) -> FrameError {
        self.history.refusals += 1;
        FrameError { operation, run, frame, state: self.state(frame) }
    }

    /// Takes a run from its holder, if there are magazines. Fails with the first frame that another CPU has freed
    /// since it was checked.
    pub(super) fn clear_allocated(&self, run: FrameRun) -> Result<(), Pfn> {
        let Some(held) = self.held else { return Ok(()) };
        for part in parts(self.spans, numbers(run)) {
            let claimed = held.clear_allocated(part.index, part.frames());
            let Some(position) = (part.frames() & !claimed).first() else { continue };
            held.hold(part.index, claimed);
            let before = numbers(run).start..part.start;
            parts(self.spans, before).for_each(|part| held.hold(part.index, part.frames()));
            return Err(self.regions[part.index].run(position, 1).start());
        }
        Ok(())
    }

    /// Checks that every frame of `run` is memory in `state`; fails with the first that is not.
    fn verify(&self, run: FrameRun, state: FrameState) -> Result<(), Pfn> {
        let all = numbers(run);
        let mut right_below = all.start;
        for part in parts(self.spans, all.clone()) {
            if part.start != right_below {
                break;
            }
            let wrong = part.frames() & !self.frames_in(part.index, state);
            if let Some(position) = wrong.first() {
                right_below += u64::from(position - part.position());
                break;
            }
            right_below += u64::from(part.count);
        }
        if right_below == all.end { Ok(()) } else { Err(Pfn(right_below as u32)) }
    }

    /// Moves `frames` of one region, all in the state `from`, and refiles the region. Frames that become used are
    /// marked as held.
    pub(super) fn shift(&mut self, index: usize, frames: FrameSet, from: FrameState, to: FrameState, end: End) {
        self.shift_unheld(index, frames, from, to, end);
        if let (FrameState::Used, Some(held)) = (to, self.held) {
            held.hold(index, frames);
        }
    }

    /// The same, without marking frames as held.
    pub(super) fn shift_unheld(&mut self, index: usize, frames: FrameSet, from: FrameState, to: FrameState, end: End) {
        let moved = u64::from(self.regions[index].shift(frames, from, to));
        self.totals[from as usize] -= moved;
        self.totals[to as usize] += moved;
        for family in Family::ALL {
            if [from, to].contains(&family.state()) {
                self.file(index, family, end);
            }
        }
    }

    /// Puts a region on the right list of `family`, and records whether it is wholly free.
    pub(super) fn file(&mut self, index: usize, family: Family, end: End) {
        let before = self.regions[index].place(family).order();
        let order = self.lists[family as usize].file(&mut self.regions, index, end);
        if family != Family::Free || order == before {
            return;
        }
        self.reported -= usize::from(before == Some(REPORTED));
        self.reported += usize::from(order == Some(REPORTED));
        self.wholly_free.set(index, order >= Some(WHOLE));
        if [Some(WHOLE), Some(TOUCHED)].contains(&order) {
            // Memory filed at the back counts as free for longest.
            let age = if end == End::Back { ANCIENT } else { 0 };
            self.regions[index].set_freed_in(self.tick.wrapping_sub(age));
        }
    }
}

/// The frame numbers of a run.
pub(super) fn numbers(run: FrameRun) -> Range<u64> {
    let start = u64::from(run.start().0);
    start..start + u64::from(run.count())
}

/// The numbers of the manageable frames that `range` touches.
fn managed(range: PhysRange) -> Range<u64> {
    let touched = range.frames_touched();
    touched.start.min(FRAME_NUMBERS)..touched.end.min(FRAME_NUMBERS)
}
