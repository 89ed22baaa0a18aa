//! The heap, and the functions that the compiler calls to move memory.

use alloc::alloc::{alloc, dealloc};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::hint::black_box;

use crate::machine::reclaim::{self, Reclaimed, Source};
use crate::machine::{frames, large};
use ballonet::memory::FrameRun;

use crate::machine::heap;
use crate::tests::suite::{Test, kernel_test, tests};

pub(super) const TESTS: &[Test] = tests![
    every_size_and_alignment_can_be_had_and_is_given_back,
    it_grows_across_many_mebibytes_and_keeps_contents_apart,
    memory_given_back_is_used_again,
    pieces_freed_in_any_order_make_a_whole_again,
    a_vector_that_grows_keeps_its_contents,
    more_than_there_is_is_refused_and_changes_nothing,
    large_blocks_are_frames_and_go_back_when_they_are_freed,
    large_blocks_have_any_alignment,
    a_block_larger_than_any_hole_is_put_together_from_pieces,
    an_allocation_that_would_fail_has_memory_back_first,
    no_source_is_asked_with_interrupts_off,
    memcpy_copies_every_length_between_all_alignments,
    memmove_copies_every_length_over_all_overlaps,
    memset_fills_every_length_at_all_alignments,
    memcmp_finds_the_first_difference,
];

/// Bytes in a MiB.
const MIB: usize = 1 << 20;

kernel_test! {
    fn every_size_and_alignment_can_be_had_and_is_given_back() {
        let before = heap::view().used;
        for size in [1, 2, 3, 7, 8, 15, 16, 24, 33, 100, 1000, 4096, 4097, 100_000] {
            for align in (0..=12).map(|shift| 1_usize << shift) {
                let layout = Layout::from_size_align(size, align).expect("a layout");
                // SAFETY: the size is not 0; the block is used within its size and freed with its layout.
                unsafe {
                    let block = alloc(layout);
                    assert!(!block.is_null() && block.addr().is_multiple_of(align), "{size} to {align}: {block:p}");
                    block.write_bytes(0x5A, size);
                    dealloc(block, layout);
                }
            }
        }
        assert_eq!(heap::view().used, before);
    }
}

kernel_test! {
    fn it_grows_across_many_mebibytes_and_keeps_contents_apart() {
        const PIECE: usize = 3000;
        let free = frames::counts().free as usize * 4096;
        let pieces = (32 * MIB).min(free / 2) / PIECE;
        let (before, size) = (heap::view().used, heap::view().size);
        let all: Vec<Box<[u8; PIECE]>> = (0..pieces).map(|index| Box::new([index as u8; PIECE])).collect();
        assert!(heap::view().size > size.max(pieces * PIECE));
        for (index, piece) in all.iter().enumerate() {
            assert!(piece.iter().all(|&byte| byte == index as u8), "piece {index}");
        }
        drop(all);
        assert_eq!(heap::view().used, before);
    }
}

kernel_test! {
    fn memory_given_back_is_used_again() {
        const SMALL: usize = large::LARGE - 1;
        drop(Vec::<u8>::with_capacity(SMALL));
        let size = heap::view().size;
        for _ in 0..100 {
            drop(black_box(Vec::<u8>::with_capacity(SMALL)));
        }
        assert_eq!(heap::view().size, size);
    }
}

kernel_test! {
    fn pieces_freed_in_any_order_make_a_whole_again() {
        let before = heap::view().used;
        let mut pieces: Vec<Option<Box<[u8; 1024]>>> = (0..512).map(|_| Some(Box::new([1; 1024]))).collect();
        for index in (0..512).map(|index| index * 197 % 512) {
            pieces[index] = None;
        }
        let size = heap::view().size;
        drop(black_box(Vec::<u8>::with_capacity(large::LARGE - 1)));
        assert_eq!(heap::view().size, size, "free blocks were not merged");
        drop(pieces);
        assert_eq!(heap::view().used, before);
    }
}

kernel_test! {
    fn a_vector_that_grows_keeps_its_contents() {
        let mut numbers = Vec::new();
        let before = heap::view().used;
        let of = |index: u64| index.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for index in 0..(4 * MIB / 8) as u64 {
            numbers.push(of(index));
        }
        assert!(numbers.iter().zip(0..).all(|(&number, index)| number == of(index)));
        drop(numbers);
        assert_eq!(heap::view().used, before);
    }
}

kernel_test! {
    fn more_than_there_is_is_refused_and_changes_nothing() {
        let before = (heap::view().used, heap::view().size, free());
        for size in [heap::view().size + free() as usize * 4096 + 1, 1 << 46, isize::MAX as usize - 64] {
            let layout = Layout::from_size_align(size, 8).expect("a layout");
            // SAFETY: the size is not 0.
            assert!(black_box(unsafe { alloc(layout) }).is_null(), "{size:#x} bytes");
            assert_eq!((heap::view().used, heap::view().size, free()), before, "after asking for {size:#x} bytes");
        }
        assert!(frames::with(|frames| frames.check()).is_ok());
    }
}

fn free() -> u64 {
    frames::counts().free
}

