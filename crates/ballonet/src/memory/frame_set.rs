//! A set of frames within one 2 MiB region: 512 bits, with the queries that the allocator needs.
//!
//! Every query costs at most a fixed number of word operations; for full and empty sets, which most regions have, far
//! fewer.
#![forbid(unsafe_code)]

use core::array;
use core::ops::{BitAnd, BitOr, Not};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Frames in a region.
pub const REGION_FRAMES: u32 = 512;
/// The largest order: a block of 2^9 frames is a whole region.
pub(super) const WHOLE: u32 = 9;
/// The order of a wholly free region that was reported to the host: behind all others, so that memory without host
/// backing is used last.
pub(super) const REPORTED: u32 = WHOLE + 1;
/// The order of a wholly free region that was used before: ahead of all others, since the host backs it.
pub(super) const TOUCHED: u32 = WHOLE + 2;

const WORDS: usize = 8;
const WORD_BITS: u32 = 64;

/// Some of the 512 frames of a region, by their position in it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub(super) struct FrameSet([u64; WORDS]);

impl FrameSet {
    /// No frame.
    pub(super) const EMPTY: Self = Self([0; WORDS]);
    /// Every frame.
    pub(super) const FULL: Self = Self([u64::MAX; WORDS]);

    /// The set of frames whose bits are set, starting with the lowest bit of the first word.
    pub(super) const fn from_words(words: [u64; WORDS]) -> Self {
        Self(words)
    }

    /// A bit for each frame, starting with the lowest of the first word.
    pub(super) const fn words(self) -> [u64; WORDS] {
        self.0
    }

    /// The `count` frames from `first`, cut at the end of the region.
    pub(super) fn range(first: u32, count: u32) -> Self {
        let end = first.saturating_add(count);
        Self(array::from_fn(|word| {
            let base = word as u32 * WORD_BITS;
            ones_below(end.saturating_sub(base)) & !ones_below(first.saturating_sub(base))
        }))
    }

    /// The frames whose position is a multiple of `align`, a power of two.
    pub(super) fn aligned(align: u32) -> Self {
        let mut pattern = 1;
        let mut filled = align;
        while filled < WORD_BITS {
            pattern |= pattern << filled;
            filled *= 2;
        }
        let words = (align / WORD_BITS).max(1) as usize;
        Self(array::from_fn(|word| if word % words == 0 { pattern } else { 0 }))
    }

    /// Whether the set is empty.
    pub(super) fn is_empty(self) -> bool {
        self.0.iter().fold(0, |bits, word| bits | word) == 0
    }

    /// Number of frames.
    pub(super) fn count(self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether the set contains the frame at `position`.
    pub(super) fn contains(self, position: u32) -> bool {
        let word = self.0.get((position / WORD_BITS) as usize).copied().unwrap_or(0);
        word >> (position % WORD_BITS) & 1 == 1
    }

    /// The lowest frame.
    pub(super) fn first(self) -> Option<u32> {
        let word = self.0.iter().position(|word| *word != 0)?;
        Some(word as u32 * WORD_BITS + self.0[word].trailing_zeros())
    }

    /// Number of consecutive frames from `position` on.
    pub(super) fn run_at(self, position: u32) -> u32 {
        let after = REGION_FRAMES.saturating_sub(position);
        (!self).shifted_down(position).first().unwrap_or(after).min(after)
    }

    /// The positions where runs of `count` consecutive frames start; `count` is at least 1.
    ///
    /// Doubles the run length with each step, so it takes at most nine.
    pub(super) fn starts_of_runs(self, count: u32) -> Self {
        if self == Self::FULL {
            return Self::range(0, (REGION_FRAMES + 1).saturating_sub(count));
        }
        let mut starts = self;
        let mut known = 1;
        while known < count {
            let step = known.min(count - known);
            starts = starts & starts.shifted_down(step);
            known += step;
        }
        starts
    }

    /// The longest run, as position and length; the lowest of equals.
    pub(super) fn longest_run(self) -> Option<(u32, u32)> {
        if self == Self::FULL {
            return Some((0, REGION_FRAMES));
        }
        // runs[k] are the positions where runs of 2^k frames start.
        let mut runs = [Self::EMPTY; WHOLE as usize + 1];
        let mut highest = None;
        let mut starts = self;
        for (order, kept) in runs.iter_mut().enumerate() {
            if starts.is_empty() {
                break;
            }
            *kept = starts;
            highest = Some(order);
            starts = starts & starts.shifted_down(1 << order);
        }
        let highest = highest?;
        let (mut starts, mut length) = (runs[highest], 1 << highest);
        for order in (0..highest).rev() {
            let longer = starts & runs[order].shifted_down(length);
            if !longer.is_empty() {
                starts = longer;
                length += 1 << order;
            }
        }
        Some((starts.first()?, length))
    }

    /// The order of the largest aligned block of 2^order frames in the set.
    pub(super) fn order(self) -> Option<u32> {
        // Bit i of `blocks` stays set while the block at i of the current order is complete.
        const WITHIN_WORD: [u64; 6] = [
            0x5555_5555_5555_5555,
            0x1111_1111_1111_1111,
            0x0101_0101_0101_0101,
            0x0001_0001_0001_0001,
            0x1_0000_0001,
            1,
        ];
        const OF_WORDS: [u32; 3] = [0b0101_0101, 0b0001_0001, 1];
        if self.is_empty() {
            return None;
        }
        if self == Self::FULL {
            return Some(WHOLE);
        }
        let mut blocks = self.0;
        for (order, aligned) in WITHIN_WORD.into_iter().enumerate() {
            let whole = blocks.map(|word| word & (word >> (1 << order)) & aligned);
            if Self(whole).is_empty() {
                return Some(order as u32);
            }
            blocks = whole;
        }
        let mut words = (0..).zip(blocks).fold(0, |words, (word, whole)| words | (whole as u32) << word);
        for (order, aligned) in OF_WORDS.into_iter().enumerate() {
            let whole = words & (words >> (1 << order)) & aligned;
            if whole == 0 {
                return Some(order as u32 + WITHIN_WORD.len() as u32);
            }
            words = whole;
        }
        Some(WHOLE)
    }

    /// The set shifted towards position 0; frames shifted out are dropped.
    fn shifted_down(self, by: u32) -> Self {
        let (words, bits) = ((by / WORD_BITS) as usize, by % WORD_BITS);
        let word_at = |at: usize| self.0.get(at).copied().unwrap_or(0);
        Self(array::from_fn(|word| {
            let low = word_at(word + words);
            if bits == 0 { low } else { low >> bits | word_at(word + words + 1) << (WORD_BITS - bits) }
        }))
    }
}

/// A word with its lowest `count` bits set; all of them for 64 and more.
fn ones_below(count: u32) -> u64 {
    1u64.checked_shl(count).map_or(u64::MAX, |bit| bit - 1)
}

/// Compares words: the derived comparison works on bytes, which takes eight times as long in a kernel.
impl PartialEq for FrameSet {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).fold(0, |bits, (left, right)| bits | (left ^ right)) == 0
    }
}

