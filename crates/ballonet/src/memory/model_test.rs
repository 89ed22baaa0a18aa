//! Compares the allocator with a model that keeps each frame's state in a map, through random valid and invalid
//! operations.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::{REGION_FRAMES as REGION, *};

pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

/// Memory in every zone, a hole within a region, one of a whole region, and two ranges that meet at 4 GiB.
pub(super) const MAP: [(u64, u64); 5] = [
    (0, 0x9_fc00),
    (MIB, 7 * MIB + 12345),
    (10 * MIB, 24 * MIB),
    (4 * GIB - 4 * MIB, 4 * GIB + 4 * MIB),
    (6 * GIB + MIB, 6 * GIB + 6 * MIB),
];
pub(super) const RESERVED: [(u64, u64); 3] = [(0, 1), (3 * MIB - 100, 3 * MIB + 8192), (4 * GIB, 4 * GIB + 4096)];

pub(super) fn ranges(ranges: &[(u64, u64)]) -> impl Iterator<Item = PhysRange> + Clone {
    ranges.iter().map(|(start, end)| PhysRange::new(PhysAddr::new(*start).unwrap(), end - start).unwrap())
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Allocate {
        frames: u32,
        order: u32,
    },
    /// Frees one of the runs held.
    Free(prop::sample::Index),
    /// Frees, releases or balloons frames, regardless of their owner.
    Wild {
        what: Operation,
        start: u32,
        count: u32,
    },
    TakeFree(u32),
    Confirm(prop::sample::Index),
    TakeBallooned(u32),
    Release(prop::sample::Index),
    TakeUnreported {
        most: u32,
        age: u32,
    },
    TakeBacked(u32),
    Reported(prop::sample::Index),
    Tick,
    Floor(u64),
}

/// An address in or near memory.
pub(super) fn addresses() -> impl Strategy<Value = u64> {
    prop_oneof![0..26 * MIB, 4 * GIB - 5 * MIB..4 * GIB + 5 * MIB, 6 * GIB..6 * GIB + 7 * MIB]
}

fn ops() -> impl Strategy<Value = Op> {
    let frames = || prop_oneof![4 => 1..20u32, 2 => 1..=512u32, 1 => Just(512), 1 => 513..2600u32];
    let what = prop::sample::select(vec![Operation::Free, Operation::Release, Operation::ConfirmBallooned]);
    prop_oneof![
        6 => (frames(), 0..12u32).prop_map(|(frames, order)| Op::Allocate { frames, order }),
        5 => any::<prop::sample::Index>().prop_map(Op::Free),
        2 => (what, addresses(), 1..1500u32)
            .prop_map(|(what, at, count)| Op::Wild { what, start: (at / FRAME_SIZE) as u32, count }),
        5 => prop_oneof![Just(512), 1..700u32].prop_map(Op::TakeFree),
        5 => any::<prop::sample::Index>().prop_map(Op::Confirm),
        3 => prop_oneof![Just(512), 0..700u32].prop_map(Op::TakeBallooned),
        3 => any::<prop::sample::Index>().prop_map(Op::Release),
        4 => (prop_oneof![512..2100u32, 0..700u32], 0..3u32)
            .prop_map(|(most, age)| Op::TakeUnreported { most, age }),
        3 => (400..2100u32).prop_map(Op::TakeBacked),
        4 => any::<prop::sample::Index>().prop_map(Op::Reported),
        2 => Just(Op::Tick),
        1 => (0..3000u64).prop_map(Op::Floor),
    ]
}

/// The expected behaviour, frame by frame.
pub(super) struct Model {
    /// Every frame of every region that holds memory.
    pub(super) states: BTreeMap<u32, FrameState>,
    /// The regions that were reported and have been free since, by their first frame.
    reported: BTreeSet<u32>,
    pub(super) floor: u64,
}

impl Model {
    pub(super) fn new() -> Self {
        let touches = |ranges: &[(u64, u64)], frame: u64| {
            ranges.iter().any(|(start, end)| *start < (frame + 1) * FRAME_SIZE && frame * FRAME_SIZE < *end)
        };
        let usable = |frame: u64| {
            MAP.iter().any(|(start, end)| *start <= frame * FRAME_SIZE && (frame + 1) * FRAME_SIZE <= *end)
        };
        let regions = MAP.iter().flat_map(|(start, end)| start / (2 * MIB)..end.div_ceil(2 * MIB));
        let states = regions.flat_map(|region| region * 512..(region + 1) * 512).map(|frame| {
            let free = usable(frame) && !touches(&RESERVED, frame);
            (frame as u32, if free { FrameState::Free } else { FrameState::Reserved })
        });
        Self { states: states.collect(), reported: BTreeSet::new(), floor: 0 }
    }