/// Asserts that the allocator's records agree with each other.
#[track_caller]
fn audit() {
    if let Err(inconsistency) = frames::with(|frames| frames.check()) {
        panic!("{inconsistency}");
    }
}

kernel_test! {
    fn large_blocks_are_frames_and_go_back_when_they_are_freed() {
        let (size, before, view) = (heap::view().size, free(), large::view());
        for bytes in [large::LARGE, large::LARGE + 1, MIB, 2 * MIB, 2 * MIB + 1, 7 * MIB + 5] {
            let block = black_box(alloc::vec![0xA5_u8; bytes]);
            assert_eq!(free(), before - bytes.div_ceil(4096) as u64, "{bytes} bytes");
            assert_eq!(large::view().blocks, view.blocks + 1);
            assert!(block.iter().all(|&byte| byte == 0xA5), "{bytes} bytes");
            drop(block);
            assert_eq!((free(), large::view(), heap::view().size), (before, view, size), "after {bytes} bytes");
        }
        audit();
    }
}

kernel_test! {
    fn large_blocks_have_any_alignment() {
        let before = free();
        for align in (0..=23).map(|shift| 1_usize << shift) {
            let layout = Layout::from_size_align(3 * MIB / 2, align).expect("a layout");
            // SAFETY: the size is not 0; the block is used within its size and freed with its layout.
            unsafe {
                let block = alloc(layout);
                assert!(!block.is_null() && block.addr().is_multiple_of(align), "{align}: {block:p}");
                block.write_bytes(0x5A, layout.size());
                dealloc(block, layout);
            }
        }
        assert_eq!(free(), before);
        audit();
    }
}

/// Capacity of a list of runs.
const LIST: usize = 4096;

/// Allocates all free memory in whole regions and frees every other one, so that no two free regions are adjacent.
fn fragment() -> Vec<FrameRun> {
    let mut runs = Vec::with_capacity(LIST);
    while let Ok(run) = frames::allocate(512, 512) {
        runs.push(run);
    }
    runs.sort_unstable_by_key(|run| run.start().0);
    let mut kept = Vec::with_capacity(LIST);
    for (run, index) in runs.drain(..).zip(0..) {
        if index % 2 == 0 {
            frames::free(run).expect("it was allocated");
        } else {
            kept.push(run);
        }
    }
    kept
}

kernel_test! {
    fn a_block_larger_than_any_hole_is_put_together_from_pieces() {
        const BLOCK: usize = 9 * MIB + 12345;
        // The lists of runs are small blocks, so the heap may grow for them.
        drop(black_box([(); 2].map(|()| Vec::<FrameRun>::with_capacity(LIST))));
        let (size, before) = (heap::view().size, free());
        let kept = fragment();
        let left = free();
        assert!(frames::allocate(1024, 1).is_err(), "no two adjacent regions are free");
        for _ in 0..3 {
            let mut block = Vec::<u64>::with_capacity(BLOCK / 8);
            block.extend(0..(BLOCK / 8) as u64);
            assert_eq!(large::view().scattered, 1);
            assert!(block.iter().zip(0..).all(|(&word, index)| word == index));
            let other = black_box(alloc::vec![7_u8; 5 * MIB]);
            assert_eq!(large::view().scattered, 2);
            assert!(block.iter().zip(0..).all(|(&word, index)| word == index), "two blocks share memory");
            drop(block);
            assert!(other.iter().all(|&byte| byte == 7));
            drop(other);
            assert_eq!((free(), large::view().scattered), (left, 0), "tables and frames are freed");
        }
        for run in kept {
            frames::free(run).expect("it was allocated");
        }
        assert_eq!((free(), heap::view().size), (before, size));
        audit();
    }
}

/// A source of memory to reclaim.
struct Giver {
    runs: Vec<FrameRun>,
    asked: u64,
}

impl Source for Giver {
    fn reclaim(&mut self, frames: u64) -> Reclaimed {
        self.asked += 1;
        // No lock is held, so this can allocate; and the source is not asked again for that.
        drop(black_box(Box::new([0_u8; 100])));
        let mut given = 0;
        while given < frames {
            let Some(run) = self.runs.pop() else { break };
            frames::free(run).expect("it was allocated");
            given += u64::from(run.count());
        }
        Reclaimed { frames: given, asked: frames }
    }
}

/// Allocates all memory except the kernel's reserve.
fn take_all() -> Giver {
    let mut runs = Vec::with_capacity(65536);
    let kept = frames::with(|frames| frames.floor()) / 2;
    while free() > kept + 64
        && let Some(run) = frames::allocate_up_to((free() - kept).min(512))
    {
        runs.push(run);
    }
    Giver { runs, asked: 0 }
}

