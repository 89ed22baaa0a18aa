//! The balloon's queues, and everything in them: what the driver lends its device, and how all of it is returned.
//!
//! [`Pages`] (inflate and deflate), [`StatisticsQueue`], [`HintingQueue`] and [`ReportingQueue`] are peers with the same
//! steps: *make* the queue, *complete* what the device returned, *send* what is due, *arm* the next interrupt, *release*
//! everything once the device has stopped.

pub(super) mod hinting;
mod maker;
pub(super) mod pages;
pub(super) mod poison;
pub(super) mod reporting;
pub(super) mod statistics;

use alloc::vec::Vec;

pub(super) use self::maker::{Maker, USED_LENGTH};

use self::hinting::HintingQueue;
use self::pages::Pages;
use self::poison::Poison;
use self::reporting::ReportingQueue;
use self::statistics::StatisticsQueue;
use super::platform::BalloonPlatform;
use crate::platform::Platform;
use crate::virtio::{self, Queue, Quiesced, Virtqueue};

/// A queue of the balloon.
pub(super) type Vring<P, T> = Virtqueue<<P as Platform>::Memory, T>;

/// The queues of a device. Those of optional features are there if the feature was negotiated.
pub(super) struct Queues<P: Platform> {
    pub(super) pages: Pages<P>,
    pub(super) statistics: Option<StatisticsQueue<P>>,
    pub(super) hinting: Option<HintingQueue<P>>,
    pub(super) reporting: Option<ReportingQueue<P>>,
    /// Unused queues of features that were not accepted: some devices do not start without them.
    pub(super) unused: Vec<Vring<P, ()>>,
    /// The fill value of free frames, if the device was told one.
    pub(super) poison: Option<Poison>,
}

impl<P: Platform> Queues<P> {
    /// The queues in use: name and number of entries.
    pub(super) fn sizes(&self) -> [Option<(&'static str, u16)>; 5] {
        [
            Some(("inflate", self.pages.inflate.size())),
            Some(("deflate", self.pages.deflate.size())),
            self.statistics.as_ref().map(|statistics| ("stats", statistics.queue.size())),
            self.hinting.as_ref().map(|hinting| ("hinting", hinting.queue().size())),
            self.reporting.as_ref().map(|reporting| ("reporting", reporting.queue().size())),
        ]
    }

    /// Frames in reports in flight.
    pub(super) fn frames_reporting(&self) -> u64 {
        self.reporting.as_ref().map_or(0, ReportingQueue::in_flight)
    }

    /// Hinted frames that have not returned to the kernel.
    pub(super) fn frames_hinted(&self) -> u64 {
        self.hinting.as_ref().map_or(0, HintingQueue::hinted)
    }
}

impl<P: BalloonPlatform> Queues<P> {
    /// Returns everything to the platform. Of the frames in flight, returns how many are free now, and how many ballooned.
    pub(super) fn release(self, platform: &mut P, proof: &Quiesced) -> (u64, u64) {
        let (mut freed, ballooned) = self.pages.release(platform, proof, self.poison);
        if let Some(statistics) = self.statistics {
            statistics.release(platform, proof);
        }
        if let Some(hinting) = self.hinting {
            freed += hinting.release(platform, proof);
        }
        if let Some(reporting) = self.reporting {
            freed += reporting.release(platform, proof);
        }
        for queue in self.unused {
            queue.release(platform, proof);
        }
        (freed, ballooned)
    }
}

/// The queues during set-up: none before the first are made.
impl<P: BalloonPlatform> virtio::Parts<P> for Option<Queues<P>> {
    fn release(self, platform: &mut P, proof: &Quiesced) {
        if let Some(queues) = self {
            queues.release(platform, proof);
        }
    }
}
