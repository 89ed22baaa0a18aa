//! Frames over a `Hal` that records each allocation and its size, and checks that the same is freed.

use core::cell::RefCell;
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
}

#[derive(Debug)]
struct Books;

// SAFETY: these pointers are never dereferenced.
unsafe impl Hal for Books {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (u64, NonNull<u8>) {
        GIVEN.with_borrow_mut(|given| {
            let pages = pages as u32;
            let mut start = FIRST;
            for (&first, &count) in &*given {
                if first - start >= pages {
                    break;
                }
                start = first + count;
            }
            if start + pages > FIRST + MEMORY {
                return (0, NonNull::dangling());
            }
            given.insert(start, pages);
            (u64::from(start) << 12, NonNull::dangling())
        })
    }
    unsafe fn dma_dealloc(address: u64, _pointer: NonNull<u8>, pages: usize) -> i32 {
        let given = GIVEN.with_borrow_mut(|given| given.remove(&((address >> 12) as u32)));
        assert_eq!(given, Some(pages as u32), "deallocated with the size of the allocation");
        0
    }
    unsafe fn mmio_phys_to_virt(_address: u64, _size: usize) -> NonNull<u8> {
        unreachable!("frames need no registers")
    }
    unsafe fn share(_buffer: NonNull<[u8]>, _direction: BufferDirection) -> u64 {
        unreachable!("frames are not shared by buffers")
    }
    unsafe fn unshare(_address: u64, _buffer: NonNull<[u8]>, _direction: BufferDirection) {
        unreachable!("frames are not shared by buffers")
    }
}

fn given() -> u32 {
    GIVEN.with_borrow(|given| given.values().sum())
}

/// Inflates by `count` frames; returns how many there were.
fn inflate(frames: &mut HalFrames<Books>, mut count: u32) -> u32 {
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
fn deflate(frames: &mut HalFrames<Books>, mut count: u32) {
    while count > 0 {
        let run = frames.take_ballooned(count).expect("that many are ballooned");
        frames.release(run);
        count -= run.count();
    }
}

#[test]
fn all_memory_goes_to_the_host_and_all_of_it_returns() {
    let mut frames = HalFrames::<Books>::new(u32::MAX);
    assert_eq!(inflate(&mut frames, 5000), MEMORY);
    assert_eq!((frames.held(), given(), frames.take_free(1)), (MEMORY, MEMORY, None));
    deflate(&mut frames, MEMORY);
    assert_eq!((frames.held(), given(), frames.take_ballooned(1)), (0, 0, None));
}

#[test]
fn a_balloon_that_shrinks_step_by_step_keeps_few_extra_frames() {
    let mut frames = HalFrames::<Books>::new(u32::MAX);
    inflate(&mut frames, 640);
    for left in (0..640).rev() {
        deflate(&mut frames, 1);
        assert!(given() < left + chunk::MOST, "{} frames are kept for {left}", given());
    }
    assert_eq!(given(), 0);
}

#[test]
fn frames_that_stayed_allocated_are_taken_first() {
    let mut frames = HalFrames::<Books>::new(u32::MAX);
    inflate(&mut frames, 64);
    deflate(&mut frames, 10);
    assert_eq!((given(), inflate(&mut frames, 10), given()), (64, 10, 64));
}

#[test]
fn no_more_than_the_limit_is_taken() {
    let mut frames = HalFrames::<Books>::new(100);
    assert_eq!((inflate(&mut frames, 500), given()), (100, 100));
}

#[test]
fn a_run_that_was_refused_by_the_host_returns_and_parts_of_runs_may_come_apart() {
    let mut frames = HalFrames::<Books>::new(u32::MAX);
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
    let mut frames = HalFrames::<Books>::new(u32::MAX);
    let (one, two) = (frames.take_free(64).unwrap(), frames.take_free(64).unwrap());
    assert_eq!(one.start().0 + 64, two.start().0);
    let both = FrameRun::new(one.start(), 128).unwrap();
    frames.confirm_ballooned(both);
    let taken = [frames.take_ballooned(64).unwrap(), frames.take_ballooned(64).unwrap()];
    assert_eq!(taken.map(FrameRun::count), [64, 64]);
    frames.release(both);
    assert_eq!(given(), 0);
}