impl Eq for FrameSet {}

impl BitAnd for FrameSet {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(array::from_fn(|word| self.0[word] & other.0[word]))
    }
}

impl BitOr for FrameSet {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(array::from_fn(|word| self.0[word] | other.0[word]))
    }
}

impl Not for FrameSet {
    type Output = Self;
    fn not(self) -> Self {
        Self(self.0.map(|word| !word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same queries, answered frame by frame.
    struct Naive(Vec<bool>);

    impl Naive {
        fn runs(&self) -> Vec<(u32, u32)> {
            let mut runs: Vec<(u32, u32)> = Vec::new();
            for (at, set) in (0..).zip(&self.0) {
                match runs.last_mut() {
                    Some((first, count)) if *set && *first + *count == at => *count += 1,
                    _ if *set => runs.push((at, 1)),
                    _ => {}
                }
            }
            runs
        }

        fn order(&self) -> Option<u32> {
            (0..=WHOLE).rev().find(|order| self.0.chunks(1 << order).any(|block| block.iter().all(|set| *set)))
        }
    }

    fn sets() -> impl Strategy<Value = FrameSet> {
        let ranges = prop::collection::vec((0..600u32, 0..600u32), 0..6);
        (ranges, any::<bool>(), prop_oneof![Just(u64::MAX), any::<u64>()]).prop_map(|(ranges, inverted, noise)| {
            let set = ranges.iter().fold(FrameSet::EMPTY, |set, (first, count)| set | FrameSet::range(*first, *count));
            (if inverted { !set } else { set }) & FrameSet([noise; WORDS])
        })
    }

    proptest! {
        #[test]
        fn every_answer_agrees_with_counting_frame_by_frame(set in sets(), count in 1..=512u32, at in 0..512u32) {
            let naive = Naive((0..REGION_FRAMES).map(|position| set.contains(position)).collect());
            let runs = naive.runs();
            prop_assert_eq!(set.count() as usize, naive.0.iter().filter(|set| **set).count());
            prop_assert_eq!(set.first(), runs.first().map(|run| run.0));
            prop_assert_eq!(set.order(), naive.order());
            let longest = runs.iter().copied().rev().max_by_key(|run| run.1);
            prop_assert_eq!(set.longest_run(), longest);
            let fits = runs.iter().find(|run| run.1 >= count).map(|run| run.0);
            prop_assert_eq!(set.starts_of_runs(count).first(), fits);
            let here = naive.0[at as usize..].iter().take_while(|set| **set).count();
            prop_assert_eq!(set.run_at(at) as usize, here);
        }

        #[test]
        fn a_range_holds_exactly_its_frames(first in 0..600u32, count in 0..600u32) {
            let set = FrameSet::range(first, count);
            for position in 0..REGION_FRAMES {
                prop_assert_eq!(set.contains(position), position >= first && position < first + count);
            }
        }
    }

    #[test]
    fn aligned_positions_are_the_multiples() {
        for align in (0..=WHOLE).map(|order| 1 << order) {
            let set = FrameSet::aligned(align);
            for position in 0..REGION_FRAMES {
                assert_eq!(set.contains(position), position % align == 0, "{position} of {align}");
            }
        }
    }
}
