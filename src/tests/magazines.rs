//! Page frames with a magazine per CPU: they must behave as without, only faster.

use alloc::vec::Vec;

use crate::machine::frames;
use ballonet::balloon::BalloonPlatform;
use ballonet::memory::{AllocateError, FrameRun, FrameState, PageFrames};

use crate::tests::suite::{Test, kernel_test, tests};

pub(super) const TESTS: &[Test] = tests![
    single_frames_come_from_magazines_and_count_as_free_there,
    a_frame_in_a_magazine_cannot_be_freed_again,
    memory_runs_out_at_the_last_frame_with_magazines_too,
    a_balloon_leaves_only_the_reserve_with_magazines_too,
];

/// Runs `test` with magazines, then asserts that no frame was lost.
#[track_caller]
fn with_magazines(test: impl FnOnce()) {
    let enabled = frames::is_caching();
    frames::enable_caches(2).expect("there is memory");
    let before = balance();
    test();
    assert_eq!(balance(), before);
    if !enabled {
        frames::disable_caches();
        assert_eq!((balance(), cached()), (before, 0));
    }
    if let Err(inconsistency) = frames::with(|frames| frames.check()) {
        panic!("{inconsistency}");
    }
}

/// Fills a magazine to one half.
fn touch() {
    let run = frames::allocate(1, 1).expect("there is memory");
    frames::free(run).expect("it was allocated");
}

/// Numbers of free and used frames.
fn balance() -> (u64, u64) {
    let counts = frames::counts();
    (counts.free, counts.used)
}

/// Number of frames in magazines.
fn cached() -> u64 {
    frames::counts().free - frames::with(|frames| frames.counts().free)
}

kernel_test! {
    fn single_frames_come_from_magazines_and_count_as_free_there() {
        let mut runs = Vec::with_capacity(300);
        with_magazines(|| {
            let (free, used) = balance();
            runs.extend((0..300).map(|_| frames::allocate(1, 1).expect("there is memory")));
            assert_eq!(balance(), (free - 300, used + 300));
            assert!(cached() > 0);
            assert!(frames::drain() > 0 && cached() == 0);
            for run in runs.drain(..) {
                frames::free(run).expect("it was allocated");
            }
            assert!(cached() > 0);
        });
    }
}

kernel_test! {
    fn a_frame_in_a_magazine_cannot_be_freed_again() {
        with_magazines(|| {
            let run = frames::allocate(1, 1).expect("there is memory");
            frames::free(run).expect("it was allocated");
            let before = frames::counts();
            let error = frames::free(run).expect_err("it is free already");
            assert_eq!((error.frame, error.state), (run.start(), Some(FrameState::Free)));
            assert_eq!(frames::counts().history.refusals, before.history.refusals + 1);
        });
    }
}

kernel_test! {
    fn memory_runs_out_at_the_last_frame_with_magazines_too() {
        let mut runs: Vec<FrameRun> = Vec::with_capacity(16384);
        with_magazines(|| {
            touch();
            let mut size = 512;
            let error = loop {
                match frames::allocate(size, 1) {
                    Ok(run) => runs.push(run),
                    Err(_) if size > 1 => size /= 2,
                    Err(error) => break error,
                }
                assert!(runs.len() < runs.capacity(), "memory is in more pieces than the test has room for");
            };
            assert_eq!(error, AllocateError::Exhausted { frames: 1, align: 1, free: 0 });
            assert_eq!(frames::counts().free, 0);
            for run in runs.drain(..) {
                frames::free(run).expect("it was allocated");
            }
        });
    }
}

kernel_test! {
    fn a_balloon_leaves_only_the_reserve_with_magazines_too(context) {
        let mut runs = Vec::with_capacity(16384);
        with_magazines(|| {
            let reserve = frames::with(|frames| frames.floor());
            touch();
            while let Some(run) = context.machine.frames().take_free(512) {
                runs.push(run);
                assert!(runs.len() < runs.capacity(), "memory is in more pieces than the test has room for");
            }
            assert_eq!(frames::counts().free, reserve);
            touch();
            assert_eq!(context.machine.frames().take_free(512), None);
            for run in runs.drain(..) {
                context.machine.frames().release(run);
            }
        });
    }
}
