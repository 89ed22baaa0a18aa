//! The heap, and the functions that the compiler calls to move memory.

use alloc::alloc::{alloc, dealloc};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::hint::black_box;

use ballonet::machine::frames;

use crate::suite::kernel_test;
use crate::symbols::HEAP;

/// Bytes in a MiB.
const MIB: usize = 1 << 20;

kernel_test! {
    fn every_size_and_alignment_can_be_had_and_is_given_back() {
        let before = HEAP.view().used;
        for size in [1, 2, 3, 7, 8, 15, 16, 24, 33, 100, 1000, 4096, 4097, 100_000] {
            for align in (0..=12).map(|shift| 1_usize << shift) {
                let layout = Layout::from_size_align(size, align).expect("a layout");
                // SAFETY: the size is not 0; the block is used within its size and given back with its layout.
                unsafe {
                    let block = alloc(layout);
                    assert!(!block.is_null() && block.addr().is_multiple_of(align), "{size} to {align}: {block:p}");
                    block.write_bytes(0x5A, size);
                    dealloc(block, layout);
                }
            }
        }
        assert_eq!(HEAP.view().used, before);
    }
}

kernel_test! {
    fn it_grows_across_many_mebibytes_and_keeps_contents_apart() {
        const PIECE: usize = 3000;
        let free = frames::with(|frames| frames.counts().free) as usize * 4096;
        let pieces = (32 * MIB).min(free / 2) / PIECE;
        let (before, size) = (HEAP.view().used, HEAP.view().size);
        let all: Vec<Box<[u8; PIECE]>> = (0..pieces).map(|index| Box::new([index as u8; PIECE])).collect();
        assert!(HEAP.view().size > size.max(pieces * PIECE));
        for (index, piece) in all.iter().enumerate() {
            assert!(piece.iter().all(|&byte| byte == index as u8), "piece {index}");
        }
        drop(all);
        assert_eq!(HEAP.view().used, before);
    }
}

kernel_test! {
    fn memory_given_back_is_used_again() {
        drop(Vec::<u8>::with_capacity(MIB));
        let size = HEAP.view().size;
        for _ in 0..100 {
            drop(black_box(Vec::<u8>::with_capacity(MIB)));
        }
        assert_eq!(HEAP.view().size, size);
    }
}

kernel_test! {
    fn pieces_freed_in_any_order_make_a_whole_again() {
        let before = HEAP.view().used;
        let mut pieces: Vec<Option<Box<[u8; 1024]>>> = (0..512).map(|_| Some(Box::new([1; 1024]))).collect();
        for index in (0..512).map(|index| index * 197 % 512) {
            pieces[index] = None;
        }
        let size = HEAP.view().size;
        drop(black_box(Vec::<u8>::with_capacity(256 * 1024)));
        assert_eq!(HEAP.view().size, size, "what was free has not become one piece");
        drop(pieces);
        assert_eq!(HEAP.view().used, before);
    }
}

kernel_test! {
    fn a_vector_that_grows_keeps_its_contents() {
        let mut numbers = Vec::new();
        let before = HEAP.view().used;
        let of = |index: u64| index.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for index in 0..(4 * MIB / 8) as u64 {
            numbers.push(of(index));
        }
        assert!(numbers.iter().zip(0..).all(|(&number, index)| number == of(index)));
        drop(numbers);
        assert_eq!(HEAP.view().used, before);
    }
}

kernel_test! {
    fn more_than_there_is_is_refused_and_changes_nothing() {
        let free = || frames::with(|frames| frames.counts().free);
        let before = (HEAP.view().used, HEAP.view().size, free());
        for size in [HEAP.view().size + free() as usize * 4096 + 1, 1 << 46, isize::MAX as usize - 64] {
            let layout = Layout::from_size_align(size, 8).expect("a layout");
            // SAFETY: the size is not 0.
            assert!(black_box(unsafe { alloc(layout) }).is_null(), "{size:#x} bytes");
            assert_eq!((HEAP.view().used, HEAP.view().size, free()), before, "after asking for {size:#x} bytes");
        }
        assert!(frames::with(|frames| frames.check()).is_ok());
    }
}

unsafe extern "C" {
    fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8;
    fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8;
    fn memset(to: *mut u8, value: i32, length: usize) -> *mut u8;
    fn memcmp(left: *const u8, right: *const u8, length: usize) -> i32;
}

const ROOM: usize = 160;
/// Lengths that are tried, and offsets from alignment.
const LENGTHS: core::ops::Range<usize> = 0..70;
const OFFSETS: core::ops::Range<usize> = 0..9;

fn pattern() -> [u8; ROOM] {
    core::array::from_fn(|index| (index as u8).wrapping_mul(37).wrapping_add(11))
}

/// What a copy should make of `room`, byte by byte. The compiler is kept from making a call of the function tested out
/// of it.
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
                // SAFETY: both ranges lie in the room, apart from each other.
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
                // SAFETY: both ranges lie in the room.
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
                    // SAFETY: the range lies in the room.
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
                    // Behind the length nothing counts.
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
