//! Frames over a kernel that records each allocation and its size, and checks that the same is freed.

use core::cell::{Cell, RefCell};
use core::ptr::NonNull;
use std::collections::BTreeMap;
use std::thread_local;

use super::*;

/// Frames that the host has, from number 16 on.
const MEMORY: u32 = 1000;
const FIRST: u32 = 16;

thread_local! {
    /// Allocations by their first frame.
    static GIVEN: RefCell<BTreeMap<u32, u32>> = const { RefCell::new(BTreeMap::new()) };
    /// Calls that allocate.
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

#[derive(Debug)]
struct Books;

// SAFETY: these pointers are never dereferenced.
unsafe impl Kernel for Books {
    fn map(&mut self, _address: u64, _length: usize) -> Option<NonNull<u8>> {
        unreachable!("frames need no registers")
    }

    fn allocate_dma(&mut self, size: usize, align: usize) -> Option<(NonNull<u8>, u64)> {
        assert_eq!((size % 4096, align), (0, 4096));
        CALLS.set(CALLS.get() + 1);
        GIVEN.with_borrow_mut(|given| {
            let pages = size as u32 / 4096;
            let mut start = FIRST;
            for (&first, &count) in &*given {
                if first - start >= pages {
                    break;
                }
                start = first + count;
            }
            if start + pages > FIRST + MEMORY {
                return None;
            }
            given.insert(start, pages);
            Some((NonNull::dangling(), u64::from(start) << 12))
        })
    }

    fn release_dma(&mut self, _start: NonNull<u8>, device: u64, size: usize) {
        let given = GIVEN.with_borrow_mut(|given| given.remove(&((device >> 12) as u32)));
        assert_eq!(given, Some(size as u32 / 4096), "released with the size of the allocation");
    }

    fn now(&self) -> u64 {
        unreachable!("frames need no time")
    }
}

fn given() -> u32 {
    GIVEN.with_borrow(|given| given.values().sum())
}

/// Inflates by `count` frames; returns how many there were.
fn inflate(frames: &mut DmaFrames<Books>, mut count: u32) -> u32 {
    let mut taken = 0;
    while let Some(run) = frames.take_free(count).filter(|_| count > 0) {
        assert!(run.count() <= count);
        frames.confirm_ballooned(run);
        count -= run.count();
        taken += run.count();
    }
    taken
}

/// Deflates by `count` frames.
fn deflate(frames: &mut DmaFrames<Books>, mut count: u32) {
    while count > 0 {
        let run = frames.take_ballooned(count).expect("that many are ballooned");
        frames.release(run);
        count -= run.count();
    }
}

#[test]
fn all_memory_goes_to_the_host_and_all_of_it_returns() {
    let mut frames = DmaFrames::new(Books, u32::MAX);
    assert_eq!(inflate(&mut frames, 5000), MEMORY);
    assert_eq!((frames.held, given(), frames.take_free(1)), (MEMORY, MEMORY, None));
    deflate(&mut frames, MEMORY);
    assert_eq!((frames.held, given(), frames.take_ballooned(1)), (0, 0, None));
}

#[test]
fn a_balloon_that_shrinks_step_by_step_keeps_few_extra_frames() {
    let mut frames = DmaFrames::new(Books, u32::MAX);
    inflate(&mut frames, 640);
    for left in (0..640).rev() {
        deflate(&mut frames, 1);
        assert!(given() < left + chunk::MOST, "{} frames are kept for {left}", given());
    }
    assert_eq!(given(), 0);
}

#[test]
fn frames_that_stayed_allocated_are_taken_first() {
    let mut frames = DmaFrames::new(Books, u32::MAX);
    inflate(&mut frames, 64);
    deflate(&mut frames, 10);
    assert_eq!((given(), inflate(&mut frames, 10), given()), (64, 10, 64));
}

#[test]
fn no_more_than_the_limit_is_taken() {
    let mut frames = DmaFrames::new(Books, 100);
    assert_eq!((inflate(&mut frames, 500), given()), (100, 100));
}

#[test]
fn a_run_that_was_refused_by_the_host_returns_and_parts_of_runs_may_come_apart() {
    let mut frames = DmaFrames::new(Books, u32::MAX);
    let run = frames.take_free(64).unwrap();
    let (first, rest) = run.split(20);
    frames.confirm_ballooned(first);
    frames.release(rest.unwrap());
    assert_eq!(given(), 64);
    deflate(&mut frames, 20);
    assert_eq!(given(), 0);
}

#[test]
fn a_run_across_two_allocations_is_confirmed_and_released_as_one() {
    let mut frames = DmaFrames::new(Books, u32::MAX);
    let (one, two) = (frames.take_free(64).unwrap(), frames.take_free(64).unwrap());
    assert_eq!(one.start().0 + 64, two.start().0);
    let both = FrameRun::new(one.start(), 128).unwrap();
    frames.confirm_ballooned(both);
    let taken = [frames.take_ballooned(64).unwrap(), frames.take_ballooned(64).unwrap()];
    assert_eq!(taken.map(FrameRun::count), [64, 64]);
    frames.release(both);
    assert_eq!(given(), 0);
}

#[test]
fn fragmented_memory_is_not_searched_again_for_what_it_does_not_have() {
    // Of every two frames one is free.
    GIVEN.with_borrow_mut(|given| given.extend((FIRST..FIRST + MEMORY).step_by(2).map(|frame| (frame, 1))));
    let mut frames = DmaFrames::new(Books, u32::MAX);
    assert_eq!(inflate(&mut frames, 5000), MEMORY / 2);
    assert!(CALLS.get() < MEMORY / 2 + 20, "{} calls", CALLS.get());
    // Once memory has been released, larger runs are tried again.
    GIVEN.with_borrow_mut(|given| given.retain(|frame, _| frame % 2 == 1));
    deflate(&mut frames, 1);
    assert!(frames.take_free(64).is_some_and(|run| run.count() > 1));
}

#[test]
fn whatever_the_order_each_ballooned_frame_is_taken_once() {
    let mut frames = DmaFrames::new(Books, u32::MAX);
    inflate(&mut frames, 640);
    // Three chunks in flight; then the first of them is the host's again, and the last is released.
    let [last, middle, first] = [64; 3].map(|most| frames.take_ballooned(most).unwrap());
    frames.confirm_ballooned(first);
    frames.release(last);
    assert_eq!(frames.take_ballooned(64), Some(first));
    frames.confirm_ballooned(middle);
    assert_eq!(frames.take_ballooned(64), Some(middle));
    frames.release(first);
    frames.release(middle);
    // The rest, in small runs.
    let mut runs: Vec<_> = core::iter::from_fn(|| frames.take_ballooned(7)).collect();
    runs.sort_by_key(|run| run.start());
    assert_eq!(runs.iter().map(|run| run.count()).sum::<u32>(), 640 - 3 * 64);
    assert!(runs.windows(2).all(|pair| pair[0].start().0 + pair[0].count() <= pair[1].start().0));
    runs.into_iter().for_each(|run| frames.release(run));
    assert_eq!((given(), frames.held, frames.idle, frames.end), (0, 0, 0, 0));
}
