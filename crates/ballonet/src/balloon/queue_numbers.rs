//! The numbers of the balloon's queues.
//!
//! The specification gives the queues fixed numbers, with a gap for each missing feature (5.5.2). Most devices number
//! them without gaps, counting only the features that they offer. The queues that exist show which scheme a device
//! uses. Private features of a VMM may have queues after these.

use derive_more::{Display, Error};

use super::wire::{FREE_PAGE_HINT, PAGE_REPORTING, STATS_VQ};
use crate::virtio::QueueIndex;
use crate::virtio::spec::Features;

/// The most queues of a balloon.
pub(super) const QUEUES: usize = 5;

/// The features that come with a queue, by queue number from 2.
const OPTIONAL: [Features; QUEUES - 2] = [STATS_VQ, FREE_PAGE_HINT, PAGE_REPORTING];

/// Feature bits of the device type that the specification does not define (2.2, 5.5.3): private ones of a VMM.
const PRIVATE: Features = Features::from_bits_retain(0x00FF_FFC0);

/// A queue that can be reset by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
#[display("{}", <&str>::from(*self))]
pub enum BalloonQueue {
    /// Frames for the host.
    Inflate,
    /// Frames from the host.
    Deflate,
    /// Memory statistics.
    Statistics,
}

impl From<BalloonQueue> for &'static str {
    /// Its name in logs: `inflate`, `deflate` or `stats`.
    fn from(value: BalloonQueue) -> Self {
        match value {
            BalloonQueue::Inflate => "inflate",
            BalloonQueue::Deflate => "deflate",
            BalloonQueue::Statistics => "stats",
        }
    }
}

/// The number of each queue; `None` for queues that the device does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueNumbers {
    /// Frames for the host.
    #[doc(alias = "inflateq")]
    pub inflate: QueueIndex,
    /// Frames from the host.
    #[doc(alias = "deflateq")]
    pub deflate: QueueIndex,
    /// Memory statistics.
    #[doc(alias = "statsq")]
    pub statistics: Option<QueueIndex>,
    /// Free page hints.
    #[doc(alias = "free_page_vq")]
    pub hinting: Option<QueueIndex>,
    /// Reports of free pages.
    #[doc(alias = "reporting_vq")]
    pub reporting: Option<QueueIndex>,
}

/// A queue that every balloon must have is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
#[display("there is no {_0} queue")]
pub struct MissingQueue(#[error(not(source))] pub &'static str);

/// The numbers of the queues, from the features that the device offers, accepted or not, and the sizes of its first
/// five queues, 0 for queues that do not exist.
///
/// # Errors
/// When there is no inflate or no deflate queue.
pub fn resolve(offered: Features, sizes: [u16; QUEUES]) -> Result<QueueNumbers, MissingQueue> {
    let there = |number: usize| sizes.get(number).is_some_and(|size| *size != 0);
    let index = |number: usize| QueueIndex::new(number as u16).filter(|_| there(number));

    let count = 2 + OPTIONAL.iter().filter(|feature| offered.contains(**feature)).count();
    let with_private = offered.intersects(PRIVATE) && (0..count).all(there);
    let packed = with_private || (0..QUEUES).all(|number| there(number) == (number < count));

    let mut optional = [None; OPTIONAL.len()];
    let mut next = 2;
    for (position, (slot, feature)) in optional.iter_mut().zip(OPTIONAL).enumerate() {
        if offered.contains(feature) {
            *slot = index(if packed { next } else { 2 + position });
            next += 1;
        }
    }
    let [statistics, hinting, reporting] = optional;
    Ok(QueueNumbers {
        inflate: index(0).ok_or(MissingQueue("inflate"))?,
        deflate: index(1).ok_or(MissingQueue("deflate"))?,
        statistics,
        hinting,
        reporting,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A private feature of a VMM.
    fn own(bit: u8) -> Features {
        Features::from_bits_retain(1 << bit)
    }

    /// Numbers as a row: statistics, hinting, reporting.
    fn row(offered: Features, sizes: [u16; QUEUES]) -> [Option<u16>; 3] {
        let numbers = resolve(offered, sizes).unwrap();
        assert_eq!((numbers.inflate.number(), numbers.deflate.number()), (0, 1));
        [numbers.statistics, numbers.hinting, numbers.reporting].map(|queue| queue.map(QueueIndex::number))
    }

    #[test]
    fn known_devices_get_their_numbers() {
        let all = STATS_VQ | FREE_PAGE_HINT | PAGE_REPORTING;
        for (device, offered, sizes, expected) in [
            ("QEMU", STATS_VQ, [128, 128, 128, 0, 0], [Some(2), None, None]),
            ("QEMU, reporting", STATS_VQ | PAGE_REPORTING, [128, 128, 128, 32, 0], [Some(2), None, Some(3)]),
            ("QEMU, hints", STATS_VQ | FREE_PAGE_HINT, [128, 128, 128, 1024, 0], [Some(2), Some(3), None]),
            ("QEMU, both", all, [128, 128, 128, 1024, 32], [Some(2), Some(3), Some(4)]),
            ("Cloud Hypervisor, reporting", PAGE_REPORTING, [128, 128, 32, 0, 0], [None, None, Some(2)]),
            ("Cloud Hypervisor", Features::empty(), [128, 128, 0, 0, 0], [None, None, None]),
            ("fixed numbers", STATS_VQ | PAGE_REPORTING, [64, 64, 64, 0, 32], [Some(2), None, Some(4)]),
            ("fixed, reporting only", PAGE_REPORTING, [64, 64, 0, 0, 32], [None, None, Some(4)]),
            ("libkrun", STATS_VQ | PAGE_REPORTING, [256, 256, 256, 256, 256], [Some(2), None, Some(4)]),
            ("crosvm", STATS_VQ | PAGE_REPORTING | own(8), [128; 5], [Some(2), None, Some(3)]),
            ("crosvm before 2025", STATS_VQ | own(6) | own(7), [128, 128, 128, 128, 0], [Some(2), None, None]),
            ("StratoVirt", PAGE_REPORTING | own(16), [256, 256, 256, 256, 0], [None, None, Some(2)]),
            ("fixed and private", PAGE_REPORTING | own(8), [64, 64, 0, 0, 64], [None, None, Some(4)]),
        ] {
            assert_eq!(row(offered, sizes), expected, "{device}");
        }
    }

    #[test]
    fn a_feature_without_its_queue_has_none() {
        assert_eq!(row(STATS_VQ, [128, 128, 0, 0, 0]), [None, None, None]);
    }

    #[test]
    fn a_balloon_without_inflate_or_deflate_queue_is_refused() {
        assert_eq!(resolve(STATS_VQ, [0, 1, 1, 0, 0]), Err(MissingQueue("inflate")));
        assert_eq!(resolve(STATS_VQ, [1, 0, 1, 0, 0]), Err(MissingQueue("deflate")));
    }
}
