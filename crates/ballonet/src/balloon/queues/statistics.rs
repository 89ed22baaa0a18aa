//! The statistics queue (virtio 1.4, 5.5.6.3): one buffer, which the device returns to request new values.

use super::{Maker, Vring};
use crate::balloon::error::BalloonError;
use crate::balloon::platform::{BalloonPlatform, Statistics};
use crate::balloon::wire::{STATISTIC_SIZE, Tag, statistic};
use crate::platform::{DmaMemory, Platform};
use crate::virtio::{Chain, Kick, QueueError, QueueIndex, Quiesced, Segment};

/// The queue and its buffer.
pub(crate) struct StatisticsQueue<P: Platform> {
    pub(crate) queue: Vring<P, ()>,
    buffer: P::Memory,
    selection: Selection,
    /// The kick for the first buffer, due once the device runs.
    pub(crate) first_kick: Option<Kick>,
}

impl<P: BalloonPlatform> StatisticsQueue<P> {
    /// Creates the queue, for the tags that have a value now.
    pub(crate) fn make(maker: &mut Maker<'_, P>, index: QueueIndex) -> Result<Self, BalloonError> {
        let buffer = maker.platform.allocate_dma(BYTES, ALIGN)?;
        match maker.simple_queue(index, Some("stats")) {
            Ok(queue) => {
                let selection = Selection::of(&maker.platform.statistics());
                Ok(Self { queue, buffer, selection, first_kick: None })
            }
            Err(error) => {
                maker.made.memory = Some(buffer);
                Err(error)
            }
        }
    }

    /// Whether the device has returned the buffer, to request new values.
    pub(crate) fn complete(&mut self) -> Result<bool, QueueError> {
        Ok(self.queue.pop()?.is_some())
    }

    /// Puts the current values into the queue, which is empty: one buffer at a time (5.5.6.3.1). Returns the kick that
    /// the device wants.
    pub(crate) fn send(&mut self, platform: &P) -> Option<Kick> {
        let mut bytes = [0; BYTES];
        let length = self.selection.write(&platform.statistics(), &mut bytes);
        self.buffer.write_bytes(0, &bytes[..length]);
        let segment = Segment { address: self.buffer.device_address(), length: length as u32 };
        // Without tags the buffer would be empty, which a queue refuses: then the device gets none.
        self.queue.add(Chain::readable(&[segment]), ()).ok()?;
        self.queue.publish()
    }

    /// Asks for an interrupt when the buffer returns. `false` if it has already.
    pub(crate) fn arm(&mut self) -> bool {
        self.queue.arm(1)
    }

    /// Returns the queue and the buffer to the platform.
    pub(crate) fn release(self, platform: &mut P, proof: &Quiesced) {
        drop(self.queue.release(platform, proof));
        platform.release_dma(self.buffer);
    }
}

/// The size of all statistics on the wire, in bytes.
const BYTES: usize = Tag::ALL.len() * STATISTIC_SIZE;
/// Alignment of the buffer, so that it does not straddle a page.
const ALIGN: usize = 256;

/// The tags by importance, for when not all can be sent.
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
struct Selection([bool; Tag::ALL.len()]);

impl Selection {
    /// The most important tags that have a value, rounded down to a multiple of three.
    ///
    /// The specification requires a buffer length that is a multiple of 6, with entries of 10 bytes. Multiples of three
    /// entries satisfy both. With all sixteen tags, the least important, `HTLB_PGFAIL`, is left out.
    fn of(statistics: &Statistics) -> Self {
        let known = PREFERENCE.into_iter().filter(|tag| statistics.get(*tag).is_some());
        let count = known.clone().count();
        let count = if count < 3 { count } else { count - count % 3 };
        let mut selection = [false; Tag::ALL.len()];
        for tag in known.take(count) {
            selection[tag as usize] = true;
        }
        Self(selection)
    }

    /// The tags, in numeric order.
    fn tags(&self) -> impl Iterator<Item = Tag> {
        Tag::ALL.into_iter().filter(|tag| self.0[*tag as usize])
    }

    /// Writes the chosen statistics to the start of `bytes`; returns the length. A tag that has no value any more is 0.
    fn write(&self, statistics: &Statistics, bytes: &mut [u8; BYTES]) -> usize {
        let mut written = 0;
        for (entry, tag) in bytes.chunks_exact_mut(STATISTIC_SIZE).zip(self.tags()) {
            entry.copy_from_slice(&statistic(tag, statistics.get(tag).unwrap_or(0)));
            written += STATISTIC_SIZE;
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knowing(tags: &[Tag]) -> Statistics {
        tags.iter().fold(Statistics::default(), |statistics, tag| statistics.with(*tag, *tag as u64 + 100))
    }

    #[test]
    fn fifteen_of_sixteen_known_tags_are_sent() {
        let selection = Selection::of(&knowing(&Tag::ALL));
        let tags: Vec<_> = selection.tags().collect();
        let all_but_one: Vec<_> = Tag::ALL.into_iter().filter(|tag| *tag != Tag::HugePageFailures).collect();
        assert_eq!(tags, all_but_one);
    }

    #[test]
    fn the_length_suits_both_rules_of_the_specification() {
        for count in 3..=16 {
            let statistics = knowing(&Tag::ALL[..count]);
            let length = Selection::of(&statistics).write(&statistics, &mut [0; BYTES]);
            assert!(length > 0 && length % 6 == 0 && length % 10 == 0, "{count} tags, {length} bytes");
        }
    }

    #[test]
    fn the_tags_stay_when_values_disappear() {
        let selection = Selection::of(&knowing(&[Tag::Free, Tag::Total, Tag::Available]));
        let mut bytes = [0xaa; BYTES];
        assert_eq!(selection.write(&knowing(&[Tag::Free, Tag::SwapIn]), &mut bytes), 30);
        assert_eq!(bytes[..10], statistic(Tag::Free, 104));
        assert_eq!(bytes[10..20], statistic(Tag::Total, 0));
        assert_eq!(bytes[20..30], statistic(Tag::Available, 0));
        assert_eq!(bytes[30], 0xaa);
    }

    #[test]
    fn the_least_important_tags_are_left_out_first() {
        let selection = Selection::of(&knowing(&[Tag::SwapIn, Tag::Free, Tag::Total, Tag::Available]));
        assert_eq!(selection.tags().collect::<Vec<_>>(), [Tag::Free, Tag::Total, Tag::Available]);
    }
}