    pub(super) fn count(&self, state: FrameState) -> u64 {
        self.states.values().filter(|other| **other == state).count() as u64
    }

    pub(super) fn first_not(&self, run: FrameRun, state: FrameState) -> Option<Pfn> {
        run.pfns().find(|pfn| self.states.get(&pfn.0) != Some(&state))
    }

    pub(super) fn shift(&mut self, run: FrameRun, from: FrameState, to: FrameState) {
        for pfn in run.pfns() {
            assert_eq!(self.states.insert(pfn.0, to), Some(from), "{pfn}");
            self.reported.remove(&(pfn.0 / REGION * REGION));
        }
    }

    /// The regions that are wholly free and not reported.
    fn unreported(&self) -> impl Iterator<Item = u32> {
        let free = |start: u32| (start..start + REGION).all(|frame| self.states[&frame] == FrameState::Free);
        let regions = self.states.keys().copied().filter(|frame| frame % REGION == 0);
        regions.filter(move |start| free(*start) && !self.reported.contains(start))
    }

    /// Whether there is a run that the allocator promises to find, below the frame `end`.
    pub(super) fn can_allocate(&self, frames: u32, align: u32) -> bool {
        let in_region = frames <= REGION && align <= REGION;
        let step = if in_region { align } else { align.max(REGION) };
        let fits = |start: u32, count: u32| {
            (start..start + count).all(|frame| self.states.get(&frame) == Some(&FrameState::Free))
        };
        self.states.keys().filter(|start| **start % step == 0).any(|start| {
            let within = !in_region || start % REGION + frames <= REGION;
            let count = if in_region { frames } else { frames.next_multiple_of(REGION) };
            within && fits(*start, count)
        })
    }

    fn longest(&self, state: FrameState) -> u32 {
        let (mut longest, mut length) = (0, 0);
        for (frame, other) in &self.states {
            length = if *other != state {
                0
            } else if frame % REGION == 0 {
                1
            } else {
                length + 1
            };
            longest = longest.max(length);
        }
        longest
    }
}

/// The allocator and the model side by side, with the owners of frames.
struct Pair<'a> {
    frames: Frames<'a>,
    model: Model,
    held: Vec<FrameRun>,
    in_flight: Vec<FrameRun>,
}

pub(super) fn choose(runs: &mut Vec<FrameRun>, index: prop::sample::Index) -> Option<FrameRun> {
    if runs.is_empty() { None } else { Some(runs.swap_remove(index.index(runs.len()))) }
}

