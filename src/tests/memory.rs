//! Page frames, DMA memory and blocks: a refused operation changes nothing, a release returns everything.

use alloc::vec::Vec;

use crate::machine::block::Block;
use crate::machine::dma;
use crate::machine::frames;
use ballonet::memory::{AllocateError, Counts, FRAME_SIZE, FrameRun, FrameState, Pfn};
use ballonet::platform::{DmaMemory, Platform};

use crate::tests::suite::{Test, kernel_test, tests};

pub(super) const TESTS: &[Test] = tests![
    frames_given_back_are_all_back,
    runs_do_not_overlap,
    freeing_twice_is_refused_and_changes_nothing,
    freeing_what_was_never_given_is_refused_and_changes_nothing,
    freeing_a_run_of_which_one_frame_is_free_frees_none_of_it,
    running_out_of_frames_is_an_error_and_leaves_nothing_behind,
    what_is_no_request_is_refused,
    dma_memory_is_zeroed_aligned_and_given_back,
    dma_memory_refuses_to_be_touched_outside,
    a_dropped_block_is_given_back,
];

fn counts() -> Counts {
    frames::counts()
}

/// Numbers of free and used frames.
fn balance() -> (u64, u64) {
    let counts = counts();
    (counts.free, counts.used)
}

/// Asserts that the allocator's records agree with each other.
#[track_caller]
fn audit() {
    if let Err(inconsistency) = frames::with(|frames| frames.check()) {
        panic!("{inconsistency}");
    }
}

fn words(run: FrameRun) -> &'static mut [u64] {
    let start = run.address() as *mut u64;
    // SAFETY: usable memory is mapped one to one; the callers own the run and drop the slice before they free it.
    unsafe { core::slice::from_raw_parts_mut(start, (run.bytes() / 8) as usize) }
}

kernel_test! {
    fn frames_given_back_are_all_back() {
        audit();
        let before = balance();
        let mut runs = Vec::with_capacity(64);
        let from = balance();
        for (count, align) in [(1, 1), (2, 2), (3, 1), (7, 4), (16, 16), (100, 64), (511, 1), (512, 512), (1024, 1)] {
            let run = frames::allocate(count, align).expect("there is memory");
            assert_eq!((run.count(), run.start().0 % align), (count, 0), "{run}");
            runs.push(run);
        }
        let taken: u64 = runs.iter().map(|run| u64::from(run.count())).sum();
        assert_eq!(balance(), (from.0 - taken, from.1 + taken));
        audit();
        for run in runs.drain(..) {
            frames::free(run).expect("it was allocated");
        }
        assert_eq!(balance(), from);
        drop(runs);
        // The list may have grown the heap, which never shrinks.
        assert!(balance().0 <= before.0);
        audit();
    }
}

kernel_test! {
    fn runs_do_not_overlap() {
        let runs: Vec<_> = (0..200).map(|index| frames::allocate(index % 9 + 1, 1).expect("there is memory")).collect();
        for (run, tag) in runs.iter().zip(1_u64..) {
            words(*run).fill(tag);
        }
        for (run, tag) in runs.iter().zip(1_u64..) {
            assert!(words(*run).iter().all(|&word| word == tag), "{run} was changed through another");
        }
        for run in runs {
            frames::free(run).expect("it was allocated");
        }
    }
}

kernel_test! {
    fn freeing_twice_is_refused_and_changes_nothing() {
        let run = frames::allocate(4, 1).expect("there is memory");
        frames::free(run).expect("it was allocated");
        let before = counts();
        let error = frames::free(run).expect_err("it is free already");
        assert_eq!((error.run, error.frame, error.state), (run, run.start(), Some(FrameState::Free)));
        assert_eq!(counts().free, before.free);
        assert_eq!(counts().history.refusals, before.history.refusals + 1);
        audit();
    }
}

kernel_test! {
    fn freeing_what_was_never_given_is_refused_and_changes_nothing(context) {
        let before = balance();
        let image = context.machine.image().place();
        let kernel = Pfn(u32::try_from(image.start / FRAME_SIZE).expect("it is in low memory"));
        let beyond = Pfn(u32::MAX - 1);
        for pfn in [kernel, beyond, Pfn(0)] {
            let run = FrameRun::new(pfn, 1).expect("a run of one");
            let error = frames::free(run).expect_err("it was not allocated");
            assert_ne!(error.state, Some(FrameState::Used), "{error}");
        }
        assert_eq!(balance(), before);
        audit();
    }
}

kernel_test! {
    fn freeing_a_run_of_which_one_frame_is_free_frees_none_of_it() {
        let run = frames::allocate(8, 1).expect("there is memory");
        let (head, rest) = run.split(5);
        frames::free(head).expect("it was allocated");
        let before = balance();
        frames::free(run).expect_err("most of it is free already");
        assert_eq!(balance(), before);
        frames::free(rest.expect("three frames")).expect("it was allocated");
        audit();
    }
}

kernel_test! {
    fn running_out_of_frames_is_an_error_and_leaves_nothing_behind() {
        let mut runs: Vec<FrameRun> = Vec::with_capacity(16384);
        let before = balance();
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
        assert_eq!(counts().free, 0);
        audit();
        assert!(Block::allocate(1).is_none() && dma::allocate(1, 1).is_none());
        for run in runs.drain(..) {
            frames::free(run).expect("it was allocated");
        }
        assert_eq!(balance(), before);
        audit();
    }
}

kernel_test! {
    fn what_is_no_request_is_refused() {
        for (count, align) in [(0, 1), (1, 0), (1, 3)] {
            assert_eq!(frames::allocate(count, align), Err(AllocateError::Malformed { frames: count, align }));
        }
    }
}

kernel_test! {
    fn dma_memory_is_zeroed_aligned_and_given_back(context) {
        let before = balance();
        // Leaves its frames filled with ones, so that reuse without zeroing shows.
        for mut block in core::array::from_fn::<_, 4, _>(|_| Block::allocate(512).expect("there is memory")) {
            block.words_mut().fill(u64::MAX);
        }
        for (size, align) in [(1, 1), (16, 16), (4096, 4096), (4097, 4096), (65536, 65536), (1 << 20, 1 << 20)] {
            let memory = context.machine.allocate_dma(size, align).expect("there is memory");
            assert!(memory.len() >= size);
            let address = memory.device_address();
            assert!(address.is_multiple_of(align as u64), "{address:#x} is not aligned to {align:#x}");
            let zeroed = (0..memory.len()).step_by(8).all(|offset| memory.load64(offset) == 0);
            assert!(zeroed, "{size} bytes are not zeroed");
            context.machine.release_dma(memory);
        }
        assert_eq!(balance(), before);
    }
}

kernel_test! {
    fn dma_memory_refuses_to_be_touched_outside(context) {
        use crate::machine::recovery::{Ending, catch};
        let memory = context.machine.allocate_dma(4096, 4096).expect("there is memory");
        // Behind it, across its end, misaligned, and with an overflowing end.
        for offset in [4096, 4092, 4, usize::MAX - 7] {
            assert!(matches!(catch(|| memory.load64(offset)), Ending::Panicked(_)), "at {offset:#x}");
        }
        context.machine.release_dma(memory);
    }
}

kernel_test! {
    fn a_dropped_block_is_given_back() {
        let before = balance();
        let block = Block::allocate(64).expect("there is memory");
        assert_eq!(block.run().count(), 64);
        assert_eq!(block.words().len() as u64, 64 * FRAME_SIZE / 8);
        assert_eq!(balance().0, before.0 - 64);
        drop(block);
        assert_eq!(balance(), before);
    }
}
