//! Tests magazines in front of the allocator: against the model of frames, which has no magazines, and with threads,
//! checking that each frame has one owner.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;
use std::vec::Vec;

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::model_test::{MAP, MIB, Model, RESERVED, addresses, choose, ranges};
use super::*;

mod threads;

const CPUS: usize = 3;
/// Two regions, from 16 MiB on.
const SMALL: [(u64, u64); 1] = [(16 * MIB, 20 * MIB)];

/// A lock that counts how often it is taken.
struct Lock<T> {
    value: Mutex<T>,
    taken: AtomicU64,
}

impl<T> Lock<T> {
    fn new(value: T) -> Self {
        Self { value: Mutex::new(value), taken: AtomicU64::new(0) }
    }

    fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl<T> Exclusive<T> for Lock<T> {
    fn with<R>(&self, action: impl FnOnce(&mut T) -> R) -> R {
        self.taken.fetch_add(1, Ordering::Relaxed);
        action(&mut self.value.lock().unwrap())
    }
}

/// A machine with several CPUs.
struct Machine<'a> {
    frames: Lock<Frames<'a>>,
    caches: CpuCaches<'a, Lock<Magazine>>,
}

impl<'a> Machine<'a> {
    fn allocate(&self, cpu: usize) -> Result<FrameRun, AllocateError> {
        self.caches.allocate(cpu, &self.frames)
    }

    fn allocate_run(&self, frames: u32, align: u32) -> Result<FrameRun, AllocateError> {
        self.caches.attempt(&self.frames, |all| all.allocate(frames, align))
    }

    fn free(&self, cpu: usize, run: FrameRun) -> Result<(), FrameError> {
        self.caches.free(cpu, run, &self.frames)
    }