impl Pair<'_> {
    fn apply(&mut self, op: Op) {
        use FrameState::{Ballooned, Free, Used};
        match op {
            Op::Allocate { frames, order } => {
                let result = self.frames.allocate(frames, 1 << order);
                self.allocated(frames, 1 << order, result);
            }
            Op::Free(index) => {
                if let Some(run) = choose(&mut self.held, index) {
                    self.try_shift(Operation::Free, run);
                }
            }
            Op::Wild { what, start, count } => self.try_shift(what, FrameRun::new(Pfn(start), count).unwrap()),
            Op::TakeFree(most) => {
                let spare = self.model.count(Free).saturating_sub(self.model.floor);
                let run = self.frames.take_free(most);
                assert_eq!(run.is_some(), spare > 0);
                if let Some(run) = run {
                    assert!(run.count() <= most && u64::from(run.count()) <= spare);
                    if most >= REGION && spare >= 512 && self.model.longest(Free) == REGION {
                        let whole = self.frames.counts().free_regions;
                        // Only the lowest 16 MiB are spared until blocks elsewhere have run out.
                        assert!(run.count() == REGION || whole <= 8, "whole regions come first");
                    }
                    self.model.shift(run, Free, Used);
                    self.in_flight.push(run);
                }
            }
            Op::Confirm(index) => {
                if let Some(run) = choose(&mut self.in_flight, index) {
                    self.try_shift(Operation::ConfirmBallooned, run);
                }
            }
            Op::TakeBallooned(most) => {
                let run = self.frames.take_ballooned(most);
                assert_eq!(run.is_some(), self.model.count(Ballooned) > 0 && most > 0);
                if let Some(run) = run {
                    assert!(run.count() <= most);
                    self.model.shift(run, Ballooned, Used);
                    self.in_flight.push(run);
                }
            }
            Op::Release(index) => {
                if let Some(run) = choose(&mut self.in_flight, index) {
                    self.try_shift(Operation::Release, run);
                }
            }
            Op::TakeUnreported { most, age } => self.take_unreported(most, age),
            Op::TakeBacked(most) => {
                let unreported: BTreeSet<_> = self.model.unreported().collect();
                let spare = self.model.count(Free).saturating_sub(self.model.floor);
                if let Some(run) = self.frames.take_backed(most) {
                    assert!(run.count() <= most && u64::from(run.count()) <= spare && run.count() % REGION == 0);
                    assert!(run.pfns().step_by(REGION as usize).all(|first| unreported.contains(&first.0)));
                    self.model.shift(run, Free, Used);
                    self.in_flight.push(run);
                }
            }
            Op::Reported(index) => {
                if let Some(run) = choose(&mut self.in_flight, index) {
                    let right = self.model.first_not(run, Used).is_none();
                    assert_eq!(self.frames.release_reported(run).is_ok(), right);
                    if !right {
                        return;
                    }
                    self.model.shift(run, Used, Free);
                    let (start, end) = (run.start().0, run.start().0 + run.count());
                    let whole = (start.next_multiple_of(REGION)..end).step_by(REGION as usize);
                    self.model.reported.extend(whole.filter(|region| region + REGION <= end));
                }
            }
            Op::Tick => self.frames.tick(),
            Op::Floor(floor) => {
                self.frames.set_floor(floor);
                self.model.floor = floor;
            }
        }
    }

    fn take_unreported(&mut self, most: u32, age: u32) {
        let unreported: BTreeSet<_> = self.model.unreported().collect();
        let run = self.frames.take_unreported(most, age);
        if age == 0 {
            assert_eq!(run.is_some(), !unreported.is_empty() && most >= REGION);
        }
        if let Some(run) = run {
            assert!(run.count() <= most && run.count() % REGION == 0);
            let mut regions = run.pfns().step_by(REGION as usize);
            assert!(regions.all(|first| unreported.contains(&first.0)), "{run} was reported before");
            self.model.shift(run, FrameState::Free, FrameState::Used);
            self.in_flight.push(run);
        }
    }

    fn allocated(&mut self, frames: u32, align: u32, result: Result<FrameRun, AllocateError>) {
        assert_eq!(result.is_ok(), self.model.can_allocate(frames, align), "{result:?}");
        match result {
            Ok(run) => {
                assert_eq!(run.count(), frames);
                assert_eq!(run.start().0 % align, 0);
                self.model.shift(run, FrameState::Free, FrameState::Used);
                self.held.push(run);
            }
            Err(error) => {
                let free = self.model.count(FrameState::Free);
                assert_eq!(error, AllocateError::Exhausted { frames, align, free });
            }
        }
    }

    /// Performs an operation that must succeed exactly if every frame is used.
    fn try_shift(&mut self, operation: Operation, run: FrameRun) {
        let (result, to) = match operation {
            Operation::Free => (self.frames.free(run), FrameState::Free),
            Operation::Release => (self.frames.release(run), FrameState::Free),
            Operation::ConfirmBallooned => (self.frames.confirm_ballooned(run), FrameState::Ballooned),
        };
        match self.model.first_not(run, FrameState::Used) {
            None => {
                assert_eq!(result, Ok(()));
                self.model.shift(run, FrameState::Used, to);
            }
            Some(frame) => {
                let state = self.model.states.get(&frame.0).copied();
                assert_eq!(result, Err(FrameError { operation, run, frame, state }));
            }
        }
    }

    fn compare(&self) {
        assert_eq!(self.frames.check(), Ok(()));
        let counts = self.frames.counts();
        assert_eq!(
            [counts.free, counts.used, counts.ballooned],
            [FrameState::Free, FrameState::Used, FrameState::Ballooned].map(|state| self.model.count(state))
        );
        assert_eq!(counts.reported_regions, self.model.reported.len() as u64);
        assert_eq!(self.frames.unreported(), self.model.unreported().count() as u64 * 512);
        let mut expected = self.model.states.iter();
        for (run, state) in self.frames.runs() {
            for pfn in run.pfns() {
                assert_eq!(expected.next(), Some((&pfn.0, &state)));
            }
        }
        assert_eq!(expected.next(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn it_behaves_like_a_map_of_frames(ops in prop::collection::vec(ops(), 1..120)) {
        let footprint = Footprint::of(ranges(&MAP));
        // The initial contents of the storage do not matter.
        let mut storage = vec![0xdead_beef_dead_beef_u64; footprint.bytes().div_ceil(8)];
        let frames = Frames::new(storage.as_mut_slice().as_mut_bytes(), ranges(&MAP), ranges(&RESERVED)).unwrap();
        let mut pair = Pair { frames, model: Model::new(), held: Vec::new(), in_flight: Vec::new() };
        pair.compare();
        for op in ops {
            pair.apply(op);
            pair.compare();
        }
    }
}
