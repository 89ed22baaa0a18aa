//! A bit per region, set while the region is wholly free: finds adjacent free regions without reading their records.
//! For 16 TiB it takes one mebibyte.
#![forbid(unsafe_code)]

use core::ops::Range;

const WORD_BITS: usize = u64::BITS as usize;

/// Which regions are wholly free, by record index.
#[derive(Debug)]
pub(super) struct Bitmap<'a> {
    words: &'a mut [u64],
    set: usize,
}

impl<'a> Bitmap<'a> {
    /// An empty set over `words`, whatever they contain.
    pub(super) fn new(words: &'a mut [u64]) -> Self {
        words.fill(0);
        Self { words, set: 0 }
    }

    /// Number of set bits.
    pub(super) fn count(&self) -> usize {
        self.set
    }

    pub(super) fn get(&self, index: usize) -> bool {
        self.words[index / WORD_BITS] >> (index % WORD_BITS) & 1 == 1
    }

    pub(super) fn set(&mut self, index: usize, value: bool) {
        if self.get(index) != value {
            self.words[index / WORD_BITS] ^= 1 << (index % WORD_BITS);
            self.set = if value { self.set + 1 } else { self.set - 1 };
        }
    }

    /// The first index in `within` from which `count` bits are set and which is a multiple of `align` after `offset`
    /// is added. Reads each word once.
    pub(super) fn find(&self, within: Range<usize>, count: usize, align: usize, offset: usize) -> Option<usize> {
        let mut at = within.start;
        loop {
            at = self.next(at..within.end, true)?;
            at = (at + offset).next_multiple_of(align) - offset;
            let end = at.checked_add(count).filter(|end| *end <= within.end)?;
            match self.next(at..end, false) {
                Some(clear) => at = clear + 1,
                None => return Some(at),
            }
        }
    }

    /// The first index in `within` whose bit is `value`.
    fn next(&self, within: Range<usize>, value: bool) -> Option<usize> {
        let mut at = within.start;
        while at < within.end {
            let word = self.words[at / WORD_BITS] ^ if value { 0 } else { u64::MAX };
            let rest = word >> (at % WORD_BITS);
            if rest != 0 {
                return Some(at + rest.trailing_zeros() as usize).filter(|found| *found < within.end);
            }
            at = (at / WORD_BITS + 1) * WORD_BITS;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_run_is_found_where_a_search_bit_by_bit_finds_it(
            set in prop::collection::btree_set(0..200usize, 0..200),
            cleared in prop::collection::btree_set(0..200usize, 0..8),
            bounds in (0..200usize, 0..200usize),
            count in 1..80usize,
            order in 0..4u32,
            offset in 0..300usize,
        ) {
            let mut words = [u64::MAX; 4];
            let mut bitmap = Bitmap::new(&mut words);
            for index in &set {
                bitmap.set(*index, true);
            }
            for index in &cleared {
                bitmap.set(*index, false);
            }
            let bits: Vec<_> = (0..200).map(|index| set.contains(&index) && !cleared.contains(&index)).collect();
            prop_assert_eq!(bitmap.count(), bits.iter().filter(|bit| **bit).count());
            let (from, to) = (bounds.0.min(bounds.1), bounds.0.max(bounds.1));
            let align = 1 << order;
            let expected = (from..to)
                .find(|at| (at + offset) % align == 0 && at + count <= to && bits[*at..at + count].iter().all(|bit| *bit));
            prop_assert_eq!(bitmap.find(from..to, count, align, offset), expected);
        }
    }
}
