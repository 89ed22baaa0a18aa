//! Memory statistics: what a platform can tell, and the one choice of them that goes to the host.

use super::wire::{STATISTIC_SIZE, Tag, statistic};

/// What a platform knows of its memory, for the host.
pub trait MemoryStatistics {
    /// The values now. Which of them there are is asked once, when a driver starts; later only the values count.
    fn statistics(&self) -> Statistics;
}

/// Values by tag; those that the platform cannot tell are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics([Option<u64>; Tag::ALL.len()]);

impl Statistics {
    /// No values.
    pub const fn new() -> Self {
        Self([None; Tag::ALL.len()])
    }

    /// These, and a value for `tag`.
    #[must_use]
    pub const fn with(mut self, tag: Tag, value: u64) -> Self {
        self.0[tag as usize] = Some(value);
        self
    }

    /// The value for `tag`, if the platform can tell.
    pub const fn get(&self, tag: Tag) -> Option<u64> {
        self.0[tag as usize]
    }
}

/// The most that statistics take on the wire, in bytes.
pub(super) const BYTES: usize = Tag::ALL.len() * STATISTIC_SIZE;

/// How dear each tag is when not all can be sent, dearest first.
const PREFERENCE: [Tag; Tag::ALL.len()] = [
    Tag::Free,
    Tag::Total,
    Tag::Available,
    Tag::Caches,
    Tag::MajorFaults,
    Tag::MinorFaults,
    Tag::SwapIn,
    Tag::SwapOut,
    Tag::HugePages,
    Tag::OomKills,
    Tag::AllocationStalls,
    Tag::DirectReclaim,
    Tag::DirectScan,
    Tag::AsyncReclaim,
    Tag::AsyncScan,
    Tag::HugePageFailures,
];

/// The tags that are sent: the same in every buffer (5.5.6.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Selection([bool; Tag::ALL.len()]);

impl Selection {
    /// As many of the tags that have a value as make a multiple of three.
    ///
    /// The specification wants the buffer's length to be a multiple of 6 and gives entries 10 bytes. Multiples of three
    /// entries satisfy both; fewer than three cannot. Of all sixteen the least telling one, `HTLB_PGFAIL`, is left out.
    pub(super) fn of(statistics: &Statistics) -> Self {
        let told = PREFERENCE.into_iter().filter(|tag| statistics.get(*tag).is_some());
        let count = told.clone().count();
        let count = if count < 3 { count } else { count - count % 3 };
        let mut selection = [false; Tag::ALL.len()];
        for tag in told.take(count) {
            selection[tag as usize] = true;
        }
        Self(selection)
    }

    /// The tags, in their own order.
    pub(super) fn tags(&self) -> impl Iterator<Item = Tag> {
        Tag::ALL.into_iter().filter(|tag| self.0[*tag as usize])
    }

    /// Writes the chosen statistics to the start of `bytes`; returns how many bytes. One that the platform cannot tell
    /// any more is 0.
    pub(super) fn write(&self, statistics: &Statistics, bytes: &mut [u8; BYTES]) -> usize {
        let (entries, _) = bytes.as_chunks_mut::<STATISTIC_SIZE>();
        let mut written = 0;
        for (entry, tag) in entries.iter_mut().zip(self.tags()) {
            *entry = statistic(tag, statistics.get(tag).unwrap_or(0));
            written += STATISTIC_SIZE;
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn telling(tags: &[Tag]) -> Statistics {
        tags.iter().fold(Statistics::new(), |statistics, tag| statistics.with(*tag, *tag as u64 + 100))
    }

    #[test]
    fn fifteen_of_the_sixteen_tags_are_sent_when_all_are_told() {
        let selection = Selection::of(&telling(&Tag::ALL));
        let tags: Vec<_> = selection.tags().collect();
        let all_but_one: Vec<_> = Tag::ALL.into_iter().filter(|tag| *tag != Tag::HugePageFailures).collect();
        assert_eq!(tags, all_but_one);
    }

    #[test]
    fn the_length_suits_both_readings_of_the_specification() {
        for count in 3..=16 {
            let statistics = telling(&Tag::ALL[..count]);
            let length = Selection::of(&statistics).write(&statistics, &mut [0; BYTES]);
            assert!(
                length > 0 && length.is_multiple_of(6) && length.is_multiple_of(10),
                "{count} tags, {length} bytes"
            );
        }
    }

    #[test]
    fn the_choice_of_tags_stays_when_the_values_go() {
        let selection = Selection::of(&telling(&[Tag::Free, Tag::Total, Tag::Available]));
        let mut bytes = [0xaa; BYTES];
        assert_eq!(selection.write(&telling(&[Tag::Free, Tag::SwapIn]), &mut bytes), 30);
        assert_eq!(bytes[..10], statistic(Tag::Free, 104));
        assert_eq!(bytes[10..20], statistic(Tag::Total, 0));
        assert_eq!(bytes[20..30], statistic(Tag::Available, 0));
        assert_eq!(bytes[30], 0xaa);
    }

    #[test]
    fn the_least_telling_tags_are_left_out_first() {
        let selection = Selection::of(&telling(&[Tag::SwapIn, Tag::Free, Tag::Total, Tag::Available]));
        assert_eq!(selection.tags().collect::<Vec<_>>(), [Tag::Free, Tag::Total, Tag::Available]);
    }
}