kernel_test! {
    fn an_allocation_that_would_fail_has_memory_back_first() {
        let before = free();
        let mut giver = take_all();
        let held: u64 = giver.runs.iter().map(|run| u64::from(run.count())).sum();
        assert!(Vec::<u8>::new().try_reserve_exact(4 * MIB).is_err(), "no source is lent");
        let stalls = reclaim::counts().stalls;
        let bytes = (held * 4096) as usize / 2;
        let block = reclaim::lend(&mut giver, || {
            let mut block = Vec::<u8>::new();
            block.try_reserve_exact(bytes).map(|()| block)
        });
        let block = block.expect("half of all memory can be reclaimed");
        assert_eq!((giver.asked, reclaim::counts().stalls), (1, stalls + 1), "once is enough");
        assert!(Vec::<u8>::new().try_reserve_exact(4 * MIB).is_err(), "no source is lent any more");
        drop(block);
        // More than the source has: it is asked, and the allocation fails.
        let refused = reclaim::lend(&mut giver, || Vec::<u8>::new().try_reserve_exact(1 << 44).is_err());
        assert!(refused && giver.runs.is_empty());
        drop(giver);
        assert_eq!(free(), before);
        audit();
    }
}

kernel_test! {
    fn no_source_is_asked_with_interrupts_off() {
        let mut giver = take_all();
        let refused = reclaim::lend(&mut giver, || {
            x86_64::instructions::interrupts::without_interrupts(|| Vec::<u8>::new().try_reserve_exact(4 * MIB).is_err())
        });
        assert!(refused && giver.asked == 0);
        giver.reclaim(u64::MAX);
    }
}

unsafe extern "C" {
    fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8;
    fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8;
    fn memset(to: *mut u8, value: i32, length: usize) -> *mut u8;
    fn memcmp(left: *const u8, right: *const u8, length: usize) -> i32;
}

const ROOM: usize = 160;
/// The lengths to test, and offsets from alignment.
const LENGTHS: core::ops::Range<usize> = 0..70;
const OFFSETS: core::ops::Range<usize> = 0..9;

fn pattern() -> [u8; ROOM] {
    core::array::from_fn(|index| (index as u8).wrapping_mul(37).wrapping_add(11))
}

/// The expected result of a copy in `room`, byte by byte. The compiler must not turn this loop into a call of the
/// tested function.
fn copied(room: &[u8; ROOM], to: usize, from: usize, length: usize) -> [u8; ROOM] {
    let mut expected = *room;
    for index in 0..length {
        expected[to + index] = black_box(room[from + index]);
    }
    expected
}

fn same(left: &[u8; ROOM], right: &[u8; ROOM]) -> bool {
    left.iter().zip(right).all(|(left, right)| black_box(*left) == *right)
}

kernel_test! {
    fn memcpy_copies_every_length_between_all_alignments() {
        for (to, from) in OFFSETS.flat_map(|to| OFFSETS.map(move |from| (to, 80 + from))) {
            for length in LENGTHS {
                let mut room = pattern();
                let expected = copied(&room, to, from, length);
                let start = room.as_mut_ptr();
                // SAFETY: both ranges are in the room and do not overlap.
                let returned = unsafe { memcpy(start.add(to), start.add(from), length) };
                assert_eq!(returned, start.wrapping_add(to));
                assert!(same(&room, &expected), "{length} bytes from {from} to {to}");
            }
        }
    }
}

kernel_test! {
    fn memmove_copies_every_length_over_all_overlaps() {
        for (to, from) in (0..40).flat_map(|to| (0..40).map(move |from| (to, from))) {
            for length in LENGTHS {
                let mut room = pattern();
                let expected = copied(&room, to, from, length);
                let start = room.as_mut_ptr();
                // SAFETY: both ranges are in the room.
                let returned = unsafe { memmove(start.add(to), start.add(from), length) };
                assert_eq!(returned, start.wrapping_add(to));
                assert!(same(&room, &expected), "{length} bytes from {from} to {to}");
            }
        }
    }
}

kernel_test! {
    fn memset_fills_every_length_at_all_alignments() {
        for to in OFFSETS {
            for length in LENGTHS {
                for value in [0, 0x5A, 0xFF, 0x1_0080] {
                    let mut room = pattern();
                    let mut expected = room;
                    for byte in &mut expected[to..to + length] {
                        *byte = black_box(value as u8);
                    }
                    let start = room.as_mut_ptr();
                    // SAFETY: the range is in the room.
                    let returned = unsafe { memset(start.add(to), value, length) };
                    assert_eq!(returned, start.wrapping_add(to));
                    assert!(same(&room, &expected), "{length} bytes of {value:#x} at {to}");
                }
            }
        }
    }
}

kernel_test! {
    fn memcmp_finds_the_first_difference() {
        for length in LENGTHS {
            for difference in 0..=length {
                for change in [1_u8, 0x80, 0xFF] {
                    let left = pattern();
                    let mut right = left;
                    // Bytes past the length do not count.
                    right[difference] = right[difference].wrapping_add(change);
                    let [l, r] = [left, right].map(|room| i32::from(room[difference]));
                    let expected = if difference == length { 0 } else { l - r };
                    // SAFETY: both rooms are longer.
                    let found = unsafe { memcmp(left.as_ptr(), right.as_ptr(), length) };
                    assert_eq!(found.signum(), expected.signum(), "{length} bytes that differ at {difference}");
                }
            }
        }
    }
}