    fn take<R>(&self, mut action: impl FnMut(&mut Frames<'a>) -> Option<R>) -> Option<R> {
        self.caches.attempt(&self.frames, |frames| action(frames).ok_or(())).ok()
    }

    fn drain(&self) -> u64 {
        self.caches.drain(&self.frames)
    }

    fn counts(&self) -> Counts {
        self.caches.counts(&self.frames)
    }

    fn check(&self) {
        self.frames.with(|frames| frames.check()).unwrap();
    }
}

/// Runs `test` on a machine with this memory; `prepare` gets the allocator before there are magazines.
fn on_prepared(
    map: &[(u64, u64)],
    reserved: &[(u64, u64)],
    prepare: impl FnOnce(&mut Frames<'_>),
    test: impl FnOnce(&Machine<'_>),
) {
    let mut storage = vec![0u64; Footprint::of(ranges(map)).bytes().div_ceil(8)];
    let mut frames = Frames::new(storage.as_mut_slice().as_mut_bytes(), ranges(map), ranges(reserved)).unwrap();
    // The words' initial contents do not matter.
    let words: Vec<_> = (0..frames.held_words()).map(|_| AtomicU64::new(0xdead_beef)).collect();
    let cpus: Vec<_> = (0..CPUS).map(|_| CpuCache::from(Lock::new(Magazine::default()))).collect();
    prepare(&mut frames);
    let caches = CpuCaches::new(&cpus, &mut frames, &words).unwrap();
    let machine = Machine { frames: Lock::new(frames), caches };
    test(&machine);
    machine.check();
}

fn on(map: &[(u64, u64)], test: impl FnOnce(&Machine<'_>)) {
    on_prepared(map, &[], |_| {}, test);
}

#[test]
fn the_frame_freed_last_is_allocated_first() {
    on(&SMALL, |machine| {
        let runs = [(); 3].map(|()| machine.allocate(0).unwrap());
        runs.into_iter().for_each(|run| machine.free(0, run).unwrap());
        assert_eq!([(); 3].map(|()| machine.allocate(0).unwrap()), [runs[2], runs[1], runs[0]]);
    });
}

#[test]
fn the_allocators_lock_is_taken_once_per_half_magazine() {
    on(&SMALL, |machine| {
        let runs: Vec<_> = (0..512).map(|_| machine.allocate(1).unwrap()).collect();
        assert_eq!(machine.frames.taken(), 512 / Magazine::HALF as u64);
        runs.into_iter().for_each(|run| machine.free(1, run).unwrap());
        // The first frees fit into the magazine.
        assert_eq!(machine.frames.taken(), (512 + 512 - Magazine::CAPACITY as u64) / Magazine::HALF as u64);
        let before = machine.frames.taken();
        for _ in 0..1000 {
            let run = machine.allocate(1).unwrap();
            machine.free(1, run).unwrap();
        }
        assert_eq!(machine.frames.taken(), before, "neither full nor empty");
    });
}

#[test]
fn frames_in_magazines_count_as_free_and_draining_restores_the_allocator() {
    on(&SMALL, |machine| {
        let before = machine.counts();
        let run = machine.allocate(0).unwrap();
        let other = machine.allocate(2).unwrap();
        let now = machine.counts();
        assert_eq!((now.free, now.used, now.history.allocations), (before.free - 2, 2, 2));
        assert_eq!(machine.caches.len(), 2 * (Magazine::HALF as u64 - 1));
        machine.free(0, run).unwrap();
        machine.free(0, other).unwrap();
        machine.frames.with(|frames| {
            assert_eq!(frames.state(run.start()), Some(FrameState::Free));
            assert!(frames.runs().all(|(_, state)| state == FrameState::Free));
        });
        assert_eq!(machine.drain(), 2 * Magazine::HALF as u64);
        assert_eq!((machine.drain(), machine.caches.is_empty()), (0, true));
        let after = machine.counts();
        assert_eq!((after.free, after.used, after.free_regions), (before.free, 0, before.free_regions));
        assert_eq!((after.history.allocations, after.history.frees), (2, 2));
    });
}

#[test]
fn a_frame_in_a_magazine_cannot_be_freed_again_on_any_cpu_nor_as_part_of_a_run() {
    on(&SMALL, |machine| {
        let run = machine.allocate(0).unwrap();
        machine.free(0, run).unwrap();
        let cached = FrameError { operation: Operation::Free, run, frame: run.start(), state: Some(FrameState::Free) };
        for cpu in [0, 1, CPUS] {
            assert_eq!(machine.free(cpu, run), Err(cached));
        }
        let longer = FrameRun::new(run.start(), 2).unwrap();
        let errors = machine.frames.with(|frames| {
            [
                frames.free(longer),
                frames.release(longer),
                frames.confirm_ballooned(longer),
                frames.release_reported(longer),
            ]
        });
        assert!(errors.into_iter().all(|error| error.unwrap_err().frame == run.start()));
        assert_eq!((machine.counts().history.refusals, machine.counts().free), (7, 1024));
        machine.drain();
        machine.free(0, run).unwrap_err();
    });
}

#[test]
fn freeing_a_frame_never_allocated_is_refused_and_a_run_can_be_freed_frame_by_frame() {
    on_prepared(
        &MAP,
        &RESERVED,
        |_| {},
        |machine| {
            let taken = machine.take(|frames| frames.take_free(512)).unwrap();
            machine.frames.with(|frames| frames.confirm_ballooned(taken)).unwrap();
            for (frame, state) in [
                (Pfn(0), Some(FrameState::Reserved)),
                (Pfn(0x9f), Some(FrameState::Reserved)),
                (Pfn(u32::MAX), None),
                (taken.last(), Some(FrameState::Ballooned)),
            ] {
                let error = machine.free(0, FrameRun::new(frame, 1).unwrap()).unwrap_err();
                assert_eq!(error.state, state);
            }
            let before = machine.counts().free;
            let run = machine.allocate_run(100, 1).unwrap();
            run.pfns().for_each(|frame| machine.free(1, FrameRun::new(frame, 1).unwrap()).unwrap());
            assert_eq!(machine.counts().free, before);
            let singles = [(); 2].map(|()| machine.allocate(1).unwrap());
            let pair = FrameRun::new(singles[0].start().min(singles[1].start()), 2).unwrap();
            machine.free(1, pair).unwrap();
            assert_eq!(machine.counts().free, before);
        },
    );
}

#[test]
fn one_cpu_can_allocate_frames_from_the_magazines_of_others() {
    on(&SMALL, |machine| {
        for cpu in 0..CPUS {
            let run = machine.allocate(cpu).unwrap();
            machine.free(cpu, run).unwrap();
        }
        let all: Vec<_> = core::iter::from_fn(|| machine.allocate(0).ok()).collect();
        assert_eq!(all.len(), 1024);
        assert_eq!(machine.allocate(1), Err(AllocateError::Exhausted { frames: 1, align: 1, free: 0 }));
        assert_eq!(machine.counts().history.failures, 2, "one per refusal that a caller saw");
        all.into_iter().for_each(|run| machine.free(2, run).unwrap());
        // The magazine's frames break both regions.
        assert_eq!(machine.frames.with(|frames| frames.counts().free_regions), 1);
        assert!(machine.allocate_run(1025, 1).is_err(), "more than there is");
        assert!(machine.allocate_run(1024, 1).is_ok());
        assert_eq!(machine.counts().history.failures, 3);
    });
}

#[test]
fn frames_in_magazines_are_reported_and_ballooned_down_to_the_floor() {
    on(&SMALL, |machine| {
        machine.frames.with(|frames| frames.set_floor(100));
        let touch = || {
            for cpu in 0..CPUS {
                let run = machine.allocate(cpu).unwrap();
                machine.free(cpu, run).unwrap();
            }
        };
        touch();
        assert_eq!(machine.take(|frames| frames.take_unreported(u32::MAX, 0)).unwrap().count(), 512);
        let rest = machine.take(|frames| frames.take_unreported(u32::MAX, 0)).unwrap();
        assert_eq!((rest.count(), machine.counts().free), (512, 0));
        machine.frames.with(|frames| frames.release(rest)).unwrap();
        touch();
        let taken: u32 =
            core::iter::from_fn(|| machine.take(|frames| frames.take_free(512))).map(FrameRun::count).sum();
        assert_eq!((taken, machine.counts().free), (412, 100));
    });
}

#[test]
fn a_magazine_is_filled_from_regions_that_are_broken_already() {
    let strewn = |frames: &mut Frames<'_>| {
        let run = frames.allocate(512, 512).unwrap();
        run.pfns().step_by(2).for_each(|frame| frames.free(FrameRun::new(frame, 1).unwrap()).unwrap());
    };
    on_prepared(&SMALL, &[], strewn, |machine| {
        let runs: Vec<_> = (0..256).map(|_| machine.allocate(0).unwrap()).collect();
        assert_eq!(machine.frames.with(|frames| frames.counts().free_regions), 1);
        let next = machine.allocate(0).unwrap();
        assert!(runs.iter().all(|run| run.start().0 / 512 != next.start().0 / 512));
        assert_eq!(machine.caches.len(), Magazine::HALF as u64 - 1, "in one run");
    });
}

#[test]
fn freeing_a_run_is_refused_if_another_cpu_frees_one_of_its_frames_meanwhile() {
    on(&SMALL, |machine| {
        let run = machine.allocate_run(1024, 1).unwrap();
        machine.frames.with(|frames| {
            let held = frames.held.unwrap();
            let other = Pfn(run.last().0 - 100);
            // As if it happened between the two checks that freeing a run makes.
            assert!(held.clear_allocated_one(other));
            assert_eq!(frames.clear_allocated(run), Err(other));
            held.hold_one(other);
        });
        machine.free(0, run).unwrap();
        assert_eq!(machine.counts().free, 1024);
    });
}

#[test]
fn too_few_words_for_the_held_bits_are_refused() {
    let mut storage = vec![0u64; Footprint::of(ranges(&SMALL)).bytes().div_ceil(8)];
    let mut frames = Frames::new(storage.as_mut_slice().as_mut_bytes(), ranges(&SMALL), []).unwrap();
    let words: Vec<_> = (0..frames.held_words() - 1).map(|_| AtomicU64::new(0)).collect();
    let error = frames.track(&words).unwrap_err();
    assert_eq!((error.needed, error.given), (16 * 8, 15 * 8));
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Allocate(usize),
    AllocateRun {
        frames: u32,
        order: u32,
    },
    /// Frees one of the runs held: whole, or frame by frame.
    Free {
        cpu: usize,
        which: prop::sample::Index,
        singly: bool,
    },
    /// Frees frames, regardless of their owner.
    Wild {
        cpu: usize,
        start: u32,
        count: u32,
    },
    TakeFree(u32),
    Confirm(prop::sample::Index),
    TakeBallooned(u32),
    Release(prop::sample::Index),
    Floor(u64),
    Drain,
}

fn ops() -> impl Strategy<Value = (Op, u32)> {
    let cpus = || 0..=CPUS;
    let index = any::<prop::sample::Index>;
    let op = prop_oneof![
        8 => cpus().prop_map(Op::Allocate),
        2 => (prop_oneof![1..20u32, 1..=512u32, 513..2600u32], 0..10u32)
            .prop_map(|(frames, order)| Op::AllocateRun { frames, order }),
        8 => (cpus(), index(), any::<bool>()).prop_map(|(cpu, which, singly)| Op::Free { cpu, which, singly }),
        3 => (cpus(), addresses(), prop_oneof![3 => Just(1), 1 => 1..1500u32])
            .prop_map(|(cpu, at, count)| Op::Wild { cpu, start: (at / FRAME_SIZE) as u32, count }),
        2 => prop_oneof![Just(512), 1..700u32].prop_map(Op::TakeFree),
        2 => index().prop_map(Op::Confirm),
        1 => (0..700u32).prop_map(Op::TakeBallooned),
        1 => index().prop_map(Op::Release),
        1 => (0..3000u64).prop_map(Op::Floor),
        1 => Just(Op::Drain),
    ];
    // Some operations repeat many times, so that magazines run full and empty.
    (op, prop_oneof![3 => Just(1), 1 => 1..150u32])
}

/// The machine and the model side by side, with the owners of frames.
struct Pair<'m, 'a> {
    machine: &'m Machine<'a>,
    model: Model,
    held: Vec<FrameRun>,
    in_flight: Vec<FrameRun>,
}

impl Pair<'_, '_> {
    fn apply(&mut self, op: Op) {
        use FrameState::{Ballooned, Free, Used};
        match op {
            Op::Allocate(cpu) => {
                let result = self.machine.allocate(cpu);
                self.allocated(1, 1, result);
            }
            Op::AllocateRun { frames, order } => {
                let result = self.machine.allocate_run(frames, 1 << order);
                self.allocated(frames, 1 << order, result);
            }
            Op::Free { cpu, which, singly } => {
                let Some(run) = choose(&mut self.held, which) else { return };
                let pieces = if singly { run.count() } else { 1 };
                for piece in 0..pieces {
                    let start = Pfn(run.start().0 + piece);
                    self.free(cpu, FrameRun::new(start, run.count() / pieces).unwrap());
                }
            }
            Op::Wild { cpu, start, count } => self.free(cpu, FrameRun::new(Pfn(start), count).unwrap()),
            Op::TakeFree(most) => {
                let spare = self.model.count(Free).saturating_sub(self.model.floor);
                let run = self.machine.take(|frames| frames.take_free(most));
                assert_eq!(run.is_some(), spare > 0);
                if let Some(run) = run {
                    assert!(run.count() <= most && u64::from(run.count()) <= spare);
                    self.model.shift(run, Free, Used);
                    self.in_flight.push(run);
                }
            }
            Op::Confirm(which) => {
                let Some(run) = choose(&mut self.in_flight, which) else { return };
                let right = self.model.first_not(run, Used).is_none();
                assert_eq!(self.machine.frames.with(|frames| frames.confirm_ballooned(run)).is_ok(), right);
                if right {
                    self.model.shift(run, Used, Ballooned);
                }
            }
            Op::TakeBallooned(most) => {
                if let Some(run) = self.machine.take(|frames| frames.take_ballooned(most)) {
                    self.model.shift(run, Ballooned, Used);
                    self.in_flight.push(run);
                }
            }
            Op::Release(which) => {
                let Some(run) = choose(&mut self.in_flight, which) else { return };
                let right = self.model.first_not(run, Used).is_none();
                assert_eq!(self.machine.frames.with(|frames| frames.release(run)).is_ok(), right);
                if right {
                    self.model.shift(run, Used, Free);
                }
            }
            Op::Floor(floor) => {
                self.machine.frames.with(|frames| frames.set_floor(floor));
                self.model.floor = floor;
            }
            Op::Drain => {
                self.machine.drain();
                let (seen, own) = (self.machine.counts(), self.machine.frames.with(|frames| frames.counts()));
                assert_eq!((seen.free, seen.used, self.machine.caches.len()), (own.free, own.used, 0));
            }
        }
    }

    fn allocated(&mut self, frames: u32, align: u32, result: Result<FrameRun, AllocateError>) {
        assert_eq!(result.is_ok(), self.model.can_allocate(frames, align), "{result:?}");
        match result {
            Ok(run) => {
                assert_eq!((run.count(), run.start().0 % align), (frames, 0));
                self.model.shift(run, FrameState::Free, FrameState::Used);
                self.held.push(run);
            }
            Err(error) => {
                let free = self.model.count(FrameState::Free);
                assert_eq!(error, AllocateError::Exhausted { frames, align, free });
            }
        }
    }

    /// Frees a run; must succeed exactly if every frame is used.
    fn free(&mut self, cpu: usize, run: FrameRun) {
        let result = self.machine.free(cpu, run);
        let wrong = self.model.first_not(run, FrameState::Used);
        let expected = wrong.map(|frame| FrameError {
            operation: Operation::Free,
            run,
            frame,
            state: self.model.states.get(&frame.0).copied(),
        });
        assert_eq!(result.err(), expected);
        if expected.is_none() {
            self.model.shift(run, FrameState::Used, FrameState::Free);
        }
    }

    fn compare(&self) {
        let counts = self.machine.counts();
        assert_eq!(
            [counts.free, counts.used, counts.ballooned],
            [FrameState::Free, FrameState::Used, FrameState::Ballooned].map(|state| self.model.count(state))
        );
        self.machine.check();
        self.machine.frames.with(|frames| {
            let runs = frames.runs().flat_map(|(run, state)| run.pfns().map(move |frame| (frame.0, state)));
            assert!(runs.eq(self.model.states.iter().map(|(frame, state)| (*frame, *state))));
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn with_magazines_it_behaves_like_a_map_of_frames(ops in prop::collection::vec(ops(), 1..60)) {
        on_prepared(&MAP, &RESERVED, |_| {}, |machine| {
            let mut pair = Pair { machine, model: Model::new(), held: Vec::new(), in_flight: Vec::new() };
            for (op, times) in ops {
                (0..times).for_each(|_| pair.apply(op));
                pair.compare();
            }
        });
    }
}
